//! The connection below the multiplexer, made cheaper and more telling.
//!
//! The multiplexer writes a head, then a body, and flushes. On a virtio serial port each write is a message to the host, so
//! that the two are put together here. And a call that waits for its command to take input cannot see that its stream was
//! dropped: [`Arrivals`] tells it when to look.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// How much is put together at most: a frame of the multiplexer and its head.
const LARGEST_WRITE: usize = 64 * 1024 + 64;

/// Whoever waits here is woken when bytes have come in, and again when everything written has gone out.
pub type Arrivals = Rc<Notify>;

/// A connection that gathers what is written until it is flushed.
#[derive(Debug)]
pub struct Gathered<C> {
    inner: C,
    written: BytesMut,
    arrivals: Arrivals,
}

impl<C> Gathered<C> {
    /// Wraps a connection.
    pub fn new(inner: C, arrivals: Arrivals) -> Gathered<C> {
        Gathered { inner, written: BytesMut::with_capacity(LARGEST_WRITE), arrivals }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Gathered<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = ready!(Pin::new(&mut this.inner).poll_read(cx, buffer));
        // Those woken run after the multiplexer has made sense of these bytes: there is one thread, and it is here.
        this.arrivals.notify_waiters();
        Poll::Ready(result)
    }
}

impl<C: AsyncWrite + Unpin> Gathered<C> {
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.written.is_empty() {
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.written))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written.advance(count);
        }
        self.written.clear();
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Gathered<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.written.len() + bytes.len() > LARGEST_WRITE {
            ready!(this.poll_empty(cx))?;
        }
        let count = bytes.len().min(LARGEST_WRITE);
        this.written.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_empty(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_empty(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}
