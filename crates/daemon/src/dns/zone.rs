//! Which names there are and what they stand for. Pure.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use banger_api::name::HOST;

use crate::net::addresses::Subnet;

/// The longest label of a name, in bytes (RFC 1035, 2.3.4).
const LONGEST_LABEL: usize = 63;

/// The names of one domain, and those of the subnet's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// The domain's labels, the first one first, in lower case.
    domain: Vec<Vec<u8>>,
    subnet: Subnet,
    addresses: HashMap<Vec<u8>, Ipv4Addr>,
    names: HashMap<Ipv4Addr, String>,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// A machine's address.
    Address(Ipv4Addr),
    /// The name of an address's machine, below the domain.
    Name(&'a str),
    /// The domain itself, or the part of `in-addr.arpa` that is ours.
    Top,
    /// Nothing, though it would be ours.
    Nothing,
    /// Somebody else's.
    Foreign,
}

impl Zone {
    /// The zone of a domain, such as `vm`, with only the host in it.
    pub fn new(domain: &str, subnet: Subnet) -> Zone {
        let domain = domain.split('.').map(|label| label.to_ascii_lowercase().into_bytes()).collect();
        let zone = Zone { domain, subnet, addresses: HashMap::new(), names: HashMap::new() };
        zone.with(HOST, subnet.host())
    }

    /// With a machine, whose name is in lower case.
    #[must_use]
    pub fn with(mut self, name: &str, address: Ipv4Addr) -> Zone {
        self.addresses.insert(name.as_bytes().to_vec(), address);
        self.names.insert(address, name.to_owned());
        self
    }

    /// The domain.
    pub fn domain(&self) -> String {
        let labels: Vec<_> = self.domain.iter().map(|label| String::from_utf8_lossy(label)).collect();
        labels.join(".")
    }

    /// How many labels the name of the zone has that a name is in: of the domain, or of the part of `in-addr.arpa` for as many
    /// bytes as are the same in the whole subnet. The name's labels come as for [`Zone::look_up`].
    pub fn labels<'n>(&self, mut labels: impl Iterator<Item = &'n [u8]>) -> usize {
        if is(labels.next(), b"arpa") && is(labels.next(), b"in-addr") {
            return 2 + usize::from(self.subnet.prefix().div_ceil(8));
        }
        self.domain.len()
    }

    /// Looks a name up by its labels, the last one first and without the empty one of the root.
    pub fn look_up<'n>(&self, mut labels: impl Iterator<Item = &'n [u8]> + Clone) -> Found<'_> {
        let mut reverse = labels.clone();
        if is(reverse.next(), b"arpa") && is(reverse.next(), b"in-addr") {
            return self.reverse(reverse);
        }
        for label in self.domain.iter().rev() {
            if !is(labels.next(), label) {
                return Found::Foreign;
            }
        }
        let Some(name) = labels.next() else { return Found::Top };
        // What is in front of a machine's name is the machine's, too.
        let mut lower = [0; LONGEST_LABEL];
        let Some(lower) = lower.get_mut(..name.len()) else { return Found::Nothing };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        self.addresses.get(&*lower).map_or(Found::Nothing, |address| Found::Address(*address))
    }

    /// An address is written from its last byte on: `1.0.77.10.in-addr.arpa`.
    fn reverse<'n>(&self, labels: impl Iterator<Item = &'n [u8]>) -> Found<'_> {
        let mut octets = [0; 4];
        let mut count = 0;
        for label in labels {
            let number = std::str::from_utf8(label)
                .ok()
                .filter(|text| !text.starts_with('+'))
                .and_then(|text| text.parse().ok());
            let (Some(octet), Some(number)) = (octets.get_mut(count), number) else {
                // More than an address has, or no number: below one of ours it is nothing, elsewhere not ours.
                return if self.is_ours(octets, count) { Found::Nothing } else { Found::Foreign };
            };
            *octet = number;
            count += 1;
        }
        match count {
            4 if self.is_ours(octets, 4) => {
                self.names.get(&octets.into()).map_or(Found::Nothing, |name| Found::Name(name))
            }
            3 if self.is_ours(octets, 3) => Found::Top,
            _ => Found::Foreign,
        }
    }

    /// Whether all addresses that begin with so many of these bytes are in the subnet.
    fn is_ours(&self, octets: [u8; 4], count: usize) -> bool {
        let bits = u8::try_from(count * 8).unwrap_or(u8::MAX);
        bits >= self.subnet.prefix() && self.subnet.contains(octets.into())
            || count >= 4 && self.subnet.contains(octets.into())
    }
}

