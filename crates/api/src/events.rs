//! What happens, as it happens: the lines of `GET /v1/events`.
//!
//! A client that gives no token gets a [`Change::Reset`] with all that there is, then every change: a list and a watch that
//! cannot miss anything between them. Each line has a token; a client that was away comes back with its last one and gets
//! what it missed. A daemon remembers only so much, and nothing of the daemon before it: then the first line is a reset again.
//! So a client needs one rule: a reset replaces all it knows, every other line changes one thing of it.

use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;
use crate::image::Image;
use crate::vm::Vm;

/// The form of a token, as a regular expression. What it means is the daemon's alone.
pub const TOKEN: &str = "^[0-9a-f]{16}-[0-9]{1,20}$";

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "EventLine"))]
pub struct Line {
    /// Given back as `since`, it brings what came after this line.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = TOKEN)))]
    pub token: String,
    /// When it happened, in microseconds since 1970-01-01 UTC.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub change: Change,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Change {
    /// All that there is. It replaces what the client knew.
    Reset {
        /// The VMs, in the order of their creation.
        vms: Vec<Vm>,
        /// The images that can be used.
        images: Vec<Image>,
    },
    /// There is a new VM; its disks are about to be made.
    VmCreated {
        /// As it is.
        vm: Vm,
    },
    /// A VM has changed.
    VmChanged {
        /// As it became.
        vm: Vm,
    },
    /// A VM is gone, and all of its files. Its name is free.
    VmRemoved {
        /// As it was last.
        vm: Vm,
    },
    /// An image was built, and can be used.
    ImageBuilt {
        /// As it is.
        image: Image,
    },
    /// An image is gone.
    ImageRemoved {
        /// As it was last.
        image: Image,
    },
    /// The host's disk with the VMs is nearly full. Once it is full, guests that write stand still.
    SpaceLow {
        /// The daemon's state directory.
        directory: String,
        /// How much is free, in bytes.
        free: u64,
    },
    /// There is space again.
    SpaceEnough {
        /// The daemon's state directory.
        directory: String,
        /// How much is free, in bytes.
        free: u64,
    },
    /// Somebody asked for something.
    OperationStarted {
        /// Its id, as it stands in the daemon's log.
        operation: String,
        /// What it does: `create`, `start`, `stop`, `kill`, `rm`, `image build`, `image rm`, ...
        verb: String,
        /// The VM or image, where the request named one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        on: Option<String>,
    },
    /// It has come to its end.
    OperationFinished {
        /// Its id.
        operation: String,
        /// What it did.
        verb: String,
        /// The VM or image, where the request named one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        on: Option<String>,
        /// What came of it.
        outcome: Outcome,
        /// What kind of failure, where it did not work.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<ErrorCode>,
        /// How long it took, in microseconds.
        micros: u64,
    },
    /// The last line, to a client that reads slower than things happen: the daemon has forgotten what comes next. The client
    /// connects anew, with this line's token or without one, and gets a reset.
    Lagged,
}

/// What came of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "OperationOutcome"))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It worked.
    Done,
    /// It failed, and what it had done is undone.
    Failed,
    /// It was given up, and what it had done is undone.
    Cancelled,
}
