//! The one shape of a failure.

use serde::{Deserialize, Serialize};

/// A failed request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[error("{message}")]
pub struct ApiError {
    /// What kind of failure: stable, for programs.
    pub code: ErrorCode,
    /// One line: what was attempted, on what, and why it failed.
    pub message: String,
    /// One line: what to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// What else went wrong while cleaning up, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// The operation, as it stands in the daemon's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
}

/// Kinds of failures. [`ErrorCode::status`] gives the HTTP status, [`ErrorCode::exit_code`] that of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request makes no sense: a bad name, size, field.
    Invalid,
    /// No such VM.
    VmNotFound,
    /// An id's beginning that several VMs' ids have.
    Ambiguous,
    /// No such image.
    ImageNotFound,
    /// No address belongs to the name.
    LeaseNotFound,
    /// The name is taken.
    NameTaken,
    /// The VM is not in a state for this (not running, already running).
    WrongState,
    /// Another operation on the VM or image is under way.
    Busy,
    /// The image, or the address, is used by a VM.
    InUse,
    /// The guest's program, file, user or command does not exist.
    GuestNotFound,
    /// The guest's program cannot be executed.
    GuestNotExecutable,
    /// The guest did not answer, or not in time.
    GuestUnreachable,
    /// Something in the guest failed.
    GuestFailed,
    /// No room on the host.
    NoSpace,
    /// The host lacks something.
    HostUnfit,
    /// The VMM failed.
    VmmFailed,
    /// The operation was cancelled.
    Cancelled,
    /// No permission.
    Forbidden,
    /// No such path in the API, or another version of it.
    Unsupported,
    /// The path does not take this method; the answer's header `Allow` has those that it takes.
    MethodNotAllowed,
    /// The request's body is over the limit of 1 MiB.
    TooLarge,
    /// Anything else: a bug, or a host that behaves unexpectedly.
    #[serde(other)]
    Internal,
}

impl ErrorCode {
    /// The HTTP status of an answer with this code.
    pub fn status(self) -> u16 {
        use ErrorCode::*;
        match self {
            Invalid => 400,
            Forbidden => 403,
            VmNotFound | ImageNotFound | LeaseNotFound | GuestNotFound | Unsupported => 404,
            MethodNotAllowed => 405,
            NameTaken | Ambiguous | WrongState | Busy | InUse | Cancelled => 409,
            TooLarge => 413,
            GuestNotExecutable => 422,
            GuestUnreachable => 504,
            NoSpace => 507,
            HostUnfit => 503,
            GuestFailed | VmmFailed | Internal => 500,
        }
    }

    /// The exit code of the command line: 2 for what its user got wrong in the request itself, else 1.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorCode::Invalid => 2,
            _ => 1,
        }
    }
}
