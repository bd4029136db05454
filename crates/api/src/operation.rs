//! Mutating requests under way, as a stream of events.

use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// One line of a long answer. `T` is the result's type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "{T}Progress"))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<T> {
    /// The first line.
    Started {
        /// The operation's id, as it stands in the daemon's log.
        operation: String,
    },
    /// A stage began.
    StageStarted {
        /// Its name: `disk.clone`, `vmm.start`, ...
        stage: String,
    },
    /// The stage that began last has ended.
    StageFinished {
        /// Its name.
        stage: String,
        /// How long it took, in microseconds.
        micros: u64,
    },
    /// Something worth a line while a stage goes on.
    Progress {
        /// The line.
        message: String,
    },
    /// The last line: it worked.
    Result {
        /// What came out.
        result: T,
        /// From the request's arrival to this line, in microseconds.
        micros: u64,
    },
    /// The last line: it failed, and what it had done is undone.
    Error {
        /// Why.
        error: ApiError,
    },
}
