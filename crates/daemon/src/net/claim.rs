//! The claim on a network slot: the bridge itself. The daemon makes it exclusively. It belongs to the network
//! namespace, needs no file, and outlives its daemon. Its note (`ifalias`) and its hardware address name its owner.

use std::path::PathBuf;

use banger_linux::netlink::{Link, LinkChange, Netlink};

use super::addresses::{self, Subnet};
use super::bridge::BridgeError;
use super::taps::is_numbered;
use crate::ground::{Choice, GroundId, Mark, Slot, lives, neighbours};

/// A ground that claims a bridge.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// Its id.
    pub id: GroundId,
    /// Its state directory.
    pub state: PathBuf,
    /// Which slots it may take.
    pub choice: Choice,
    /// The slot that it had last.
    pub had: Option<Slot>,
}

/// What identifies the bridge of a banger without grounds: it has no note, and the hardware address of its subnet.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// The subnet in the records.
    pub subnet: Option<Subnet>,
    /// The TAPs of VMs in the records.
    pub used: &'a [String],
}

/// A bridge of this ground.
#[derive(Debug)]
pub struct ClaimedBridge {
    /// Its slot.
    pub slot: Slot,
    /// The bridge.
    pub link: Link,
    /// Whether this call made it.
    pub is_new: bool,
}

impl Claimant {
    /// The ground's own bridge, if it has one here.
    ///
    /// # Errors
    /// [`BridgeError::Netlink`].
    pub fn find(&self, netlink: &mut Netlink, before: Before<'_>) -> Result<Option<ClaimedBridge>, BridgeError> {
        let links = netlink.links()?;
        let own = |link: &&Link| Slot::of_bridge(&link.name).is_some_and(|slot| self.owns(slot, link, &links, before));
        // While the ground has its own bridge, it takes none that an earlier ground left: VMs may run on its own.
        let is_left = |link: &&Link| link.alias.as_deref().and_then(Mark::read).is_some_and(|mark| mark.id != self.id);
        let Some(link) = links.iter().filter(own).min_by_key(is_left) else { return Ok(None) };
        let Some(slot) = Slot::of_bridge(&link.name) else { return Ok(None) };
        Ok(Some(ClaimedBridge { slot, link: link.clone(), is_new: false }))
    }

    /// The ground's own bridge: the existing one, else a new one in the first free slot that it may take.
    ///
    /// # Errors
    /// [`BridgeError`].
    pub fn claim(&self, netlink: &mut Netlink, before: Before<'_>) -> Result<ClaimedBridge, BridgeError> {
        // Also if the configuration wants another slot by now: VMs may run on this bridge.
        if let Some(found) = self.find(netlink, before)? {
            let link = self.sign(netlink, &found.link)?;
            return Ok(ClaimedBridge { link, ..found });
        }
        let mut taken = None;
        for slot in self.choice.candidates(self.had) {
            match self.make(netlink, slot) {
                Ok(link) => return Ok(ClaimedBridge { slot, link, is_new: true }),
                Err(BridgeError::Netlink(error)) if error.is_there() => taken = taken.or(Some(slot)),
                Err(error) => return Err(error),
            }
        }
        let slot = taken.unwrap_or_default();
        let by = holder(netlink, slot)?;
        match self.choice {
            Choice::Fixed(_) => Err(BridgeError::Foreign { name: slot.bridge(), by }),
            Choice::Auto => Err(BridgeError::NoSlot { name: slot.bridge(), by }),
        }
    }

    /// Makes the bridge of a slot, with the ground's note on it.
    ///
    /// # Errors
    /// [`BridgeError::Netlink`]; a link of that name [is there](banger_linux::netlink::NetlinkError::is_there).
    pub fn make(&self, netlink: &mut Netlink, slot: Slot) -> Result<Link, BridgeError> {
        let name = slot.bridge();
        netlink.add_bridge(&name, self.id.mac())?;
        let link = netlink
            .link(&name)?
            .ok_or_else(|| BridgeError::Foreign { name, by: "it is gone as soon as it is made".to_owned() })?;
        self.sign(netlink, &link).inspect_err(|_| {
            if let Err(also) = netlink.remove_link(&link) {
                tracing::warn!(error = crate::api::error::chain(&also), "a bridge without a note stays");
            }
        })
    }

    /// Whether a bridge has this ground's note.
    pub fn has_signed(&self, link: &Link) -> bool {
        link.alias.as_deref() == Some(&self.mark().text())
    }