/// Whether there is a label, and it is this one, which is in lower case.
fn is(label: Option<&[u8]>, known: &[u8]) -> bool {
    label.is_some_and(|label| label.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        Zone::new("vm", "10.77.0.0/24".parse().unwrap()).with("devbox", [10, 77, 0, 2].into())
    }

    fn found(name: &str) -> Found<'static> {
        // Leaked, so that what is found can be compared outside.
        let zone: &'static Zone = Box::leak(Box::new(zone()));
        zone.look_up(name.split('.').rev().filter(|label| !label.is_empty()).map(str::as_bytes))
    }

    #[test]
    fn names_and_all_below_them_are_machines() {
        let devbox = Found::Address([10, 77, 0, 2].into());
        for name in ["devbox.vm", "DevBox.VM", "www.devbox.vm", "a.b.c.devbox.vm", "*.devbox.vm"] {
            assert_eq!(found(name), devbox, "{name}");
        }
        assert_eq!(found("host.vm"), Found::Address([10, 77, 0, 1].into()));
        assert_eq!(found("vm"), Found::Top);
        for name in ["web.vm", "devbo.vm", "devboxx.vm", &format!("{}.vm", "a".repeat(64))] {
            assert_eq!(found(name), Found::Nothing, "{name}");
        }
        for name in ["", "com", "devbox", "devbox.vm.example.org", "xvm", "devbox.xvm"] {
            assert_eq!(found(name), Found::Foreign, "{name}");
        }
    }

    #[test]
    fn addresses_of_the_subnet_have_names() {
        assert_eq!(found("2.0.77.10.in-addr.arpa"), Found::Name("devbox"));
        assert_eq!(found("1.0.77.10.IN-ADDR.ARPA"), Found::Name("host"));
        assert_eq!(found("3.0.77.10.in-addr.arpa"), Found::Nothing);
        assert_eq!(found("0.77.10.in-addr.arpa"), Found::Top);
        for name in [
            "x.0.77.10.in-addr.arpa",
            "a.2.0.77.10.in-addr.arpa",
            "256.0.77.10.in-addr.arpa",
            "+2.0.77.10.in-addr.arpa",
        ] {
            assert_eq!(found(name), Found::Nothing, "{name}");
        }
        for name in
            ["in-addr.arpa", "10.in-addr.arpa", "77.10.in-addr.arpa", "1.1.77.10.in-addr.arpa", "ip6.arpa", "arpa"]
        {
            assert_eq!(found(name), Found::Foreign, "{name}");
        }
    }

    #[test]
    fn a_domain_may_have_several_labels() {
        let zone = Zone::new("Vm.Home.Arpa", "10.77.0.0/28".parse().unwrap()).with("a", [10, 77, 0, 3].into());
        let look_up = |name: &str| {
            let labels: Vec<&[u8]> = name.split('.').rev().map(str::as_bytes).collect();
            format!("{:?}", zone.look_up(labels.into_iter()))
        };
        assert_eq!(look_up("a.vm.home.arpa"), "Address(10.77.0.3)");
        assert_eq!(
            (look_up("vm.home.arpa"), look_up("home.arpa"), look_up("a.home.arpa")),
            ("Top".into(), "Foreign".into(), "Foreign".into())
        );
        assert_eq!(zone.domain(), "vm.home.arpa");
        // Of a subnet that is smaller than the last byte only the addresses themselves are ours.
        assert_eq!(
            (look_up("3.0.77.10.in-addr.arpa"), look_up("77.0.77.10.in-addr.arpa")),
            ("Name(\"a\")".into(), "Foreign".into())
        );
        assert_eq!(look_up("0.77.10.in-addr.arpa"), "Foreign");
    }
}
