//! Network devices, and names.

use banger_api::verify::{Kind, Oddity, Problem};
use banger_linux::netlink::{Link, Netlink, NetlinkError};

use super::{oddity, with_fix};
use crate::context::{Context, blocking};
use crate::net::Unfit;
use crate::net::network::{Devices, NetworkError};
use crate::net::nft::NftError;
use crate::net::ruleset::TABLE;
use crate::paths::{BRIDGE, CARRIER, TAPS};

/// The devices that do not fit. Where the kernel does not tell them, that is what is told.
pub(super) async fn links(context: &Context) -> Vec<Oddity> {
    let listed = blocking(|| Netlink::open().and_then(|mut netlink| netlink.links())).await;
    match listed {
        Ok(links) => compare(&links, &context.network.devices().await),
        Err(error) => vec![untold(&error)],
    }
}

fn untold(error: &NetlinkError) -> Oddity {
    oddity(Kind::Link, Problem::Missing, BRIDGE, crate::api::error::chain(error))
}

/// Devices that are named as TAPs are, or are on the bridge, against those that are known.
fn compare(links: &[Link], known: &Devices) -> Vec<Oddity> {
    let bridge = links.iter().find(|link| link.name == BRIDGE);
    let is_on_bridge = |link: &Link| bridge.is_some_and(|bridge| link.master == Some(bridge.index));
    let mut oddities = Vec::new();
    for link in links.iter().filter(|link| link.name.starts_with(TAPS) || is_on_bridge(link)) {
        let is_carrier = known.is_up && link.name == CARRIER && link.kind.as_deref() == Some("tun");
        if is_carrier || known.ports.contains(&link.name) || known.waiting.contains(&link.name) {
            continue;
        }
        let fix = format!("ip link delete {}", link.name);
        // banger's own are persistent TAPs on its bridge.
        let is_ours = link.name.starts_with(TAPS) && link.kind.as_deref() == Some("tun") && is_on_bridge(link);
        oddities.push(match (is_ours, link.name.starts_with(TAPS)) {
            (true, _) => {
                let found = "a TAP that neither a VM has nor the next one gets";
                with_fix(oddity(Kind::Link, Problem::Leak, &link.name, found), fix)
            }
            (false, true) => {
                let found = "a device with the name of a TAP of banger's that is none";
                with_fix(oddity(Kind::Link, Problem::Foreign, &link.name, found), fix)
            }
            (false, false) => {
                let found = format!("on the bridge {BRIDGE}, and not by banger");
                with_fix(
                    oddity(Kind::Link, Problem::Foreign, &link.name, found),
                    format!("ip link set {} nomaster", link.name),
                )
            }
        });
    }
    if known.is_up && bridge.is_none() {
        let found = "the bridge that VMs are on is gone";
        let missing = oddity(Kind::Link, Problem::Missing, BRIDGE, found);
        oddities.push(with_fix(missing, "banger daemon stop; banger daemon start"));
    }
    for name in &known.ports {
        let fits = links.iter().any(|link| link.name == *name && link.up && is_on_bridge(link));
        if !fits {
            let found = format!("a VM's TAP, which is not there, not up or not on {BRIDGE}");
            oddities.push(with_fix(oddity(Kind::Link, Problem::Missing, name, found), "restart the VM"));
        }
    }
    oddities
}

/// Rules that do not fit. Where nft does not tell them, that is what is told; a host without nft has none.
pub(super) async fn rules(context: &Context) -> Vec<Oddity> {
    match context.network.unfit().await {
        Ok(unfit) => told(unfit),
        Err(NetworkError::Rules(NftError::Missing)) => Vec::new(),
        Err(error) => vec![oddity(Kind::Rule, Problem::Missing, TABLE, crate::api::error::chain(&error))],
    }
}

