//! A descriptor of any kind (character device, terminal, pipe, pidfd) in the event loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// A descriptor that is read and written without blocking. Edge-triggered: a device that reports a standing hang-up does
/// not spin. Shutting it down does nothing; dropping it closes it.
#[derive(Debug)]
pub struct FdStream {
    fd: AsyncFd<OwnedFd>,
}

impl FdStream {
    /// Takes a descriptor into the event loop of the calling task and makes it non-blocking.
    ///
    /// # Errors
    /// Where the descriptor cannot be polled, as a regular file.
    pub fn new(fd: OwnedFd, interest: Interest) -> io::Result<FdStream> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
        // SAFETY: the value is an `OwnedFd` that is moved in whole: it stays open, and the same, while it is registered.
        let fd = unsafe { AsyncFd::register_with_interest(fd, interest) }?;
        Ok(FdStream { fd })
    }

    /// Waits until there is something to read, an end or a hang-up.
    ///
    /// # Errors
    /// Where the event loop is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        self.fd.readable().await.map(|mut ready| ready.clear_ready())
    }

    /// Reads at once or waits; zero bytes are an end, or a peer that is not there.
    ///
    /// # Errors
    /// Those of read(2).
    pub async fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fd.async_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut *buffer)?)).await
    }
}

impl AsFd for FdStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}

impl AsyncRead for FdStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            let unfilled = buffer.initialize_unfilled();
            // The event loop remembers a hang-up for ever: where one was seen and there is nothing to read, this is the end,
            // and to try again would spin, even if a device has a new peer by now.
            let hung_up = guard.ready().is_read_closed();
            match guard.try_io(|fd| Ok(rustix::io::read(fd, unfilled)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) if hung_up => return Poll::Ready(Ok(())),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for FdStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            let hung_up = guard.ready().is_write_closed();
            match guard.try_io(|fd| Ok(rustix::io::write(fd, buffer)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) if hung_up => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
