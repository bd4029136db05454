//! A typed client over the daemon's socket. It knows the API and nothing of terminals.
//!
//! Every request has a connection of its own: what a request holds (an operation, a lease, a stream of frames) ends when
//! its connection does, and nothing else ends with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::error::ApiError;

mod download;
mod error;
mod lines;
mod request;
mod upgrade;

pub use download::Download;
pub use error::ClientError;
pub use lines::{Lines, Operation};
pub use request::Request;
pub use upgrade::{FrameReader, FrameWriter, Upgraded};

/// The header in which both sides tell the number of their API.
pub const API_HEADER: &str = "banger-api";

/// The header in which both sides tell banger's version.
pub const VERSION_HEADER: &str = "banger-version";

/// The header in which a daemon tells how many bytes are free for its VMs, while that is little.
pub const FREE_HEADER: &str = "banger-free";

/// The protocol that a connection is upgraded to when it is to carry frames.
pub const UPGRADE: &str = "banger-stream";

/// A daemon's address. Making one connects to nothing.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    any_version: bool,
    free: Arc<AtomicU64>,
}

impl Client {
    /// The daemon that listens on this socket.
    pub fn new(socket: impl Into<PathBuf>) -> Client {
        Client { socket: socket.into(), any_version: false, free: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// The same, but content with a daemon of any API: for asking its version and for stopping it.
    pub fn of_any_version(&self) -> Client {
        Client { any_version: true, ..self.clone() }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How many bytes are free for VMs, if the daemon's last answer has warned that it is little.
    pub fn low_space(&self) -> Option<u64> {
        Some(self.free.load(Ordering::Relaxed)).filter(|free| *free != u64::MAX)
    }

    /// Whether a daemon accepts connections.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`], [`ClientError::Forbidden`], [`ClientError::Connect`].
    pub async fn probe(&self) -> Result<(), ClientError> {
        self.connect().await.map(drop)
    }

    /// Asks for one value. An answer without content reads as `()`.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T, ClientError> {
        let label = request.label();
        let (response, _connection) = self.send(request).await?;
        let body = collect(&label, response.into_body()).await?;
        let body: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(body).map_err(|source| ClientError::Answer { request: label, source })
    }

    /// Begins an operation. Dropping it hangs up, which cancels it and gives up its lease.
    ///
    /// # Errors
    /// Every [`ClientError`]; those of the operation itself come as its last event.
    pub async fn operation<T: DeserializeOwned>(&self, request: Request) -> Result<Operation<T>, ClientError> {
        self.lines(request).await
    }

    /// Asks for lines of JSON.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn lines<T: DeserializeOwned>(&self, request: Request) -> Result<Lines<T>, ClientError> {
        let label = request.label();
        let (response, connection) = self.send(request).await?;
        Ok(Lines::new(label, response.into_body(), connection))
    }

    /// Asks for bytes that come piece by piece.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn download(&self, request: Request) -> Result<Download, ClientError> {
        let label = request.label();
        let (response, connection) = self.send(request).await?;
        Ok(Download::new(label, response.into_body(), connection))
    }

    /// Turns a connection into a stream of frames. Dropping it hangs up.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn upgrade(&self, request: Request) -> Result<Upgraded, ClientError> {
        let label = request.label();
        let (response, _connection) = self.send(request.upgrade()).await?;
        if response.status() != hyper::StatusCode::SWITCHING_PROTOCOLS {
            return Err(ClientError::NotUpgraded { request: label });
        }
        let upgraded = hyper::upgrade::on(response).await;
        let upgraded = upgraded.map_err(|source| ClientError::Lost { request: label.clone(), source: Some(source) })?;
        match upgraded.downcast::<TokioIo<UnixStream>>() {
            Ok(parts) => Ok(Upgraded::new(parts.io.into_inner(), &parts.read_buf)),
            Err(_) => Err(ClientError::NotUpgraded { request: label }),
        }
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        UnixStream::connect(&self.socket).await.map_err(|source| ClientError::connect(&self.socket, source))
    }

    /// Sends a request and reads the answer's head. A refusal is read to its end and becomes the error.
    async fn send(&self, request: Request) -> Result<(hyper::Response<Incoming>, Connection), ClientError> {
        let unanswered = |source| ClientError::unanswered(&request, source);
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(unanswered)?;
        let connection = Connection(tokio::spawn(async move {
            // Its error also reaches the request or the body that is waiting for it.
            drop(connection.with_upgrades().await);
        }));
        let response = sender.send_request(request.clone().into_http()).await.map_err(unanswered)?;
        self.check_version(&response)?;
        let free = response.headers().get(FREE_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        self.free.store(free.unwrap_or(u64::MAX), Ordering::Relaxed);
        let status = response.status();
        if status.is_success() || status == hyper::StatusCode::SWITCHING_PROTOCOLS {
            return Ok((response, connection));
        }
        let body = collect(&request.label(), response.into_body()).await?;
        match serde_json::from_slice::<ApiError>(&body) {
            Ok(error) => Err(ClientError::Api(Box::new(error))),
            Err(_) => Err(ClientError::Refused { request: request.label(), status: status.as_u16() }),
        }
    }

    fn check_version(&self, response: &hyper::Response<Incoming>) -> Result<(), ClientError> {
        let header = |name| response.headers().get(name).map(HeaderValue::to_str).and_then(Result::ok);
        let Some(api) = header(API_HEADER) else {
            return Err(ClientError::NotBanger { socket: self.socket.clone() });
        };
        if api == crate::VERSION.to_string() || self.any_version {
            return Ok(());
        }
        Err(ClientError::WrongVersion {
            socket: self.socket.clone(),
            api: api.to_owned(),
            version: header(VERSION_HEADER).unwrap_or("unknown").to_owned(),
        })
    }
}

/// Drives one connection; dropping it closes the connection, whatever is still to be read.
#[derive(Debug)]
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn collect(label: &str, body: Incoming) -> Result<Bytes, ClientError> {
    match body.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(source) => Err(ClientError::Lost { request: label.to_owned(), source: Some(source) }),
    }
}

/// The body of every request.
type Body = Full<Bytes>;
