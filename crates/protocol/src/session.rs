//! Many streams over one connection, by yamux.
//!
//! The other side may be hostile: streams and memory are bounded far below the library's defaults. Only the daemon opens
//! streams; the agent accepts them.

use std::future::poll_fn;
use std::task::Poll;

use futures::channel::{mpsc, oneshot};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, Mode};

use crate::frame::{BEST_PAYLOAD, HEAD};
use crate::gathered::Gathered;

/// How many streams one session may have open.
pub const MAX_STREAMS: usize = 32;

/// How many received bytes one session may hold for readers that are slow: the library's 256 KiB for each stream, and 4 MiB
/// that those get which fill theirs in less time than an answer takes.
pub const MAX_WINDOW: usize = 12 * 1024 * 1024;

/// How many bytes of a stream travel in one message of the multiplexer: a frame of much data.
pub const MAX_MESSAGE: usize = HEAD + BEST_PAYLOAD;

/// One stream of a session.
pub type Stream = Compat<yamux::Stream>;

/// The daemon's handle on a session: opens streams. Cheap to clone; the session ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Opener {
    requests: mpsc::Sender<oneshot::Sender<Result<yamux::Stream, SessionError>>>,
}

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The connection is gone.
    #[error("the channel to the agent is closed")]
    Closed,
    /// The multiplexer refused.
    #[error("the channel's multiplexer failed")]
    Mux(#[source] yamux::ConnectionError),
}

impl Opener {
    /// Opens a stream.
    ///
    /// # Errors
    /// [`SessionError::Closed`] where the session has ended, [`SessionError::Mux`] where too many streams are open.
    pub async fn open(&self) -> Result<Stream, SessionError> {
        let (reply, opened) = oneshot::channel();
        self.requests.clone().send(reply).await.map_err(|_| SessionError::Closed)?;
        opened.await.map_err(|_| SessionError::Closed)?.map(FuturesAsyncReadCompatExt::compat)
    }
}

/// The daemon's side of a session. The future drives it and must be spawned; it ends when the connection does.
pub fn open<C>(connection: C) -> (Opener, impl Future<Output = ()> + Send)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (requests, mut wanted) = mpsc::channel::<oneshot::Sender<Result<yamux::Stream, SessionError>>>(4);
    let mut connection = Connection::new(Gathered::new(connection).compat(), config(), Mode::Client);
    let drive = async move {
        let mut pending = None;
        let mut no_more = false;
        poll_fn(|cx| {
            loop {
                if pending.is_none() && !no_more {
                    match wanted.poll_next_unpin(cx) {
                        Poll::Ready(Some(reply)) => pending = Some(reply),
                        Poll::Ready(None) => no_more = true,
                        Poll::Pending => {}
                    }
                }
                if no_more && pending.is_none() {
                    return connection.poll_close(cx).map(drop);
                }
                if pending.is_some()
                    && let Poll::Ready(opened) = connection.poll_new_outbound(cx)
                    && let Some(reply) = pending.take()
                {
                    // A caller that went away drops its receiver; the stream is then dropped, which resets it.
                    drop(reply.send(opened.map_err(SessionError::Mux)));
                    continue;
                }
                match connection.poll_next_inbound(cx) {
                    // The agent has no business to open streams: dropping one resets it.
                    Poll::Ready(Some(Ok(uninvited))) => drop(uninvited),
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    };
    (Opener { requests }, drive)
}

/// The agent's side of a session: hands every accepted stream to `serve`, and returns when the connection ends.
pub async fn accept<C>(connection: C, mut serve: impl FnMut(Stream))
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = Connection::new(Gathered::new(connection).compat(), config(), Mode::Server);
    while let Some(Ok(stream)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {
        serve(stream.compat());
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.set_max_num_streams(MAX_STREAMS);
    config.set_max_connection_receive_window(Some(MAX_WINDOW));
    config.set_split_send_size(MAX_MESSAGE);
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn streams_are_served_side_by_side_and_end_with_the_opener() {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (opener, drive) = open(near);
        let driver = tokio::spawn(drive);
        let agent = tokio::spawn(accept(far, |mut stream| {
            tokio::spawn(async move {
                let mut byte = [0; 1];
                stream.read_exact(&mut byte).await.unwrap();
                stream.write_all(&byte).await.unwrap();
                stream.shutdown().await.unwrap();
            });
        }));
        let (mut one, mut two) = (opener.open().await.unwrap(), opener.open().await.unwrap());
        two.write_all(b"2").await.unwrap();
        one.write_all(b"1").await.unwrap();
        let mut answer = String::new();
        two.read_to_string(&mut answer).await.unwrap();
        one.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "21");
        drop((opener, one, two));
        driver.await.unwrap();
        agent.await.unwrap();
    }
}
