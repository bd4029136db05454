//! What a guest reaches when its root attacks with routes, neighbours and hardware addresses of its own making.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use banger_linux::netlink::Mac;
use banger_linux::process::Leash;

use super::guests::{Arrivals, Ground, Guest, PORT, TRY, Way, ground, guest, inside, macs};
use super::place::{elsewhere, elsewhere_bridged_either_way, looked_after, pid, sh};
use crate::net::Records;
use crate::net::claim::Claimant;
use crate::net::network::Network;
use crate::net::ruleset::Reach;

/// Who may reach which target: over the bridge, and through the host. To the host and the world both ways are the same.
const VERDICTS: [(&str, &str, bool, bool); 28] = [
    ("nat", "other nat", true, false),
    ("nat", "isolated", false, false),
    ("nat", "other isolated", false, false),
    ("nat", "host", true, true),
    ("nat", "names", true, true),
    ("nat", "host's LAN address", false, false),
    ("nat", "world", true, true),
    ("isolated", "nat", false, false),
    ("isolated", "other nat", false, false),
    ("isolated", "other isolated", false, false),
    ("isolated", "host", false, false),
    ("isolated", "names", true, true),
    ("isolated", "host's LAN address", false, false),
    ("isolated", "world", false, false),
    ("none", "nat", false, false),
    ("none", "isolated", false, false),
    ("none", "host", false, false),
    ("none", "names", false, false),
    ("none", "host's LAN address", false, false),
    ("none", "world", false, false),
    ("the host", "nat", true, true),
    ("the host", "other nat", true, true),
    ("the host", "isolated", true, true),
    ("the host", "other isolated", true, true),
    ("the world", "nat", false, false),
    ("the world", "other nat", false, false),
    ("the world", "isolated", false, false),
    ("the world", "other isolated", false, false),
];

/// The port for IPv6.
const SIX: u16 = 9996;

const WAYS: [Way; 8] = [
    Way::Bridge,
    Way::ByHost,
    Way::ByTap,
    Way::ToAll,
    Way::LinkLocal(0x00),
    Way::LinkLocal(0x02),
    Way::LinkLocal(0x03),
    Way::LinkLocal(0x0e),
];

fn verdict(from: &str, to: &str) -> Option<(bool, bool)> {
    VERDICTS.iter().find(|verdict| (verdict.0, verdict.1) == (from, to)).map(|verdict| (verdict.2, verdict.3))
}

#[test]
fn everybody_reaches_whom_the_mode_allows_over_the_bridge_and_by_way_of_the_host() {
    elsewhere_bridged_either_way(async || {
        let ground = ground().await;
        let targets = ground.targets().await;
        for way in [Way::Bridge, Way::ByHost] {
            let arrivals = ground.arrivals(way, &targets).await;
            let mut expected = Arrivals::new();
            for (from, to, bridge, by_host) in VERDICTS {
                if if way == Way::Bridge { bridge } else { by_host } {
                    let every = ["TCP", "UDP", "fragments"].map(|name| (way, name.to_owned(), from.to_owned(), to));
                    expected.extend(every);
                }
            }
            let judged = arrivals.into_iter().filter(|(_, _, from, to)| verdict(from, to).is_some());
            assert_eq!(judged.collect::<Arrivals>(), expected, "{way:?}");
        }
        assert!(!ground.was_redirected().await);
    });
}

#[test]
fn no_hardware_address_leads_a_guest_around_the_rules() {
    elsewhere_bridged_either_way(async || {
        let ground = ground().await;
        let targets = ground.targets().await;
        let mut all = Vec::new();
        for way in WAYS {
            let arrivals = ground.arrivals(way, &targets).await;
            let beyond = |(_, _, from, to): &&(Way, String, String, &'static str)| {
                let is_guests = ground.guests.iter().any(|guest| guest.name == *to);
                let back = matches!(way, Way::ByHost | Way::ByTap) && is_guests;
                from != "the host" && verdict(from, to).is_some_and(|(bridge, _)| !bridge || back)
            };
            all.extend(arrivals.iter().filter(beyond).cloned());
        }
        assert!(all.is_empty(), "{all:?}");
    });
}

#[test]
fn a_guest_takes_nobodys_traffic_by_link_local_frames() {
    elsewhere_bridged_either_way(async || {
        let ground = ground().await;
        let targets = ground.targets().await;
        let (thief, victim) = (ground.guest("isolated"), ground.guest("nat"));
        for last in [0x00, 0x02, 0x03, 0x0e] {
            ground.take(Way::Bridge, &targets).await;
            let from_host = || Ground::send(Way::Bridge, ("the host", None), &targets);
            let reached = (Way::Bridge, "TCP".to_owned(), "the host".to_owned(), victim.name);
            assert!(from_host().contains(&reached));
            ground.take(Way::LinkLocal(last), &targets).await;
            let set =
                async |mac| sh(&format!("nsenter -t {} -n ip link set eth0 address {mac}", pid(&thief.held))).await;
            set(victim.lease.mac).await;
            ground.take(Way::LinkLocal(last), &targets).await;
            Ground::send(Way::LinkLocal(last), (thief.name, Some(&thief.held)), &targets);
            set(thief.lease.mac).await;
            let learned = sh("bridge fdb show br banger0").await;
            let stolen = format!("{} dev {}", victim.lease.mac, thief.lease.tap);
            assert!(!learned.contains(&stolen), "{last:02x}: {learned}");
            ground.take(Way::Bridge, &targets).await;
            assert!(from_host().contains(&reached), "{last:02x}");
        }
    });
}