    fn owns(&self, slot: Slot, link: &Link, links: &[Link], before: Before<'_>) -> bool {
        if link.kind.as_deref() != Some("bridge") {
            return false;
        }
        match link.alias.as_deref().and_then(Mark::read) {
            _ if is_of(link, self.id) => true,
            // Of an earlier ground in this state directory, whose records are gone: no daemon will use it again.
            Some(mark) => mark.is_whole() && mark.is_of(&self.state) && !lives(links, link),
            None => slot == Slot::FIRST && link.alias.is_none() && is_from_before(link, links, before),
        }
    }

    /// Leaves the ground's note on a bridge, and returns the bridge as it is then.
    fn sign(&self, netlink: &mut Netlink, link: &Link) -> Result<Link, BridgeError> {
        if self.has_signed(link) {
            return Ok(link.clone());
        }
        let is_others = link.alias.as_deref().and_then(Mark::read).is_some_and(|mark| mark.id != self.id);
        // Guests may run on a bridge that a banger without grounds made, and know its address: keep it. None run on one
        // that an earlier ground left.
        let mac = is_others.then(|| self.id.mac());
        let alias = Some(self.mark().text());
        netlink.change_link(link, &LinkChange { alias: alias.clone(), mac, ..LinkChange::default() })?;
        Ok(Link { alias, mac: mac.unwrap_or(link.mac), ..link.clone() })
    }

    fn mark(&self) -> Mark {
        Mark { id: self.id, state: self.state.clone() }
    }
}

#[cfg(test)]
impl Claimant {
    /// A ground that takes any slot.
    pub(super) fn of_a_test(number: u8) -> Claimant {
        let state = PathBuf::from(format!("/state/{number}"));
        Claimant { id: GroundId::from_random([number; 8]), state, choice: Choice::Auto, had: None }
    }
}

/// Whether a bridge is that of a ground: its note says so, or it has lost its note and has the ground's hardware
/// address.
pub fn is_of(link: &Link, id: GroundId) -> bool {
    match link.alias.as_deref().and_then(Mark::read) {
        Some(mark) => mark.id == id,
        None => link.mac == id.mac(),
    }
}

/// Whether a daemon without grounds made the bridge for these records: its address is that of their subnet, and of the
/// ports with a name of its slot, only those of their VMs are open. Other ports come from the user.
fn is_from_before(link: &Link, links: &[Link], before: Before<'_>) -> bool {
    let is_its = before.subnet.is_some_and(|subnet| link.mac == addresses::mac(subnet.host()));
    let (taps, carrier) = (Slot::FIRST.taps(), Slot::FIRST.carrier());
    let is_named = |port: &Link| is_numbered(&taps, &port.name) || port.name == carrier;
    let is_known = |port: &Link| !port.carrier || !is_named(port) || before.used.contains(&port.name);
    is_its && links.iter().filter(|port| port.master == Some(link.index)).all(is_known)
}

