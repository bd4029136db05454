//! Which subnet the bridge has, and which address in it is whose. Pure.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use banger_linux::netlink::Mac;

/// The largest and the smallest subnet, by the bits of the network: from 65533 guests to five.
const PREFIXES: std::ops::RangeInclusive<u8> = 16..=29;

/// A subnet of guests. Its first address is the host's on the bridge, its last one is for everybody, all between are guests'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

/// Why a text is no subnet for guests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// It is not written as one.
    #[error("{0:?} is no subnet: write an address and its bits, as 10.77.0.0/24")]
    Form(String),
    /// It is too large or too small.
    #[error("a subnet for guests has {} to {} bits of network, {text} has {prefix}", PREFIXES.start(), PREFIXES.end())]
    Size {
        /// The text.
        text: String,
        /// Its bits.
        prefix: u8,
    },
    /// It is nobody's to choose.
    #[error("{0} is not private: take one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16")]
    Public(String),
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Subnet, SubnetError> {
        let form = || SubnetError::Form(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(form)?;
        let address: Ipv4Addr = address.parse().map_err(|_| form())?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or_else(form)?;
        if !PREFIXES.contains(&prefix) {
            return Err(SubnetError::Size { text: text.to_owned(), prefix });
        }
        // RFC 1918 has no range that a subnet of such a size could reach out of.
        if !address.is_private() {
            return Err(SubnetError::Public(text.to_owned()));
        }
        Ok(Subnet::around(address, prefix))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}/{}", self.network, self.prefix)
    }
}

impl Subnet {
    /// The subnet of this size that an address is in.
    fn around(address: Ipv4Addr, prefix: u8) -> Subnet {
        Subnet { network: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix }
    }

    /// How many bits are the network's.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The host's address on the bridge.
    pub fn host(&self) -> Ipv4Addr {
        self.at(1)
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.network.to_bits()
    }

    /// Whether a guest can have an address.
    pub fn is_guests(&self, address: Ipv4Addr) -> bool {
        self.contains(address) && (2..=self.guests() + 1).contains(&(address.to_bits() - self.network.to_bits()))
    }

    /// How many guests have room.
    pub fn guests(&self) -> u32 {
        // Without the network itself, the host, and everybody.
        !mask(self.prefix) - 2
    }

    /// Whether they have addresses in common; a destination of no bits is everywhere, and in nobody's way.
    pub fn overlaps(&self, destination: Ipv4Addr, prefix: u8) -> bool {
        let common = mask(self.prefix.min(prefix));
        prefix > 0 && destination.to_bits() & common == self.network.to_bits() & common
    }

    /// The first and the last address that a guest can have.
    pub fn ends(&self) -> [Ipv4Addr; 2] {
        [self.at(2), self.at(self.guests() + 1)]
    }

    /// An address that is not among those that are taken: the one after the last that was given, so that one that somebody gave
    /// up is not another's at once. Nothing where all are taken.
    pub fn free(&self, is_taken: impl Fn(Ipv4Addr) -> bool, last: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let guests = self.guests();
        let after =
            last.filter(|last| self.is_guests(*last)).map_or(0, |last| last.to_bits() - self.network.to_bits() - 1);
        (0..guests).map(|step| self.at(2 + (after + step) % guests)).find(|address| !is_taken(*address))
    }

    /// The names that its addresses' names are below, as few as cover it and nothing else: `77.137.10.in-addr.arpa`. Where it is
    /// smaller than a byte they are those of its addresses themselves.
    pub fn reverse_zones(&self) -> Vec<String> {
        let labels = u32::from(self.prefix.div_ceil(8));
        let step = 1 << (8 * (4 - labels));
        let size = 1 << (32 - u32::from(self.prefix));
        let zone = |number: u32| {
            let octets = self.at(number).octets();
            let kept = octets.iter().take(labels as usize).rev().map(u8::to_string);
            kept.chain(["in-addr.arpa".to_owned()]).collect::<Vec<_>>().join(".")
        };
        (0..size).step_by(step).map(zone).collect()
    }

