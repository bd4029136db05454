//! The bridge that all guests are on, and the choice of its subnet.

use std::net::Ipv4Addr;

use banger_linux::netlink::{Address, Link, LinkChange, Netlink, NetlinkError};

use super::addresses::{self, Subnet};

/// The kernel's table of what is local, in which every address of the host's stands once more.
const LOCAL_TABLE: u32 = 255;

/// Why there is no bridge for guests.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// Somebody else's device has the name.
    #[error("the network device {name} is not banger's: it is {what}")]
    Foreign {
        /// The name.
        name: String,
        /// What it is.
        what: String,
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
    #[error("no subnet is free: this host has routes to all that banger would take")]
    NoneFree,
    /// The kernel does not do it.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The bridge of that name, if it is there and banger's. It is known by its hardware address.
///
/// # Errors
/// [`BridgeError::Foreign`], [`BridgeError::Netlink`].
pub fn find(netlink: &mut Netlink, name: &str) -> Result<Option<Link>, BridgeError> {
    let Some(link) = netlink.link(name)? else { return Ok(None) };
    let what = match link.kind.as_deref() {
        Some("bridge") if addresses::is_ours(link.mac) => return Ok(Some(link)),
        Some(kind) => format!("a {kind} with the hardware address {}", link.mac),
        None => format!("hardware with the address {}", link.mac),
    };
    Err(BridgeError::Foreign { name: name.to_owned(), what })
}

/// The subnet for a bridge: what is wanted; else the one that it has, or had; else one that nobody here has a route to.
///
/// # Errors
/// [`BridgeError`].
pub fn choose(
    netlink: &mut Netlink,
    name: &str,
    wanted: Option<Subnet>,
    had: Option<Subnet>,
) -> Result<Subnet, BridgeError> {
    let own = find(netlink, name)?.map(|link| link.index);
    let others = others(netlink, own)?;
    let by = |subnet: &Subnet| others.iter().find(|(destination, prefix, _)| subnet.overlaps(*destination, *prefix));
    if let Some(subnet) = wanted {
        return match by(&subnet) {
            Some((_, _, by)) => Err(BridgeError::Taken { subnet, by: by.clone() }),
            None => Ok(subnet),
        };
    }
    if let Some(subnet) = had.filter(|subnet| by(subnet).is_none()) {
        return Ok(subnet);
    }
    let taken: Vec<_> = others.iter().map(|(destination, prefix, _)| (*destination, *prefix)).collect();
    addresses::choose(&taken).ok_or(BridgeError::NoneFree)
}

/// Where routes and addresses of other links than this one lead, and how that is told.
fn others(netlink: &mut Netlink, own: Option<u32>) -> Result<Vec<(Ipv4Addr, u8, String)>, BridgeError> {
    let links = netlink.links()?;
    let name = |index: Option<u32>| {
        let found = links.iter().find(|link| Some(link.index) == index);
        found.map_or_else(|| "nowhere".to_owned(), |link| link.name.clone())
    };
    let mut others = Vec::new();
    for route in netlink.routes()? {
        if route.table != LOCAL_TABLE && (own.is_none() || route.link != own) {
            let told = format!("{}/{} leads over {}", route.destination, route.prefix, name(route.link));
            others.push((route.destination, route.prefix, told));
        }
    }
    for address in netlink.addresses()? {
        // A link that is down has no routes, but will.
        if Some(address.link) != own {
            let told = format!("{} has {}/{}", name(Some(address.link)), address.address, address.prefix);
            others.push((address.address, address.prefix, told));
        }
    }
    Ok(others)
}

/// Whether the bridge that was made last is there and up, and has the host's address.
///
/// # Errors
/// [`BridgeError`].
pub fn is_right(netlink: &mut Netlink, bridge: &Link, subnet: Subnet) -> Result<bool, BridgeError> {
    let found = find(netlink, &bridge.name)?;
    let is_it = found.is_some_and(|link| link.index == bridge.index && link.up && link.mac == bridge.mac);
    let own = Address { link: bridge.index, address: subnet.host(), prefix: subnet.prefix() };
    Ok(is_it && netlink.addresses()?.contains(&own))
}

/// Removes the bridge of that name; nothing where there is none.
///
/// # Errors
/// [`BridgeError`].
pub fn remove(netlink: &mut Netlink, name: &str) -> Result<(), BridgeError> {
    let found = find(netlink, name)?;
    match found.map(|link| netlink.remove_link(&link)) {
        Some(Err(error)) if !error.is_missing() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Sees to it that the bridge is there and up, and has the host's address and no other. What is so already stays as it is.
///
/// # Errors
/// [`BridgeError`].
pub fn ensure(netlink: &mut Netlink, name: &str, subnet: Subnet) -> Result<Link, BridgeError> {
    let mac = addresses::bridge_mac(&subnet);
    let link = match find(netlink, name)? {
        Some(link) => link,
        None => {
            netlink.add_bridge(name, mac)?;
            find(netlink, name)?.ok_or_else(|| BridgeError::Foreign {
                name: name.to_owned(),
                what: "gone as soon as it is made".to_owned(),
            })?
        }
    };
    let (own, has) = ((subnet.host(), subnet.prefix()), netlink.addresses()?);
    for address in has.iter().filter(|address| address.link == link.index) {
        if (address.address, address.prefix) != own {
            netlink.remove_address(&link, address.address, address.prefix)?;
        }
    }
    match netlink.add_address(&link, own.0, own.1) {
        Err(error) if !error.is_there() => return Err(error.into()),
        _ => {}
    }
    let change = LinkChange { up: Some(true), mac: (link.mac != mac).then_some(mac), ..LinkChange::default() };
    netlink.change_link(&link, &change)?;
    Ok(Link { up: true, mac, ..link })
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_linux::netlink::Mac;
    use banger_linux::{netns, tap};

    const NAME: &str = "banger0";

    fn elsewhere(test: impl FnOnce(&mut Netlink) + Send) {
        if let Err(error) = netns::in_new_network(|| test(&mut Netlink::open().unwrap())) {
            banger_skip::skipped!("no network namespace can be made: {error}");
        }
    }

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn it_is_made_once_and_mended() {
        elsewhere(|netlink| {
            let link = ensure(netlink, NAME, subnet("10.77.0.0/24")).unwrap();
            assert_eq!(ensure(netlink, NAME, subnet("10.77.0.0/24")).unwrap().index, link.index);
            let down = LinkChange { up: Some(false), mac: Some(Mac([2, 0x62, 9, 9, 9, 9])), ..LinkChange::default() };
            assert!(is_right(netlink, &link, subnet("10.77.0.0/24")).unwrap());
            netlink.change_link(&link, &down).unwrap();
            assert!(!is_right(netlink, &link, subnet("10.77.0.0/24")).unwrap());
            netlink.add_address(&link, [10, 5, 0, 1].into(), 24).unwrap();
            // Another subnet, as after another configuration.
            let again = ensure(netlink, NAME, subnet("10.78.0.0/16")).unwrap();
            assert_eq!((again.index, again.mac, again.up), (link.index, addresses::mac([10, 78, 0, 1].into()), true));
            assert_eq!(netlink.link(NAME).unwrap().unwrap().mac, again.mac);
            let address = Address { link: link.index, address: [10, 78, 0, 1].into(), prefix: 16 };
            assert_eq!(netlink.addresses().unwrap(), [address]);
            assert!(is_right(netlink, &again, subnet("10.78.0.0/16")).unwrap());
            netlink.remove_address(&again, address.address, 16).unwrap();
            assert!(!is_right(netlink, &again, subnet("10.78.0.0/16")).unwrap());
        });
    }

    #[test]
    fn somebody_elses_device_stays_as_it_is() {
        elsewhere(|netlink| {
            netlink.add_bridge(NAME, Mac([0x52, 0x54, 0, 0, 0, 1])).unwrap();
            let before = netlink.link(NAME).unwrap();
            let error = ensure(netlink, NAME, subnet("10.77.0.0/24")).unwrap_err();
            let told = "the network device banger0 is not banger's: it is a bridge with the hardware address 52:54:00:00:00:01";
            assert_eq!(error.to_string(), told);
            assert_eq!((netlink.link(NAME).unwrap(), netlink.addresses().unwrap()), (before, vec![]));
        });
        elsewhere(|netlink| {
            let _end = tap::make(NAME).unwrap();
            assert!(matches!(ensure(netlink, NAME, subnet("10.77.0.0/24")), Err(BridgeError::Foreign { .. })));
        });
    }

    #[test]
    fn its_subnet_is_wanted_or_had_or_free() {
        elsewhere(|netlink| {
            let first = addresses::candidates().next().unwrap();
            assert_eq!(choose(netlink, NAME, None, None).unwrap(), first);
            // Its own addresses and routes are in nobody's way.
            ensure(netlink, NAME, first).unwrap();
            assert_eq!(choose(netlink, NAME, None, None).unwrap(), first);
            assert_eq!(choose(netlink, NAME, Some(first), None).unwrap(), first);
            let had = subnet("10.99.0.0/24");
            assert_eq!(choose(netlink, NAME, None, Some(had)).unwrap(), had);
            // A device that is down has its subnet, too.
            netlink.add_bridge("other0", Mac([2, 0, 0, 0, 0, 1])).unwrap();
            let other = netlink.link("other0").unwrap().unwrap();
            netlink.add_address(&other, [10, 99, 0, 200].into(), 28).unwrap();
            assert_eq!(choose(netlink, NAME, None, Some(had)).unwrap(), first);
            let error = choose(netlink, NAME, Some(had), None).unwrap_err().to_string();
            assert_eq!(error, "the subnet 10.99.0.0/24 is in use: other0 has 10.99.0.200/28");
            netlink.change_link(&other, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
            netlink.add_address(&other, [10, 0, 0, 1].into(), 8).unwrap();
            netlink.add_address(&other, [172, 16, 0, 1].into(), 12).unwrap();
            assert!(matches!(choose(netlink, NAME, None, None), Err(BridgeError::NoneFree)));
        });
    }
}
