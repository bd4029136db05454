//! Files to and from the guest, as tar streams.
//!
//! Kept are contents, modes, numeric owners, modification times, symbolic and hard links, directories, FIFOs and device
//! nodes. Holes stay holes: what is sent says where they are (GNU sparse), what is received gets one for every block of
//! zeros. Not kept are extended attributes, access times and sockets.

mod expand;
mod get;
mod pack;
mod put;
mod unpack;

use std::io;

use banger_protocol::call::{CallError, CallErrorCode};

use crate::boot::in_one_line;
pub use get::get;
pub use pack::{Source, pack};
pub use put::put;
pub use unpack::{Destination, unpack};

/// How many frames of a stream wait between the task that talks to the caller and the thread that talks to the disk.
const AHEAD: usize = 16;

/// What is done with which file.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The tar stream is broken or was cut off.
    #[error("cannot read the tar stream")]
    Stream(#[source] io::Error),
    /// An entry lies outside what is copied.
    #[error("refused {entry:?}: it lies outside of {name:?}")]
    Escapes {
        /// The entry's path.
        entry: String,
        /// The name that it should begin with.
        name: String,
    },
    /// There is no such place.
    #[error("cannot copy to {path}")]
    Target {
        /// Where to.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file could not be made.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A pattern names nothing.
    #[error("no file matches {pattern}")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// A pattern names too much.
    #[error("{pattern} matches too many files; name a directory instead")]
    ManyMatches {
        /// The pattern.
        pattern: String,
    },
    /// Two files of a pattern would become one.
    #[error("{one} and {other} have the same name; copy them one after the other")]
    SameName {
        /// The one.
        one: String,
        /// The other.
        other: String,
    },
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl FilesError {
    /// What the caller is told: all causes in one line.
    pub fn to_call_error(&self) -> CallError {
        let code = match self {
            FilesError::Escapes { .. } | FilesError::ManyMatches { .. } | FilesError::SameName { .. } => {
                CallErrorCode::Invalid
            }
            FilesError::NoMatch { .. } => CallErrorCode::NotFound,
            FilesError::Read { source, .. } | FilesError::Target { source, .. }
                if source.kind() == io::ErrorKind::NotFound =>
            {
                CallErrorCode::NotFound
            }
            FilesError::Stream(_) | FilesError::Target { .. } | FilesError::Write { .. } | FilesError::Read { .. } => {
                CallErrorCode::Failed
            }
        };
        CallError { code, message: in_one_line(self) }
    }
}
