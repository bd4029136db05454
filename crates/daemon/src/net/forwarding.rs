//! Forwarding of packets between guests and the world. It is switched on for the bridge and for the links that lead to
//! everywhere, and for no other: a host does not become a router by having VMs. When there are none any more, it is as before.
//!
//! All daemons in a network namespace need the same links to the world, so they share one record, and only the last
//! ground switches those links off.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use banger_linux::netlink::{Link, Netlink, NetlinkError};

use crate::ground::{DirectoryError, Slot, has_others, lock_directory};

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
    /// The directory of the record cannot be locked.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
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
    if off(netlink, bridge)?.is_empty() {
        return Ok(false);
    }
    let _guard = guard(record)?;
    // Again: until now, a ground that ends may have switched links off.
    let off = off(netlink, bridge)?;
    if !is_on(ALL) && !off.is_empty() {
        let mut links = recorded(record)?.unwrap_or_default();
        links.extend(off.iter().cloned());
        replace(record, &text(&links)).map_err(failed(record))?;
    }
    off.iter().try_for_each(|link| set(link, "1"))?;
    Ok(!off.is_empty())
}

/// Switches the recorded links off, unless the whole host forwards by now: then another program has come to need it.
/// While another ground has a bridge here, switches only the bridge of this slot off and keeps the rest in the record.
///
/// # Errors
/// [`ForwardingError`]; a second try is the same.
pub fn restore(netlink: &mut Netlink, slot: Slot, record: &Path) -> Result<(), ForwardingError> {
    if !record.exists() {
        return Ok(());
    }
    let _guard = guard(record)?;
    let Some(links) = recorded(record)? else { return Ok(()) };
    let is_shared = has_others(&netlink.links()?, Some(slot));
    let (off, rest): (BTreeSet<String>, BTreeSet<String>) =
        links.into_iter().partition(|link| !is_shared || *link == slot.bridge());
    if !is_on(ALL) {
        off.iter().filter(|link| is_on(link)).try_for_each(|link| set(link, "0"))?;
    }
    let kept = if rest.is_empty() { std::fs::remove_file(record) } else { replace(record, &text(&rest)) };
    kept.map_err(failed(record))
}

/// Takes over the record `old`, which a daemon wrote before daemons shared records, if it exists.
///
/// # Errors
/// [`ForwardingError`].
pub fn take_over(old: &Path, record: &Path) -> Result<(), ForwardingError> {
    let Some(links) = recorded(old)?.filter(|_| old != record) else { return Ok(()) };
    let _guard = guard(record)?;
    let mut all = recorded(record)?.unwrap_or_default();
    all.extend(links);
    replace(record, &text(&all)).map_err(failed(record))?;
    std::fs::remove_file(old).map_err(failed(old))
}

/// Locks the directory of a shared record, so that only one daemon at a time changes the record. Only root's daemons
/// share one: the record of any other daemon is in its runtime directory, which everybody may open and lock.
fn guard(record: &Path) -> Result<Option<File>, DirectoryError> {
    let is_shared = rustix::process::geteuid().is_root();
    is_shared.then(|| lock_directory(record.parent().unwrap_or(Path::new("/")))).transpose()
}

/// The links that do not forward and have to: the bridge and the links to the world.
fn off(netlink: &mut Netlink, bridge: &Link) -> Result<Vec<String>, NetlinkError> {
    let mut links: Vec<String> = uplinks(netlink)?.into_iter().map(|link| link.name).collect();
    links.push(bridge.name.clone());
    links.retain(|link| !is_on(link));
    Ok(links)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ForwardingError {
    let path = path.to_owned();
    move |source| ForwardingError::Record { path, source }
}

fn text(links: &BTreeSet<String>) -> String {
    links.iter().map(|link| format!("{link}\n")).collect()
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
            for (number, name) in [(1, "banger0"), (2, "up0"), (3, "other0")] {
                netlink.add_bridge(name, Mac([2, 0, 0, 0, 0, number])).unwrap();
                let link = netlink.link(name).unwrap().unwrap();
                netlink.add_address(&link, [10, 9, number, 2].into(), 24).unwrap();
                netlink.change_link(&link, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
            }
            let up = netlink.link("up0").unwrap().unwrap();
            netlink.set_default_route(&up, [10, 9, 2, 1].into()).unwrap();
            let bridge = netlink.link("banger0").unwrap().unwrap();
            let dir = crate::ground::private_directory();
            test(&mut netlink, &bridge, &dir.path().join("forwarding"));
        });
        if let Err(error) = ran {
            banger_skip::skipped!("no network namespace can be made: {error}");
        }
    }

    fn on() -> [bool; 4] {
        ["banger0", "up0", "other0", "lo"].map(is_on)
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
            restore(netlink, Slot::FIRST, record).unwrap();
            assert_eq!((on(), record.exists()), ([false; 4], false));
            restore(netlink, Slot::FIRST, record).unwrap();
        });
    }

    #[test]
    fn the_last_ground_switches_off_what_all_needed() {
        elsewhere(|netlink, bridge, record| {
            netlink.add_bridge("banger1", crate::net::addresses::bridge_mac([1; 4])).unwrap();
            // A device that only has a bridge's name needs no forwarding.
            netlink.add_bridge("banger7", Mac([2, 0, 0, 0, 0, 4])).unwrap();
            let (other, second) = (netlink.link("banger1").unwrap().unwrap(), Slot::new(1).unwrap());
            switch_on(netlink, bridge, record).unwrap();
            switch_on(netlink, &other, record).unwrap();
            assert!(is_on("banger1") && on() == [true, true, false, false]);
            // The first one ends: the other still needs its links to the world.
            restore(netlink, Slot::FIRST, record).unwrap();
            restore(netlink, Slot::FIRST, record).unwrap();
            assert!(is_on("banger1") && on() == [false, true, false, false]);
            netlink.remove_link(bridge).unwrap();
            restore(netlink, second, record).unwrap();
            assert_eq!((is_on("banger1"), on(), record.exists()), (false, [false; 4], false));
        });
    }

    #[test]
    fn the_record_of_an_older_daemon_is_taken_over() {
        elsewhere(|netlink, bridge, record| {
            let old = record.with_extension("old");
            switch_on(netlink, bridge, &old).unwrap();
            take_over(&old, record).unwrap();
            take_over(&old, record).unwrap();
            assert!(!old.exists());
            restore(netlink, Slot::FIRST, record).unwrap();
            assert_eq!((on(), record.exists()), ([false; 4], false));
        });
    }

    #[test]
    fn what_forwarded_before_does_after() {
        elsewhere(|netlink, bridge, record| {
            set("up0", "1").unwrap();
            switch_on(netlink, bridge, record).unwrap();
            restore(netlink, Slot::FIRST, record).unwrap();
            assert_eq!(on(), [false, true, false, false]);
        });
    }

    #[test]
    fn a_host_that_has_become_a_router_stays_one() {
        elsewhere(|netlink, bridge, record| {
            switch_on(netlink, bridge, record).unwrap();
            set(ALL, "1").unwrap();
            restore(netlink, Slot::FIRST, record).unwrap();
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
            restore(netlink, Slot::FIRST, record).unwrap();
            assert_eq!(on(), [false; 4]);
        });
    }
}
