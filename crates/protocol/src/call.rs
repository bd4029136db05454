//! The calls that a daemon makes and the answers that an agent gives, as JSON in the first frames of a stream.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::words::{self, Flaw};

/// One call; the first frame of a stream. The comment on each says what follows its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// Runs a command. [`Answer::Started`]; then, unless detached, stdin, resize and signal frames in, stdout and stderr
    /// frames out, an exit frame last. If the stream is dropped first, the command gets SIGHUP, then SIGKILL.
    Exec(Exec),
    /// The detached commands of this boot and earlier ones, newest first. [`Answer::Commands`].
    Commands,
    /// The stored output of a detached command. [`Answer::Done`]; then stdout and stderr frames. With `follow` they go on
    /// until the command ends. Last an exit frame if it has ended, else an empty data frame.
    Output {
        /// The command's id.
        id: String,
        /// Whether to wait for more until the command has ended.
        follow: bool,
    },
    /// Waits until a detached command has ended. [`Answer::Done`]; then one exit frame.
    Await {
        /// The command's id.
        id: String,
    },
    /// Takes files: after [`Answer::Done`] a tar stream as data frames, ended by an empty one; then the agent sends an
    /// empty data frame when all is written, or a failed frame.
    Put {
        /// Where to; see [`Call::Get`] for the rule that names the result.
        path: String,
        /// The name that the first entry of the tar stream has; it becomes `path`, or `path/name` if `path` is a directory.
        name: String,
    },
    /// Gives files: after [`Answer::Done`] a tar stream as data frames, ended by an empty one. Entries are named from the
    /// last component of `path` on. With `pattern` the answer is [`Answer::Files`], and the stream has every file, sorted.
    Get {
        /// An absolute path in the guest.
        path: String,
        /// Whether `*`, `?` and `[...]` in the path are patterns ([`crate::pattern`]), unless it exists as it is written. Since
        /// protocol 3.
        #[serde(default)]
        pattern: bool,
    },
    /// Says which readiness levels are reached, now and as they come. [`Answer::Levels`] at once, and again as a message
    /// frame at each change, until the stream is dropped.
    Levels,
    /// Sets the wall clock and stirs random bytes into the kernel's pool. [`Answer::Done`].
    SetClock {
        /// Nanoseconds since 1970-01-01 UTC.
        unix_nanos: u64,
        /// Up to 64 fresh random bytes, in hexadecimal. Since protocol 2.
        #[serde(default)]
        entropy: String,
    },
    /// What the guest says about itself. [`Answer::Facts`]. Since protocol 2.
    Facts,
    /// Gives the guest another host name. [`Answer::Done`]. Since protocol 3.
    SetName {
        /// The name: a host name's label.
        name: String,
    },
    /// Waits until the work disk has this size, and grows its file system to it. [`Answer::Done`]. Since protocol 3.
    Grow {
        /// The disk's size, in bytes.
        bytes: u64,
    },
    /// How busy the guest is. [`Answer::Load`]. Since protocol 3.
    Load,
    /// Sees to it that a login shell of root's runs on the console, in a terminal of this size and kind. [`Answer::Done`].
    /// Since protocol 3.
    Console(Terminal),
    /// What listens for TCP connections. [`Answer::Ports`]. Since protocol 4.
    Ports,
    /// Connects to a TCP port on the guest's own loopback: 127.0.0.1, else ::1. [`Answer::Done`]; then data frames both ways,
    /// an empty one in each direction when nothing follows in it, or a failed frame where the connection broke. The stream
    /// ends when both directions have; if it is dropped first, the connection is closed. Since protocol 4.
    Dial {
        /// From 1 on.
        port: u16,
    },
    /// Lets the owners of these keys, and of no others, log in by SSH: as root, and as `user`. It adds to what the users' own
    /// files say, and holds until the next boot, which brings its own. [`Answer::Done`]. Since protocol 4.
    Authorize {
        /// Public keys, a line each ([`crate::ssh`]).
        keys: Vec<String>,
        /// The login name of a user beside root.
        user: Option<String>,
    },
    /// Powers the guest off in order, through its init. [`Answer::Done`] when the request was handed over.
    PowerOff,
}

impl Call {
    /// The protocol that brought it.
    pub fn since(&self) -> u32 {
        match self {
            Call::Exec(_)
            | Call::Commands
            | Call::Output { .. }
            | Call::Await { .. }
            | Call::Put { .. }
            | Call::Get { pattern: false, .. }
            | Call::Levels
            | Call::SetClock { .. }
            | Call::PowerOff => 1,
            Call::Facts => 2,
            Call::Get { pattern: true, .. }
            | Call::SetName { .. }
            | Call::Grow { .. }
            | Call::Load
            | Call::Console(_) => 3,
            Call::Ports | Call::Dial { .. } | Call::Authorize { .. } => 4,
        }
    }
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Exec {
    /// Program and arguments; the program is looked up in the command's `PATH`. At least one word.
    pub argv: Vec<String>,
    /// Variables added to the user's own environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// `LANG`, `LC_ALL` and other `LC_` variables as the caller has them. A locale that the guest does not have becomes
    /// `C.UTF-8`; `env` wins. Since protocol 3; earlier agents pass it over.
    #[serde(default)]
    pub locale: BTreeMap<String, String>,
    /// The caller's time zone, for `TZ`; `env` wins. Since protocol 3; earlier agents pass it over.
    #[serde(default)]
    pub time_zone: Option<TimeZone>,
    /// Where to run; the user's home if absent.
    #[serde(default)]
    pub workdir: Option<String>,
    /// Login name or number; root if absent.
    #[serde(default)]
    pub user: Option<String>,
    /// A terminal for the command; standard error then joins standard output.
    #[serde(default)]
    pub tty: Option<Terminal>,
    /// Whether standard input is given; otherwise it is /dev/null.
    #[serde(default)]
    pub stdin: bool,
    /// Run it as a login shell: the user's shell, its name led by `-`, `argv` ignored.
    #[serde(default)]
    pub login_shell: bool,
    /// Let it live on without this stream; output and exit code stay in the guest under this id.
    #[serde(default)]
    pub detached: Option<String>,
}

/// A terminal's first size and kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Terminal {
    /// Rows of characters.
    pub rows: u16,
    /// Columns of characters.
    pub columns: u16,
    /// The value of `TERM`. A kind that the guest does not know becomes `xterm-256color`.
    pub term: String,
}

