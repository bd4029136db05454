//! VMs.

use serde::{Deserialize, Serialize};

use crate::port::Publish;

/// A VM, as `banger ls -o json` and `banger show -o json` print it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Vm {
    /// Short, random, never reused.
    pub id: String,
    /// Unique; can change.
    pub name: String,
    /// What it is doing.
    pub state: VmState,
    /// Why it is in this state, where that is not because somebody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Counts the changes of this record.
    pub generation: u64,
    /// The image it was made from.
    pub image: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory: u64,
    /// Size of the work disk, in bytes.
    pub disk: u64,
    /// Which program runs it: `qemu`.
    pub vmm: String,
    /// How it runs: `kvm` or `emulation`; absent while it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<String>,
    /// The VMM's process id while it runs; missing for the moment in which a new daemon takes a running VM over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The guest's boot id while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Whether it is removed when its command or client ends.
    pub ephemeral: bool,
    /// Whom its guest can reach.
    #[serde(default)]
    pub net: Net,
    /// Its address, if it has a network: the same whenever it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<std::net::Ipv4Addr>,
    /// Ports of the host that lead to its own while it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Publish>,
    /// When it starts again by itself.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// When it will start again by itself, in seconds since 1970-01-01 UTC; absent where it will not, or runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_again: Option<u64>,
    /// The directory in the guest where commands run by default, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// The user whom its guest is given beside root, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// When it was created, in seconds since 1970-01-01 UTC.
    pub created: u64,
    /// When it was last started, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// The public SSH host key, as in a known_hosts line after the name.
    pub host_key: String,
}

/// What a VM is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Its disks are being made.
    Creating,
    /// It does not run; its disks are kept.
    Stopped,
    /// Its VMM is starting, or its agent has not answered yet.
    Starting,
    /// Its agent answered.
    Running,
    /// Its guest stands still until there is space on the host's disk again.
    Paused,
    /// It is going down.
    Stopping,
    /// It is being removed.
    Removing,
}

impl VmState {
    /// The word that a table shows.
    pub fn as_str(self) -> &'static str {
        match self {
            VmState::Creating => "creating",
            VmState::Stopped => "stopped",
            VmState::Starting => "starting",
            VmState::Running => "running",
            VmState::Paused => "paused",
            VmState::Stopping => "stopping",
            VmState::Removing => "removing",
        }
    }
}

/// The most virtual processors: what QEMU's microvm machine takes.
pub const MAX_CPUS: u32 = 255;

/// The least memory, in bytes: a Debian with systemd comes up in it.
pub const MIN_MEMORY: u64 = 256 << 20;

/// How many ports a VM can publish.
pub const MAX_PUBLISH: usize = 64;

/// The largest disk, in bytes: what ext4 takes with blocks of 4 KiB.
pub const MAX_DISK: u64 = 16 << 40;

/// What to create. Absent fields take the daemon's defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmCreate {
    /// A name; made up if absent.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = crate::name::PATTERN)))]
    #[serde(default)]
    pub name: Option<String>,
    /// An image's name; the default image if absent.
    #[serde(default)]
    pub image: Option<String>,
    /// Virtual processors.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_CPUS)))]
    #[serde(default)]
    pub cpus: Option<u32>,
    /// Memory, in bytes: no more than the host has.
    #[cfg_attr(feature = "schema", schemars(range(min = MIN_MEMORY, max = u64::MAX)))]
    #[serde(default)]
    pub memory: Option<u64>,
    /// Size of the work disk, in bytes: no less than the image's work seed.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = MAX_DISK)))]
    #[serde(default)]
    pub disk: Option<u64>,
    /// Variables for every command that is run in it: together at most 64 KiB. No name is empty or has a `=`, and nothing
    /// has a NUL.
    #[cfg_attr(feature = "schema", schemars(extend("propertyNames" = crate::exec::variable_name())))]
    #[cfg_attr(feature = "schema", schemars(extend("additionalProperties" = crate::exec::variable_value())))]
    #[serde(default)]
    pub env: std::collections::BTreeMap<String, String>,
    /// Where its commands run by default: an absolute path in the guest.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = crate::exec::ABSOLUTE), length(max = crate::exec::MAX_PATH)))]
    #[serde(default)]
    pub workdir: Option<String>,
    /// Whom its guest can reach; as the daemon's configuration says if absent.
    #[serde(default)]
    pub net: Option<Net>,
    /// Ports of the host that shall lead to its own while it runs: at most 64.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(length(max = 64)))]
    pub publish: Vec<Publish>,
    /// A user whom its guest is to have beside root. Left out where the daemon's configuration says so.
    #[serde(default)]
    pub user: Option<User>,
    /// Public SSH keys whose owners may log in as root and as that user: a line each, as in `id_ed25519.pub`.
    #[cfg_attr(feature = "schema", schemars(length(max = crate::ssh::MAX_KEYS), inner(regex(pattern = crate::ssh::PATTERN), length(max = crate::ssh::MAX_LINE))))]
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// When it goes away by itself.
    #[serde(default)]
    pub lifetime: Lifetime,
    /// When it starts again by itself.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// Do not start it.
    #[serde(default)]
    pub stopped: bool,
}

/// When a VM that somebody started starts again by itself. One that somebody stopped, or whose start failed, never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When its VMM failed, its guest's kernel gave up, or the host went down under it.
    OnFailure,
    /// Whenever it goes down by itself.
    Always,
}

impl RestartPolicy {
    /// The word that the command line takes and a table shows.
    pub fn as_str(self) -> &'static str {
        match self {
            RestartPolicy::No => "no",
            RestartPolicy::OnFailure => "on-failure",
            RestartPolicy::Always => "always",
        }
    }
}

/// Whom a guest can reach by its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Net {
    /// The world, under the host's address; the host, and other VMs.
    Nat,
    /// Nobody: it can only ask the host for names.
    Isolated,
    /// Nobody: it has no network at all.
    #[default]
    None,
}

impl Net {
    /// The word that the command line takes and a table shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Net::Nat => "nat",
            Net::Isolated => "isolated",
            Net::None => "none",
        }
    }
}

/// When a VM goes away by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// Never: only `rm` removes it.
    #[default]
    Kept,
    /// When the connection that carried the create request closes. The events' result does not close it; the client does.
    Connection,
    /// When its detached command named `main` ends, or when the creating connection closes before there is one.
    Command,
}

/// Public SSH keys whose owners may log in to a VM, too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmSshKeys {
    /// A line each, as in `id_ed25519.pub`.
    #[cfg_attr(feature = "schema", schemars(length(max = crate::ssh::MAX_KEYS), inner(regex(pattern = crate::ssh::PATTERN), length(max = crate::ssh::MAX_LINE))))]
    pub ssh_keys: Vec<String>,
}

/// How to stop.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmStop {
    /// Do not ask: end the VMM at once.
    #[serde(default)]
    pub force: bool,
    /// How long to wait for the guest before forcing, in seconds; the daemon's default if absent.
    #[serde(default)]
    pub timeout: Option<u32>,
}

/// A user of a guest.
pub use banger_protocol::boot::User;
/// How far a guest has come up.
pub use banger_protocol::call::Level;
