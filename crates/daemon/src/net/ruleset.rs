//! From leases to what nft(8) is told. Pure.
//!
//! Two tables, as a bridge's own traffic and what leaves it go through different hooks. The one of family `bridge` sees every
//! frame of a guest's first: it passes only what has the guest's own addresses. The one of family `inet` decides what a guest may
//! reach, and lets it out under the host's address. All that changes with a lease are elements of sets.
//!
//! A bridge floods a frame to all ports if it does not know where the receiver is: a guest that has been silent for some
//! minutes. `to_guest` passes only what is for the guest itself, or for many. The host's own frames go through it, as
//! well as those of other ports.
//!
//! A connection can be older than the rules, because another program had flushed them. So no packet passes just because
//! its connection exists. Answers pass; every packet of the side that began the connection meets the rules for new
//! connections.
//!
//! Guests reach each other over the bridge alone, where `between_guests` decides. The host never routes a packet from
//! the bridge back onto it, because such a packet bypasses the bridge's rules. Two rules prevent it, because neither is
//! enough alone:
//!
//! - `to_host` in the family `bridge` drops a packet for another address of the subnet that a guest hands to the host,
//!   before the host routes it: the host would tell the guest the direct way (an ICMP redirect) before any forwarding
//!   rule sees the packet.
//! - `on_bridge` in the family `inet` drops what the host routes back all the same, because it translates an address on
//!   the way (DNAT) or has a route that leads to a guest. With br_netfilter the rule also sees frames that the bridge
//!   itself passes on. Those go to a guest's hardware address or to many. A routed packet came to one of the host's,
//!   never to many.
//!
//! A frame to the link itself and not to the bridge (LLDP, for example) reaches the host from the TAP, not from the
//! bridge. IP needs no such frames: `by_tap` drops them. `LINK_LOCAL` in `bridge` keeps most of them from getting
//! there.

use std::net::Ipv4Addr;

use banger_linux::netlink::Mac;

use super::addresses::{self, Subnet};
use crate::ground::Slot;

/// What a guest may have to do with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The world, by the host's address; the host; other guests.
    Everybody,
    /// The names that the host tells it, and nobody else.
    Names,
}

/// A guest on the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The TAP that it is behind.
    pub tap: String,
    /// Its hardware address.
    pub mac: Mac,
    /// Its address.
    pub address: Ipv4Addr,
    /// Whom it may reach.
    pub reach: Reach,
}

/// The scope of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// The slot: the names of tables, bridge and TAPs come from it.
    pub slot: Slot,
    /// The guests' subnet.
    pub subnet: Subnet,
}

/// Both tables anew with these leases, as one transaction: no packet ever meets half of it.
pub fn tables(Scope { slot, subnet }: Scope, leases: &[Lease]) -> String {
    let (table, bridge, taps, host) = (slot.table(), slot.bridge(), slot.taps(), subnet.host());
    let [first, last] = subnet.ends().map(addresses::mac);
    let mut text = format!(
        r#"add table bridge {table}
delete table bridge {table}
table bridge {table} {{
  set pinned {{ typeof iifname . ether saddr . ip saddr; }}
  set isolated {{ type ifname; }}
  set guests {{ typeof oifname . ether daddr; }}
  chain from_guest {{
    type filter hook prerouting priority -300; policy accept;
    iifname != "{taps}*" accept
    ether type ip iifname . ether saddr . ip saddr @pinned accept
    ether type arp arp htype 1 arp ptype ip iifname . ether saddr . arp saddr ip @pinned iifname . arp saddr ether . arp saddr ip @pinned accept
    drop
  }}
  chain between_guests {{
    type filter hook forward priority -300; policy accept;
    iifname @isolated drop
    oifname @isolated drop
  }}
  chain to_host {{
    type filter hook input priority -300; policy accept;
    iifname != "{taps}*" accept
    ether daddr 01:80:c2:00:00:00-01:80:c2:00:00:0f drop
    ip daddr {host} accept
    ip daddr {subnet} drop
  }}
  chain to_guest {{
    type filter hook postrouting priority -300; policy accept;
    oifname != "{taps}*" accept
    oifname . ether daddr @guests accept
    ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 accept
    drop
  }}
}}
add table inet {table}
delete table inet {table}
table inet {table} {{
  set isolated {{ type ipv4_addr; }}
  chain by_tap {{
    type filter hook prerouting priority -300; policy accept;
    iifname "{taps}*" drop
  }}
  chain to_host {{
    type filter hook input priority -10; policy accept;
    iifname != "{bridge}" accept
    ct direction reply accept
    ip daddr != {host} drop
    udp dport 53 accept
    tcp dport 53 accept
    ip saddr @isolated drop
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname "{bridge}" oifname "{bridge}" goto on_bridge
    iifname "{bridge}" ip saddr @isolated drop
    oifname "{bridge}" ip daddr @isolated drop
    iifname "{bridge}" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
    oifname "{bridge}" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
    iifname "{bridge}" ip saddr {subnet} accept
    iifname "{bridge}" drop
    oifname "{bridge}" ct direction reply accept
    oifname "{bridge}" ct status expected accept
    oifname "{bridge}" drop
  }}
  chain on_bridge {{
    meta pkttype broadcast accept
    meta pkttype multicast accept
    ether daddr {first}-{last} accept
    drop
  }}
  chain to_world {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != "{bridge}" masquerade
  }}
}}
"#
    );
    for lease in leases {
        text += &added(slot, lease);
    }
    text
}