/// The owner of a slot's bridge, in words.
pub(super) fn holder(netlink: &mut Netlink, slot: Slot) -> Result<String, BridgeError> {
    let links = netlink.links()?;
    if let Some(neighbour) = neighbours(&links, None).into_iter().find(|one| one.slot == slot && one.mark.is_some()) {
        return Ok(format!("it is that of {}", neighbour.owner()));
    }
    let link = links.into_iter().find(|link| link.name == slot.bridge());
    Ok(link.map_or_else(
        || "it is gone".to_owned(),
        |link| match link.kind {
            Some(kind) => format!("it is a {kind} with the hardware address {}", link.mac),
            None => format!("it is hardware with the address {}", link.mac),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_linux::netlink::Mac;
    use banger_linux::{netns, tap};

    const NOTHING: Before<'static> = Before { subnet: None, used: &[] };

    fn elsewhere(test: impl FnOnce(&mut Netlink) + Send) {
        if let Err(error) = netns::in_new_network(|| test(&mut Netlink::open().unwrap())) {
            banger_skip::skipped!("no network namespace can be made: {error}");
        }
    }

    fn ground(number: u8) -> Claimant {
        Claimant::of_a_test(number)
    }

    fn slot(number: i64) -> Slot {
        Slot::new(number).unwrap()
    }

    fn claimed(claimant: &Claimant, netlink: &mut Netlink) -> (u8, bool) {
        let ClaimedBridge { slot, is_new, .. } = claimant.claim(netlink, NOTHING).unwrap();
        (slot.number(), is_new)
    }

    fn fixed(claimant: Claimant, number: i64) -> Claimant {
        Claimant { choice: Choice::Fixed(slot(number)), ..claimant }
    }

    #[test]
    fn each_ground_has_a_bridge_of_its_own_and_finds_it_again() {
        elsewhere(|netlink| {
            for number in 1..=3 {
                assert_eq!(claimed(&ground(number), netlink), (number - 1, true));
            }
            for number in 1..=3 {
                assert_eq!(claimed(&ground(number), netlink), (number - 1, false));
            }
            let first = netlink.link("banger0").unwrap().unwrap();
            assert_eq!(first.alias.as_deref(), Some("banger ground 0101010101010101 of /state/1"));
            assert_eq!(first.mac, GroundId::from_random([1; 8]).mac());
            // The freed slot goes to its earlier owner, or to the next claimant.
            netlink.remove_link(&first).unwrap();
            assert_eq!(claimed(&Claimant { had: Some(slot(7)), ..ground(4) }, netlink), (7, true));
            assert_eq!(claimed(&ground(5), netlink), (0, true));
        });
    }

    #[test]
    fn a_bridge_whose_note_was_lost_is_known_by_its_address() {
        elsewhere(|netlink| {
            let ours = ground(1);
            let link = ours.claim(netlink, NOTHING).unwrap().link;
            netlink.change_link(&link, &LinkChange { alias: Some(String::new()), ..LinkChange::default() }).unwrap();
            assert_eq!(claimed(&ground(2), netlink), (1, true));
            assert_eq!(claimed(&ours, netlink), (0, false));
            assert!(ours.has_signed(&netlink.link("banger0").unwrap().unwrap()));
        });
    }

    #[test]
    fn a_device_that_is_not_bangers_stays_as_it_is() {
        elsewhere(|netlink| {
            netlink.add_bridge("banger0", Mac([0x52, 0x54, 0, 0, 0, 1])).unwrap();
            let _end = tap::make("banger1").unwrap();
            let before = netlink.links().unwrap();
            assert_eq!(claimed(&ground(1), netlink), (2, true));
            let after = netlink.links().unwrap();
            assert!(before.iter().all(|link| after.contains(link)), "{after:?}");
            let told = |number: i64, netlink: &mut Netlink| {
                fixed(ground(2), number).claim(netlink, NOTHING).unwrap_err().to_string()
            };
            let is_bridge = "the network device banger0 is not this daemon's: it is a bridge with the hardware address 52:54:00:00:00:01";
            assert_eq!(told(0, netlink), is_bridge);
            assert!(told(1, netlink).starts_with("the network device banger1 is not this daemon's: it is a tun with"));
            assert!(told(2, netlink).ends_with("it is that of the daemon of /state/1"));
            assert_eq!(netlink.links().unwrap().len(), after.len());
        });
    }

    #[test]
    fn when_every_slot_is_taken_somebody_is_named() {
        elsewhere(|netlink| {
            for (slot, number) in Slot::all().zip(1..) {
                fixed(ground(number), slot.number().into()).claim(netlink, NOTHING).unwrap();
            }
            let error = ground(200).claim(netlink, NOTHING).unwrap_err();
            assert!(
                matches!(&error, BridgeError::NoSlot { by, .. } if by.ends_with("the daemon of /state/1")),
                "{error}"
            );
        });
    }

    #[test]
    fn records_that_are_gone_leave_a_bridge_to_their_successor_once_nothing_in_it_is_open() {
        elsewhere(|netlink| {
            let gone = ground(1);
            let link = gone.claim(netlink, NOTHING).unwrap().link;
            let end = tap::make("tap-pool-0").unwrap();
            tap::keep(&end).unwrap();
            let port = netlink.link("tap-pool-0").unwrap().unwrap();
            let change = LinkChange { up: Some(true), master: Some(link.index), ..LinkChange::default() };
            netlink.change_link(&port, &change).unwrap();
            let successor = Claimant { state: gone.state, ..ground(2) };
            assert_eq!(claimed(&successor, netlink), (1, true));
            let second = netlink.link("banger1").unwrap().unwrap();
            netlink.remove_link(&second).unwrap();
            drop(end);
            while netlink.link("tap-pool-0").unwrap().unwrap().carrier {
                std::thread::yield_now();
            }
            assert_eq!(claimed(&ground(3), netlink), (1, true));
            let ClaimedBridge { link, is_new, .. } = successor.claim(netlink, NOTHING).unwrap();
            let taken = netlink.link("banger0").unwrap().unwrap();
            assert!(successor.has_signed(&taken) && taken.mac == successor.id.mac() && !is_new);
            assert_eq!((link.index, link.mac, link.alias), (taken.index, taken.mac, taken.alias));
        });
    }

    #[test]
    fn a_grounds_own_bridge_comes_before_one_that_an_earlier_ground_has_left() {
        elsewhere(|netlink| {
            let (gone, other) = (ground(1), ground(3));
            other.claim(netlink, NOTHING).unwrap();
            let left = gone.claim(netlink, NOTHING).unwrap().link;
            let end = tap::make("tap-pool1-0").unwrap();
            tap::keep(&end).unwrap();
            let port = netlink.link("tap-pool1-0").unwrap().unwrap();
            let change = LinkChange { up: Some(true), master: Some(left.index), ..LinkChange::default() };
            netlink.change_link(&port, &change).unwrap();
            let successor = Claimant { state: gone.state, ..ground(2) };
            assert_eq!(claimed(&successor, netlink), (2, true));
            drop(end);
            while netlink.link("tap-pool1-0").unwrap().unwrap().carrier {
                std::thread::yield_now();
            }
            assert_eq!(claimed(&successor, netlink), (2, false));
        });
    }

    #[test]
    fn a_state_directory_of_any_length_has_a_bridge() {
        elsewhere(|netlink| {
            for (number, length) in [(1, 200), (2, 221), (3, 222), (4, 4000)] {
                let long = Claimant { state: format!("/{}", "d".repeat(length)).into(), ..ground(number) };
                assert_eq!(claimed(&long, netlink), (number - 1, true));
                assert_eq!(claimed(&long, netlink), (number - 1, false));
            }
        });
    }

    /// A TAP on a bridge, open until the returned end of it is dropped.
    fn open_port(netlink: &mut Netlink, name: &str, bridge: &Link) -> std::os::fd::OwnedFd {
        let end = tap::make(name).unwrap();
        let port = netlink.link(name).unwrap().unwrap();
        let change = LinkChange { up: Some(true), master: Some(bridge.index), ..LinkChange::default() };
        netlink.change_link(&port, &change).unwrap();
        end
    }

    #[test]
    fn the_open_carrier_of_an_older_daemon_keeps_its_bridge() {
        elsewhere(|netlink| {
            let subnet: Subnet = "10.137.77.0/24".parse().unwrap();
            netlink.add_bridge("banger0", addresses::mac(subnet.host())).unwrap();
            let link = netlink.link("banger0").unwrap().unwrap();
            let end = open_port(netlink, "banger-carrier", &link);
            let before = Before { subnet: Some(subnet), used: &[] };
            assert!(ground(1).find(netlink, before).unwrap().is_none());
            drop(end);
            while netlink.link("banger-carrier").unwrap().is_some() {
                std::thread::yield_now();
            }
            assert!(ground(1).find(netlink, before).unwrap().is_some());
        });
    }

    #[test]
    fn a_bridge_from_before_there_were_grounds_goes_to_its_own_records() {
        elsewhere(|netlink| {
            let subnet: Subnet = "10.137.77.0/24".parse().unwrap();
            netlink.add_bridge("banger0", addresses::mac(subnet.host())).unwrap();
            let link = netlink.link("banger0").unwrap().unwrap();
            let end = open_port(netlink, "tap-pool-0", &link);
            // A user's own machine on the bridge is none of the records' business.
            let users = open_port(netlink, "vnet0", &link);
            let used = ["tap-pool-0".to_owned()];
            let mut find = |subnet: Option<&str>, used: &[String]| {
                let subnet = subnet.map(|subnet| subnet.parse().unwrap());
                ground(1).find(netlink, Before { subnet, used }).unwrap().map(|found| found.slot.number())
            };
            // Other records: none, of another subnet, or of the same subnet without the VM that runs here.
            assert_eq!(find(None, &used), None);
            assert_eq!(find(Some("10.138.77.0/24"), &used), None);
            assert_eq!(find(Some("10.137.77.0/24"), &[]), None);
            assert_eq!(find(Some("10.137.77.0/24"), &used), Some(0));
            let before = Before { subnet: Some(subnet), used: &used };
            let ours = ground(1).claim(netlink, before).unwrap();
            assert!(!ours.is_new);
            let now = netlink.link("banger0").unwrap().unwrap();
            assert!(ground(1).has_signed(&now) && now.mac == addresses::mac(subnet.host()));
            assert_eq!((ours.link.mac, ours.link.alias), (now.mac, now.alias));
            drop((end, users));
        });
    }
}
