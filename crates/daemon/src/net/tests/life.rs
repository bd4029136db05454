//! Links and forwarding, from the first guest to the last, and what is told where there is no network.

use super::*;

#[test]
fn what_is_changed_here_is_no_reason_to_change_more() {
    elsewhere(async || {
        let place = place(Reach::Everybody, DROPS).await;
        let events = Events::open().unwrap();
        Place::settled(&events).await;
        let address = Ipv4Addr::from_bits(place.subnet.host().to_bits() + 2);
        drop(place.network().claim("b", address, Reach::Everybody).await.unwrap());
        place.network().admit("b").await.unwrap();
        place.network().release("b").await.unwrap();
        // One element more, one less.
        assert_eq!(Place::settled(&events).await, 2);
        // Another's change that concerns nothing of this is looked at, and no more.
        sh("nft add table ip mine").await;
        assert_eq!(Place::settled(&events).await, 1);
    });
}

#[test]
fn a_bridge_that_somebody_deletes_is_made_again_with_its_guests() {
    elsewhere(async || {
        let place = place(Reach::Everybody, "true").await;
        assert!(place.flows().await);
        let events = Events::open().unwrap();
        for change in [
            "ip link delete banger0",
            "ip link set banger0 down",
            "ip address flush dev banger0",
            "ip link delete banger-carrier",
            "echo 0 >/proc/sys/net/ipv4/conf/up0/forwarding",
            "sysctl -qw net.ipv4.ip_forward=1; sysctl -qw net.ipv4.ip_forward=0",
        ] {
            Place::settled(&events).await;
            sh(change).await;
            assert!(place.flows().await, "{change}");
            Place::settled(&events).await;
            assert!(has_carrier().await && place.flows().await, "{change}");
        }
    });
}

/// Whether the bridge has its carrier, and that by banger's own TAP.
async fn has_carrier() -> bool {
    let links = json("ip -j link show master banger0").await;
    let own = links.as_array().unwrap().iter().any(|link| link["ifname"] == "banger-carrier");
    let bridge = json("ip -j link show banger0").await;
    own && ["UP", "LOWER_UP"].iter().all(|flag| bridge[0]["flags"].as_array().unwrap().contains(&(*flag).into()))
}

#[test]
fn a_bridge_without_guests_has_a_carrier() {
    elsewhere(async || {
        let dir = tempfile::tempdir().unwrap();
        let network = network(&dir);
        network.subnet().await.unwrap();
        assert!(has_carrier().await);
        let before = json("ip -j link show banger-carrier").await;
        // Nobody reads what it is flooded with.
        assert_eq!(before[0]["txqlen"], 1);
        drop(network);
        // It goes with who holds it.
        while run(&["ip", "link", "show", "banger-carrier"]).await.0 {}
    });
}

#[test]
fn another_way_to_the_world_is_taken() {
    elsewhere(async || {
        let place = place(Reach::Everybody, "true").await;
        assert!(place.flows().await);
        let world = pid(&place.world);
        sh(&format!(
            "ip link add up1 type veth peer name w1 netns {world}
            ip address add 198.51.100.2/24 dev up1; ip link set up1 up
            nsenter -t {world} -n sh -ec 'ip address add 198.51.100.1/24 dev w1; ip link set w1 up'
            ip link set up0 down; ip route replace default via 198.51.100.1"
        ))
        .await;
        // By a link that did not forward.
        assert!(place.in_guest("ping -n -c 1 -i 0.1 -w 2 198.51.100.1").await);
        assert!(forwarding().await.contains("up1 1"));
        place.network().release("a").await.unwrap();
        assert!(!forwarding().await.contains(" 1"));
    });
}

