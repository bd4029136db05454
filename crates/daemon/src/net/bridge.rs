//! The bridge that all guests are on, and the choice of its subnet. `claim` chooses the bridge.

use std::net::Ipv4Addr;

use banger_linux::netlink::{Address, Link, LinkChange, LinkLocal, Netlink, NetlinkError};

use super::addresses::{self, Subnet};
use crate::ground::Slot;

/// The kernel's table of local addresses, which lists every address of the host a second time.
const LOCAL_TABLE: u32 = 255;

/// The bridge treats guests' link-local frames like any others, so that they meet the rules and the bridge learns no
/// address from those that the rules drop. The kernel keeps the first three for itself: the rules drop what it delivers
/// of them, and the bridge learns nothing from them.
const LINK_LOCAL: LinkLocal = LinkLocal { forwarded: 0xfff8, learned: false };

/// Why there is no bridge for guests.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// Somebody else's device has the name.
    #[error("the network device {name} is not this daemon's: {by}")]
    Foreign {
        /// The name.
        name: String,
        /// Its owner, or its kind.
        by: String,
    },
    /// Every slot has another owner.
    #[error("every network slot is taken; of the first one, {name}: {by}")]
    NoSlot {
        /// The bridge of the first one.
        name: String,
        /// Its owner, or its kind.
        by: String,
    },
    /// Somebody else has the subnet.
    #[error("the subnet {subnet} is in use: {by}")]
    Taken {
        /// The subnet.
        subnet: Subnet,
        /// By whom.
        by: String,
    },
    /// Every subnet is somebody else's.
    #[error("no subnet is free: this host has routes to all that banger chooses from")]
    NoneFree,
    /// The kernel does not do it.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Gives the bridge a free subnet and brings it up. Prefers the wanted subnet, then the one that it had, then any free
/// one.
///
/// Another daemon may choose the same subnet at the same moment. A daemon that sees the other one after it has added
/// its own address takes that back and chooses again; the higher slot leaves that subnet to the lower one.
///
/// # Errors
/// [`BridgeError`]; the bridge has no address then.
pub fn settle(
    netlink: &mut Netlink,
    slot: Slot,
    bridge: &Link,
    wanted: Option<Subnet>,
    had: Option<Subnet>,
) -> Result<Subnet, BridgeError> {
    let mut left = Vec::new();
    loop {
        let subnet = choose(netlink, slot, bridge, wanted, had, &left)?;
        ensure(netlink, bridge, subnet)?;
        let Some(other) = others(netlink, bridge.index)?.into_iter().find(|other| other.is_in(subnet)) else {
            return Ok(subnet);
        };
        netlink.remove_address(bridge, subnet.host(), subnet.prefix())?;
        if Slot::of_bridge(&other.link).is_none_or(|theirs| theirs < slot) {
            left.push(subnet);
        }
    }
}

fn choose(
    netlink: &mut Netlink,
    slot: Slot,
    bridge: &Link,
    wanted: Option<Subnet>,
    had: Option<Subnet>,
    left: &[Subnet],
) -> Result<Subnet, BridgeError> {
    let others = others(netlink, bridge.index)?;
    let by = |subnet: &Subnet| others.iter().find(|other| other.is_in(*subnet));
    if let Some(subnet) = wanted {
        return match by(&subnet) {
            Some(other) => Err(BridgeError::Taken { subnet, by: other.to_string() }),
            None => Ok(subnet),
        };
    }
    if let Some(subnet) = had.filter(|subnet| by(subnet).is_none() && !left.contains(subnet)) {
        return Ok(subnet);
    }
    let mut taken: Vec<_> = others.iter().map(|other| (other.destination, other.prefix)).collect();
    taken.extend(left.iter().map(|subnet| (subnet.host(), subnet.prefix())));
    addresses::choose(slot.number().into(), &taken).ok_or(BridgeError::NoneFree)
}

/// The destination of a route or an address of another link.
struct Other {
    destination: Ipv4Addr,
    prefix: u8,
    link: String,
    is_route: bool,
}

impl Other {
    fn is_in(&self, subnet: Subnet) -> bool {
        subnet.overlaps(self.destination, self.prefix)
    }
}

