//! In network namespaces of the tests' own.

use std::net::Ipv4Addr;

use super::*;
use crate::{netns, tap};

/// Runs a test elsewhere; says so where it may not.
fn elsewhere(test: impl FnOnce(&mut Netlink) + Send) {
    if let Err(error) = netns::in_new_network(|| test(&mut Netlink::open().unwrap())) {
        banger_skip::skipped!("no network namespace can be made: {error}");
    }
}

const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

#[test]
fn a_new_namespace_has_a_loopback_device_and_nothing_else() {
    elsewhere(|netlink| {
        let links = netlink.links().unwrap();
        assert_eq!((links.len(), links[0].name.as_str(), links[0].up), (1, "lo", false));
        assert_eq!((netlink.addresses().unwrap(), netlink.routes().unwrap()), (vec![], vec![]));
        assert_eq!(netlink.link("eth0").unwrap(), None);
    });
}

#[test]
fn a_bridge_says_how_it_treats_link_local_frames() {
    elsewhere(|netlink| {
        netlink.add_bridge("br0", MAC).unwrap();
        let by_default = there(netlink, "br0");
        assert_eq!(by_default.link_local, Some(LinkLocal { forwarded: 0, learned: true }));
        let other = LinkLocal { forwarded: 0x4000, learned: false };
        netlink.change_link(&by_default, &LinkChange { link_local: Some(other), ..LinkChange::default() }).unwrap();
        assert_eq!(there(netlink, "br0").link_local, Some(other));
        assert_eq!(there(netlink, "lo").link_local, None);
        // The kernel lets nobody forward three of them.
        let most = LinkLocal { forwarded: 0xffff, learned: true };
        netlink.change_link(&by_default, &LinkChange { link_local: Some(most), ..LinkChange::default() }).unwrap_err();
    });
}

#[test]
fn a_bridge_with_a_tap_on_it() {
    elsewhere(|netlink| {
        netlink.add_bridge("br0", MAC).unwrap();
        assert!(netlink.add_bridge("br0", MAC).unwrap_err().is_there());
        let bridge = netlink.link("br0").unwrap().unwrap();
        assert_eq!((bridge.kind.as_deref(), bridge.mac, bridge.up), (Some("bridge"), MAC, false));
        netlink.add_address(&bridge, Ipv4Addr::new(10, 9, 0, 1), 24).unwrap();
        assert!(netlink.add_address(&bridge, Ipv4Addr::new(10, 9, 0, 1), 24).unwrap_err().is_there());
        let end = tap::make("tap0").unwrap();
        tap::keep(&end).unwrap();
        let other = netlink.link("tap0").unwrap().unwrap();
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        netlink.change_link(&other, &LinkChange { master: Some(bridge.index), ..up.clone() }).unwrap();
        netlink.change_link(&bridge, &up).unwrap();
        let links = netlink.links().unwrap();
        let tap = links.iter().find(|link| link.name == "tap0").unwrap();
        assert_eq!(
            (tap.master, tap.up, tap.carrier, tap.kind.as_deref()),
            (Some(bridge.index), true, true, Some("tun"))
        );
        let address = Address { link: bridge.index, address: Ipv4Addr::new(10, 9, 0, 1), prefix: 24 };
        assert_eq!(netlink.addresses().unwrap(), [address]);
        let network = |route: &&Route| route.destination == Ipv4Addr::new(10, 9, 0, 0) && route.unicast;
        let routes = netlink.routes().unwrap();
        let route = routes.iter().find(network).unwrap();
        assert_eq!((route.prefix, route.link, route.table), (24, Some(bridge.index), 254));
        netlink.set_default_route(&bridge, Ipv4Addr::new(10, 9, 0, 254)).unwrap();
        let through = netlink.routes().unwrap().into_iter().find(|route| route.prefix == 0 && route.unicast).unwrap();
        assert_eq!(through.gateway, Some(Ipv4Addr::new(10, 9, 0, 254)));

        // Its carrier goes with its descriptor; the device stays.
        drop(end);
        until_closed(netlink, "tap0");
        drop(tap::open("tap0").unwrap());
        let tap = there(netlink, "tap0");
        netlink.remove_link(&tap).unwrap();
        netlink.remove_link(&bridge).unwrap();
        assert!(netlink.remove_link(&bridge).unwrap_err().is_missing());
        assert_eq!(netlink.links().unwrap().len(), 1);
    });
}

