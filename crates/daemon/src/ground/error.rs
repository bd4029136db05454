//! Why a ground gets no user ids, and what its user can do about it.

use std::io;
use std::path::PathBuf;

use super::{DirectoryError, Slot};

/// Why no user ids can be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The processes that run under user ids.
    #[error("cannot list the processes in /proc")]
    Processes(#[source] io::Error),
    /// A file in the directory.
    #[error("cannot {attempted} the claim {}", path.display())]
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another ground has the configured slot.
    #[error("uid slot {slot} is taken: {by}")]
    Taken {
        /// The slot.
        slot: Slot,
        /// Its owner.
        by: String,
    },
    /// Other grounds have all slots.
    #[error("no uid slot is free; the first one is taken: {by}")]
    NoneFree {
        /// The owner of the first one.
        by: String,
    },
    /// The slot has no ids.
    #[error("uid slot {slot} has no user ids: with first_uid = {first_uid} they would reach past the last one")]
    NoIds {
        /// The slot.
        slot: Slot,
        /// Where slot 0 begins.
        first_uid: u32,
    },
}

impl ClaimError {
    /// What to do.
    pub fn help(&self) -> String {
        let help = match self {
            ClaimError::Directory(error) => return error.help(),
            ClaimError::Io { path, .. } => {
                let path = path.display();
                return format!("see that {path} is a regular file on a file system that takes writes: `ls -l {path}`");
            }
            ClaimError::Processes(_) => "see that /proc is mounted: `mount -t proc proc /proc`",
            ClaimError::Taken { .. } => {
                "set `slot` below `[ground]` in the configuration to a free number or to \"auto\""
            }
            ClaimError::NoneFree { .. } => "stop a daemon that is not needed, with its VMs",
            ClaimError::NoIds { .. } => "set `first_uid` below `[vmm]` in the configuration to a lower number",
        };
        help.to_owned()
    }
}
