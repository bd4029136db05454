//! Commands in a guest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use banger_protocol::call::{Answer, CallError, CallErrorCode, Command, Exit, Terminal, TimeZone};

/// A command to run. The answer is `101` and then frames as [`crate::frame`] lays them out: the client sends stdin, resize
/// and signal frames; the daemon sends a message frame ([`Answer::Started`] or [`Answer::Error`]) first, then stdout and
/// stderr frames, an exit frame last. With `detached` the answer is plain JSON, an [`ExecStarted`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables, over those of the VM.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// `LANG`, `LC_ALL` and other `LC_` variables as the caller has them. A locale that the guest does not have becomes
    /// `C.UTF-8`; `env` wins.
    #[serde(default)]
    pub locale: BTreeMap<String, String>,
    /// The caller's time zone; `env` wins.
    #[serde(default)]
    pub time_zone: Option<TimeZone>,
    /// Where to run; the VM's own workdir, else the user's home.
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
    /// Let it live on; its output stays in the guest.
    #[serde(default)]
    pub detached: bool,
    /// It is the VM's main command: an ephemeral VM ends with it, and `logs` shows it. Only with `detached`.
    #[serde(default)]
    pub main: bool,
}

/// A detached command was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecStarted {
    /// The command's id in its guest: `main`, or a random word.
    pub id: String,
    /// Its process id in the guest.
    pub pid: u32,
}