#[test]
fn when_the_last_guest_goes_all_is_as_before() {
    for drops in [DROPS, DROPS_BUT_FOR_USERS, REJECTS, "iptables -P INPUT DROP"] {
        elsewhere(async || {
            sh(drops).await;
            let before = rules().await;
            let place = place(Reach::Everybody, "true").await;
            assert!(place.flows().await);
            looked_after(place.network()).await;
            assert_eq!(placed().await, 2, "{drops}");
            assert!(forwarding().await.contains("up0 1"));
            place.network().release("a").await.unwrap();
            assert_eq!(placed().await, 0, "{drops}");
            assert!(!forwarding().await.contains(" 1"));
            place.network().clear().await.unwrap();
            assert_eq!(rules().await, before, "{drops}");
            let links = json("ip -j link").await;
            let names = links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap());
            assert_eq!(names.collect::<Vec<_>>(), ["lo", "up0"]);
            assert_eq!(std::fs::read_dir(place.dir.path()).unwrap().count(), 0);
            // It can be had again.
            let address = Ipv4Addr::from_bits(place.subnet.host().to_bits() + 1);
            let port = place.network().claim("b", address, Reach::Everybody).await.unwrap();
            place.network().admit("b").await.unwrap();
            looked_after(place.network()).await;
            assert_eq!((placed().await, has_carrier().await), (2, true), "{drops}");
            assert!(forwarding().await.contains("up0 1"));
            drop(port);
            place.network().release("b").await.unwrap();
            place.network().clear().await.unwrap();
            assert_eq!(rules().await, before, "{drops}");
        });
    }
}

#[test]
fn a_host_that_others_have_made_a_router_stays_one() {
    elsewhere(async || {
        let place = place(Reach::Everybody, "true").await;
        assert!(place.flows().await);
        sh("sysctl -qw net.ipv4.ip_forward=1").await;
        place.network().release("a").await.unwrap();
        place.network().clear().await.unwrap();
        let forwarding = forwarding().await;
        assert!(forwarding.contains("up0 1") && forwarding.contains("all 1"), "{forwarding}");
    });
}

#[test]
fn what_a_crashed_daemon_has_left_is_taken_over_or_goes() {
    elsewhere(async || {
        sh(DROPS).await;
        let before = rules().await;
        let mut place = place(Reach::Everybody, "true").await;
        let subnet = place.subnet;
        assert!(place.flows().await);
        looked_after(place.network()).await;
        let while_it_runs = rules().await;
        // One after the other, each with the guest.
        let lease = || {
            let address = Ipv4Addr::from_bits(subnet.host().to_bits() + 1);
            Lease { tap: TAP.to_owned(), mac: addresses::mac(address), address, reach: Reach::Everybody }
        };
        place.network = None;
        for _ in 0..2 {
            let next = super::network(&place.dir);
            next.adopt("a", lease());
            next.subnet().await.unwrap();
            looked_after(&next).await;
            assert_eq!(rules().await, while_it_runs);
            drop(next);
        }
        // And one that finds that the guest is gone.
        let last = super::network(&place.dir);
        assert!(last.is_left().await);
        last.subnet().await.unwrap();
        looked_after(&last).await;
        assert_eq!((placed().await, forwarding().await.contains(" 1")), (0, false));
        assert!(!sh("nft list set bridge banger pinned").await.contains(TAP));
        last.clear().await.unwrap();
        assert_eq!(rules().await, before);
        assert!(!last.is_left().await);
    });
}

#[test]
fn a_daemon_without_rights_is_told_so() {
    elsewhere(async || {
        let dir = tempfile::tempdir().unwrap();
        let mut rights = rustix::thread::capabilities(None).unwrap();
        rights.effective.remove(rustix::thread::CapabilitySet::NET_ADMIN);
        rustix::thread::set_capabilities(None, rights).unwrap();
        let error = network(&dir).subnet().await.unwrap_err();
        assert_eq!(error.help(), Some("run the daemon as root, or create VMs with --net none"), "{error:?}");
    });
}

#[test]
fn what_is_wrong_with_nft_is_told_with_what_to_do() {
    use crate::net::listing::Listing;
    use crate::net::nft::NftError;
    let help = |error: NftError| NetworkError::from(error).help();
    assert_eq!(help(NftError::Missing), Some("install it: apt install nftables"));
    let old = Listing::parse("table ip filter {").unwrap_err();
    assert_eq!(help(old.into()), Some("install nftables 0.9.3 or newer, built with JSON"));
}
