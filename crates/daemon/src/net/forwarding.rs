//! Forwarding of packets between guests and the world. It is switched on for the bridge and for the links that lead to
//! everywhere, and for no other: a host does not become a router by having VMs.

use std::io;
use std::path::PathBuf;

use banger_linux::netlink::{Link, Netlink, NetlinkError};

/// Why packets are not forwarded.
#[derive(Debug, thiserror::Error)]
pub enum ForwardingError {
    /// The kernel's switch cannot be used.
    #[error("cannot switch forwarding on by {}", path.display())]
    Switch {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel does not say which links there are.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Switches it on (Documentation/networking/ip-sysctl.rst: `conf/interface/forwarding`).
///
/// # Errors
/// [`ForwardingError`].
pub fn switch_on(netlink: &mut Netlink, bridge: &Link) -> Result<(), ForwardingError> {
    for link in uplinks(netlink)?.iter().chain([bridge]) {
        let path = switch(&link.name);
        let on = std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1");
        if !on {
            std::fs::write(&path, "1").map_err(|source| ForwardingError::Switch { path, source })?;
        }
    }
    Ok(())
}

/// The links that routes to everywhere lead over. A VPN may halve everywhere, to come before another's.
fn uplinks(netlink: &mut Netlink) -> Result<Vec<Link>, NetlinkError> {
    let routes = netlink.routes()?;
    let everywhere =
        |link: &Link| routes.iter().any(|route| route.unicast && route.prefix <= 1 && route.link == Some(link.index));
    let mut links = netlink.links()?;
    links.retain(everywhere);
    Ok(links)
}

fn switch(link: &str) -> PathBuf {
    PathBuf::from(format!("/proc/sys/net/ipv4/conf/{link}/forwarding"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_linux::netlink::{LinkChange, Mac};
    use banger_linux::netns;

    #[test]
    fn bridge_and_uplink_forward_and_nobody_else() {
        let ran = netns::in_new_network(|| {
            let mut netlink = Netlink::open().unwrap();
            for (number, name) in [(1, "bridge0"), (2, "up0"), (3, "other0")] {
                netlink.add_bridge(name, Mac([2, 0, 0, 0, 0, number])).unwrap();
                let link = netlink.link(name).unwrap().unwrap();
                netlink.add_address(&link, [10, 9, number, 2].into(), 24).unwrap();
                netlink.change_link(&link, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
            }
            let up = netlink.link("up0").unwrap().unwrap();
            netlink.set_default_route(&up, [10, 9, 2, 1].into()).unwrap();
            let bridge = netlink.link("bridge0").unwrap().unwrap();
            switch_on(&mut netlink, &bridge).unwrap();
            switch_on(&mut netlink, &bridge).unwrap();
            let on = ["bridge0", "up0", "other0", "lo"].map(|name| std::fs::read_to_string(switch(name)).unwrap());
            assert_eq!(on, ["1\n", "1\n", "0\n", "0\n"]);
        });
        if let Err(error) = ran {
            eprintln!("SKIPPED: no network namespace can be made: {error}");
        }
    }
}
