//! Guests of each kind on one bridge, a host and a world, each a network namespace: what they send each other on routes
//! of their own making, and what arrives. Everything goes through the kernel's own stack in each namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use banger_linux::netlink::Mac;
use banger_linux::process::Leash;
use rustix::thread::LinkNameSpaceType;
use tempfile::TempDir;

use super::place::{WORLD, json, looked_after, namespace, network, pid, sh};
use crate::net::addresses::{self, Subnet};
use crate::net::network::Network;
use crate::net::ruleset::{Lease, Reach};

/// The port of all services but names.
pub(super) const PORT: u16 = 9999;
/// How long to try a connection. An allowed one takes a thousandth of that.
pub(super) const TRY: Duration = Duration::from_millis(150);
/// Larger than a packet, so that it travels in fragments.
pub(super) const LARGE: usize = 4000;

/// A way to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Bridge,
    ByHost,
    /// To the hardware address of the sender's own TAP, which the host takes as its own.
    ByTap,
    ToAll,
    /// To a link-local hardware address with this last byte.
    LinkLocal(u8),
}

/// A guest: a network stack behind a link with a TAP's name.
pub(super) struct Guest {
    pub(super) held: Leash,
    pub(super) name: &'static str,
    pub(super) lease: Lease,
}

/// A host with guests of each kind, a world behind it, and a namespace without a link.
pub(super) struct Ground {
    pub(super) guests: Vec<Guest>,
    pub(super) none: Leash,
    pub(super) world: Leash,
    pub(super) subnet: Subnet,
    pub(super) network: Arc<Network>,
    _dir: TempDir,
}

/// A target that guests try to reach.
pub(super) struct Target {
    pub(super) name: &'static str,
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
    pub(super) mac: Mac,
    pub(super) udp: UdpSocket,
    _tcp: TcpListener,
}

/// What arrived: the way, the protocol, the sender and the target.
pub(super) type Arrivals = BTreeSet<(Way, String, String, &'static str)>;

/// Runs something in a network namespace.
pub(super) fn inside<T: Send>(held: Option<&Leash>, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            if let Some(held) = held {
                let ns = std::fs::File::open(format!("/proc/{}/ns/net", pid(held))).unwrap();
                rustix::thread::move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            }
            work()
        });
        there.join().unwrap()
    })
}

pub(super) async fn ground() -> Ground {
    let subnet = addresses::candidates().next().unwrap();
    let (none, world) = (namespace().await, namespace().await);
    sh(&format!(
        "ip link set lo up
        ip link add up0 type veth peer name w0 netns {world}
        ip address add 192.0.2.2/24 dev up0; ip link set up0 up; ip route add default via {WORLD}
        nsenter -t {world} -n sh -ec 'ip address add {WORLD}/24 dev w0; ip link set w0 up; ip link set lo up
            ip route add {subnet} via 192.0.2.2'",
        world = pid(&world)
    ))
    .await;
    let dir = crate::ground::private_directory();
    let network = network(&dir);
    let mut guests = Vec::new();
    for (number, name) in (1..).zip(["nat", "other nat", "isolated", "other isolated"]) {
        let reach = if name.ends_with("isolated") { Reach::Names } else { Reach::Everybody };
        let guest = guest(name, &format!("tap-pool-{}", 70 + number), subnet, number, reach).await;
        network.adopt(name, guest.lease.clone());
        guests.push(guest);
    }
    assert_eq!(network.scope().await.unwrap().subnet, subnet);
    looked_after(&network).await;
    Ground { guests, none, world, subnet, network, _dir: dir }
}

/// A guest with an address of a subnet, behind a link with that name.
pub(super) async fn guest(name: &'static str, tap: &str, subnet: Subnet, number: u32, reach: Reach) -> Guest {
    let held = namespace().await;
    let (host, address) = (subnet.host(), Ipv4Addr::from_bits(subnet.host().to_bits() + number));
    let lease = Lease { tap: tap.to_owned(), mac: addresses::mac(address), address, reach };
    sh(&format!(
        "ip link add {tap} type veth peer name eth0 netns {guest}
        nsenter -t {guest} -n sh -ec 'ip link set lo up; ip link set eth0 address {mac} up
            ip address add {address}/24 dev eth0; ip route add default via {host}'",
        guest = pid(&held),
        mac = lease.mac
    ))
    .await;
    Guest { held, name, lease }
}

/// The hardware addresses of the host's links.
pub(super) async fn macs() -> BTreeMap<String, Mac> {
    let links = json("ip -j link").await;
    let mac = |text: &str| {
        let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        Mac(bytes.try_into().unwrap())
    };
    let named = |link: &serde_json::Value| {
        (link["ifname"].as_str().unwrap().to_owned(), mac(link["address"].as_str().unwrap()))
    };
    links.as_array().unwrap().iter().map(named).collect()
}

