//! What a guest is told before it has a channel: one JSON file in its initramfs, written anew for every boot.

use serde::{Deserialize, Serialize};

/// Where the file is in the initramfs.
pub const PATH: &str = "/banger/boot.json";

/// The name of the virtio serial port that the channel runs over.
pub const PORT: &str = "banger.agent";

/// The serial numbers by which the guest finds its disks.
pub mod serial {
    /// The root disk.
    pub const ROOT: &str = "root";
    /// The work disk, mounted at `/root`.
    pub const WORK: &str = "work";
}

/// What the agent, as first process, makes of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Boot {
    /// Kernel modules to load, as paths in the initramfs, each after those it needs.
    pub modules: Vec<String>,
    /// Who this machine is.
    pub identity: Identity,
    /// Whether the work disk is an empty file system that wants the image's own `/root` copied into it.
    #[serde(default)]
    pub fill_work_disk: bool,
}

/// What makes a VM its own machine. The same at every boot, but for `entropy` and `unix_nanos`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identity {
    /// The host name.
    pub hostname: String,
    /// 32 hexadecimal digits (machine-id(5)).
    pub machine_id: String,
    /// The private SSH host key in OpenSSH's format (Ed25519).
    pub host_key: String,
    /// Its public half: one line, as in `ssh_host_ed25519_key.pub`.
    pub host_key_public: String,
    /// 64 fresh random bytes in hexadecimal, stirred into the kernel's pool and credited.
    pub entropy: String,
    /// The wall clock at the start, in nanoseconds since 1970-01-01 UTC; the hello corrects it.
    pub unix_nanos: u64,
}
