//! A device whose hang-up is a state and not an end, as that of a virtio serial port is.
//!
//! Such a port reports a hang-up to poll(2) for as long as nobody is at its other end, and the event loop remembers a
//! hang-up for ever: to wait for the port's next peer in the usual way would return at once, again and again. Worse, a new
//! peer's first bytes can arrive before the news that it is there: the port can then be read, but not yet written. An epoll
//! instance of its own, edge-triggered, wakes whenever anything changes, and the device itself is asked what.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::event::{Timespec, epoll};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// A non-blocking device, read and written by one task. An end that is read means that nobody is there: after
/// [`EdgeStream::changed`] there may be.
#[derive(Debug)]
pub struct EdgeStream {
    device: OwnedFd,
    epoll: AsyncFd<OwnedFd>,
    /// Whether the reading half waits for a change, and the writing half.
    waits: [Cell<bool>; 2],
}

const READING: usize = 0;
const WRITING: usize = 1;

impl EdgeStream {
    /// Takes a descriptor that was opened with `O_NONBLOCK`.
    ///
    /// # Errors
    /// Those of `epoll_create1(2)` and `epoll_ctl(2)`.
    pub fn new(device: OwnedFd) -> io::Result<EdgeStream> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let all = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&epoll, &device, epoll::EventData::new_u64(0), all)?;
        // SAFETY: the value is an `OwnedFd` that is moved in whole: it stays open, and the same, while it is registered.
        let epoll = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }?;
        Ok(EdgeStream { device, epoll, waits: Default::default() })
    }

    /// Waits until anything has changed since the last time.
    ///
    /// # Errors
    /// Those of `epoll_wait(2)`.
    pub async fn changed(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_changed(cx)).await
    }

    fn poll_changed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut event = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        loop {
            let mut guard = ready!(self.epoll.poll_read_ready(cx))?;
            if epoll::wait(self.epoll.get_ref(), &mut event, Some(&at_once))? > 0 {
                return Poll::Ready(Ok(()));
            }
            guard.clear_ready();
        }
    }

    fn poll_io<T>(
        &self,
        cx: &mut Context<'_>,
        half: usize,
        mut attempt: impl FnMut(&OwnedFd) -> rustix::io::Result<T>,
    ) -> Poll<io::Result<T>> {
        self.waits[half].set(false);
        loop {
            match attempt(&self.device) {
                Err(rustix::io::Errno::AGAIN) => {
                    self.waits[half].set(true);
                    ready!(self.poll_changed(cx))?;
                    self.waits[half].set(false);
                    if self.waits[1 - half].get() {
                        // The change may be what the other half waits for, which has asked before in this turn.
                        cx.waker().wake_by_ref();
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                result => return Poll::Ready(Ok(result?)),
            }
        }
    }
}

impl AsyncRead for EdgeStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let unfilled = buffer.initialize_unfilled();
        let count = ready!(self.poll_io(cx, READING, |device| rustix::io::read(device.as_fd(), &mut *unfilled)))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for EdgeStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_io(cx, WRITING, |device| rustix::io::write(device.as_fd(), buffer))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    /// A pseudo terminal hangs up and comes back, as a virtio serial port does.
    fn terminal() -> (EdgeStream, std::path::PathBuf) {
        let ours = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        rustix::pty::unlockpt(&ours).unwrap();
        let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        rustix::fs::fcntl_setfl(&ours, rustix::fs::OFlags::NONBLOCK).unwrap();
        (EdgeStream::new(ours).unwrap(), name.into())
    }

    #[tokio::test]
    async fn a_hang_up_is_told_once_and_the_next_peer_is_heard() {
        let (mut stream, path) = terminal();
        let open = || std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut byte = [0; 1];
        for _ in 0..3 {
            let mut peer = open();
            io::Write::write_all(&mut peer, b"x").unwrap();
            while stream.read(&mut byte).await.is_err() {
                stream.changed().await.unwrap();
            }
            drop(peer);
            while stream.read(&mut byte).await.is_ok() {}
            // At most the hang-up itself is still to be told; then there is silence, though the state stands.
            while timeout(Duration::from_millis(30), stream.changed()).await.is_ok() {
                assert!(stream.read(&mut byte).await.is_err());
            }
        }
    }

    #[tokio::test]
    async fn a_full_device_is_waited_for_while_it_is_read() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let (mut one, mut two) = (EdgeStream::new(ours.into()).unwrap(), EdgeStream::new(theirs.into()).unwrap());
        let much = vec![7; 4 << 20];
        let (mut a, mut b) = (vec![0; much.len()], vec![0; much.len()]);
        let there = async {
            one.write_all(&much).await.unwrap();
            one.read_exact(&mut a).await.unwrap();
        };
        let back = async {
            two.read_exact(&mut b).await.unwrap();
            two.write_all(&much).await.unwrap();
        };
        timeout(Duration::from_secs(10), async { tokio::join!(there, back) }).await.unwrap();
        assert!(a == much && b == much);
    }
}
