//! Operations: what a mutating request becomes. It has an id, stages with their times, progress, and can be cancelled.

pub mod fault;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use fault::{Faults, Step};

/// One mutating request under way. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Operation {
    id: String,
    verb: &'static str,
    began: Instant,
    cancel: CancellationToken,
    progress: mpsc::UnboundedSender<Progress>,
}

/// What an operation tells its watcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A stage began.
    Began {
        /// Its name.
        stage: &'static str,
    },
    /// A stage ended.
    Ended {
        /// Its name.
        stage: &'static str,
        /// How long it took.
        micros: u64,
    },
    /// A line about a stage that goes on.
    Line(String),
}

/// How many operations this daemon has begun; with the daemon's start it names one.
static COUNT: AtomicU64 = AtomicU64::new(1);

impl Operation {
    /// Begins an operation, and the stream of its progress.
    pub fn begin(verb: &'static str, on: &str) -> (Operation, mpsc::UnboundedReceiver<Progress>) {
        let (progress, watcher) = mpsc::unbounded_channel();
        let id = format!("{:x}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        tracing::info!(operation = id, verb, on, "begins");
        (Operation { id, verb, began: Instant::now(), cancel: CancellationToken::new(), progress }, watcher)
    }

    /// An operation of the daemon's own, which nobody watches.
    pub fn unwatched(verb: &'static str, on: &str) -> Operation {
        Operation::begin(verb, on).0
    }

    /// Its id, as it stands in the log.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it does: `create`, `start`, ...
    pub fn verb(&self) -> &'static str {
        self.verb
    }

    /// How long it has been under way, in microseconds.
    pub fn micros(&self) -> u64 {
        micros(self.began)
    }

    /// Asks it to give up. What that means depends on its verb.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Ends when somebody has asked it to give up.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Whether somebody has asked it to give up.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// A line of progress.
    pub fn line(&self, line: impl Into<String>) {
        // A watcher that went away misses nothing that it wants.
        drop(self.progress.send(Progress::Line(line.into())));
    }

    /// Runs one timed stage.
    pub async fn stage<T>(&self, stage: &'static str, work: impl Future<Output = T>) -> T {
        let began = self.stage_begins(stage);
        let done = work.await;
        self.stage_ends(stage, began);
        done
    }

    /// For stages whose beginning and end are not in one place.
    pub fn stage_begins(&self, stage: &'static str) -> Instant {
        drop(self.progress.send(Progress::Began { stage }));
        Instant::now()
    }

    /// The end of a stage that began then.
    pub fn stage_ends(&self, stage: &'static str, began: Instant) {
        let micros = micros(began);
        tracing::info!(operation = self.id, stage, ms = millis(micros), "stage");
        drop(self.progress.send(Progress::Ended { stage, micros }));
    }

    /// Writes its end into the log.
    pub fn ended<T, E: std::error::Error>(&self, result: &Result<T, E>) {
        let ms = millis(self.micros());
        match result {
            Ok(_) => tracing::info!(operation = self.id, verb = self.verb, ms, "done"),
            Err(error) => {
                tracing::warn!(
                    operation = self.id,
                    verb = self.verb,
                    ms,
                    error = crate::api::error::chain(error),
                    "failed"
                );
            }
        }
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "for people's eyes")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}
