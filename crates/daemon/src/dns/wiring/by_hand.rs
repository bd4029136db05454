//! What to write where for resolvers that banger does not set up by itself. Pure.

use std::net::SocketAddrV4;

use banger_api::dns::ByHand;

use crate::ground::Slot;
use crate::net::addresses::Subnet;

/// The lines for each resolver, with which it asks this server for the domain's names and, where the subnet is known, for those of
/// its addresses. dnsmasq(8), unbound.conf(5), resolvectl(1), NetworkManager.conf(5).
pub fn lines(domain: &str, bridge: &str, server: SocketAddrV4, subnet: Option<Subnet>) -> Vec<ByHand> {
    let (address, port) = (server.ip(), server.port());
    // Each daemon has a file of its own.
    let file = Slot::of_bridge(bridge).unwrap_or_default().table();
    let reverse = subnet.map(|subnet| subnet.reverse_zones()).unwrap_or_default();
    let zones: Vec<&str> = std::iter::once(domain).chain(reverse.iter().map(String::as_str)).collect();

    let mut dnsmasq: Vec<String> = zones.iter().map(|zone| format!("server=/{zone}/{address}#{port}")).collect();
    // Where it drops answers with private addresses (--stop-dns-rebind), it does not drop these.
    dnsmasq.push(format!("rebind-domain-ok=/{domain}/"));

    // Of itself it asks nobody on this host, takes no private addresses from elsewhere, knows that there is nothing below
    // 10.in-addr.arpa, and believes no answer without a signature for a domain that does not exist.
    let mut unbound = vec![
        "server:".to_owned(),
        "    do-not-query-localhost: no".to_owned(),
        format!("    private-domain: \"{domain}\""),
    ];
    unbound.extend(zones.iter().map(|zone| format!("    domain-insecure: \"{zone}\"")));
    unbound.extend(reverse.iter().map(|zone| format!("    local-zone: \"{zone}.\" transparent")));
    for zone in &zones {
        unbound.extend(["stub-zone:".to_owned(), format!("    name: \"{zone}\"")]);
        unbound.push(format!("    stub-addr: {address}@{port}"));
    }

    let routed: Vec<String> = zones.iter().map(|zone| format!("'~{zone}'")).collect();
    let resolved = vec![
        format!("resolvectl default-route {bridge} no"),
        format!("resolvectl dnssec {bridge} no"),
        format!("resolvectl domain {bridge} {}", routed.join(" ")),
        format!("resolvectl dns {bridge} {server}"),
    ];
    let of = |resolver: &str, place: String, lines: Vec<String>| ByHand { resolver: resolver.to_owned(), place, lines };
    vec![
        of("dnsmasq", format!("/etc/dnsmasq.d/{file}.conf"), dnsmasq.clone()),
        of("unbound", format!("/etc/unbound/unbound.conf.d/{file}.conf"), unbound),
        of("systemd-resolved (246 or newer)", "commands, after each start of the host".to_owned(), resolved),
        of("NetworkManager with dns=dnsmasq", format!("/etc/NetworkManager/dnsmasq.d/{file}.conf"), dnsmasq),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_resolver_is_told_domain_port_and_reverse() {
        let server = "127.0.0.1:42069".parse().unwrap();
        let told = lines("vm", "banger0", server, Some("10.137.77.0/24".parse().unwrap()));
        let of = |name: &str| told.iter().find(|told| told.resolver.starts_with(name)).unwrap().lines.join("\n");
        let dnsmasq =
            "server=/vm/127.0.0.1#42069\nserver=/77.137.10.in-addr.arpa/127.0.0.1#42069\nrebind-domain-ok=/vm/";
        assert_eq!((of("dnsmasq"), of("NetworkManager")), (dnsmasq.into(), dnsmasq.into()));
        assert!(of("unbound").contains("stub-zone:\n    name: \"vm\"\n    stub-addr: 127.0.0.1@42069"));
        assert!(of("unbound").contains("    local-zone: \"77.137.10.in-addr.arpa.\" transparent"));
        assert!(of("systemd-resolved").ends_with("resolvectl dns banger0 127.0.0.1:42069"));
        assert!(of("systemd-resolved").contains("banger0 '~vm' '~77.137.10.in-addr.arpa'"));
        let files = |bridge: &str| {
            let told = lines("vm", bridge, server, None).into_iter().map(|told| told.place);
            told.filter(|place| place.starts_with('/')).collect::<Vec<_>>()
        };
        let of_slot_0 = [
            "/etc/dnsmasq.d/banger.conf",
            "/etc/unbound/unbound.conf.d/banger.conf",
            "/etc/NetworkManager/dnsmasq.d/banger.conf",
        ];
        assert_eq!(files("banger0"), of_slot_0);
        assert_eq!(files("banger7"), of_slot_0.map(|file| file.replace("banger.conf", "banger7.conf")));
        // Before there is a network nothing is known of addresses.
        assert!(lines("vm", "banger0", server, None).iter().all(|told| !told.lines.join("\n").contains("in-addr")));
    }
}
