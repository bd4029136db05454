//! The network's life on a host that others change, too: with traffic between a guest and a world, judged by ping(8), ip(8) and
//! nft(8).

mod guests;
mod isolation;
mod place;
mod strays;

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::Duration;

use banger_linux::netlink::Events;

use self::place::{
    DROPS, DROPS_BUT_FOR_USERS, Place, REJECTS, TAP, elsewhere, elsewhere_bridged_either_way, forwarding, has_carrier,
    is_mended, json, looked_after, network, pid, place, placed, rules, run, sh,
};
use super::addresses;
use super::network::NetworkError;
use super::ruleset::{Lease, Reach};

#[test]
fn guests_reach_the_world_past_chains_that_drop() {
    for (drops, rules) in [(DROPS, 2), (DROPS_BUT_FOR_USERS, 2), (REJECTS, 2), ("true", 0)] {
        elsewhere_bridged_either_way(async || {
            let place = place(Reach::Everybody, drops).await;
            looked_after(place.network()).await;
            assert!(place.flows().await, "{drops}");
            assert_eq!(placed().await, rules, "{drops}");
            let users = sh("nft list chain ip filter DOCKER-USER 2>/dev/null || :").await;
            assert_eq!(users.contains("comment \"banger\""), drops == DROPS_BUT_FOR_USERS, "{users}");
        });
    }
}

#[test]
fn those_chains_let_nothing_through_that_banger_drops() {
    elsewhere_bridged_either_way(async || {
        let mut place = place(Reach::Everybody, DROPS).await;
        assert!(place.flows().await);
        let guest = format!("ping -n -c 1 -w 1 {}", Ipv4Addr::from_bits(place.subnet.host().to_bits() + 1));
        assert!(!place.in_world(&guest).await, "the world begins");
        // The same packets pass where banger does not drop: it is not the way that is missing.
        place.network = None;
        sh("nft insert rule inet banger forward oifname banger0 accept").await;
        assert!(place.in_world(&guest).await);
    });
    elsewhere_bridged_either_way(async || {
        let mut place = place(Reach::Names, DROPS).await;
        looked_after(place.network()).await;
        assert_eq!(placed().await, 2);
        assert!(!place.flows().await);
        place.network = None;
        sh("for way in iifname oifname; do nft insert rule inet banger forward $way banger0 accept; done").await;
        assert!(place.flows().await);
    });
}

#[test]
fn guests_are_told_names_by_a_host_that_takes_nothing() {
    elsewhere(async || {
        let place = place(Reach::Everybody, "iptables -P INPUT DROP").await;
        looked_after(place.network()).await;
        let host = place.subnet.host();
        let udp = |port| UdpSocket::bind((host, port)).unwrap();
        let (names, other) = (udp(53), udp(54));
        let _tcp = [53u16, 54].map(|port| TcpListener::bind((host, port)).unwrap());
        let connects =
            async |port| place.in_guest(&format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{host}/{port}'")).await;
        assert!(connects(53).await && !connects(54).await);
        for port in [54, 53] {
            assert!(place.in_guest(&format!("echo name >/dev/udp/{host}/{port}")).await);
        }
        let mut packet = [0; 8];
        names.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(names.recv(&mut packet).unwrap(), 5);
        // What came first would be there by now.
        other.set_nonblocking(true).unwrap();
        assert!(other.recv(&mut packet).is_err());
    });
}

#[test]
fn what_others_flush_or_make_anew_is_mended_soon() {
    elsewhere_bridged_either_way(async || {
        let place = place(Reach::Everybody, DROPS).await;
        let changes = [
            ("nft flush ruleset", 0),
            (DROPS, 2),
            (&format!("nft flush ruleset; {DROPS_BUT_FOR_USERS}"), 2),
            (&format!("nft delete table ip filter; {DROPS}"), 2),
            (&format!("nft delete table ip filter; {DROPS_BUT_FOR_USERS}"), 2),
            (&format!("nft delete table ip filter; {REJECTS}"), 2),
        ];
        is_mended(&place, &changes).await;
    });
}

#[test]
fn iptables_works_with_what_is_in_its_chains() {
    elsewhere(async || {
        let place = place(Reach::Everybody, &format!("{DROPS_BUT_FOR_USERS}; iptables -P INPUT DROP")).await;
        is_mended(
            &place,
            &[("iptables -F DOCKER-USER", 4), ("iptables -F FORWARD", 4), ("iptables -P INPUT ACCEPT", 2)],
        )
        .await;
        // Without a way to its users' chain, they are at the head of Docker's own.
        let rules = sh("iptables -S FORWARD").await;
        assert!(rules.contains("-A FORWARD -i banger0 -m comment --comment banger -j ACCEPT"), "{rules}");
        sh("iptables -L -v; iptables-save >/dev/null; iptables -A FORWARD -i x -j DROP; iptables -D FORWARD -i x -j DROP").await;
        is_mended(
            &place,
            &[
                ("iptables-save | { rules=$(cat); echo \"$rules\" | iptables-restore; }", 0),
                ("iptables -P FORWARD ACCEPT", 0),
            ],
        )
        .await;
    });
}

#[test]
fn what_others_do_to_bangers_own_tables_is_mended_soon() {
    elsewhere(async || {
        let place = place(Reach::Everybody, DROPS).await;
        let changes = [
            ("nft flush chain inet banger to_world", 2),
            ("nft insert rule inet banger forward drop", 2),
            ("nft flush set bridge banger pinned", 2),
            ("nft flush set bridge banger guests", 2),
            ("nft flush chain bridge banger to_guest", 2),
            ("nft add element inet banger isolated { 10.137.77.2 }", 2),
            ("nft delete table bridge banger", 2),
        ];
        is_mended(&place, &changes).await;
    });
}

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
        // One lease more, one less.
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

#[test]
fn a_bridge_without_guests_has_a_carrier() {
    elsewhere(async || {
        let dir = crate::ground::private_directory();
        let network = network(&dir);
        network.scope().await.unwrap();
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
            let next = network(&place.dir);
            next.adopt("a", lease());
            next.scope().await.unwrap();
            looked_after(&next).await;
            assert_eq!(rules().await, while_it_runs);
            drop(next);
        }
        // And one that finds that the guest is gone.
        let last = network(&place.dir);
        assert!(last.is_left().await);
        last.scope().await.unwrap();
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
        let dir = crate::ground::private_directory();
        let mut rights = rustix::thread::capabilities(None).unwrap();
        rights.effective.remove(rustix::thread::CapabilitySet::NET_ADMIN);
        rustix::thread::set_capabilities(None, rights).unwrap();
        let error = network(&dir).scope().await.unwrap_err();
        assert_eq!(error.help(), Some("run the daemon as root, or create VMs with --net none"), "{error:?}");
    });
}

#[test]
fn what_is_wrong_with_nft_is_told_with_what_to_do() {
    use super::listing::Listing;
    use super::nft::NftError;
    let help = |error: NftError| NetworkError::from(error).help();
    assert_eq!(help(NftError::Missing), Some("install it: apt install nftables"));
    let no_json = Listing::parse("table ip filter {").unwrap_err().into();
    let said = || "syntax error".to_owned();
    for unfit in [no_json, NftError::Unfit { said: said() }, NftError::Refused { said: said() }] {
        assert!(help(unfit).unwrap().starts_with("install nftables 0.9.8 or newer, built with JSON"));
    }
}
