//! Network devices, and names.

use banger_api::verify::{Kind, Oddity, Problem};
use banger_linux::netlink::{Link, Netlink, NetlinkError};

use super::{oddity, with_fix};
use crate::context::{Context, blocking};
use crate::ground::{Slot, neighbours};
use crate::net::Unfit;
use crate::net::network::{Devices, NetworkError};
use crate::net::nft::NftError;

/// The devices that do not fit. Where the kernel does not tell them, that is what is told.
pub(super) async fn links(context: &Context) -> Vec<Oddity> {
    let listed = blocking(|| Netlink::open().and_then(|mut netlink| netlink.links())).await;
    let slot = context.network.slot().await;
    match listed {
        Ok(links) => {
            let mut oddities = compare(&links, slot, &context.network.devices().await);
            oddities.extend(abandoned(&links));
            oddities
        }
        Err(error) => vec![untold(slot, &error)],
    }
}

fn untold(slot: Slot, error: &NetlinkError) -> Oddity {
    oddity(Kind::Link, Problem::Missing, slot.bridge(), crate::api::error::chain(error))
}

/// Bridges of grounds whose state directory is gone, and devices with the name of a slot's TAP or carrier if the slot
/// has no bridge. Leaves out what another ground owns.
fn abandoned(links: &[Link]) -> Vec<Oddity> {
    let bridges = neighbours(links, None);
    let gone = bridges.iter().filter(|bridge| bridge.is_abandoned()).map(|bridge| {
        let found = format!("the bridge of {}, which is gone", bridge.owner());
        with_fix(
            oddity(Kind::Link, Problem::Leak, bridge.slot.bridge(), found),
            format!("ip link delete {}", bridge.slot.bridge()),
        )
    });
    let without_bridge = |slot: &Slot| !bridges.iter().any(|bridge| bridge.slot == *slot);
    let slots: Vec<(String, String)> =
        Slot::all().filter(without_bridge).map(|slot| (slot.taps(), slot.carrier())).collect();
    let is_left = |link: &&Link| {
        let named = slots.iter().any(|(taps, carrier)| link.name.starts_with(taps.as_str()) || link.name == *carrier);
        // An open one belongs to a process that is about to put it on a bridge.
        named && link.master.is_none() && !link.carrier && link.kind.as_deref() == Some("tun")
    };
    let left = links.iter().filter(is_left).map(|link| {
        let found = "a TAP of a daemon that has no bridge any more";
        with_fix(oddity(Kind::Link, Problem::Leak, &link.name, found), format!("ip link delete {}", link.name))
    });
    gone.chain(left).collect()
}

/// Compares the devices that have a TAP's name, or are on the bridge, with the known ones. Before there is a network,
/// another ground may own everything in this slot.
fn compare(links: &[Link], slot: Slot, known: &Devices) -> Vec<Oddity> {
    let (name, taps, carrier) = (slot.bridge(), slot.taps(), slot.carrier());
    if !known.is_up && known.ports.is_empty() {
        return Vec::new();
    }
    let bridge = links.iter().find(|link| link.name == name);
    let is_on_bridge = |link: &Link| bridge.is_some_and(|bridge| link.master == Some(bridge.index));
    let mut oddities = Vec::new();
    for link in links.iter().filter(|link| link.name.starts_with(&taps) || is_on_bridge(link)) {
        let is_carrier = known.is_up && link.name == carrier && link.kind.as_deref() == Some("tun");
        if is_carrier || known.ports.contains(&link.name) || known.waiting.contains(&link.name) {
            continue;
        }
        let fix = format!("ip link delete {}", link.name);
        // banger's own are persistent TAPs on its bridge.
        let is_ours = link.name.starts_with(&taps) && link.kind.as_deref() == Some("tun") && is_on_bridge(link);
        oddities.push(match (is_ours, link.name.starts_with(&taps)) {
            (true, _) => {
                let found = "a TAP that neither a VM has nor the next one gets";
                with_fix(oddity(Kind::Link, Problem::Leak, &link.name, found), fix)
            }
            (false, true) => {
                let found = "a device with the name of a TAP of banger's that is none";
                let odd = oddity(Kind::Link, Problem::Foreign, &link.name, found);
                // An open TAP may be another daemon's VM's.
                let is_open = link.kind.as_deref() == Some("tun") && link.carrier;
                if is_open { odd } else { with_fix(odd, fix) }
            }
            (false, false) => {
                let found = format!("on the bridge {name}, and not by banger");
                with_fix(
                    oddity(Kind::Link, Problem::Foreign, &link.name, found),
                    format!("ip link set {} nomaster", link.name),
                )
            }
        });
    }
    if known.is_up && bridge.is_none() {
        let found = "the bridge that VMs are on is gone";
        let missing = oddity(Kind::Link, Problem::Missing, &name, found);
        oddities.push(with_fix(missing, "banger daemon stop; banger daemon start"));
    }
    for port in &known.ports {
        let fits = links.iter().any(|link| link.name == *port && link.up && is_on_bridge(link));
        if !fits {
            let found = format!("a VM's TAP, which is not there, not up or not on {name}");
            oddities.push(with_fix(oddity(Kind::Link, Problem::Missing, port, found), "restart the VM"));
        }
    }
    oddities
}

