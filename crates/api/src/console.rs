//! A VM's console.

use serde::{Deserialize, Serialize};

/// The first frame of an attached console, as a message. Stdout frames follow, an empty data frame when the VM ends; the
/// client sends stdin and resize frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Attached {
    /// Whether a shell of root's runs there.
    pub shell: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
