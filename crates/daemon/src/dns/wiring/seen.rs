//! What there is to see of it now: names are looked up, not remembered.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use banger_api::dns::Wired;

use super::programs::{self, Told, leads_to_resolved};
use super::{Wiring, resolved};
use crate::context::blocking;
use crate::dns::names::Names;
use crate::dns::upstream::RESOLV_CONF;
use crate::net::addresses::Subnet;

/// How programs find a name: nsswitch.conf(5).
const NSSWITCH: &str = "/etc/nsswitch.conf";

/// What there is to see.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What is set up.
    pub wired: Wired,
    /// The name that was looked up: the host's own.
    pub name: String,
    /// Where the host is answered, if the configuration wants it.
    pub server: Option<SocketAddrV4>,
    /// The subnet whose names are answered, once they are.
    pub subnet: Option<Subnet>,
    /// What programs are told.
    pub programs: Told,
    /// Where programs are not told and systemd-resolved is set up: whether it knows the name itself.
    pub resolved: bool,
    /// Whether programs ask systemd-resolved at all.
    pub leads: bool,
    /// The owner of the names in the host's list that stand in this daemon's place.
    pub others: Option<String>,
}

impl Seen {
    /// Whether programs find VMs by their names.
    pub fn resolves(&self) -> bool {
        self.address().is_some_and(|address| self.subnet.is_some_and(|subnet| subnet.host() == address))
    }

    /// What programs are told.
    pub fn address(&self) -> Option<Ipv4Addr> {
        match &self.programs {
            Told::Addresses(addresses) => addresses.first().copied(),
            Told::Nothing(_) | Told::Late => None,
        }
    }
}

/// Looks.
pub async fn look(wiring: &Wiring, names: &Names) -> Seen {
    let (wired, name, subnet) = (wiring.wired().await, names.host(), names.subnet());
    let mut seen = Seen {
        wired,
        server: names.for_host(),
        subnet,
        programs: programs::look_up(&name).await,
        resolved: false,
        leads: blocking(|| leads_to_resolved(Path::new(RESOLV_CONF), Path::new(NSSWITCH))).await,
        others: wiring.others_names(names.slot()).await,
        name,
    };
    if let (Wired::Resolved, false, Some(subnet)) = (wired, seen.resolves(), subnet) {
        seen.resolved = resolved::look_up(&seen.name).await.is_ok_and(|found| found.contains(&subnet.host()));
    }
    seen
}
