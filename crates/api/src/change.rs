//! Changes of VMs that exist.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use crate::vm::{MAX_CPUS, MAX_DISK, MIN_MEMORY};
use crate::vm::{RestartPolicy, Vm};

/// What to change. What is absent stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmSet {
    /// Virtual processors.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_CPUS)))]
    #[serde(default)]
    pub cpus: Option<u32>,
    /// Memory, in bytes: no more than the host has.
    #[cfg_attr(feature = "schema", schemars(range(min = MIN_MEMORY, max = u64::MAX)))]
    #[serde(default)]
    pub memory: Option<u64>,
    /// Size of the work disk, in bytes: no less than it has.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = MAX_DISK)))]
    #[serde(default)]
    pub disk: Option<u64>,
    /// Variables for every command: new values; null takes one away.
    #[cfg_attr(feature = "schema", schemars(extend("propertyNames" = crate::exec::variable_name())))]
    #[serde(default)]
    pub env: BTreeMap<String, Option<String>>,
    /// Where its commands run by default; an empty one takes it away.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^(/[^\\x00]*)?$"), length(max = crate::exec::MAX_PATH)))]
    #[serde(default)]
    pub workdir: Option<String>,
    /// When it starts again by itself.
    #[serde(default)]
    pub restart: Option<RestartPolicy>,
}

/// Another name for a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmRename {
    /// The new name.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = crate::name::PATTERN)))]
    pub name: String,
}

/// A VM, and what was changed of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmChanged {
    /// The VM as it is now.
    pub vm: Vm,
    /// Every field that has another value than before, in the order of [`VmSet`]'s fields.
    pub changes: Vec<Change>,
}

/// A field with another value than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Change {
    /// Its name: `name`, or that of a field of [`VmSet`]; variables are `env.NAME`.
    pub field: String,
    /// The value that it had; sizes are in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The value that it has; absent where it was taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// When it takes effect.
    pub effect: Effect,
    /// Why not at once, where it would be expected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It has.
    Now,
    /// When the VM is started next.
    NextStart,
}
