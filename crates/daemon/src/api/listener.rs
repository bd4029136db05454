//! The API's socket, and who comes to it.

use std::io;

use banger_linux::accept::Acceptor;
use tokio::net::{UnixListener, UnixStream};

/// A listener that logs the uid of each peer: who may open the socket may do everything, so who did beside root is on record.
pub struct Local(Acceptor<UnixListener>);

impl Local {
    /// The listener of this socket.
    pub fn new(listener: UnixListener) -> Local {
        Local(Acceptor::new(listener))
    }
}

impl axum::serve::Listener for Local {
    type Io = UnixStream;
    type Addr = ();

    async fn accept(&mut self) -> (UnixStream, Self::Addr) {
        let short = |error: &io::Error| tracing::warn!(%error, "no client of the API can be accepted for now");
        let stream = self.0.next(short).await;
        if let Ok(peer) = stream.peer_cred() {
            match peer.uid() {
                0 => tracing::debug!(pid = peer.pid(), "root comes"),
                uid => tracing::info!(uid, pid = peer.pid(), "a client comes"),
            }
        }
        (stream, ())
    }

    /// Our clients have no address.
    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(())
    }
}
