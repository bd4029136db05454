//! The records: SQLite, on a thread of its own that owns the only connection.
//!
//! What is written is on the disk when a call returns: a record comes before the first effect that it covers, also when
//! the power fails.

mod ground;
mod images;
mod leases;
mod reserve;
#[cfg(not(fuzzing))]
mod schema;
#[cfg(fuzzing)]
pub mod schema;
mod vms;
mod wiring;

use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use reserve::{Reserve, is_full};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use crate::ground::Uids;
use crate::net::addresses::Subnet;

/// A handle on the records. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: std::sync::mpsc::Sender<Job>,
}

type Job = Box<dyn FnOnce(&mut Records) + Send>;

/// What the thread owns.
struct Records {
    connection: Connection,
    reserve: Reserve,
}

/// How often the thread looks whether there is space again.
const LOOK: Duration = Duration::from_secs(5);

/// Why records could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("cannot open the records {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The file is of a newer banger, or its schema cannot be brought up to date.
    #[error("cannot bring the records {} up to date", path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite_migration::Error,
    },
    /// A statement failed.
    #[error("cannot {attempted}")]
    Statement {
        /// What was attempted, on what.
        attempted: &'static str,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A stored value is not what this banger writes.
    #[error("the records hold an unusable {field} of {of}")]
    Unusable {
        /// Which field.
        field: &'static str,
        /// Of what.
        of: String,
    },
    /// Another VM or image has the name.
    #[error("the name {0} is taken")]
    NameTaken(String),
    /// The image is used.
    #[error("the image is used by {}", .0.join(", "))]
    InUse(Vec<String>),
    /// The image is being removed, or is gone.
    #[error("there is no image {0} any more")]
    ImageGone(String),
    /// No number is left for a VM's user.
    #[error("every uid from {} to {} is taken by a VM", .0.first(), .0.build() - 1)]
    NoUid(Uids),
    /// No address is left for a VM.
    #[error("every address of {0} is a VM's")]
    NoAddress(Subnet),
    /// The address is a VM's.
    #[error("the address of {0} is a VM's")]
    AddressInUse(String),
    /// There is no such lease.
    #[error("no address belongs to {0}")]
    NoLease(String),
    /// The thread is gone.
    #[error("the records are closed")]
    Closed,
}

impl Store {
    /// Opens the records, creates or migrates them.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::Migrate`].
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let reserve = Reserve::beside(path);
        let connection = schema::open(path)?;
        if reserve.is_spent() {
            reserve.hold();
        }
        let mut records = Records { connection, reserve };
        let (jobs, inbox) = std::sync::mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                loop {
                    let patience = if records.reserve.is_spent() { LOOK } else { Duration::MAX };
                    match inbox.recv_timeout(patience) {
                        Ok(job) => job(&mut records),
                        Err(RecvTimeoutError::Timeout) => records.reserve.keep_if_enough(),
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            })
            .map_err(|error| StoreError::Open {
                path: path.to_owned(),
                source: rusqlite::Error::ToSqlConversionFailure(Box::new(error)),
            })?;
        Ok(Store { jobs })
    }

    /// Runs `work` in one immediate transaction, committed if it succeeds.
    async fn write<T, F>(&self, attempted: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.on_thread(move |records| records.commit(attempted, work)).await
    }

    /// As [`Store::write`], for what gives space back: on a full disk it takes the space that is kept for this.
    async fn write_in_need<T, F>(&self, attempted: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.on_thread(move |records| match records.commit(attempted, &work) {
            Err(error) if error.is_full() && records.reserve.give_up() => records.commit(attempted, &work),
            result => result,
        })
        .await
    }

    async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.on_thread(|records| work(&mut records.connection)).await
    }

    async fn on_thread<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Records) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |records| {
            // A caller that went away does not undo what it asked for.
            drop(reply.send(work(records)));
        });
        self.jobs.send(job).map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
    }
}

impl Records {
    fn commit<T>(
        &mut self,
        attempted: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let failed = |source| StoreError::Statement { attempted, source };
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let done = work(&transaction)?;
        transaction.commit().map_err(failed)?;
        self.reserve.after_commit(&self.connection);
        Ok(done)
    }
}

impl StoreError {
    /// Whether there was no space for it.
    pub fn is_full(&self) -> bool {
        matches!(self, StoreError::Statement { source, .. } | StoreError::Open { source, .. } if is_full(source))
    }
}

/// Maps a failed statement, telling what was attempted.
fn attempt<T>(attempted: &'static str, result: rusqlite::Result<T>) -> Result<T, StoreError> {
    result.map_err(|source| StoreError::Statement { attempted, source })
}

/// Whether a statement failed because a unique value exists already.
fn is_duplicate(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(failure, _) if failure.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE)
}
