//! The daemon itself.

use serde::{Deserialize, Serialize};

/// Which daemon answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Version {
    /// banger's version.
    pub version: String,
    /// The API's number.
    pub api: u32,
    /// The protocol that it speaks with agents.
    pub protocol: u32,
}

/// How the daemon is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Status {
    /// Which daemon.
    pub version: Version,
    /// Its process id.
    pub pid: u32,
    /// When it started, in seconds since 1970-01-01 UTC.
    pub started: u64,
    /// Its resident memory, in bytes.
    pub resident: u64,
    /// How many VMs it knows.
    pub vms: u32,
    /// How many of them run.
    pub running: u32,
    /// Where its records and disks are.
    pub state_dir: String,
    /// The domain that VMs' names are in: the VM devbox is also devbox.vm.
    #[serde(default)]
    pub domain: String,
    /// Where its log is.
    pub log: String,
}

/// What one check of the host found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finding {
    /// The check's name: `kvm`, `qemu`, `reflink`, ...
    pub check: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// One line: what was found.
    pub found: String,
    /// One line: what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// It works, but slower or with less.
    Warn,
    /// VMs cannot run.
    Fail,
}
