//! The addresses of links.

use std::net::Ipv4Addr;

use super::message::{Request, attributes, number};
use super::{Link, Netlink, NetlinkError};

/// An address of a link's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The link's number.
    pub link: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// How many bits of it are the network's.
    pub prefix: u8,
}

/// `struct ifaddrmsg`: family, prefix, flags, scope, and the link's number.
fn head(prefix: u8, link: u32) -> Vec<u8> {
    [[super::route::FAMILY, prefix, 0, 0], link.to_ne_bytes()].concat()
}

impl Netlink {
    /// All addresses.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn addresses(&mut self) -> Result<Vec<Address>, NetlinkError> {
        let parts = self.list("list network addresses", Request::new(libc::RTM_GETADDR, 0, &head(0, 0)))?;
        Ok(parts.iter().filter_map(|part| address(part)).collect())
    }

    /// Gives a link an address, and with it the route to its network.
    ///
    /// # Errors
    /// [`NetlinkError`]; an address that it has [is there](NetlinkError::is_there).
    pub fn add_address(&mut self, link: &Link, address: Ipv4Addr, prefix: u8) -> Result<(), NetlinkError> {
        let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let broadcast = Ipv4Addr::from_bits(address.to_bits() | host);
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut request = Request::new(libc::RTM_NEWADDR, flags, &head(prefix, link.index))
            .with(libc::IFA_LOCAL, &address.octets())
            .with(libc::IFA_ADDRESS, &address.octets());
        if prefix < 31 {
            request = request.with(libc::IFA_BROADCAST, &broadcast.octets());
        }
        self.tell(&format!("give {} the address {address}/{prefix}", link.name), request)
    }

    /// Takes an address from a link.
    ///
    /// # Errors
    /// [`NetlinkError`]; one that it does not have [is missing](NetlinkError::is_missing).
    pub fn remove_address(&mut self, link: &Link, address: Ipv4Addr, prefix: u8) -> Result<(), NetlinkError> {
        let request =
            Request::new(libc::RTM_DELADDR, 0, &head(prefix, link.index)).with(libc::IFA_LOCAL, &address.octets());
        self.tell(&format!("take the address {address}/{prefix} from {}", link.name), request)
    }
}

fn address(part: &[u8]) -> Option<Address> {
    if *part.first()? != super::route::FAMILY {
        return None;
    }
    // The link's own end, where the address is that of its peer.
    let of = |wanted| attributes(part.get(8..)?).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let octets: [u8; 4] = of(libc::IFA_LOCAL).or_else(|| of(libc::IFA_ADDRESS))?.try_into().ok()?;
    Some(Address { link: number(part, 4)?, address: octets.into(), prefix: part[1] })
}