/// One lease more.
pub fn added(slot: Slot, lease: &Lease) -> String {
    elements("add", slot, lease)
}

/// One lease less. The elements must be there.
pub fn removed(slot: Slot, lease: &Lease) -> String {
    elements("delete", slot, lease)
}

fn elements(verb: &str, slot: Slot, Lease { tap, mac, address, reach }: &Lease) -> String {
    let table = slot.table();
    let mut text = format!("{verb} element bridge {table} pinned {{ \"{tap}\" . {mac} . {address} }}\n");
    text += &format!("{verb} element bridge {table} guests {{ \"{tap}\" . {mac} }}\n");
    if *reach == Reach::Names {
        text += &format!("{verb} element bridge {table} isolated {{ \"{tap}\" }}\n");
        text += &format!("{verb} element inet {table} isolated {{ {address} }}\n");
    }
    text
}

/// Neither table any more, whether or not there is one.
pub fn none(slot: Slot) -> String {
    let table = slot.table();
    ["bridge", "inet"].map(|family| format!("add table {family} {table}\ndelete table {family} {table}\n")).concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::addresses::mac;

    fn lease(number: u8, reach: Reach) -> Lease {
        let address = Ipv4Addr::new(10, 77, 0, number);
        Lease { tap: format!("tap-pool-{number}"), mac: mac(address), address, reach }
    }

    #[test]
    fn one_lease_is_two_elements_and_of_one_kept_apart_four() {
        let everybody = added(Slot::FIRST, &lease(2, Reach::Everybody));
        let expected = "add element bridge banger pinned { \"tap-pool-2\" . 02:62:0a:4d:00:02 . 10.77.0.2 }\n\
                        add element bridge banger guests { \"tap-pool-2\" . 02:62:0a:4d:00:02 }\n";
        assert_eq!(everybody, expected);
        let names = added(Slot::FIRST, &lease(3, Reach::Names));
        assert_eq!(names.lines().count(), 4);
        assert!(names.contains("add element inet banger isolated { 10.77.0.3 }\n"), "{names}");
        // What is added can be taken away again, word for word.
        for lease in [lease(2, Reach::Everybody), lease(3, Reach::Names)] {
            assert_eq!(
                removed(Slot::FIRST, &lease),
                added(Slot::FIRST, &lease).replace("add element", "delete element")
            );
        }
    }

    #[test]
    fn the_whole_is_the_tables_and_every_lease() {
        let scope = Scope { slot: Slot::FIRST, subnet: "10.77.0.0/24".parse().unwrap() };
        let leases = [lease(2, Reach::Everybody), lease(3, Reach::Names)];
        let whole = tables(scope, &leases);
        assert!(whole.ends_with(&leases.iter().map(|lease| added(Slot::FIRST, lease)).collect::<String>()), "{whole}");
        // Each family's table is made anew, so that nothing of an earlier daemon's rules is left.
        for family in ["bridge", "inet"] {
            let anew = format!("add table {family} banger\ndelete table {family} banger\ntable {family} banger {{\n");
            assert_eq!(whole.matches(&anew).count(), 1, "{whole}");
        }
        assert_eq!(whole.matches('{').count(), whole.matches('}').count());
        assert!(
            whole.contains("ip daddr != 10.77.0.1 drop")
                && whole.contains("ether daddr 02:62:0a:4d:00:02-02:62:0a:4d:00:fe accept")
                && whole.contains("ip saddr 10.77.0.0/24 oifname != \"banger0\" masquerade")
        );
        assert_eq!(none(Slot::FIRST).lines().count(), 4);
    }
}