impl Ground {
    pub(super) fn guest(&self, name: &str) -> &Guest {
        self.guests.iter().find(|guest| guest.name == name).unwrap()
    }

    /// All targets, each listening.
    pub(super) async fn targets(&self) -> Vec<Target> {
        let bridge = macs().await["banger0"];
        let target = |name, held, address, port, mac| {
            let (udp, _tcp) = inside(held, || {
                (UdpSocket::bind((address, port)).unwrap(), TcpListener::bind((address, port)).unwrap())
            });
            udp.set_nonblocking(true).unwrap();
            Target { name, address, port, mac, udp, _tcp }
        };
        let guests = self.guests.iter();
        let mut targets: Vec<_> = guests
            .map(|guest| target(guest.name, Some(&guest.held), guest.lease.address, PORT, guest.lease.mac))
            .collect();
        targets.push(target("host", None, self.subnet.host(), PORT, bridge));
        targets.push(target("names", None, self.subnet.host(), 53, bridge));
        targets.push(target("host's LAN address", None, [192, 0, 2, 2].into(), PORT, bridge));
        targets.push(target("world", Some(&self.world), WORLD.parse().unwrap(), PORT, bridge));
        targets
    }

    /// Makes every guest send this way to every target from now on, answers included.
    pub(super) async fn take(&self, way: Way, targets: &[Target]) {
        let macs = macs().await;
        for guest in &self.guests {
            let own = guest.lease.address;
            let mut script = String::new();
            for Target { address, mac, .. } in targets.iter().filter(|target| target.address != own) {
                let to = match way {
                    Way::Bridge => *mac,
                    Way::ByHost => macs["banger0"],
                    Way::ByTap => macs[&guest.lease.tap],
                    Way::ToAll => Mac([0xff; 6]),
                    Way::LinkLocal(last) => Mac([0x01, 0x80, 0xc2, 0, 0, last]),
                };
                script += &format!("route replace {address}/32 dev eth0 src {own}\n");
                script += &format!("neighbour replace {address} lladdr {to} nud permanent dev eth0\n");
            }
            sh(&format!("nsenter -t {} -n ip -batch - <<'END'\n{script}END", pid(&guest.held))).await;
        }
    }

    /// Sends from one sender to all targets, and returns the answers; the targets know the rest.
    pub(super) fn send(way: Way, from: (&str, Option<&Leash>), targets: &[Target]) -> Arrivals {
        let is_one = matches!(way, Way::Bridge | Way::ByHost | Way::ByTap);
        inside(from.1, || {
            let mut answered = Arrivals::new();
            let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            for Target { name, address, port, .. } in targets {
                // If there is no route at all, the kernel says so here.
                for protocol in ["UDP", "fragments"] {
                    let mut text = format!("{way:?}|{protocol}|{}|", from.0).into_bytes();
                    text.resize(if protocol == "UDP" { text.len() } else { LARGE }, b'.');
                    drop(udp.send_to(&text, (*address, *port)));
                }
                if is_one && TcpStream::connect_timeout(&(*address, *port).into(), TRY).is_ok() {
                    answered.insert((way, "TCP".to_owned(), from.0.to_owned(), name));
                }
            }
            answered
        })
    }

    /// What arrives when every sender sends to every target.
    pub(super) async fn arrivals(&self, way: Way, targets: &[Target]) -> Arrivals {
        self.take(way, targets).await;
        // The second guest of each kind is a target; as a sender it would be like the first.
        let guest = |name| (name, Some(&self.guest(name).held));
        let others = [("none", Some(&self.none)), ("the host", None), ("the world", Some(&self.world))];
        let from = others.into_iter().chain([guest("nat"), guest("isolated")]);
        let mut arrivals = Arrivals::new();
        std::thread::scope(|scope| {
            let sent: Vec<_> = from.map(|from| scope.spawn(move || Ground::send(way, from, targets))).collect();
            for sent in sent {
                arrivals.extend(sent.join().unwrap());
            }
        });
        for target in targets {
            let mut packet = [0; LARGE];
            loop {
                match target.udp.recv(&mut packet) {
                    Ok(length) => {
                        let text = String::from_utf8_lossy(&packet[..length]).into_owned();
                        let [_, protocol, from, ..] = *text.split('|').collect::<Vec<_>>() else { panic!("{text}") };
                        arrivals.insert((way, protocol.to_owned(), from.to_owned(), target.name));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // An earlier packet of its own was refused.
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
        arrivals
    }

    /// Whether the host told a guest a shorter way.
    pub(super) async fn was_redirected(&self) -> bool {
        let mut was = false;
        for guest in &self.guests {
            let counts = sh(&format!("nsenter -t {} -n cat /proc/net/snmp", pid(&guest.held))).await;
            was |= counts.contains("InType5");
        }
        was
    }
}
