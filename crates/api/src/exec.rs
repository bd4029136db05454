//! Commands in a guest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use banger_protocol::call::{Answer, CallError, CallErrorCode, Command, Exit, Terminal, TimeZone};

/// The longest path that a request may name in a guest, in bytes: the kernel's own limit, PATH_MAX.
pub const MAX_PATH: usize = 4096;

/// An absolute path in a guest, as a regular expression.
#[cfg(feature = "schema")]
pub(crate) const ABSOLUTE: &str = "^/[^\\x00]*$";

/// What the name of a variable may be.
#[cfg(feature = "schema")]
pub(crate) fn variable_name() -> serde_json::Value {
    serde_json::json!({ "pattern": "^[^=\\x00]+$" })
}

/// What the value of a variable may be.
#[cfg(feature = "schema")]
pub(crate) fn variable_value() -> serde_json::Value {
    serde_json::json!({ "type": "string", "pattern": "^[^\\x00]*$" })
}

/// A command to run. The answer is `101` and then frames as [`crate::frame`] lays them out: the client sends stdin, resize
/// and signal frames; the daemon sends a message frame ([`Answer::Started`] or [`Answer::Error`]) first, then stdout and
/// stderr frames, an exit frame last. With `detached` the answer is plain JSON, an [`ExecStarted`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// Program and arguments; the program is looked up in the command's `PATH`. Not read with `login_shell`.
    pub argv: Vec<String>,
    /// Variables, over those of the VM; the same rules hold.
    #[cfg_attr(feature = "schema", schemars(extend("propertyNames" = variable_name())))]
    #[cfg_attr(feature = "schema", schemars(extend("additionalProperties" = variable_value())))]
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// `LANG`, `LC_ALL` and other `LC_` variables as the caller has them. A locale that the guest does not have becomes
    /// `C.UTF-8`; `env` wins.
    #[cfg_attr(feature = "schema", schemars(extend("propertyNames" = variable_name())))]
    #[cfg_attr(feature = "schema", schemars(extend("additionalProperties" = variable_value())))]
    #[serde(default)]
    pub locale: BTreeMap<String, String>,
    /// The caller's time zone; `env` wins.
    #[serde(default)]
    pub time_zone: Option<TimeZone>,
    /// Where to run, an absolute path; the VM's own workdir, else the user's home.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = ABSOLUTE), length(max = MAX_PATH)))]
    #[serde(default)]
    pub workdir: Option<String>,
    /// Login name or number; root if absent.
    #[serde(default)]
    pub user: Option<String>,
    /// A terminal.
    #[serde(default)]
    pub tty: Option<Terminal>,
    /// Whether standard input will be sent.
    #[serde(default)]
    pub stdin: bool,
    /// The user's login shell instead of `argv`.
    #[serde(default)]
    pub login_shell: bool,
    /// Let it live on; its output stays in the guest. Such a request is made without an upgrade.
    #[serde(default)]
    pub detached: bool,
    /// It is the VM's main command: an ephemeral VM ends with it, and `logs` shows it. Only with `detached`.
    #[serde(default)]
    pub main: bool,
}

/// A detached command was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExecStarted {
    /// The command's id in its guest: `main`, or a random word.
    pub id: String,
    /// Its process id in the guest.
    pub pid: u32,
}