/// Another test's child may have the descriptor until it executes its program.
fn until_closed(netlink: &mut Netlink, name: &str) {
    while there(netlink, name).carrier {
        std::thread::yield_now();
    }
}

fn there(netlink: &mut Netlink, name: &str) -> Link {
    netlink.link(name).unwrap().unwrap()
}

#[test]
fn a_tap_has_one_owner() {
    elsewhere(|netlink| {
        let first = tap::make("tap0").unwrap();
        tap::keep(&first).unwrap();
        let code = |result: std::io::Result<_>| result.map(|_: std::os::fd::OwnedFd| ()).unwrap_err().raw_os_error();
        assert_eq!(code(tap::make("tap0")), Some(libc::EBUSY));
        assert_eq!(code(tap::open("tap0")), Some(libc::EBUSY));
        assert_eq!(code(tap::make("lo")), Some(libc::EBUSY));
        drop(first);
        until_closed(netlink, "tap0");
        // It is there, so it is not made anew.
        assert_eq!(code(tap::make("tap0")), Some(libc::EBUSY));
        drop(tap::open("tap0").unwrap());
        assert_eq!(tap::open("tap1").unwrap_err().kind(), std::io::ErrorKind::NotFound);
        assert!(tap::make("").is_err() && tap::make("tap%d").is_err() && tap::make("a-name-of-16-byte").is_err());
        assert_eq!(netlink.links().unwrap().len(), 2);
    });
}

#[test]
fn a_tap_goes_with_its_descriptor_unless_told_to_stay() {
    elsewhere(|netlink| {
        let end = tap::make("tap0").unwrap();
        let link = there(netlink, "tap0");
        netlink.change_link(&link, &LinkChange { queue: Some(1), ..LinkChange::default() }).unwrap();
        drop(end);
        while netlink.link("tap0").unwrap().is_some() {
            std::thread::yield_now();
        }
    });
}

#[test]
fn a_hundred_links_are_listed() {
    elsewhere(|netlink| {
        for number in 0..100 {
            netlink.add_bridge(&format!("br{number}"), MAC).unwrap();
        }
        let mut names: Vec<_> = netlink.links().unwrap().into_iter().map(|link| link.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 101);
    });
}

#[test]
fn a_refusal_says_what_was_attempted_and_why() {
    elsewhere(|netlink| {
        let nobody = Link { index: 4711, name: "nobody".to_owned(), ..Link::default() };
        let error = netlink.change_link(&nobody, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap_err();
        assert!(
            error.is_missing() && error.to_string().starts_with("cannot set up the network device nobody"),
            "{error}"
        );
        let loopback = there(netlink, "lo");
        let error =
            netlink.change_link(&loopback, &LinkChange { mtu: Some(1), master: Some(1), ..LinkChange::default() });
        assert!(matches!(error, Err(NetlinkError::Refused { .. })), "{error:?}");
    });
}

#[test]
fn a_link_that_begins_to_run_is_announced() {
    let ran = netns::in_new_network(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut netlink = Netlink::open().unwrap();
            let events = Events::open().unwrap();
            netlink.add_bridge("br0", MAC).unwrap();
            let bridge = netlink.link("br0").unwrap().unwrap();
            netlink.change_link(&bridge, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
            let _end = tap::make("tap0").unwrap();
            let port = netlink.link("tap0").unwrap().unwrap();
            let onto = LinkChange { master: Some(bridge.index), up: Some(true), ..LinkChange::default() };
            netlink.change_link(&port, &onto).unwrap();
            tokio::time::timeout(std::time::Duration::from_secs(10), async {
                while !netlink.link("br0").unwrap().unwrap().running {
                    drop(events.next().await.unwrap());
                }
            })
            .await
            .unwrap();
        });
    });
    if let Err(error) = ran {
        banger_skip::skipped!("no network namespace can be made: {error}");
    }
}
