//! The network of VMs: what others on this host do to it.

use std::collections::BTreeMap;

use banger_api::daemon::Finding;
use banger_linux::netlink::{Link, Route};

use super::{pass, warn};
use crate::net::addresses::Subnet;

/// What the largest packet of a guest's has, in bytes: the MTU of its card and of the bridge.
const GUESTS_MTU: u32 = 1500;

/// Whether another program's rules drop what VMs send. `bridge` is that of this daemon, if there is one. `closed` are
/// tables that take no rule, with what nft says about it, and `dropping` those in which rules are missing; those that are
/// `passing` have them.
pub(super) fn firewall(
    bridge: Option<&str>,
    closed: &BTreeMap<String, String>,
    dropping: &[String],
    passing: &[String],
    has_legacy_filter: bool,
) -> Finding {
    const CHECK: &str = "firewall";
    const LEGACY: &str =
        "this host has rules of the old iptables, which banger does not see: they may drop what VMs send";
    let Some(bridge) = bridge else {
        if has_legacy_filter {
            return warn(CHECK, LEGACY, "create a VM: then this check has the rules that let its packets through");
        }
        return pass(CHECK, "there is no network of VMs yet, the first VM makes it");
    };
    if let Some((table, said)) = closed.iter().next() {
        let found = format!("the table {table} drops what VMs send, and takes no rule that lets it through: {said}");
        return warn(
            CHECK,
            found,
            format!("let the program that owns {table} accept what comes from {bridge} and goes to it"),
        );
    }
    if !dropping.is_empty() {
        let found = format!("rules that let VMs through are missing in {}", dropping.join(", "));
        return warn(CHECK, found, "banger doctor --fix");
    }
    if has_legacy_filter {
        let fix = format!(
            "iptables-legacy -I FORWARD -i {bridge} -j ACCEPT; iptables-legacy -I FORWARD -o {bridge} -j ACCEPT"
        );
        return warn(CHECK, LEGACY, fix);
    }
    if !passing.is_empty() {
        return pass(
            CHECK,
            format!("{} would drop what VMs send; banger's rules there let it through", passing.join(", ")),
        );
    }
    pass(CHECK, "no other program's rules drop what VMs send")
}

/// Whether somebody else's route, such as a VPN's, leads to addresses of VMs. `bridge` is that of this daemon, if it has
/// one.
pub(super) fn subnet(bridge: Option<&str>, subnet: Option<Subnet>, routes: &[Route], links: &[Link]) -> Finding {
    const CHECK: &str = "subnet";
    let Some(subnet) = subnet else { return pass(CHECK, "one that is free is chosen with the first VM") };
    let name = |index: Option<u32>| links.iter().find(|link| Some(link.index) == index).map(|link| link.name.as_str());
    let is_own = |route: &Route| bridge.is_some() && name(route.link) == bridge;
    let others = routes.iter().filter(|route| route.unicast && route.prefix > 1 && !is_own(route));
    let overlap = others.into_iter().find(|route| subnet.overlaps(route.destination, route.prefix));
    match overlap {
        Some(Route { destination, prefix, link, .. }) => {
            let over = name(*link).unwrap_or("a link that is gone");
            let found = format!("VMs are in {subnet}, and a route to {destination}/{prefix} leads over {over}");
            warn(CHECK, found, "stop the VMs, and set another `subnet` below `[network]` in the configuration")
        }
        None => pass(CHECK, format!("nobody else has a route into {subnet}")),
    }
}