impl std::fmt::Display for Other {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Other { destination, prefix, link, is_route } = self;
        match is_route {
            true => write!(f, "{destination}/{prefix} leads over {link}"),
            false => write!(f, "{link} has {destination}/{prefix}"),
        }
    }
}

/// The destinations of the routes and addresses of other links.
fn others(netlink: &mut Netlink, own: u32) -> Result<Vec<Other>, BridgeError> {
    let links = netlink.links()?;
    let name = |index: Option<u32>| {
        let found = links.iter().find(|link| Some(link.index) == index);
        found.map_or_else(|| "nowhere".to_owned(), |link| link.name.clone())
    };
    let mut others = Vec::new();
    for route in netlink.routes()? {
        if route.table != LOCAL_TABLE && route.link != Some(own) {
            let (destination, prefix) = (route.destination, route.prefix);
            others.push(Other { destination, prefix, link: name(route.link), is_route: true });
        }
    }
    for address in netlink.addresses()? {
        // A link that is down has no routes, but will.
        if address.link != own {
            let (destination, prefix) = (address.address, address.prefix);
            others.push(Other { destination, prefix, link: name(Some(address.link)), is_route: false });
        }
    }
    Ok(others)
}

/// Whether the claimed bridge exists and is up, has the host's address and treats link-local frames as it must.
///
/// # Errors
/// [`BridgeError`].
pub fn is_right(netlink: &mut Netlink, bridge: &Link, subnet: Subnet) -> Result<bool, BridgeError> {
    let found = netlink.link(&bridge.name)?;
    let is_it = found.is_some_and(|link| {
        // A kernel that does not report the treatment does not offer it either.
        let is_closed = link.link_local.is_none_or(|is| is == LINK_LOCAL);
        link.index == bridge.index && link.up && link.mac == bridge.mac && is_closed
    });
    let own = Address { link: bridge.index, address: subnet.host(), prefix: subnet.prefix() };
    Ok(is_it && netlink.addresses()?.contains(&own))
}

