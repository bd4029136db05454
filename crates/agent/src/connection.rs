//! What goes on in the connection below the multiplexer.
//!
//! A call that waits for its command to take input cannot see that its stream was dropped: [`Traffic`] tells it when to look.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// What goes on below the multiplexer.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Wakes when bytes have come in, or none will any more.
    pub arrived: Notify,
    /// Wakes when everything written has gone out.
    pub flushed: Notify,
}

/// A connection whose traffic is told.
#[derive(Debug)]
pub struct Observed<C> {
    inner: C,
    traffic: Rc<Traffic>,
}

impl<C> Observed<C> {
    /// Wraps a connection.
    pub fn new(inner: C, traffic: Rc<Traffic>) -> Observed<C> {
        Observed { inner, traffic }
    }
}

impl<C> Drop for Observed<C> {
    fn drop(&mut self) {
        // The multiplexer has closed its streams before it drops its connection.
        self.traffic.arrived.notify_waiters();
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Observed<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = ready!(Pin::new(&mut this.inner).poll_read(cx, buffer));
        // Those woken run after the multiplexer has made sense of these bytes: there is one thread, and it is here.
        this.traffic.arrived.notify_waiters();
        Poll::Ready(result)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Observed<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.inner).poll_flush(cx))?;
        this.traffic.flushed.notify_waiters();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
