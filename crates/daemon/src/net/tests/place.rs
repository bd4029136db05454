//! A host, a guest and a world, each a network namespace of a test's own; and what is asked of them.
//!
//! The guest is behind a link that is named as a TAP and is a VM's since an earlier daemon: its other end is no VMM's, but a stack
//! that answers.

use std::collections::BTreeSet;
use std::io::{Read, Seek};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use banger_linux::netlink::{Event, Events};
use banger_linux::netns;
use banger_linux::process::{Launch, Leash, Program, Stream};
use serde_json::Value;
use tempfile::TempDir;

use crate::net::Records;
use crate::net::addresses::{self, Subnet};
use crate::net::claim::Claimant;
use crate::net::network::Network;
use crate::net::ruleset::{Lease, Reach};
use crate::net::upkeep::Doubt;

/// Far longer than it takes, which is some tenths of a second, on a host that does much else.
const SOON: Duration = Duration::from_secs(20);
pub(super) const TAP: &str = "tap-pool-77";
pub(super) const WORLD: &str = "192.0.2.1";
pub(super) const BRIDGED_SWITCH: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Docker's chain as it makes it, without its users' and with it.
pub(super) const DROPS: &str = "iptables -P FORWARD DROP; iptables -A FORWARD -i docker0 -j ACCEPT";
pub(super) const DROPS_BUT_FOR_USERS: &str = "iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; \
                                   iptables -A FORWARD -j DOCKER-USER";
/// As firewalld does.
pub(super) const REJECTS: &str = "nft add table inet firewalld; \
    nft 'add chain inet firewalld f { type filter hook forward priority filter + 10; policy accept; }'; \
    nft add rule inet firewalld f ct state invalid drop; nft add rule inet firewalld f reject with icmpx type admin-prohibited";

pub(super) struct Place {
    /// Who looks after it goes with this.
    pub(super) network: Option<Arc<Network>>,
    pub(super) subnet: Subnet,
    pub(super) guest: Leash,
    pub(super) world: Leash,
    pub(super) dir: TempDir,
}

/// Runs a test in a network of its own.
pub(super) fn elsewhere<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    let ran = netns::in_new_network(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    if let Err(error) = ran {
        banger_skip::skipped!("no network namespace can be made: {error}");
    }
}

/// As often as a bridge may show its traffic to iptables or not.
pub(super) fn elsewhere_bridged_either_way<F: Future<Output = ()>>(test: impl Fn() -> F + Sync) {
    for called in ["0", "1"] {
        elsewhere(async || {
            if Path::new(BRIDGED_SWITCH).exists() {
                std::fs::write(BRIDGED_SWITCH, called).unwrap();
            } else if called == "1" {
                banger_skip::skipped!("a bridge that shows its traffic to iptables: the kernel has no br_netfilter");
                return;
            }
            test().await;
        });
    }
}

/// What a command says; whether it ends well.
pub(super) async fn run(words: &[&str]) -> (bool, String) {
    let mut said = banger_linux::file::in_memory("said").unwrap();
    let mut launch = Launch::new(Program::Command("/usr/bin/env".into()), words.iter().copied());
    launch.env = vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())];
    launch.stdout = Stream::Fd(said.try_clone().unwrap().into());
    launch.stderr = Stream::Fd(said.try_clone().unwrap().into());
    let status = Leash::start(launch).unwrap().ended().await.unwrap();
    let mut text = String::new();
    said.rewind().unwrap();
    said.read_to_string(&mut text).unwrap();
    (status.success(), text)
}

pub(super) async fn sh(script: &str) -> String {
    let (well, said) = run(&["sh", "-e", "-c", script]).await;
    assert!(well, "{script}: {said}");
    said
}

pub(super) async fn json(script: &str) -> Value {
    serde_json::from_str(&sh(script).await).unwrap()
}

/// All rules, without numbers that the kernel gives them.
pub(super) async fn rules() -> Value {
    fn plain(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|key, _| key != "handle" && key != "counter");
                map.values_mut().for_each(plain);
            }
            Value::Array(all) => all.iter_mut().for_each(plain),
            _ => {}
        }
    }
    let mut said = json("nft -j list ruleset").await;
    plain(&mut said);
    said
}

/// How many rules of banger's are in others' tables.
pub(super) async fn placed() -> usize {
    rules().await["nftables"].as_array().unwrap().iter().filter(|entry| entry["rule"]["comment"] == "banger").count()
}

pub(super) async fn forwarding() -> String {
    sh("for link in /proc/sys/net/ipv4/conf/*; do case $link in */up*|*/lo|*/all) echo $link $(cat $link/forwarding);; esac; done").await
}

