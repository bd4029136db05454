//! What a guest gets without having a right to it: frames for another guest, and connections that were opened without rules.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::guests::{LARGE, PORT, TRY, ground, guest, inside};
use super::place::{elsewhere, elsewhere_bridged_either_way, looked_after, sh};
use crate::net::ruleset::Reach;

/// Far longer than anything that arrives takes.
const SOON: Duration = Duration::from_secs(10);

/// A socket for every frame that arrives at a guest's links, also frames for other receivers.
fn all_frames() -> UdpSocket {
    let all = Some(rustix::net::eth::ALL);
    let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, all);
    let socket = UdpSocket::from(socket.unwrap());
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

#[test]
fn what_the_host_sends_to_a_silent_guest_reaches_no_other_guest() {
    elsewhere_bridged_either_way(async || {
        let ground = ground().await;
        let silent = ground.guest("nat");
        let others = ground.guests.iter().filter(|guest| guest.name != silent.name);
        let frames: Vec<_> = others.map(|guest| (guest.name, inside(Some(&guest.held), all_frames))).collect();
        // A user's own port on the bridge.
        let own = guest("own", "mine0", ground.subnet, 100, Reach::Everybody).await;
        sh("ip link set mine0 master banger0 up").await;
        let receivers = [silent, &own].map(|guest| {
            let socket = inside(Some(&guest.held), || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap());
            socket.set_read_timeout(Some(SOON)).unwrap();
            (guest.lease.address, guest.lease.mac, socket)
        });
        for (address, mac, _) in &receivers {
            sh(&format!("ip neighbour replace {address} lladdr {mac} nud permanent dev banger0")).await;
        }
        sh("ip link set banger0 type bridge fdb_flush").await;
        let host = ground.subnet.host();
        let udp = UdpSocket::bind((host, 0)).unwrap();
        udp.set_broadcast(true).unwrap();
        let mut packet = [0; LARGE];
        for (address, _, socket) in &receivers {
            udp.send_to(b"to one", (*address, PORT)).unwrap();
            let length = socket.recv(&mut packet).unwrap();
            assert_eq!(&packet[..length], b"to one", "{address}");
        }
        // What is for all comes later, and to all.
        let all = Ipv4Addr::from_bits(host.to_bits() | 0xff);
        udp.send_to(b"to all", (all, PORT)).unwrap();
        for (name, socket) in &frames {
            loop {
                let length = socket.recv(&mut packet).unwrap();
                assert!(!packet[..length].ends_with(b"to one"), "{name}");
                if packet[..length].ends_with(b"to all") {
                    break;
                }
            }
        }
        let [_, (address, _, socket)] = &receivers;
        assert_eq!(socket.recv(&mut packet).unwrap(), 6);
        let from_guest = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().send_to(b"guest", (*address, PORT));
        inside(Some(&silent.held), from_guest).unwrap();
        assert_eq!(socket.recv(&mut packet).unwrap(), 5);
    });
}

/// Runs a script to its end before anything else happens here, so that nobody mends meanwhile what it does.
fn at_once(script: &str) {
    inside(None, || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(sh(script));
    });
}

#[test]
fn connections_that_were_opened_without_rules_are_held_to_them() {
    elsewhere(async || {
        let ground = ground().await;
        // Another program follows connections, as on most hosts.
        sh("nft add table inet mine
            nft 'add chain inet mine arriving { type filter hook input priority 0; policy accept; }'
            nft add rule inet mine arriving ct state new counter")
        .await;
        let (isolated, nat, host) = (ground.guest("isolated"), ground.guest("nat"), ground.subnet.host());
        let ways = [
            ("isolated to host", Some(&isolated.held), None, host, false),
            ("world to nat", Some(&ground.world), Some(&nat.held), nat.lease.address, false),
            ("host to isolated", None, Some(&isolated.held), isolated.lease.address, true),
            ("nat to host", Some(&nat.held), None, host, true),
        ];
        at_once("nft delete table inet banger; nft delete table bridge banger");
        let open = ways.map(|(name, from, to, address, stays)| {
            let listener = inside(to, || TcpListener::bind((address, 0)).unwrap());
            let at = listener.local_addr().unwrap();
            let began = inside(from, || TcpStream::connect_timeout(&at, SOON).unwrap());
            let (answered, _) = listener.accept().unwrap();
            (name, began, answered, stays)
        });
        looked_after(&ground.network).await;
        for (name, mut began, mut answered, stays) in open {
            began.write_all(b"?").unwrap();
            answered.set_read_timeout(Some(if stays { SOON } else { TRY })).unwrap();
            assert_eq!(matches!(answered.read(&mut [0]), Ok(1)), stays, "{name}");
            if stays {
                answered.write_all(b"!").unwrap();
                began.set_read_timeout(Some(SOON)).unwrap();
                assert_eq!(began.read(&mut [0]).unwrap(), 1, "{name}");
            }
        }
    });
}
