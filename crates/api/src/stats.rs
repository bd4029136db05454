//! How busy VMs are.

use serde::{Deserialize, Serialize};

pub use banger_protocol::call::{FileSystem, Load};

/// How busy a running VM is. Counters grow from the VM's start on: who wants rates takes the difference of two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmStats {
    /// The VM's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its virtual processors.
    pub cpus: u32,
    /// When this was measured, in microseconds since 1970-01-01 UTC.
    pub at: u64,
    /// Processor time that its VMM has used on the host, in microseconds: at most `cpus` seconds a second and a little more.
    pub cpu_micros: u64,
    /// The host's memory that its VMM holds, in bytes.
    pub resident: u64,
    /// What its VMM has read from the host's storage, in bytes.
    pub read: u64,
    /// What its VMM has written to the host's storage, in bytes.
    pub written: u64,
    /// What its disks take on the host, in bytes. Clones that share blocks count them each.
    pub disk: u64,
    /// What the guest says of itself; absent where it does not answer in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Load>,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_error: Option<String>,
}
