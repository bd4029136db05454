//! The routes of the kernel's tables.

use std::net::Ipv4Addr;

use super::message::{Request, attributes, number};
use super::{Link, Netlink, NetlinkError};

/// IPv4, as it stands in messages.
pub(super) const FAMILY: u8 = 2;

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where to; all of IPv4 by default.
    pub destination: Ipv4Addr,
    /// How many bits of it count.
    pub prefix: u8,
    /// Through whom, where not directly.
    pub gateway: Option<Ipv4Addr>,
    /// The number of the link that it leads over.
    pub link: Option<u32>,
    /// The table: 254 is the main one.
    pub table: u32,
    /// Whether packets go somewhere by it, and not only to this host or nowhere.
    pub unicast: bool,
}

/// `struct rtmsg`: family, both prefixes, the type of service, table, origin, scope, kind, and flags.
fn head(prefix: u8, scope: u8) -> [u8; 12] {
    [FAMILY, prefix, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, scope, libc::RTN_UNICAST, 0, 0, 0, 0]
}

impl Netlink {
    /// All routes of all tables.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let mut body = [0; 12];
        body[0] = FAMILY;
        let parts = self.list("list routes", Request::new(libc::RTM_GETROUTE, 0, &body))?;
        Ok(parts.iter().filter_map(|part| route(part)).collect())
    }

    /// Makes `gateway` the way to everywhere. A route of that kind that is there already is replaced.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_default_route(&mut self, link: &Link, gateway: Ipv4Addr) -> Result<(), NetlinkError> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let request = Request::new(libc::RTM_NEWROUTE, flags, &head(0, libc::RT_SCOPE_UNIVERSE))
            .with(libc::RTA_GATEWAY, &gateway.octets())
            .with(libc::RTA_OIF, &link.index.to_ne_bytes());
        self.tell(&format!("set the default route through {gateway}"), request)
    }
}

fn route(part: &[u8]) -> Option<Route> {
    if *part.first()? != FAMILY {
        return None;
    }
    let mut route = Route {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix: *part.get(1)?,
        gateway: None,
        link: None,
        table: u32::from(*part.get(4)?),
        unicast: *part.get(7)? == libc::RTN_UNICAST,
    };
    for (kind, value) in attributes(part.get(12..)?) {
        let address = || <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from);
        match kind {
            libc::RTA_DST => route.destination = address()?,
            libc::RTA_GATEWAY => route.gateway = address(),
            libc::RTA_OIF => route.link = number(value, 0),
            // Of a number that does not fit the structure.
            libc::RTA_TABLE => route.table = number(value, 0)?,
            _ => {}
        }
    }
    Some(route)
}
