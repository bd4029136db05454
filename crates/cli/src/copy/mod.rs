//! Files into and out of guests, as tar streams. Both ends of a stream are blocking threads: tar knows nothing else.

use std::io;
use std::path::PathBuf;

mod content;
pub mod frames;
mod limits;
mod pack;
mod transfer;
mod unpack;

pub use pack::{Contents, Owners, Packer};
pub use transfer::{Transfer, get, get_matching, put};
pub use unpack::{Destination, Found, Root, unpack, unpack_wanted};

/// Why files could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A file of this side could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of this side could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name that is too long, or otherwise no file's.
    #[error("the name of {} cannot be sent", path.display())]
    Name {
        /// Which.
        path: PathBuf,
    },
    /// The connection broke.
    #[error("lost the guest while copying")]
    Lost(#[source] io::Error),
    /// The guest's tar stream is broken, or beyond every limit.
    #[error("the guest's tar stream is broken")]
    Archive(#[source] io::Error),
    /// The tar stream on standard input is broken.
    #[error("cannot read a tar stream from standard input")]
    Input(#[source] io::Error),
    /// The guest tried to have a file written elsewhere.
    #[error("refused '{entry}' from the guest: {reason}")]
    Hostile {
        /// The entry's name.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something of another kind is in the way.
    #[error("{} is in the way: it is {is}", path.display())]
    InTheWay {
        /// What.
        path: PathBuf,
        /// What it is.
        is: &'static str,
    },
    /// A directory is needed.
    #[error("what comes from the guest is no directory, and {} has to be one", path.display())]
    NoDirectory {
        /// What has to be a directory.
        path: PathBuf,
    },
    /// Many files and one name for them.
    #[error("{count} files match, and {} is no directory", path.display())]
    ManyFiles {
        /// How many.
        count: u32,
        /// What has to be a directory.
        path: PathBuf,
    },
    /// git does not say what is ignored.
    #[error("cannot ask git what is ignored")]
    Rules(#[source] io::Error),
    /// More than anybody would want of a guest unasked.
    #[error("the guest's files are more than {limit}")]
    TooMuch {
        /// How much is taken.
        limit: String,
    },
    /// The guest sent nothing.
    #[error("the guest sent no files")]
    Nothing,
    /// Standard output does not take any more.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl CopyError {
    /// What to do.
    pub fn help(&self) -> Option<String> {
        match self {
            CopyError::Hostile { .. } => {
                Some("nothing was written outside of the destination; do not trust this guest".to_owned())
            }
            CopyError::ManyFiles { .. } => Some("name an existing directory, or '-' for one tar stream".to_owned()),
            CopyError::InTheWay { .. } => Some("move it away, or name another destination".to_owned()),
            _ => None,
        }
    }
}
