//! Forwarding of packets between guests and the world. It is switched on for the bridge and for the links that lead to
//! everywhere, and for no other: a host does not become a router by having VMs. When there are none any more, it is as before.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use banger_linux::netlink::{Link, Netlink, NetlinkError};

/// What stands for all links, and for those to come: `net.ipv4.ip_forward`.
const ALL: &str = "all";

/// Why packets are not forwarded.
#[derive(Debug, thiserror::Error)]
pub enum ForwardingError {
    /// The kernel's switch cannot be used.
    #[error("cannot switch forwarding by {}", path.display())]
    Switch {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was switched cannot be remembered.
    #[error("cannot keep in {} what forwards because of VMs", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel does not say which links there are.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Switches it on (Documentation/networking/ip-sysctl.rst: `conf/interface/forwarding`). Whether anything had to be switched.
///
/// What it switches is written down in `record` before, unless the whole host forwards: then it is not banger that decides.
///
/// # Errors
/// [`ForwardingError`].
pub fn switch_on(netlink: &mut Netlink, bridge: &Link, record: &Path) -> Result<bool, ForwardingError> {
    let mut off: Vec<String> = uplinks(netlink)?.into_iter().map(|link| link.name).collect();
    off.push(bridge.name.clone());
    off.retain(|link| !is_on(link));
    if off.is_empty() {
        return Ok(false);
    }
    if !is_on(ALL) {
        let mut links = recorded(record)?.unwrap_or_default();
        links.extend(off.iter().cloned());
        let text: String = links.iter().map(|link| format!("{link}\n")).collect();
        let written = replace(record, &text);
        written.map_err(|source| ForwardingError::Record { path: record.to_owned(), source })?;
    }
    off.iter().try_for_each(|link| set(link, "1"))?;
    Ok(true)
}

/// Switches off what was switched on by the record, unless the whole host forwards by now: somebody else has come to need it.
///
/// # Errors
/// [`ForwardingError`]; a second try is the same.
pub fn restore(record: &Path) -> Result<(), ForwardingError> {
    let Some(links) = recorded(record)? else { return Ok(()) };
    if !is_on(ALL) {
        links.iter().filter(|link| is_on(link)).try_for_each(|link| set(link, "0"))?;
    }
    std::fs::remove_file(record).map_err(|source| ForwardingError::Record { path: record.to_owned(), source })
}

/// Whole or not at all, whenever this process dies. It is not synced: the end of the host is that of the switches, too.
fn replace(record: &Path, text: &str) -> io::Result<()> {
    let new = record.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, record)
}

/// The links of a record; nothing where there is none.
fn recorded(record: &Path) -> Result<Option<BTreeSet<String>>, ForwardingError> {
    match std::fs::read_to_string(record) {
        Ok(text) => Ok(Some(text.lines().map(str::to_owned).collect())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ForwardingError::Record { path: record.to_owned(), source }),
    }
}

fn is_on(link: &str) -> bool {
    std::fs::read_to_string(switch(link)).is_ok_and(|text| text.trim() == "1")
}

/// A link that has gone meanwhile forwards nothing.
fn set(link: &str, to: &str) -> Result<(), ForwardingError> {
    let path = switch(link);
    match std::fs::write(&path, to) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(ForwardingError::Switch { path, source }),
        _ => Ok(()),
    }
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

    /// Runs a test in a network with a bridge, an uplink and another link, and a record.
    fn elsewhere(test: impl FnOnce(&mut Netlink, &Link, &Path) + Send) {
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
            let dir = tempfile::tempdir().unwrap();
            test(&mut netlink, &bridge, &dir.path().join("forwarding"));
        });
        if let Err(error) = ran {
            banger_skip::skipped!("no network namespace can be made: {error}");
        }
    }

    fn on() -> [bool; 4] {
        ["bridge0", "up0", "other0", "lo"].map(is_on)
    }

    #[test]
    fn bridge_and_uplink_forward_and_nobody_else_and_then_as_before() {
        elsewhere(|netlink, bridge, record| {
            assert!(switch_on(netlink, bridge, record).unwrap());
            assert!(!switch_on(netlink, bridge, record).unwrap());
            assert_eq!(on(), [true, true, false, false]);
            // Another way to everywhere.
            let other = netlink.link("other0").unwrap().unwrap();
            netlink.set_default_route(&other, [10, 9, 3, 1].into()).unwrap();
            assert!(switch_on(netlink, bridge, record).unwrap());
            assert_eq!(on(), [true, true, true, false]);
            restore(record).unwrap();
            assert_eq!((on(), record.exists()), ([false; 4], false));
            restore(record).unwrap();
        });
    }

    #[test]
    fn what_forwarded_before_does_after() {
        elsewhere(|netlink, bridge, record| {
            set("up0", "1").unwrap();
            switch_on(netlink, bridge, record).unwrap();
            restore(record).unwrap();
            assert_eq!(on(), [false, true, false, false]);
        });
    }

    #[test]
    fn a_host_that_has_become_a_router_stays_one() {
        elsewhere(|netlink, bridge, record| {
            switch_on(netlink, bridge, record).unwrap();
            set(ALL, "1").unwrap();
            restore(record).unwrap();
            assert_eq!((on(), is_on(ALL), record.exists()), ([true; 4], true, false));
            // One that is one already is not remembered to be made one.
            set("up0", "0").unwrap();
            assert!(switch_on(netlink, bridge, record).unwrap());
            assert_eq!((on(), record.exists()), ([true; 4], false));
        });
    }

    #[test]
    fn a_link_that_has_gone_is_no_error() {
        elsewhere(|netlink, bridge, record| {
            switch_on(netlink, bridge, record).unwrap();
            let up = netlink.link("up0").unwrap().unwrap();
            netlink.remove_link(&up).unwrap();
            restore(record).unwrap();
            assert_eq!(on(), [false; 4]);
        });
    }
}