#[test]
fn what_the_host_translates_or_routes_does_not_come_back_to_the_bridge() {
    elsewhere_bridged_either_way(async || {
        let ground = ground().await;
        let targets = ground.targets().await;
        ground.take(Way::Bridge, &targets).await;
        let (nat, isolated) = (ground.guest("nat"), ground.guest("isolated"));
        let (to_nat, to_isolated) = (nat.lease.address, isolated.lease.address);
        // A user's own settings: ports that lead to guests, and networks behind guests.
        sh(&format!(
            "nft add table ip mine
            nft 'add chain ip mine before {{ type nat hook prerouting priority -100; }}'
            for protocol in udp tcp; do
                nft add rule ip mine before $protocol dport 9001 dnat to {to_nat}:{PORT}
                nft add rule ip mine before $protocol dport 9002 dnat to {to_isolated}:{PORT}
            done
            ip route add 198.51.100.1/32 via {to_nat}; ip route add 198.51.100.2/32 via {to_isolated}
            nsenter -t {} -n ip address add 198.51.100.1/32 dev lo
            nsenter -t {} -n ip address add 198.51.100.2/32 dev lo",
            pid(&nat.held),
            pid(&isolated.held)
        ))
        .await;
        let behind = |guest: &Guest, last| {
            let socket =
                inside(Some(&guest.held), || UdpSocket::bind((Ipv4Addr::new(198, 51, 100, last), PORT)).unwrap());
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let behind = [behind(nat, 1), behind(isolated, 2)];
        let host = ground.subnet.host();
        for guest in [nat, isolated] {
            inside(Some(&guest.held), || {
                let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
                let at: [(Ipv4Addr, u16); 4] =
                    [(host, 9001), (host, 9002), ([198, 51, 100, 1].into(), PORT), ([198, 51, 100, 2].into(), PORT)];
                // Reaching itself would be another matter.
                for (address, port) in at.into_iter().skip(usize::from(guest.name == "nat")).step_by(2) {
                    udp.send_to(b"back", (address, port)).unwrap();
                    assert!(TcpStream::connect_timeout(&(address, port).into(), TRY).is_err(), "{address}:{port}");
                }
            });
        }
        let mut packet = [0; 8];
        for target in &targets {
            assert_eq!(target.udp.recv(&mut packet).unwrap_err().kind(), ErrorKind::WouldBlock, "{}", target.name);
        }
        assert!(behind.iter().all(|socket| socket.recv(&mut packet).is_err()));
        // The host itself reaches them.
        let sent = UdpSocket::bind((host, 0)).unwrap();
        for (last, socket) in (1u8..).zip(&behind) {
            sent.send_to(b"there", (Ipv4Addr::new(198, 51, 100, last), PORT)).unwrap();
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            assert_eq!(socket.recv(&mut packet).unwrap(), 5);
        }
    });
}

#[test]
fn guests_of_two_daemons_do_not_reach_each_other() {
    elsewhere_bridged_either_way(async || {
        let ground = ground().await;
        let dir = crate::ground::private_directory();
        let second = Arc::new(Network::new(Claimant::of_a_test(2), None, None, 0, Records::of_a_test(&dir)));
        let scope = second.scope().await.unwrap();
        let tap = format!("{}70", scope.slot.taps());
        let stranger = guest("stranger", &tap, scope.subnet, 1, Reach::Everybody).await;
        second.adopt(stranger.name, stranger.lease.clone());
        looked_after(&second).await;
        // Each of them listens, and so does each of the host's addresses.
        let nat = ground.guest("nat");
        let everybody = [
            (Some(&nat.held), nat.lease.address),
            (Some(&stranger.held), stranger.lease.address),
            (None, ground.subnet.host()),
            (None, scope.subnet.host()),
        ];
        let listen = |&(held, address): &(Option<&Leash>, Ipv4Addr)| {
            inside(held, || (UdpSocket::bind((address, PORT)).unwrap(), TcpListener::bind((address, PORT)).unwrap()))
        };
        let sockets: Vec<_> = everybody.iter().map(listen).collect();
        for (from, own, others) in [
            (nat, ground.subnet, [1, 3]),
            (ground.guest("isolated"), ground.subnet, [1, 3]),
            (&stranger, scope.subnet, [0, 2]),
        ] {
            inside(Some(&from.held), || {
                let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
                for address in others.map(|at| everybody[at].1) {
                    udp.send_to(b"over", (address, PORT)).unwrap();
                    assert!(
                        TcpStream::connect_timeout(&(address, PORT).into(), TRY).is_err(),
                        "{} {address}",
                        from.name
                    );
                }
                // It reaches its own host: so it can send at all.
                let host = TcpStream::connect_timeout(&(own.host(), PORT).into(), TRY);
                assert_eq!(host.is_ok(), from.lease.reach == Reach::Everybody, "{}", from.name);
            });
        }
        for (udp, _) in &sockets {
            udp.set_nonblocking(true).unwrap();
            assert!(udp.recv(&mut [0; 8]).is_err());
        }
    });
}

#[test]
fn a_guest_learns_no_other_address_of_the_host() {
    elsewhere(async || {
        let ground = ground().await;
        let guest = ground.guest("isolated");
        let host = ground.subnet.host();
        let known = async |address: Ipv4Addr| {
            let script = format!(
                "ip route replace {address}/32 dev eth0
                ping -n -c 1 -W 1 {address} >/dev/null || :; ip neighbour show {address}"
            );
            sh(&format!("nsenter -t {} -n sh -ec '{script}'", pid(&guest.held))).await.contains("lladdr")
        };
        assert!(known(host).await);
        assert!(!known([192, 0, 2, 2].into()).await);
    });
}

#[test]
fn ipv6_from_a_guest_goes_nowhere() {
    elsewhere(async || {
        let ground = ground().await;
        let nat = ground.guest("nat");
        // Addresses like the kernel's, but available at once.
        sh(&format!(
            "ip address add fe80::b/64 dev banger0 nodad; ip address add fe80::c/64 dev {} nodad
            nsenter -t {} -n ip address add fe80::2/64 dev eth0 nodad
            nsenter -t {} -n ip address add fe80::3/64 dev eth0 nodad",
            nat.lease.tap,
            pid(&nat.held),
            pid(&ground.guest("other nat").held)
        ))
        .await;
        let to: [Ipv6Addr; 4] = ["fe80::b", "fe80::c", "fe80::3", "ff02::1"].map(|to| to.parse().unwrap());
        let listen = || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, SIX)).unwrap();
        let sockets = [listen(), inside(Some(&ground.guest("other nat").held), listen)];
        let macs = macs().await;
        let other = ground.guest("other nat").lease.mac;
        for mac in [
            other,
            macs["banger0"],
            macs[&nat.lease.tap],
            Mac([0xff; 6]),
            Mac([1, 0x80, 0xc2, 0, 0, 0x0e]),
            Mac([1, 0x80, 0xc2, 0, 0, 2]),
        ] {
            let neighbours: String = to[..3]
                .iter()
                .map(|to| format!("ip neighbour replace {to} lladdr {mac} nud permanent dev eth0\n"))
                .collect();
            let link =
                sh(&format!("nsenter -t {} -n sh -ec '{neighbours} ip -j link show eth0'", pid(&nat.held))).await;
            let link: serde_json::Value = serde_json::from_str(&link).unwrap();
            let index = u32::try_from(link[0]["ifindex"].as_u64().unwrap()).unwrap();
            inside(Some(&nat.held), || {
                let udp = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
                for to in &to {
                    udp.send_to(b"six", SocketAddrV6::new(*to, SIX, 0, index)).unwrap();
                }
            });
        }
        // Later traffic on the same links has arrived, so the rest was dropped.
        let targets = ground.targets().await;
        let arrivals = ground.arrivals(Way::Bridge, &targets).await;
        assert!(arrivals.contains(&(Way::Bridge, "UDP".to_owned(), "nat".to_owned(), "host")));
        for socket in sockets {
            socket.set_nonblocking(true).unwrap();
            assert!(socket.recv(&mut [0; 8]).is_err());
        }
    });
}

#[test]
fn the_bridge_has_its_switches_and_gets_them_back() {
    elsewhere(async || {
        let ground = ground().await;
        let switches = async || {
            sh("cd /proc/sys/net/ipv4/conf/banger0; cat send_redirects accept_redirects accept_source_route arp_ignore
                ip -d link show banger0 | grep -o 'group_fwd_mask [^ ]*'; ip -d link show banger0 | grep -o 'no_linklocal_learn [^ ]*'")
            .await
        };
        let as_made = switches().await;
        assert!(as_made.starts_with("0\n0\n0\n1\ngroup_fwd_mask 0xfff8\n"), "{as_made}");
        for change in [
            "ip link delete banger0",
            "ip link set banger0 type bridge group_fwd_mask 0",
            "sysctl -qw net.ipv4.conf.banger0.send_redirects=1 net.ipv4.conf.banger0.arp_ignore=0",
        ] {
            sh(change).await;
            looked_after(&ground.network).await;
            assert_eq!(switches().await, as_made, "{change}");
        }
    });
}