    fn at(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + number)
    }
}

/// The subnets to choose from where the configuration names none: away from those that Docker, libvirt, Kubernetes and home
/// routers take by themselves, and each 253 guests large. Those of the last kind are for hosts behind a VPN that has all of 10.0.0.0/8.
pub fn candidates() -> impl Iterator<Item = Subnet> {
    let of_ten = (0..100u8).map(|number| [10, 137 + number, 77, 0]);
    let others = (21..31u8).map(|number| [172, number, 177, 0]);
    of_ten.chain(others).map(|network| Subnet { network: network.into(), prefix: 24 })
}

/// The first candidate, counted from this number and around the end, that overlaps none of these destinations.
pub fn choose(first: usize, taken: &[(Ipv4Addr, u8)]) -> Option<Subnet> {
    let is_free = |subnet: &Subnet| !taken.iter().any(|(destination, prefix)| subnet.overlaps(*destination, *prefix));
    candidates().skip(first).chain(candidates().take(first)).find(is_free)
}

/// How guests' hardware addresses begin: administered locally, of one card. A banger without grounds gave its bridge such
/// an address, too.
const GUESTS: [u8; 2] = [0x02, 0x62];

/// How the hardware addresses of grounds' bridges begin. A banger without grounds takes every bridge for its own that
/// begins as guests do.
const BRIDGES: [u8; 2] = [0x02, 0x63];

/// The hardware address that goes with an address, and is as unique.
pub fn mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([GUESTS[0], GUESTS[1], a, b, c, d])
}

/// Whether a hardware address is one that banger gives.
pub fn is_ours(mac: Mac) -> bool {
    mac.0.starts_with(&GUESTS) || mac.0.starts_with(&BRIDGES)
}