fn told(unfit: Unfit) -> Vec<Oddity> {
    const ANEW: &str = "banger daemon stop; banger daemon start";
    let mut oddities = Vec::new();
    let mut tell = |problem, which: &str, found: &str, fix: String| {
        oddities.push(with_fix(oddity(Kind::Rule, problem, which, found), fix));
    };
    let Unfit { left, gone, chains, beyond, lacking, superfluous, dropping, .. } = unfit;
    if left {
        let fix = format!("nft delete table inet {TABLE}; nft delete table bridge {TABLE}");
        tell(Problem::Leak, TABLE, "tables of banger's rules, though there is no network of VMs", fix);
    }
    if gone {
        tell(Problem::Missing, TABLE, "the tables of banger's rules are gone", ANEW.to_owned());
    }
    for chain in &chains {
        tell(Problem::Foreign, chain, "a chain of banger's that is not as banger made it", ANEW.to_owned());
    }
    for element in &beyond {
        tell(Problem::Leak, element, "what no VM has", ANEW.to_owned());
    }
    for element in &lacking {
        tell(Problem::Missing, element, "without it a VM reaches nobody", ANEW.to_owned());
    }
    for table in &superfluous {
        let fix = format!("nft -a list table {table}, and delete the rules with the comment banger");
        tell(Problem::Leak, table, "another program's table has rules of banger's, and no VM runs", fix);
    }
    for table in &dropping {
        let found = "another program's table drops what VMs send";
        tell(Problem::Missing, table, found, format!("see what nft -a list table {table} says"));
    }
    oddities
}

/// Where names are not answered.
pub(super) fn names(context: &Context) -> Vec<Oddity> {
    let told = |refusal: String| oddity(Kind::Name, Problem::Missing, format!("*.{}", context.names.domain()), refusal);
    let refusals = context.names.refusals();
    refusals.host.into_iter().chain(refusals.guests).map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_linux::netlink::Mac;

    fn link(index: u32, name: &str, kind: &str, master: Option<u32>) -> Link {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        Link { index, name: name.into(), mac, up: true, kind: Some(kind.into()), master, mtu: 1500, ..Link::default() }
    }

    #[test]
    fn a_device_on_our_ground_is_known_or_named() {
        let known = Devices { is_up: true, ports: vec!["tap-pool-1".into()], waiting: vec!["tap-pool-2".into()] };
        let fitting = [
            link(1, "lo", "", None),
            link(2, BRIDGE, "bridge", None),
            link(3, "tap-pool-1", "tun", Some(2)),
            link(4, "tap-pool-2", "tun", Some(2)),
            link(5, "eth0", "", Some(9)),
            link(7, CARRIER, "tun", Some(2)),
        ];
        assert_eq!(compare(&fitting, &known), []);
        let with = |more: Link| {
            let found = compare(&[&fitting[..], &[more]].concat(), &known);
            found.into_iter().map(|oddity| (oddity.problem, oddity.which)).collect::<Vec<_>>()
        };
        assert_eq!(with(link(6, "tap-pool-3", "tun", Some(2))), [(Problem::Leak, "tap-pool-3".into())]);
        assert_eq!(with(link(6, "tap-pool-x", "dummy", None)), [(Problem::Foreign, "tap-pool-x".into())]);
        assert_eq!(with(link(6, "veth7", "veth", Some(2))), [(Problem::Foreign, "veth7".into())]);
        let found = compare(&fitting[..1], &known);
        let missing: Vec<_> = found.iter().map(|oddity| (oddity.problem, oddity.which.as_str())).collect();
        assert_eq!(missing, [(Problem::Missing, BRIDGE), (Problem::Missing, "tap-pool-1")]);
        assert_eq!(compare(&fitting[..1], &Devices::default()), []);
    }

    #[test]
    fn every_rule_that_does_not_fit_has_its_line() {
        assert_eq!(told(Unfit::default()), []);
        let unfit = Unfit {
            left: true,
            gone: true,
            chains: vec!["inet banger forward".into()],
            beyond: vec!["x".into()],
            lacking: vec!["y".into()],
            superfluous: vec!["ip filter".into()],
            dropping: vec!["ip filter".into()],
            passing: vec!["inet fw".into()],
        };
        let found = told(unfit);
        assert_eq!(found.len(), 7);
        assert!(found.iter().all(|oddity| oddity.kind == Kind::Rule && oddity.fix.is_some()));
        assert!(
            found
                .iter()
                .any(|oddity| (oddity.problem, oddity.which.as_str()) == (Problem::Foreign, "inet banger forward"))
        );
    }
}