/// A time zone, by what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TimeZone {
    /// Its name in the time zone database, as `Europe/Berlin`.
    #[serde(default)]
    pub name: Option<String>,
    /// Its rule as POSIX writes it, as `CET-1CEST,M3.5.0,M10.5.0/3`: for a guest without that database.
    #[serde(default)]
    pub rule: Option<String>,
}

/// What an agent replies to a call, before the call's own frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// The call is accepted, or done.
    Done,
    /// The files that a pattern names; a tar stream follows.
    Files {
        /// How many: at least one.
        count: u32,
    },
    /// The command runs.
    Started {
        /// Its process id in the guest.
        pid: u32,
    },
    /// The detached commands.
    Commands {
        /// Newest first.
        commands: Vec<Command>,
    },
    /// Readiness levels.
    Levels {
        /// Every level reached.
        reached: Vec<Level>,
    },
    /// What the guest says about itself.
    Facts(Facts),
    /// How busy it is.
    Load(Load),
    /// What listens.
    Ports {
        /// By port, then by address.
        ports: Vec<Listener>,
    },
    /// The call failed.
    Error(CallError),
}

impl Answer {
    /// What in it no agent says: an id that is none. Free text, such as the names of processes, may be anything.
    pub fn flaw(&self) -> Option<Flaw> {
        match self {
            Answer::Commands { commands } => commands.iter().find_map(|command| {
                words::check("commands.id", words::is_command_id(&command.id), words::NO_COMMAND_ID)
            }),
            Answer::Facts(facts) => words::check("boot_id", words::is_boot_id(&facts.boot_id), words::NO_BOOT_ID),
            Answer::Done
            | Answer::Files { .. }
            | Answer::Started { .. }
            | Answer::Levels { .. }
            | Answer::Load(_)
            | Answer::Ports { .. }
            | Answer::Error(_) => None,
        }
    }
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[error("{message}")]
pub struct CallError {
    /// What kind of failure.
    pub code: CallErrorCode,
    /// What was attempted, on what, and why it failed; one line.
    pub message: String,
}

/// Kinds of failed calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CallErrorCode {
    /// The request makes no sense.
    Invalid,
    /// The program, file, user or command id does not exist. For exec: exit code 127.
    NotFound,
    /// The program exists but cannot be executed. For exec: exit code 126.
    NotExecutable,
    /// Something in the guest failed.
    Failed,
    /// A call that this agent does not know.
    #[serde(other)]
    Unknown,
}

/// A detached command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Command {
    /// The id that the caller gave it.
    pub id: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// When it began, in seconds since 1970-01-01 UTC by the guest's clock.
    pub started: u64,
    /// How it ended; absent while it runs.
    #[serde(default)]
    pub exit: Option<Exit>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
    /// The guest went down under it; nobody knows.
    Lost,
}

impl Exit {
    /// The code a shell would report: the code itself, or 128 and the signal's number; 255 where nobody knows.
    pub fn shell_code(self) -> u8 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128u8.saturating_add(signal),
            Exit::Lost => 255,
        }
    }
}

/// How far a guest has come up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The agent answers.
    Agent,
    /// Its init has reached multi-user operation (or runs degraded).
    System,
    /// Something listens on TCP port 22.
    Ssh,
}

/// What the guest says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Facts {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// `uname -r`.
    pub kernel: String,
    /// `PRETTY_NAME` of os-release.
    pub system: String,
    /// Resident memory of the agent, in bytes.
    pub agent_resident: u64,
}

/// How busy a guest is, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Load {
    /// Its load averages over 1, 5 and 15 minutes, in hundredths (proc_loadavg(5)).
    pub averages: [u32; 3],
    /// Processes and threads.
    pub tasks: u32,
    /// Memory that its kernel manages, in bytes.
    pub memory: u64,
    /// Memory that new programs could have without swapping, in bytes.
    pub memory_available: u64,
    /// Its file systems.
    pub file_systems: Vec<FileSystem>,
    /// Seconds since it booted.
    pub uptime: u64,
}

/// How full a file system is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileSystem {
    /// Where it is mounted.
    pub mounted_on: String,
    /// Its size, in bytes.
    pub size: u64,
    /// What root can still use, in bytes.
    pub free: u64,
}

/// Something that listens for TCP connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Listener {
    /// Its port.
    pub port: u16,
    /// At which address of the guest's; 0.0.0.0 or :: for all.
    pub address: std::net::IpAddr,
    /// The name of a process that has it open, if one can be found.
    #[serde(default)]
    pub process: Option<String>,
}
