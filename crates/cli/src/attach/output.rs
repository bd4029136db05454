//! Standard output and error, written in the order in which things came, by a thread as soon as a write could block: a
//! reader that takes its time must not keep signals from the guest.

use std::io;
use std::os::fd::BorrowedFd;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::failure::Failure;

/// A write of this many bytes to a pipe that polls writable does not block (pipe(7), PIPE_BUF).
const SURE: usize = 4096;

/// How many frames may wait for the thread.
const WAITING: usize = 2;

/// Both streams.
#[derive(Debug, Default)]
pub struct Output {
    thread: Option<Writer>,
}

#[derive(Debug)]
struct Writer {
    queue: mpsc::Sender<(Stream, Bytes)>,
    result: JoinHandle<io::Result<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

impl Output {
    /// Starts no thread yet.
    pub fn new() -> Output {
        Output::default()
    }

    /// Waits until the next write will not have to wait. May be dropped.
    pub async fn ready(&self) {
        if let Some(writer) = &self.thread {
            // The place stays free: nobody else sends. Where the thread has failed, the next write says why.
            drop(writer.queue.reserve().await);
        }
    }

    /// Returns when a write has failed; [`Output::failure`] says why. May be dropped.
    pub async fn closed(&self) {
        match &self.thread {
            Some(writer) => writer.queue.closed().await,
            None => std::future::pending().await,
        }
    }

    /// To standard output.
    ///
    /// # Errors
    /// [`Failure::Stdout`], perhaps of an earlier write.
    pub async fn stdout(&mut self, bytes: Bytes) -> Result<(), Failure> {
        self.put(Stream::Stdout, bytes).await
    }

    /// To standard error. That nobody reads it is no failure.
    ///
    /// # Errors
    /// [`Failure::Stdout`] of an earlier write to the other stream.
    pub async fn stderr(&mut self, bytes: Bytes) -> Result<(), Failure> {
        self.put(Stream::Stderr, bytes).await
    }

    /// Why writing has failed.
    pub async fn failure(&mut self) -> Failure {
        match self.finish().await {
            Err(failure) => failure,
            Ok(()) => Failure::Stdout { source: io::ErrorKind::BrokenPipe.into() },
        }
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// [`Failure::Stdout`].
    pub async fn finish(&mut self) -> Result<(), Failure> {
        let Some(writer) = self.thread.take() else { return Ok(()) };
        drop(writer.queue);
        written(writer.result.await)
    }

    async fn put(&mut self, stream: Stream, bytes: Bytes) -> Result<(), Failure> {
        if bytes.len() <= SURE && self.thread.is_none() && stream.is_writable() {
            return stream.write(&bytes).map_err(|source| Failure::Stdout { source });
        }
        let writer = self.thread.get_or_insert_with(Writer::start);
        match writer.queue.send((stream, bytes)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().await),
        }
    }
}

impl Writer {
    fn start() -> Writer {
        let (queue, mut queued) = mpsc::channel::<(Stream, Bytes)>(WAITING);
        let result = tokio::task::spawn_blocking(move || {
            while let Some((stream, bytes)) = queued.blocking_recv() {
                stream.write(&bytes)?;
            }
            Ok(())
        });
        Writer { queue, result }
    }
}

impl Stream {
    fn fd(self) -> BorrowedFd<'static> {
        match self {
            Stream::Stdout => rustix::stdio::stdout(),
            Stream::Stderr => rustix::stdio::stderr(),
        }
    }

    fn is_writable(self) -> bool {
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(self.fd(), rustix::event::PollFlags::OUT)];
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// Writes all. Past the buffers of the standard library: on a terminal each byte is to be seen at once.
    fn write(self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(self.fd(), bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => self.wait()?,
                Err(_) if self == Stream::Stderr => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Somebody else made the stream non-blocking.
    fn wait(self) -> io::Result<()> {
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(self.fd(), rustix::event::PollFlags::OUT)];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn written(result: Result<io::Result<()>, tokio::task::JoinError>) -> Result<(), Failure> {
    let result = result.unwrap_or_else(|error| Err(io::Error::other(error)));
    result.map_err(|source| Failure::Stdout { source })
}
