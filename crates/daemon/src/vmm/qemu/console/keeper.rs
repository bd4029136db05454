//! Writes console output to its log in the background, one write at a time, so that a file system that takes long delays
//! neither the guest nor those who read along.

use std::io;
use std::mem;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use super::log::Log;

/// How long output is gathered before it is written.
const GATHERING: Duration = Duration::from_millis(10);

/// How much gathered output is written at once, in bytes.
const ENOUGH: usize = 16 * 1024;

/// How much output may wait while a write is under way, in bytes. More of it is dropped and counted.
const MAX_WAITING: usize = 256 * 1024;

/// A log and the output on its way to it.
#[derive(Debug)]
pub(super) struct Keeper {
    vm: String,
    /// Nowhere if the thread that had it broke.
    log: Place,
    gathered: Vec<u8>,
    /// When `gathered` is to be written.
    due: Option<Instant>,
    /// How many bytes were dropped after those in `gathered`.
    dropped: u64,
    is_failing: bool,
}

#[derive(Debug)]
enum Place {
    Here(Log),
    Writing(JoinHandle<(Log, io::Result<()>)>),
    Nowhere,
}

impl Keeper {
    /// A keeper of the log of this VM.
    pub(super) fn new(vm: &str, log: Log) -> Keeper {
        let log = Place::Here(log);
        Keeper { vm: vm.to_owned(), log, gathered: Vec::new(), due: None, dropped: 0, is_failing: false }
    }

    /// Takes output.
    pub(super) fn take(&mut self, output: &[u8]) {
        if self.dropped > 0 || self.gathered.len() + output.len() > MAX_WAITING {
            self.dropped += output.len() as u64;
            return;
        }
        let now = Instant::now();
        self.gathered.extend_from_slice(output);
        let due = self.due.get_or_insert(now + GATHERING);
        if self.gathered.len() >= ENOUGH {
            *due = now;
        }
    }

    /// What was taken and is not yet on its way to the file.
    pub(super) fn gathered(&self) -> &[u8] {
        &self.gathered
    }

    /// Waits for the next thing to do for the log, and does it. Can be cancelled.
    pub(super) async fn work(&mut self) {
        if matches!(self.log, Place::Writing(_)) {
            self.written().await;
        } else {
            super::until(self.due).await;
            self.begin();
        }
    }

    /// Waits until all that was taken is written or dropped. Can be cancelled.
    pub(super) async fn settle(&mut self) {
        self.written().await;
        while !self.gathered.is_empty() && !matches!(self.log, Place::Nowhere) {
            self.begin();
            self.written().await;
        }
    }

    /// Settles, and writes the count of what was left out last.
    pub(super) async fn finish(mut self) {
        self.settle().await;
        if let Place::Here(mut log) = self.log {
            // Where it cannot be written even now, the warning is there.
            drop(spawn_blocking(move || log.tell()).await);
        }
    }

    fn begin(&mut self) {
        self.due = None;
        let (output, dropped) = (mem::take(&mut self.gathered), mem::take(&mut self.dropped));
        match mem::replace(&mut self.log, Place::Nowhere) {
            Place::Here(mut log) => {
                self.log = Place::Writing(spawn_blocking(move || {
                    let mut result = log.write(&output);
                    log.lose(dropped);
                    if result.is_ok() && dropped > 0 {
                        result = Err(io::Error::new(io::ErrorKind::TimedOut, "writing takes too long"));
                    }
                    (log, result)
                }));
            }
            other => self.log = other,
        }
    }

    async fn written(&mut self) {
        let Place::Writing(writing) = &mut self.log else { return };
        let Ok((log, result)) = writing.await else {
            self.log = Place::Nowhere;
            return;
        };
        self.log = Place::Here(log);
        if let Err(error) = &result
            && !self.is_failing
        {
            tracing::warn!(vm = self.vm, %error, "console output cannot be written; it is left out until it can");
        }
        self.is_failing = result.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn single_bytes_are_written_together_a_hundred_times_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut keeper = Keeper::new("vm", Log::create(&path).await.unwrap());
        let (began, mut writes) = (Instant::now(), 0);
        let mut next = began;
        for _ in 0..1000 {
            keeper.take(b"x");
            next += Duration::from_millis(1);
            while tokio::time::timeout_at(next, keeper.work()).await.is_ok() {
                writes += usize::from(matches!(keeper.log, Place::Writing(_)));
            }
        }
        assert!((90..=100).contains(&writes), "{writes} writes in {:?}", began.elapsed());
        keeper.finish().await;
        assert_eq!(std::fs::read(&path).unwrap(), [b'x'; 1000]);
    }

    #[tokio::test(start_paused = true)]
    async fn much_output_is_written_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut keeper = Keeper::new("vm", Log::create(&path).await.unwrap());
        let began = Instant::now();
        keeper.take(&[b'x'; ENOUGH]);
        keeper.work().await;
        keeper.work().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(std::fs::read(&path).unwrap().len(), ENOUGH);
    }
}
