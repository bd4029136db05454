//! Why a request got no answer, or not the one that was hoped for.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use super::Request;
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
    /// The daemon ended before it had read the request, or before it answered a request that changes nothing: the
    /// client may repeat it.
    #[error("the daemon ended before it took {request}")]
    Unserved {
        /// Method and path.
        request: String,
        /// How the connection ended.
        #[source]
        source: hyper::Error,
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
    /// An error that came instead of an answer's head.
    pub(super) fn unanswered(request: &Request, source: hyper::Error) -> ClientError {
        let label = request.label();
        match was_unread(&source) || (request.is_answered_at_once() && source.is_incomplete_message()) {
            true => ClientError::Unserved { request: label, source },
            false => ClientError::Lost { request: label, source: Some(source) },
        }
    }

    /// Whether nothing was done because no daemon was there: the client can repeat the request once a daemon listens.
    pub fn lacks_daemon(&self) -> bool {
        matches!(self, ClientError::NotRunning { .. } | ClientError::Unserved { .. })
    }

    pub(super) fn connect(socket: &Path, source: io::Error) -> ClientError {
        let socket = socket.to_owned();
        match source.kind() {
            // The directory belongs to the daemon, too: if it is missing, no daemon has ever run. The kernel resets a
            // connection that still waits in the queue when the daemon ends.
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
                ClientError::NotRunning { socket }
            }
            io::ErrorKind::PermissionDenied => ClientError::Forbidden { socket },
            _ => ClientError::Connect { socket, source },
        }
    }
}

/// Whether the daemon certainly did not have the whole request. The kernel resets a unix socket's connection only if
/// the other end was closed with unread bytes in it, or was never accepted; a write to a closed connection breaks the
/// pipe. The daemon acts on no request before it has all of it. If it had read everything, the connection just ends.
fn was_unread(error: &hyper::Error) -> bool {
    let kind = error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    // A cancelled request is one of which nothing was sent.
    error.is_canceled() || matches!(kind, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
}