/// Another network namespace, as long as this is held.
pub(super) async fn namespace() -> Leash {
    let held = Leash::start(Launch::new(Program::Unshare, ["--net", "/usr/bin/tail", "-f", "/dev/null"])).unwrap();
    let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let ns = format!("/proc/{}/ns/net", pid(&held));
    while std::fs::read_link(&ns).unwrap() == own {
        std::thread::yield_now();
    }
    held
}

pub(super) fn pid(leash: &Leash) -> u32 {
    leash.process().unwrap().pid()
}

/// A network with an earlier daemon's guest, once all that has to be done behind is done.
pub(super) async fn place(reach: Reach, before: &str) -> Place {
    let (guest, world) = (namespace().await, namespace().await);
    let (in_guest, in_world) = (pid(&guest), pid(&world));
    let subnet = addresses::candidates().next().unwrap();
    let address = Ipv4Addr::from_bits(subnet.host().to_bits() + 1);
    let (mac, host) = (addresses::mac(address), subnet.host());
    sh(&format!(
        "ip link set lo up
        ip link add up0 type veth peer name w0 netns {in_world}
        ip address add 192.0.2.2/24 dev up0; ip link set up0 up; ip route add default via {WORLD}
        nsenter -t {in_world} -n sh -ec 'ip address add {WORLD}/24 dev w0; ip link set w0 up; ip link set lo up'
        nsenter -t {in_world} -n ip route add {subnet} via 192.0.2.2
        ip link add {TAP} type veth peer name eth0 netns {in_guest}
        nsenter -t {in_guest} -n ip link set eth0 address {mac} up
        nsenter -t {in_guest} -n ip address add {address}/24 dev eth0
        nsenter -t {in_guest} -n ip route add default via {host}
        {before}"
    ))
    .await;
    let dir = crate::ground::private_directory();
    let network = network(&dir);
    network.adopt("a", Lease { tap: TAP.to_owned(), mac, address, reach });
    assert_eq!(network.scope().await.unwrap().subnet, subnet);
    Place { network: Some(network), subnet, guest, world, dir }
}

/// Waits until all that a watch does behind is done.
pub(super) async fn looked_after(network: &Network) {
    network.mend(Doubt::ALL).await.unwrap();
}

pub(super) fn network(dir: &TempDir) -> Arc<Network> {
    Arc::new(Network::new(Claimant::of_a_test(1), None, None, 0, Records::of_a_test(dir)))
}

impl Place {
    /// Whether the guest reaches the world within two seconds. ping(8) ends with the first answer, and with a refusal.
    pub(super) async fn flows(&self) -> bool {
        let ping = format!("ping -n -c 1 -i 0.1 -w 2 {WORLD}");
        let flows = async { while !self.in_guest(&ping).await {} };
        tokio::time::timeout(Duration::from_secs(2), flows).await.is_ok()
    }

    pub(super) fn network(&self) -> &Arc<Network> {
        self.network.as_ref().unwrap()
    }

    pub(super) async fn in_guest(&self, script: &str) -> bool {
        run(&["nsenter", "-t", &pid(&self.guest).to_string(), "-n", "bash", "-c", script]).await.0
    }

    pub(super) async fn in_world(&self, script: &str) -> bool {
        run(&["nsenter", "-t", &pid(&self.world).to_string(), "-n", "bash", "-c", script]).await.0
    }

    /// Waits until nothing has happened to links and rules for a moment that is longer than any gathering.
    pub(super) async fn settled(events: &Events) -> usize {
        let mut changes = 0;
        while let Ok(events) = tokio::time::timeout(Duration::from_millis(500), events.next()).await {
            changes += events.unwrap().iter().filter(|event| matches!(event, Event::Rules { .. })).count();
        }
        changes
    }
}

/// Whether the bridge has its carrier, and that by banger's own TAP.
pub(super) async fn has_carrier() -> bool {
    let links = json("ip -j link show master banger0").await;
    let own = links.as_array().unwrap().iter().any(|link| link["ifname"] == "banger-carrier");
    let bridge = json("ip -j link show banger0").await;
    own && ["UP", "LOWER_UP"].iter().all(|flag| bridge[0]["flags"].as_array().unwrap().contains(&(*flag).into()))
}

/// Has others change something, and all as it has to be soon after; with so many rules in others' tables.
pub(super) async fn is_mended(place: &Place, changes: &[(&str, usize)]) {
    let own = async || {
        let all = rules().await;
        let all = all["nftables"].as_array().unwrap().iter();
        all.filter(|entry| entry.to_string().contains(r#""table":"banger""#))
            .map(Value::to_string)
            .collect::<BTreeSet<_>>()
    };
    looked_after(place.network()).await;
    assert!(place.flows().await);
    let before = own().await;
    for (change, expected) in changes {
        sh(change).await;
        let mended = async { while own().await != before || placed().await != *expected {} };
        let mended = tokio::time::timeout(SOON, mended).await;
        assert!(mended.is_ok() && place.flows().await, "{change}");
    }
}
