//! The API's socket, and who comes to it.

use std::io;

use tokio::net::{UnixListener, UnixStream};

/// A listener that logs the uid of each peer: who may open the socket may do everything, so who did beside root is on record.
pub struct Local(pub UnixListener);

impl axum::serve::Listener for Local {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (UnixStream, Self::Addr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
        if let Ok(peer) = stream.peer_cred() {
            match peer.uid() {
                0 => tracing::debug!(pid = peer.pid(), "root comes"),
                uid => tracing::info!(uid, pid = peer.pid(), "a client comes"),
            }
        }
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}