/// The hardware address of a bridge, from some random bytes of its ground. No guest has it. The daemon sets it, because
/// a bridge otherwise takes the lowest address of its ports and changes when they do.
pub fn bridge_mac([a, b, c, d]: [u8; 4]) -> Mac {
    Mac([BRIDGES[0], BRIDGES[1], a | 1, b, c, d])
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn reverse_zones_cover_the_subnet_and_nothing_else() {
        let zones = |text: &str| text.parse::<Subnet>().unwrap().reverse_zones();
        assert_eq!(zones("10.137.77.0/24"), ["77.137.10.in-addr.arpa"]);
        assert_eq!(zones("10.137.0.0/16"), ["137.10.in-addr.arpa"]);
        assert_eq!(zones("10.137.76.0/23"), ["76.137.10.in-addr.arpa", "77.137.10.in-addr.arpa"]);
        let small = zones("192.168.7.8/29");
        assert_eq!((small.len(), small[0].as_str()), (8, "8.7.168.192.in-addr.arpa"));
        assert_eq!(small[7], "15.7.168.192.in-addr.arpa");
    }

    #[test]
    fn a_subnet_is_written_as_usual() {
        assert_eq!(subnet("10.77.0.9/24").to_string(), "10.77.0.0/24");
        assert_eq!(subnet("192.168.3.0/29").host(), ip("192.168.3.1"));
        for text in ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0/24", "10.0.0.0/-1", "a/24", "10.0.0.0/24/2"] {
            assert_eq!(text.parse::<Subnet>(), Err(SubnetError::Form(text.to_owned())), "{text}");
        }
        assert!(matches!("10.0.0.0/8".parse::<Subnet>(), Err(SubnetError::Size { prefix: 8, .. })));
        assert!(matches!("10.0.0.0/30".parse::<Subnet>(), Err(SubnetError::Size { prefix: 30, .. })));
        assert!(matches!("8.8.8.0/24".parse::<Subnet>(), Err(SubnetError::Public(_))));
    }

    #[test]
    fn it_has_room_for_all_but_three() {
        let subnet = subnet("10.77.0.0/29");
        assert_eq!(subnet.guests(), 5);
        let guests: Vec<u8> = (0..8).filter(|number| subnet.is_guests(Ipv4Addr::new(10, 77, 0, *number))).collect();
        assert_eq!(guests, [2, 3, 4, 5, 6]);
        assert!(!subnet.is_guests(ip("10.77.0.10")) && !subnet.is_guests(ip("10.76.255.255")));
    }

    #[test]
    fn addresses_are_given_in_turn_and_none_twice() {
        let subnet = subnet("10.77.0.0/29");
        let mut taken = Vec::new();
        for last in 2..=6 {
            let address = subnet.free(|address| taken.contains(&address), taken.last().copied()).unwrap();
            assert_eq!(address.octets()[3], last);
            taken.push(address);
        }
        assert_eq!(subnet.free(|address| taken.contains(&address), taken.last().copied()), None);
        // The first that is given up is the only one left, though it is not after the last.
        taken.remove(0);
        assert_eq!(subnet.free(|address| taken.contains(&address), taken.last().copied()), Some(ip("10.77.0.2")));
        // One that was just given up waits until all others have been others'.
        assert_eq!(subnet.free(|_| false, Some(ip("10.77.0.3"))), Some(ip("10.77.0.4")));
        assert_eq!(subnet.free(|_| false, Some(ip("10.77.0.6"))), Some(ip("10.77.0.2")));
        assert_eq!(subnet.free(|_| false, Some(ip("172.16.0.1"))), Some(ip("10.77.0.2")));
    }

    #[test]
    fn the_chosen_one_is_in_nobodys_way() {
        assert_eq!(choose(0, &[]), candidates().next());
        assert_eq!(choose(0, &[(ip("0.0.0.0"), 0)]), candidates().next());
        assert_eq!(choose(0, &[(ip("10.0.0.0"), 8)]), Some(subnet("172.21.177.0/24")));
        // A VPN that takes a lot, a host in the middle of the first, and a bridge.
        let taken = [(ip("192.168.0.0"), 16), (ip("10.137.77.128"), 32), (ip("10.138.0.0"), 16)];
        assert_eq!(choose(0, &taken), Some(subnet("10.139.77.0/24")));
        assert_eq!(choose(0, &[(ip("10.0.0.0"), 8), (ip("172.16.0.0"), 12)]), None);
        assert!(candidates().all(|candidate| subnet(&candidate.to_string()) == candidate));
    }

    #[test]
    fn guests_addresses_have_two_ends() {
        for text in ["10.77.0.0/24", "192.168.4.8/29", "172.16.0.0/16"] {
            let subnet = subnet(text);
            let [first, last] = subnet.ends();
            assert!(subnet.is_guests(first) && subnet.is_guests(last), "{text}");
            assert_eq!(last.to_bits() - first.to_bits() + 1, subnet.guests(), "{text}");
        }
    }

    #[test]
    fn hardware_addresses_are_local_and_of_one_card() {
        let mac = mac(ip("10.77.0.2"));
        assert_eq!(mac.to_string(), "02:62:0a:4d:00:02");
        assert_eq!((mac.0[0] & 2, mac.0[0] & 1), (2, 0));
        assert!(is_ours(mac) && !is_ours(Mac([0x52, 0x54, 0, 0, 0, 1])));
        // The prefix that an older daemon looks for is the guests' alone.
        let bridge = bridge_mac([10, 77, 0, 2]);
        assert!(is_ours(bridge) && !bridge.0.starts_with(&mac.0[..2]));
    }

    proptest! {
        #[test]
        fn whatever_is_free_is_a_guests_and_not_taken(number in any::<u32>(), prefix in 16u8..=29, taken in proptest::collection::hash_set(0u32..64, 0..32)) {
            let subnet = Subnet::around(Ipv4Addr::from_bits(0x0a00_0000 | number & 0x00ff_ffff), prefix);
            let is_taken = |address: Ipv4Addr| taken.contains(&(address.to_bits() - subnet.network.to_bits()));
            if let Some(address) = subnet.free(is_taken, Some(Ipv4Addr::from_bits(number))) {
                prop_assert!(subnet.is_guests(address) && !is_taken(address));
            } else {
                prop_assert!(subnet.guests() < 64);
            }
        }
    }
}