/// Whether all that guests send fits through the links to the world.
pub(super) fn mtu(routes: &[Route], links: &[Link]) -> Finding {
    const CHECK: &str = "mtu";
    let is_uplink =
        |link: &&Link| routes.iter().any(|route| route.unicast && route.prefix <= 1 && route.link == Some(link.index));
    match links.iter().filter(is_uplink).min_by_key(|link| link.mtu) {
        Some(link) if link.mtu < GUESTS_MTU => {
            let found = format!(
                "{} takes packets of {} bytes, and guests send up to {GUESTS_MTU}: TCP is told so, and others may lose packets",
                link.name, link.mtu
            );
            warn(CHECK, found, format!("in a guest that sends large packets by UDP: ip link set eth0 mtu {}", link.mtu))
        }
        Some(link) => {
            pass(CHECK, format!("{} takes packets of {} bytes, and guests send no larger ones", link.name, link.mtu))
        }
        None => pass(CHECK, "there is no way to the world from this host"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::daemon::Verdict;
    use banger_linux::netlink::Mac;

    const BRIDGE: Option<&str> = Some("banger0");

    fn link(index: u32, name: &str, mtu: u32) -> Link {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        Link { index, name: name.into(), mac, mtu, up: true, running: true, carrier: true, ..Link::default() }
    }

    fn route(destination: [u8; 4], prefix: u8, link: u32) -> Route {
        Route { destination: destination.into(), prefix, gateway: None, link: Some(link), table: 254, unicast: true }
    }

    #[test]
    fn rules_that_drop_are_named() {
        let closed = BTreeMap::from([("inet firewalld".to_owned(), "it is owned".to_owned())]);
        let found = firewall(BRIDGE, &closed, &[], &[], false);
        assert!(
            found.verdict == Verdict::Warn
                && found.found.contains("inet firewalld")
                && found.found.contains("it is owned")
        );
        let found = firewall(BRIDGE, &BTreeMap::new(), &["ip filter".to_owned()], &[], false);
        assert!(found.verdict == Verdict::Warn && found.fix.as_deref() == Some("banger doctor --fix"));
        assert!(
            firewall(BRIDGE, &BTreeMap::new(), &[], &[], true).fix.is_some_and(|fix| fix.contains("iptables-legacy"))
        );
        assert_eq!(firewall(BRIDGE, &BTreeMap::new(), &[], &[], false).verdict, Verdict::Pass);
        let found = firewall(BRIDGE, &BTreeMap::new(), &[], &["ip filter".to_owned()], false);
        assert!(found.verdict == Verdict::Pass && found.found.contains("ip filter"));
    }

    #[test]
    fn before_there_is_a_network_no_bridge_is_named() {
        let found = firewall(None, &BTreeMap::new(), &[], &[], false);
        assert!(found.verdict == Verdict::Pass && found.found.contains("no network of VMs yet"), "{}", found.found);
        let found = firewall(None, &BTreeMap::new(), &[], &[], true);
        assert!(found.verdict == Verdict::Warn && found.fix.is_some_and(|fix| !fix.contains("banger0")));
    }

    #[test]
    fn a_route_into_the_subnet_is_named() {
        let links = [link(1, "banger0", 1500), link(2, "tun0", 1400)];
        let ours: Subnet = "10.77.0.0/24".parse().unwrap();
        let own = route([10, 77, 0, 0], 24, 1);
        assert_eq!(subnet(BRIDGE, Some(ours), &[own, route([0, 0, 0, 0], 0, 2)], &links).verdict, Verdict::Pass);
        assert_eq!(subnet(BRIDGE, None, &[own], &links).verdict, Verdict::Pass);
        // Before there is a network, a bridge of that name is another daemon's.
        let found = subnet(None, Some(ours), &[own], &links);
        assert!(found.verdict == Verdict::Warn && found.found.contains("leads over banger0"), "{}", found.found);
        let found = subnet(BRIDGE, Some(ours), &[own, route([10, 0, 0, 0], 8, 2)], &links);
        assert!(
            found.verdict == Verdict::Warn && found.found.contains("10.0.0.0/8 leads over tun0"),
            "{}",
            found.found
        );
    }

    #[test]
    fn a_narrow_way_to_the_world_is_named() {
        let links = [link(1, "eth0", 1500), link(2, "wg0", 1420)];
        assert_eq!(mtu(&[route([0, 0, 0, 0], 0, 1), route([10, 0, 0, 0], 8, 2)], &links).verdict, Verdict::Pass);
        assert_eq!(mtu(&[], &links).verdict, Verdict::Pass);
        let found = mtu(&[route([0, 0, 0, 0], 1, 2), route([0, 0, 0, 0], 0, 1)], &links);
        assert!(found.verdict == Verdict::Warn && found.found.contains("wg0 takes packets of 1420"), "{}", found.found);
    }
}