/// Removes the bridge, if it exists.
///
/// # Errors
/// [`BridgeError`].
pub fn remove(netlink: &mut Netlink, bridge: &Link) -> Result<(), BridgeError> {
    match netlink.remove_link(bridge) {
        Err(error) if !error.is_missing() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Brings the bridge up with its own hardware address, and with the host's address in this subnet and no other. Leaves
/// alone what is right already.
///
/// # Errors
/// [`BridgeError`].
pub fn ensure(netlink: &mut Netlink, bridge: &Link, subnet: Subnet) -> Result<(), BridgeError> {
    let (own, has) = ((subnet.host(), subnet.prefix()), netlink.addresses()?);
    for address in has.iter().filter(|address| address.link == bridge.index) {
        if (address.address, address.prefix) != own {
            netlink.remove_address(bridge, address.address, address.prefix)?;
        }
    }
    match netlink.add_address(bridge, own.0, own.1) {
        Err(error) if !error.is_there() => return Err(error.into()),
        _ => {}
    }
    let change =
        LinkChange { up: Some(true), mac: Some(bridge.mac), link_local: Some(LINK_LOCAL), ..LinkChange::default() };
    Ok(netlink.change_link(bridge, &change)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_linux::netlink::Mac;
    use banger_linux::netns;

    const MAC: Mac = Mac([2, 0x62, 1, 9, 9, 9]);

    /// Runs a test with a bridge in its own network namespace.
    fn elsewhere(test: impl FnOnce(&mut Netlink, &Link) + Send) {
        let ran = netns::in_new_network(|| {
            let mut netlink = Netlink::open().unwrap();
            let bridge = made(&mut netlink, "banger0");
            test(&mut netlink, &bridge);
        });
        if let Err(error) = ran {
            banger_skip::skipped!("no network namespace can be made: {error}");
        }
    }

    fn made(netlink: &mut Netlink, name: &str) -> Link {
        netlink.add_bridge(name, MAC).unwrap();
        netlink.link(name).unwrap().unwrap()
    }

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn a_bridge_is_set_up_and_mended() {
        elsewhere(|netlink, bridge| {
            for _ in 0..2 {
                ensure(netlink, bridge, subnet("10.77.0.0/24")).unwrap();
                assert!(is_right(netlink, bridge, subnet("10.77.0.0/24")).unwrap());
            }
            let down = LinkChange { up: Some(false), mac: Some(Mac([2, 0x62, 9, 9, 9, 9])), ..LinkChange::default() };
            netlink.change_link(bridge, &down).unwrap();
            assert!(!is_right(netlink, bridge, subnet("10.77.0.0/24")).unwrap());
            netlink.add_address(bridge, [10, 5, 0, 1].into(), 24).unwrap();
            // Another subnet, as after another configuration.
            ensure(netlink, bridge, subnet("10.78.0.0/16")).unwrap();
            assert_eq!(netlink.link("banger0").unwrap().unwrap().mac, MAC);
            let address = Address { link: bridge.index, address: [10, 78, 0, 1].into(), prefix: 16 };
            assert_eq!(netlink.addresses().unwrap(), [address]);
            assert!(is_right(netlink, bridge, subnet("10.78.0.0/16")).unwrap());
            netlink.remove_address(bridge, address.address, 16).unwrap();
            assert!(!is_right(netlink, bridge, subnet("10.78.0.0/16")).unwrap());
            remove(netlink, bridge).unwrap();
            remove(netlink, bridge).unwrap();
            assert_eq!(netlink.link("banger0").unwrap(), None);
        });
    }

    #[test]
    fn its_subnet_is_the_wanted_one_or_the_one_it_had_or_a_free_one() {
        elsewhere(|netlink, bridge| {
            let settle = |netlink: &mut Netlink, wanted, had| settle(netlink, Slot::FIRST, bridge, wanted, had);
            let first = addresses::candidates().next().unwrap();
            assert_eq!(settle(netlink, None, None).unwrap(), first);
            // Its own addresses and routes do not count.
            assert_eq!(settle(netlink, None, None).unwrap(), first);
            assert_eq!(settle(netlink, Some(first), None).unwrap(), first);
            let had = subnet("10.99.0.0/24");
            assert_eq!(settle(netlink, None, Some(had)).unwrap(), had);
            // A device that is down has its subnet, too.
            let other = made(netlink, "other0");
            netlink.add_address(&other, [10, 99, 0, 200].into(), 28).unwrap();
            assert_eq!(settle(netlink, None, Some(had)).unwrap(), first);
            let error = settle(netlink, Some(had), None).unwrap_err().to_string();
            assert_eq!(error, "the subnet 10.99.0.0/24 is in use: other0 has 10.99.0.200/28");
            netlink.change_link(&other, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
            netlink.add_address(&other, [10, 0, 0, 1].into(), 8).unwrap();
            netlink.add_address(&other, [172, 16, 0, 1].into(), 12).unwrap();
            assert!(matches!(settle(netlink, None, None), Err(BridgeError::NoneFree)));
        });
    }

    #[test]
    fn two_that_choose_at_the_same_moment_get_different_subnets() {
        let ran = netns::in_new_network(|| {
            let mut netlink = Netlink::open().unwrap();
            let slots: Vec<Slot> = Slot::all().take(4).collect();
            let bridges: Vec<Link> = slots.iter().map(|slot| made(&mut netlink, &slot.bridge())).collect();
            let had = Some(subnet("10.99.0.0/24"));
            for _ in 0..20 {
                let chosen: Vec<Subnet> = std::thread::scope(|scope| {
                    let settle = |(slot, bridge): (&Slot, &Link)| {
                        settle(&mut Netlink::open().unwrap(), *slot, bridge, None, had).unwrap()
                    };
                    let settling: Vec<_> =
                        slots.iter().zip(&bridges).map(|one| scope.spawn(move || settle(one))).collect();
                    settling.into_iter().map(|one| one.join().unwrap()).collect()
                });
                let different: std::collections::HashSet<Subnet> = chosen.iter().copied().collect();
                assert_eq!(different.len(), slots.len(), "{chosen:?}");
                let addresses = netlink.addresses().unwrap();
                assert_eq!(addresses.len(), slots.len());
                for (bridge, subnet) in bridges.iter().zip(&chosen) {
                    netlink.remove_address(bridge, subnet.host(), subnet.prefix()).unwrap();
                }
            }
        });
        if let Err(error) = ran {
            banger_skip::skipped!("no network namespace can be made: {error}");
        }
    }
}