/// Rules that do not fit. Where nft does not tell them, that is what is told; a host without nft has none.
pub(super) async fn rules(context: &Context) -> Vec<Oddity> {
    match context.network.unfit().await {
        Ok(unfit) => told(&context.network.slot().await.table(), unfit),
        Err(NetworkError::Rules(NftError::Missing)) => Vec::new(),
        Err(error) => {
            let table = context.network.slot().await.table();
            vec![oddity(Kind::Rule, Problem::Missing, table, crate::api::error::chain(&error))]
        }
    }
}

fn told(own: &str, unfit: Unfit) -> Vec<Oddity> {
    const ANEW: &str = "banger daemon stop; banger daemon start";
    let mut oddities = Vec::new();
    let mut tell = |problem, which: &str, found: &str, fix: String| {
        oddities.push(with_fix(oddity(Kind::Rule, problem, which, found), fix));
    };
    let Unfit { left, gone, chains, beyond, lacking, superfluous, dropping, .. } = unfit;
    for table in &left {
        let fix = format!("nft delete table inet {table}; nft delete table bridge {table}");
        tell(Problem::Leak, table, "tables of banger's rules, though there is no network of VMs", fix);
    }
    if gone {
        tell(Problem::Missing, own, "the tables of banger's rules are gone", ANEW.to_owned());
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
    for (table, comment) in &superfluous {
        let fix = format!("nft -a list table {table}, and delete the rules with the comment {comment}");
        tell(Problem::Leak, table, "another program's table has rules of banger's that no VM needs", fix);
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
    use crate::ground::{GroundId, Mark};
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
            link(2, "banger0", "bridge", None),
            link(3, "tap-pool-1", "tun", Some(2)),
            link(4, "tap-pool-2", "tun", Some(2)),
            link(5, "eth0", "", Some(9)),
            link(7, "banger-carrier", "tun", Some(2)),
        ];
        assert_eq!(compare(&fitting, Slot::FIRST, &known), []);
        let with = |more: Link| {
            let found = compare(&[&fitting[..], &[more]].concat(), Slot::FIRST, &known);
            found.into_iter().map(|oddity| (oddity.problem, oddity.which)).collect::<Vec<_>>()
        };
        assert_eq!(with(link(6, "tap-pool-3", "tun", Some(2))), [(Problem::Leak, "tap-pool-3".into())]);
        assert_eq!(with(link(6, "tap-pool-x", "dummy", None)), [(Problem::Foreign, "tap-pool-x".into())]);
        assert_eq!(with(link(6, "veth7", "veth", Some(2))), [(Problem::Foreign, "veth7".into())]);
        // Another daemon's VM may have one that is open.
        let fix = |carrier| {
            let stray = Link { carrier, ..link(6, "tap-pool-9", "tun", None) };
            compare(&[&fitting[..], &[stray]].concat(), Slot::FIRST, &known).remove(0).fix.is_some()
        };
        assert_eq!((fix(true), fix(false)), (false, true));
        let found = compare(&fitting[..1], Slot::FIRST, &known);
        let missing: Vec<_> = found.iter().map(|oddity| (oddity.problem, oddity.which.as_str())).collect();
        assert_eq!(missing, [(Problem::Missing, "banger0"), (Problem::Missing, "tap-pool-1")]);
        assert_eq!(compare(&fitting[..1], Slot::FIRST, &Devices::default()), []);
    }

    #[test]
    fn what_other_grounds_have_is_theirs_and_what_nobody_has_is_named() {
        let of = |index, name: &str, state: &str| Link {
            alias: Some(Mark { id: GroundId::from_random([3; 8]), state: state.into() }.text()),
            ..link(index, name, "bridge", None)
        };
        let known = Devices { is_up: true, ..Devices::default() };
        let theirs = [
            link(1, "banger0", "bridge", None),
            of(2, "banger1", "/"),
            link(3, "tap-pool1-0", "tun", Some(2)),
            link(4, "bangercarrier1", "tun", Some(2)),
        ];
        assert_eq!((compare(&theirs, Slot::FIRST, &known), abandoned(&theirs)), (vec![], vec![]));
        // A daemon without a network says nothing about slot 0, which another daemon owns.
        let unused = [of(2, "banger0", "/"), link(3, "tap-pool-7", "tun", Some(2))];
        assert_eq!((compare(&unused, Slot::FIRST, &Devices::default()), abandoned(&unused)), (vec![], vec![]));
        let nobodys =
            [of(2, "banger1", "/no/such"), link(3, "tap-pool2-0", "tun", None), link(4, "bangercarrier3", "tun", None)];
        let found = abandoned(&nobodys);
        let told: Vec<_> = found.iter().map(|oddity| (oddity.problem, oddity.which.as_str())).collect();
        assert_eq!(told, ["banger1", "tap-pool2-0", "bangercarrier3"].map(|name| (Problem::Leak, name)));
    }

    #[test]
    fn every_rule_that_does_not_fit_has_its_line() {
        assert_eq!(told("banger", Unfit::default()), []);
        let unfit = Unfit {
            left: vec!["banger".into()],
            gone: true,
            chains: vec!["inet banger forward".into()],
            beyond: vec!["x".into()],
            lacking: vec!["y".into()],
            superfluous: vec![("ip filter".into(), "banger".into())],
            dropping: vec!["ip filter".into()],
            passing: vec!["inet fw".into()],
        };
        let found = told("banger", unfit);
        assert_eq!(found.len(), 7);
        assert!(found.iter().all(|oddity| oddity.kind == Kind::Rule && oddity.fix.is_some()));
        assert!(
            found
                .iter()
                .any(|oddity| (oddity.problem, oddity.which.as_str()) == (Problem::Foreign, "inet banger forward"))
        );
    }
}
