//! What is on banger's ground and does not fit its records.

use serde::{Deserialize, Serialize};

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Oddity {
    /// What kind of thing.
    pub kind: Kind,
    /// How it does not fit.
    pub problem: Problem,
    /// Which one: a link's name, a path, a process id, a rule.
    pub which: String,
    /// One line: what it is, as far as it is known.
    pub found: String,
    /// One line: what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Kinds of things on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A network device.
    Link,
    /// A rule, set or element of nftables.
    Rule,
    /// A mount.
    Mount,
    /// A process.
    Process,
    /// A file or directory.
    File,
    /// A name that is answered, or is not.
    Name,
}

impl Kind {
    /// The word that a table shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Link => "link",
            Kind::Rule => "rule",
            Kind::Mount => "mount",
            Kind::Process => "process",
            Kind::File => "file",
            Kind::Name => "name",
        }
    }
}

/// How a thing does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// banger's own, of a VM that is not there or does not run.
    Leak,
    /// Not banger's, where only banger's should be.
    Foreign,
    /// It should be there, and is not, or not as it should be.
    Missing,
}

impl Problem {
    /// The word that a table shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Problem::Leak => "leak",
            Problem::Foreign => "foreign",
            Problem::Missing => "missing",
        }
    }
}
