//! Many streams over one connection, by yamux.
//!
//! The other side may be hostile: streams and memory are bounded far below the library's defaults. Only the daemon opens
//! streams; the agent accepts them.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::channel::{mpsc, oneshot};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, Mode};

use crate::frame::{BEST_PAYLOAD, HEAD};
use crate::gathered::Gathered;

/// How many calls one session may have under way. One more is refused; the multiplexer itself would end the whole session.
pub const MAX_CALLS: usize = 24;

/// How many calls the daemon may make beside those, for itself: whoever has used up the others can still stop the guest.
const OWN_CALLS: usize = 4;

/// How many streams the daemon's side may have open: one that has ended counts until the multiplexer has noticed.
const MAX_STREAMS: usize = 32;

/// The same on the agent's side, which notices later.
const AGENT_STREAMS: usize = 2 * MAX_STREAMS;

/// How many received bytes one stream may hold for a reader that is slow; the library's own number.
const STREAM_WINDOW: usize = 256 * 1024;

/// How many more the streams of a session may have together: those get them which fill theirs in less time than an answer
/// takes.
const SPARE_WINDOW: usize = 4 * 1024 * 1024;

/// How many bytes of a stream travel in one message of the multiplexer: a frame of much data.
pub const MAX_MESSAGE: usize = HEAD + BEST_PAYLOAD;

/// One stream of a session.
#[derive(Debug)]
pub struct Stream {
    inner: Compat<yamux::Stream>,
    /// Given back when the stream is dropped.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Stream {
    /// Whether the other side has dropped it.
    pub fn is_closed(&self) -> bool {
        self.inner.get_ref().is_closed()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// The daemon's handle on a session: opens streams. Cheap to clone; the session ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Opener {
    requests: mpsc::Sender<oneshot::Sender<Result<yamux::Stream, SessionError>>>,
    calls: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The connection is gone.
    #[error("the channel to the agent is closed")]
    Closed,
    /// [`MAX_CALLS`] are under way.
    #[error("{MAX_CALLS} calls are under way, which is the most")]
    Full,
    /// The multiplexer refused.
    #[error("the channel's multiplexer failed")]
    Mux(#[source] yamux::ConnectionError),
}

impl Opener {
    /// Opens a stream for a call that somebody asked for.
    ///
    /// # Errors
    /// [`SessionError::Full`]; [`SessionError::Closed`] where the session has ended.
    pub async fn open(&self) -> Result<Stream, SessionError> {
        let permit = Arc::clone(&self.calls).try_acquire_owned().map_err(|_| SessionError::Full)?;
        self.open_with(permit).await
    }

    /// Opens a stream for a call of the daemon's own. Waits while there are too many of those.
    ///
    /// # Errors
    /// [`SessionError::Closed`] where the session has ended.
    pub async fn open_own(&self) -> Result<Stream, SessionError> {
        let permit = Arc::clone(&self.own).acquire_owned().await.map_err(|_| SessionError::Closed)?;
        self.open_with(permit).await
    }

    async fn open_with(&self, permit: OwnedSemaphorePermit) -> Result<Stream, SessionError> {
        let (reply, opened) = oneshot::channel();
        self.requests.clone().send(reply).await.map_err(|_| SessionError::Closed)?;
        let inner = opened.await.map_err(|_| SessionError::Closed)??.compat();
        Ok(Stream { inner, _permit: Some(permit) })
    }
}

/// The daemon's side of a session. The future drives it and must be spawned; it ends when the connection does.
pub fn open<C>(connection: C) -> (Opener, impl Future<Output = ()> + Send)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (requests, mut wanted) = mpsc::channel::<oneshot::Sender<Result<yamux::Stream, SessionError>>>(4);
    let mut connection = Connection::new(Gathered::new(connection).compat(), config(MAX_STREAMS), Mode::Client);
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
    (Opener { requests, calls: Arc::new(Semaphore::new(MAX_CALLS)), own: Arc::new(Semaphore::new(OWN_CALLS)) }, drive)
}

/// The agent's side of a session: hands every accepted stream to `serve`, and returns when the connection ends.
pub async fn accept<C>(connection: C, mut serve: impl FnMut(Stream))
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = Connection::new(Gathered::new(connection).compat(), config(AGENT_STREAMS), Mode::Server);
    while let Some(Ok(stream)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {
        serve(Stream { inner: stream.compat(), _permit: None });
    }
}

fn config(streams: usize) -> Config {
    let mut config = Config::default();
    config.set_max_num_streams(streams);
    config.set_max_connection_receive_window(Some(streams * STREAM_WINDOW + SPARE_WINDOW));
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

    #[tokio::test]
    async fn one_call_too_many_is_refused_and_the_others_go_on() {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (opener, drive) = open(near);
        tokio::spawn(drive);
        tokio::spawn(accept(far, |mut stream| {
            tokio::spawn(async move {
                let mut byte = [0; 1];
                while stream.read_exact(&mut byte).await.is_ok() {
                    stream.write_all(&byte).await.unwrap();
                }
            });
        }));
        // Again and again, as fast as they can be dropped: the agent's side hears of each end only after it.
        for _ in 0..20 {
            let mut calls = Vec::new();
            for _ in 0..MAX_CALLS {
                calls.push(opener.open().await.unwrap());
            }
            assert!(matches!(opener.open().await, Err(SessionError::Full)));
            calls.push(opener.open_own().await.unwrap());
            for call in &mut calls {
                call.write_all(b"x").await.unwrap();
                call.read_exact(&mut [0; 1]).await.unwrap();
            }
        }
    }
}
