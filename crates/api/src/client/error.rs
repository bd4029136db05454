//! Why a request got no answer, or not the one that was hoped for.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::ApiError;

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no daemon listens on {}", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket may not be opened.
    #[error("no permission to use the daemon at {}", socket.display())]
    Forbidden {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket could not be opened for another reason.
    #[error("cannot connect to {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The daemon speaks another API.
    #[error("the daemon at {} is banger {version} with API {api}; this is banger {} with API {}",
        socket.display(), env!("CARGO_PKG_VERSION"), crate::VERSION)]
    WrongVersion {
        /// The socket.
        socket: PathBuf,
        /// The API's number, as the daemon says.
        api: String,
        /// banger's version, as the daemon says.
        version: String,
    },
    /// Something else answers on the socket.
    #[error("what answers on {} is not bangerd", socket.display())]
    NotBanger {
        /// The socket.
        socket: PathBuf,
    },
    /// The daemon understood, and it failed.
    #[error(transparent)]
    Api(Box<ApiError>),
    /// The daemon refused without saying why.
    #[error("the daemon refused {request} with HTTP status {status}")]
    Refused {
        /// Method and path.
        request: String,
        /// The status.
        status: u16,
    },
    /// The connection ended before the answer did.
    #[error("the daemon hung up during {request}")]
    Lost {
        /// Method and path.
        request: String,
        /// Why, where the connection did not simply end.
        #[source]
        source: Option<hyper::Error>,
    },
    /// The answer is not what the API says.
    #[error("the daemon's answer to {request} makes no sense")]
    Answer {
        /// Method and path.
        request: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The daemon did not change to frames.
    #[error("the daemon did not open a stream for {request}")]
    NotUpgraded {
        /// Method and path.
        request: String,
    },
}

impl ClientError {
    pub(super) fn connect(socket: &Path, source: io::Error) -> ClientError {
        let socket = socket.to_owned();
        match source.kind() {
            // The directory belongs to the daemon too: where it is absent, none has ever run.
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning { socket },
            io::ErrorKind::PermissionDenied => ClientError::Forbidden { socket },
            _ => ClientError::Connect { socket, source },
        }
    }
}
