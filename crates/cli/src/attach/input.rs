//! Standard input, read by a thread of its own: reads of terminals, pipes and files may all block, and making them
//! non-blocking would change them for whoever else has them open.

use std::io::IsTerminal;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

/// How much is read at once. A pipe seldom holds more.
const CHUNK: usize = 64 * 1024;

/// Reads one chunk each time one is asked for, so that what the guest does not take stays where it is.
#[derive(Debug)]
pub struct Input {
    demand: std::sync::mpsc::Sender<()>,
    chunks: mpsc::Receiver<Bytes>,
    asked: bool,
}

impl Input {
    /// Starts the thread. It ends with the process, or with the first demand after this is dropped.
    pub fn start() -> Input {
        let (demand, demands) = std::sync::mpsc::channel();
        let (sender, chunks) = mpsc::channel(1);
        std::thread::spawn(move || {
            while demands.recv().is_ok() {
                if sender.blocking_send(read()).is_err() {
                    return;
                }
            }
        });
        Input { demand, chunks, asked: false }
    }

    /// The next bytes; none at the end. May be dropped and called again without losing any.
    pub async fn next(&mut self) -> Bytes {
        if !self.asked {
            self.asked = self.demand.send(()).is_ok();
        }
        let chunk = self.chunks.recv().await.unwrap_or_default();
        self.asked = false;
        chunk
    }
}

/// Whether standard input may hold something. `/dev/null` does not; nor does a terminal while this process is in its
/// background, where reading would stop the process.
pub fn is_worth_reading() -> bool {
    let stdin = rustix::stdio::stdin();
    if std::io::stdin().is_terminal() {
        return is_foreground();
    }
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::fstat(stdin).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::CharacterDevice
            || stat.st_rdev != null
    })
}

/// Whether this process may read the terminal on standard input.
pub fn is_foreground() -> bool {
    banger_linux::terminal::is_foreground(rustix::stdio::stdin())
}

/// A failed read is an end: there will be no more.
fn read() -> Bytes {
    let mut chunk = BytesMut::zeroed(CHUNK);
    loop {
        match rustix::io::read(rustix::stdio::stdin(), &mut chunk[..]) {
            Ok(count) => {
                chunk.truncate(count);
                return chunk.freeze();
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => wait(),
            Err(_) => return Bytes::new(),
        }
    }
}

/// Somebody else made our standard input non-blocking.
fn wait() {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(rustix::stdio::stdin(), rustix::event::PollFlags::IN)];
    // Where waiting fails, the next read says why.
    rustix::event::poll(&mut fds, None).unwrap_or_default();
}
