//! A guest's console while its VM runs: what it says is read along and what is typed reaches it.

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc, oneshot};

/// How many pieces of output a slow reader may be behind before it misses some.
pub const BACKLOG: usize = 256;

/// A handle on a console. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Console {
    readers: mpsc::Sender<oneshot::Sender<Attached>>,
    typed: mpsc::Sender<Bytes>,
}

/// One who reads along.
#[derive(Debug)]
pub struct Attached {
    /// The log up to now.
    pub before: Vec<u8>,
    /// What comes after that. Ends with the VM.
    pub says: broadcast::Receiver<Bytes>,
}

/// The other side of a [`Console`], for the driver that owns the stream.
#[derive(Debug)]
pub struct Ends {
    /// Those who want to read along.
    pub readers: mpsc::Receiver<oneshot::Sender<Attached>>,
    /// What was typed.
    pub typed: mpsc::Receiver<Bytes>,
}

impl Console {
    /// A console and its driver's side.
    pub fn new() -> (Console, Ends) {
        let (readers, wanted) = mpsc::channel(16);
        let (typed, keys) = mpsc::channel(16);
        (Console { readers, typed }, Ends { readers: wanted, typed: keys })
    }

    /// Begins to read along, without a gap between the log and what comes; nothing where the VM has ended.
    pub async fn attach(&self) -> Option<Attached> {
        let (reply, attached) = oneshot::channel();
        self.readers.send(reply).await.ok()?;
        attached.await.ok()
    }

    /// Waits until the driver has no more output to write: the VM has ended, and the log is complete.
    pub async fn ended(&self) {
        self.readers.closed().await;
    }

    /// Types. Waits while the guest takes nothing; false where the VM has ended.
    pub async fn types(&self, keys: Bytes) -> bool {
        self.typed.send(keys).await.is_ok()
    }
}
