//! The TAP pool: devices that are made ahead, on the bridge and up, and wait for a VM. They are capacity, not a leak.
//!
//! Numbers only grow, past every name that is there, so that a device that somebody else has named so is never taken.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use banger_linux::netlink::{Link, LinkChange, Netlink, NetlinkError};
use banger_linux::tap;

/// The longest name of a link, in bytes: `IFNAMSIZ` is 16 with its terminating zero (linux/if.h).
const LONGEST_NAME: usize = 15;

/// How many names are tried where others have them.
const TRIES: u32 = 1000;

/// Why there is no TAP.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// None can be made.
    #[error("cannot make the network device {name}")]
    Make {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be had.
    #[error("cannot open the network device {name}")]
    Open {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel does not do it.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// A device that is one VM's for now. Its descriptor is what the VMM gets.
#[derive(Debug)]
pub struct Tap {
    /// Its name.
    pub name: String,
    /// Its other end.
    pub end: OwnedFd,
}

/// The devices that wait.
#[derive(Debug)]
pub struct Taps {
    prefix: String,
    /// How many numbers fit after the prefix; the first number follows the last one.
    numbers: u32,
    bridge: u32,
    idle: VecDeque<String>,
    next: u32,
}

impl Taps {
    /// A pool of what is there already: every TAP with such a name on this bridge that is not in use. What else has such a
    /// name is passed over, and never used.
    ///
    /// # Errors
    /// [`TapError::Netlink`].
    pub fn adopt(
        netlink: &mut Netlink,
        prefix: &str,
        bridge: &Link,
        is_used: impl Fn(&str) -> bool,
    ) -> Result<Taps, TapError> {
        let numbers = numbers(prefix);
        let mut taps =
            Taps { prefix: prefix.to_owned(), numbers, bridge: bridge.index, idle: VecDeque::new(), next: 0 };
        for link in netlink.links()? {
            let number = link.name.strip_prefix(prefix).filter(|_| is_numbered(prefix, &link.name));
            let Some(number) = number else { continue };
            if let Some(number) = number.parse::<u32>().ok().filter(|number| *number < numbers) {
                taps.next = taps.next.max((number + 1) % numbers);
            }
            let is_ours = link.kind.as_deref() == Some("tun") && link.master == Some(bridge.index);
            // Who has a carrier is opened by somebody.
            if is_ours && !link.carrier && !is_used(&link.name) {
                taps.idle.push_back(link.name);
            }
        }
        Ok(taps)
    }

    /// How many wait.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// The names of those that wait.
    pub fn names(&self) -> Vec<String> {
        self.idle.iter().cloned().collect()
    }

    /// Makes one more that waits.
    ///
    /// # Errors
    /// [`TapError`]; none is left half made.
    pub fn add(&mut self, netlink: &mut Netlink) -> Result<(), TapError> {
        let Tap { name, end } = self.make(netlink)?;
        drop(end);
        self.idle.push_back(name);
        Ok(())
    }

    /// One for a VM: of those that wait, else a new one.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn claim(&mut self, netlink: &mut Netlink) -> Result<Tap, TapError> {
        for _ in 0..self.idle.len() {
            let Some(name) = self.idle.pop_front() else { break };
            match tap::open(&name) {
                Ok(end) => return Ok(Tap { name, end }),
                // Somebody has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Somebody has it open, if only a child that has not yet executed its program: perhaps not for long.
                Err(error) if error.raw_os_error() == Some(busy()) => self.idle.push_back(name),
                Err(source) => return Err(TapError::Open { name, source }),
            }
        }
        self.make(netlink)
    }

    /// Removes one that waits, the one with the highest number; nothing where none does.
    ///
    /// # Errors
    /// [`TapError::Netlink`].
    pub fn shed(&mut self, netlink: &mut Netlink) -> Result<(), TapError> {
        let number = |name: &String| name.strip_prefix(&self.prefix).and_then(|number| number.parse::<u32>().ok());
        let Some(at) = (0..self.idle.len()).max_by_key(|at| self.idle.get(*at).and_then(number)) else { return Ok(()) };
        let Some(name) = self.idle.remove(at) else { return Ok(()) };
        remove(netlink, &name)
    }

    /// Brings the idle TAPs and those of VMs (`others`) up and puts them on the bridge, which may have been made again.
    /// Leaves a TAP that somebody has put on another bridge. Never takes a TAP with another slot's prefix: the rules
    /// recognise guests by the prefix and would let it send anything. Returns whether anything changed.
    ///
    /// # Errors
    /// [`TapError::Netlink`].
    pub fn keep(&mut self, netlink: &mut Netlink, bridge: &Link, others: &[String]) -> Result<bool, TapError> {
        self.bridge = bridge.index;
        let mut lost = netlink.links()?;
        lost.retain(|link| {
            let is_ours = self.idle.contains(&link.name) || others.contains(&link.name);
            let is_lost = is_ours && is_numbered(&self.prefix, &link.name);
            is_lost && (link.master.is_none() || link.master == Some(bridge.index) && !link.up)
        });
        for link in &lost {
            self.set_up(netlink, &link.name)?;
        }
        Ok(!lost.is_empty())
    }

    /// Takes one back that no VM has any more. Leaves one with the prefix of another slot alone, because it may be another
    /// ground's.
    pub fn give_back(&mut self, name: String) {
        if is_numbered(&self.prefix, &name) && !self.idle.contains(&name) {
            self.idle.push_back(name);
        }
    }

    /// Removes all that wait.
    ///
    /// # Errors
    /// [`TapError::Netlink`]; those that are left still wait.
    pub fn clear(&mut self, netlink: &mut Netlink) -> Result<(), TapError> {
        while let Some(name) = self.idle.front() {
            remove(netlink, name)?;
            self.idle.pop_front();
        }
        Ok(())
    }

    fn make(&mut self, netlink: &mut Netlink) -> Result<Tap, TapError> {
        for _ in 0..TRIES {
            let name = format!("{}{}", self.prefix, self.next);
            self.next = (self.next + 1) % self.numbers;
            match tap::make(&name) {
                Ok(end) => {
                    self.set_up(netlink, &name)?;
                    // Last, so that whatever happens before leaves nothing that nobody takes over.
                    return match tap::keep(&end) {
                        Ok(()) => Ok(Tap { name, end }),
                        Err(source) => Err(TapError::Make { name, source }),
                    };
                }
                Err(error) if error.raw_os_error() == Some(busy()) => {}
                Err(source) => return Err(TapError::Make { name, source }),
            }
        }
        let source = io::ErrorKind::AddrInUse.into();
        Err(TapError::Make { name: format!("{}{}", self.prefix, self.next), source })
    }

    fn set_up(&self, netlink: &mut Netlink, name: &str) -> Result<(), NetlinkError> {
        let Some(link) = netlink.link(name)? else { return Ok(()) };
        let change = LinkChange { up: Some(true), master: Some(self.bridge), ..LinkChange::default() };
        netlink.change_link(&link, &change)
    }
}

/// Whether a name is this prefix with a number after it, as a slot's TAPs are named.
pub fn is_numbered(prefix: &str, name: &str) -> bool {
    let number = name.strip_prefix(prefix);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn numbers(prefix: &str) -> u32 {
    let digits = LONGEST_NAME.saturating_sub(prefix.len());
    u32::try_from(digits).ok().and_then(|digits| 10u32.checked_pow(digits)).unwrap_or(1)
}

fn remove(netlink: &mut Netlink, name: &str) -> Result<(), TapError> {
    let Some(link) = netlink.link(name)? else { return Ok(()) };
    match netlink.remove_link(&link) {
        Err(error) if !error.is_missing() => Err(error.into()),
        _ => Ok(()),
    }
}

/// What the kernel says of a device that somebody has, or of a name that is taken.
pub(super) fn busy() -> i32 {
    rustix::io::Errno::BUSY.raw_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{addresses, bridge};
    use banger_linux::netns;

    const PREFIX: &str = "tap-pool-";

    /// Runs a test in a network of its own with a bridge.
    fn elsewhere(test: impl FnOnce(&mut Netlink, &Link) + Send) {
        let ran = netns::in_new_network(|| {
            let mut netlink = Netlink::open().unwrap();
            netlink.add_bridge("banger0", addresses::bridge_mac([1; 4])).unwrap();
            let bridge = netlink.link("banger0").unwrap().unwrap();
            bridge::ensure(&mut netlink, &bridge, "10.77.0.0/24".parse().unwrap()).unwrap();
            test(&mut netlink, &bridge);
        });
        if let Err(error) = ran {
            banger_skip::skipped!("no network namespace can be made: {error}");
        }
    }

    /// Another test's child may have the descriptor until it executes its program.
    fn until_closed(netlink: &mut Netlink, name: &str) {
        while netlink.link(name).unwrap().unwrap().carrier {
            std::thread::yield_now();
        }
    }

    fn names(netlink: &mut Netlink) -> Vec<String> {
        let links = netlink.links().unwrap().into_iter().map(|link| link.name);
        links.filter(|name| name.starts_with("tap-")).collect()
    }

    #[test]
    fn the_longest_name_of_every_slot_fits() {
        for slot in crate::ground::Slot::all() {
            let prefix = slot.taps();
            let last = format!("{prefix}{}", numbers(&prefix) - 1);
            assert!(last.len() == LONGEST_NAME && numbers(&prefix) >= 10_000, "{last}");
        }
    }

    #[test]
    fn a_name_of_another_slot_or_of_no_slot_is_not_numbered() {
        assert!(is_numbered(PREFIX, "tap-pool-0") && is_numbered("tap-pool7-", "tap-pool7-12"));
        for name in ["tap-pool-", "tap-pool-x", "tap-pool-1x", "tap-pool7-0", "eth0", ""] {
            assert!(!is_numbered(PREFIX, name), "{name}");
        }
    }

    #[test]
    fn one_of_another_slot_is_neither_put_on_the_bridge_nor_given_to_a_vm() {
        elsewhere(|netlink, bridge| {
            let mut taps = Taps::adopt(netlink, PREFIX, bridge, |_| false).unwrap();
            let foreign = "tap-pool7-0".to_owned();
            let end = tap::make(&foreign).unwrap();
            tap::keep(&end).unwrap();
            assert!(!taps.keep(netlink, bridge, std::slice::from_ref(&foreign)).unwrap());
            let link = netlink.link(&foreign).unwrap().unwrap();
            assert_eq!((link.master, link.up), (None, false));
            drop(end);
            taps.give_back(foreign.clone());
            assert_eq!(taps.idle(), 0);
            assert_eq!(taps.claim(netlink).unwrap().name, "tap-pool-0");
            taps.clear(netlink).unwrap();
            assert!(netlink.link(&foreign).unwrap().is_some());
        });
    }

    #[test]
    fn those_that_wait_are_given_first_and_come_back() {
        elsewhere(|netlink, bridge| {
            let mut taps = Taps::adopt(netlink, PREFIX, bridge, |_| false).unwrap();
            for number in 0..2 {
                taps.add(netlink).unwrap();
                until_closed(netlink, &format!("{PREFIX}{number}"));
            }
            let first = taps.claim(netlink).unwrap();
            assert_eq!((first.name.as_str(), taps.idle()), ("tap-pool-0", 1));
            let second = taps.claim(netlink).unwrap();
            // None waits any more: one is made.
            let third = taps.claim(netlink).unwrap();
            assert_eq!((second.name.as_str(), third.name.as_str(), taps.idle()), ("tap-pool-1", "tap-pool-2", 0));
            let link = netlink.link("tap-pool-2").unwrap().unwrap();
            assert_eq!((link.master, link.up, link.carrier), (Some(bridge.index), true, true));
            drop((first, third));
            until_closed(netlink, "tap-pool-0");
            taps.give_back("tap-pool-0".to_owned());
            taps.give_back("tap-pool-0".to_owned());
            assert_eq!((taps.claim(netlink).unwrap().name.as_str(), taps.idle()), ("tap-pool-0", 0));
            assert_eq!(names(netlink), ["tap-pool-0", "tap-pool-1", "tap-pool-2"]);
        });
    }

    #[test]
    fn a_new_daemon_takes_over_what_nobody_uses() {
        elsewhere(|netlink, bridge| {
            let mut before = Taps::adopt(netlink, PREFIX, bridge, |_| false).unwrap();
            for number in 0..4 {
                before.add(netlink).unwrap();
                until_closed(netlink, &format!("{PREFIX}{number}"));
            }
            let open = before.claim(netlink).unwrap();
            // One is a VM's by the records though its VMM has gone, one somebody else's by where it is.
            let elsewhere = netlink.link("tap-pool-3").unwrap().unwrap();
            netlink.change_link(&elsewhere, &LinkChange { master: Some(0), ..LinkChange::default() }).unwrap();
            netlink.add_bridge("tap-pool-7", addresses::mac([10, 0, 0, 1].into())).unwrap();
            let mut after = Taps::adopt(netlink, PREFIX, bridge, |name| name == "tap-pool-1").unwrap();
            assert_eq!(after.idle, ["tap-pool-2"]);
            after.add(netlink).unwrap();
            assert_eq!(after.idle, ["tap-pool-2", "tap-pool-8"]);
            after.clear(netlink).unwrap();
            assert_eq!(names(netlink), ["tap-pool-0", "tap-pool-1", "tap-pool-3", "tap-pool-7"]);
            drop(open);
        });
    }

    #[test]
    fn what_was_taken_away_meanwhile_is_passed_over() {
        elsewhere(|netlink, bridge| {
            let mut taps = Taps::adopt(netlink, PREFIX, bridge, |_| false).unwrap();
            for number in 0..3 {
                taps.add(netlink).unwrap();
                until_closed(netlink, &format!("{PREFIX}{number}"));
            }
            let gone = netlink.link("tap-pool-0").unwrap().unwrap();
            netlink.remove_link(&gone).unwrap();
            let stolen = tap::open("tap-pool-1").unwrap();
            assert_eq!(taps.claim(netlink).unwrap().name, "tap-pool-2");
            drop(stolen);
        });
    }
}
