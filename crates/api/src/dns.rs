//! How this host's programs come to know the names of VMs.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use crate::daemon::Finding;

/// How the host is to be told the names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DnsInstall {
    /// By `/etc/hosts`, in place of systemd-resolved.
    #[serde(default)]
    pub hosts_file: bool,
}

/// How the host is told the names, and whether it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Dns {
    /// What banger has set up on the host.
    pub wired: Wired,
    /// Whether programs of the host find VMs by their names now: a name was looked up.
    pub resolves: bool,
    /// The name that was looked up, the host's own.
    pub name: String,
    /// What it stands for, as programs are told now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// The domain that names are in.
    pub domain: String,
    /// Where the daemon answers the host; absent where the configuration does not want it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub server: Option<SocketAddrV4>,
    /// Each part of it in words, as the doctor tells it.
    pub findings: Vec<Finding>,
    /// What to write where for a resolver that banger does not set up by itself.
    pub by_hand: Vec<ByHand>,
}

/// What banger has set up on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Wired {
    /// Nothing.
    #[default]
    None,
    /// systemd-resolved asks the daemon for names of the domain.
    Resolved,
    /// A block in `/etc/hosts`.
    HostsFile,
}

/// What to write where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ByHand {
    /// For which resolver.
    pub resolver: String,
    /// The file, or that it is commands.
    pub place: String,
    /// The lines.
    pub lines: Vec<String>,
}
