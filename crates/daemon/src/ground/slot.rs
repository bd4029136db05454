//! Slots: the numbers that all names on a ground are made from. Pure.

use std::fmt;

use crate::dns::domain::Domain;

/// How many slots there are. The longest name of a link, `bangercarrier99`, has the 15 bytes that Linux allows (`IFNAMSIZ`).
pub const SLOTS: u8 = 100;

/// The beginning of every bridge's name.
const BRIDGES: &str = "banger";

/// The beginning of every TAP's name.
const TAPS: &str = "tap-pool";

/// A slot. Slot 0 has the plain names; every other slot has the same names with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Slot(u8);

impl Slot {
    /// The slot with the plain names.
    pub const FIRST: Slot = Slot(0);

    /// The slot with a number, unless that is [`SLOTS`] or more.
    pub fn new(number: i64) -> Option<Slot> {
        u8::try_from(number).ok().filter(|number| *number < SLOTS).map(Slot)
    }

    /// All slots, the lowest first.
    pub fn all() -> impl Iterator<Item = Slot> {
        (0..SLOTS).map(Slot)
    }

    /// The slot whose bridge has this name.
    pub fn of_bridge(name: &str) -> Option<Slot> {
        Slot::numbered(name).filter(|slot| slot.bridge() == name)
    }

    /// The slot whose nftables tables have this name.
    pub fn of_table(name: &str) -> Option<Slot> {
        if name == BRIDGES { Some(Slot::FIRST) } else { Slot::numbered(name).filter(|slot| slot.table() == name) }
    }

    /// The slot with the number after `banger`.
    fn numbered(name: &str) -> Option<Slot> {
        Slot::new(name.strip_prefix(BRIDGES)?.parse().ok()?)
    }

    /// The number.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The bridge of the guests.
    pub fn bridge(self) -> String {
        format!("{BRIDGES}{}", self.0)
    }

    /// The prefix of guests' TAP names; a number follows. No slot's prefix begins with another slot's, because rules
    /// match names by prefix.
    pub fn taps(self) -> String {
        if self == Slot::FIRST { format!("{TAPS}-") } else { format!("{TAPS}{}-", self.0) }
    }

    /// The TAP that the daemon keeps open, so that the bridge has a carrier. Its name is not like those of guests,
    /// because rules filter their packets.
    pub fn carrier(self) -> String {
        if self == Slot::FIRST { "banger-carrier".to_owned() } else { format!("bangercarrier{}", self.0) }
    }

    /// The nftables tables of the ground, one in each family; also the comment on its rules in other programs' tables.
    pub fn table(self) -> String {
        if self == Slot::FIRST { "banger".to_owned() } else { format!("banger{}", self.0) }
    }

    /// The domain of VMs' names, made from the configured one.
    pub fn domain(self, configured: &Domain) -> Domain {
        if self == Slot::FIRST { configured.clone() } else { configured.numbered(self.0) }
    }

    /// The port at which the host asks for names, made from the configured one; 0 stays 0.
    pub fn port(self, configured: u16) -> u16 {
        let number = u16::from(self.0);
        if configured == 0 { 0 } else { configured.checked_add(number).unwrap_or_else(|| configured - number) }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `IFNAMSIZ` without its terminating zero.
    const LONGEST_NAME: usize = 15;

    #[test]
    fn slot_0_has_the_names_of_installations_from_before_there_were_slots() {
        let slot = Slot::FIRST;
        let names = [slot.bridge(), slot.taps(), slot.carrier(), slot.table()];
        assert_eq!(names, ["banger0", "tap-pool-", "banger-carrier", "banger"]);
        assert_eq!((slot.domain(&Domain::default()).as_str(), slot.port(42069)), ("vm", 42069));
    }

    #[test]
    fn other_slots_have_their_number_in_every_name() {
        let slot = Slot::new(7).unwrap();
        let names = [slot.bridge(), slot.taps(), slot.carrier(), slot.table()];
        assert_eq!(names, ["banger7", "tap-pool7-", "bangercarrier7", "banger7"]);
        assert_eq!((slot.domain(&Domain::default()).as_str(), slot.port(42069)), ("vm7", 42076));
        let lab = "lab.example".parse().unwrap();
        assert_eq!(slot.domain(&lab).as_str(), "lab7.example");
    }

    #[test]
    fn no_name_is_another_slots_and_no_prefix_begins_with_another() {
        for one in Slot::all() {
            assert_eq!((Slot::of_bridge(&one.bridge()), Slot::of_table(&one.table())), (Some(one), Some(one)));
            for name in [one.bridge(), one.carrier(), one.table(), format!("{}0", one.taps())] {
                assert!(name.len() <= LONGEST_NAME, "{name}");
            }
            for other in Slot::all().filter(|other| *other != one) {
                assert!(!one.taps().starts_with(&other.taps()), "{one} {other}");
                for taps in [one.taps(), other.taps()] {
                    assert!(!one.carrier().starts_with(&taps) && !one.bridge().starts_with(&taps));
                }
            }
        }
    }

    #[test]
    fn ports_are_different_and_valid_at_the_upper_end_too() {
        assert!(Slot::all().all(|slot| slot.port(0) == 0));
        for configured in [1, 42069, u16::MAX - 3, u16::MAX] {
            let ports: std::collections::HashSet<u16> = Slot::all().map(|slot| slot.port(configured)).collect();
            assert!(!ports.contains(&0) && ports.len() == usize::from(SLOTS), "{configured}: {}", ports.len());
        }
    }

    #[test]
    fn numbers_out_of_range_are_no_slots() {
        assert_eq!([-1, 100, 1000].map(Slot::new), [None; 3]);
        assert_eq!(Slot::new(99).map(Slot::number), Some(99));
        for name in ["banger", "banger100", "banger00", "bangerx", "banger-1"] {
            assert_eq!(Slot::of_bridge(name), None, "{name}");
        }
        assert_eq!(Slot::of_table("banger0"), None);
    }
}
