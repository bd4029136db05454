//! The network that VMs are in.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The network that VMs are in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Network {
    /// Its subnet, as `10.77.0.0/24`; absent until a VM has wanted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// The domain that names are in.
    pub domain: String,
    /// Whose address is which, by name.
    pub leases: Vec<Lease>,
}

/// An address that belongs to a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lease {
    /// The name.
    pub name: String,
    /// The address.
    pub address: Ipv4Addr,
    /// Whether there is a VM of that name; without one the address waits for the next.
    pub vm: bool,
}
