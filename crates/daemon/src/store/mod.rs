//! The records: SQLite, on a thread of its own that owns the only connection.
//!
//! What is written is on the disk when a call returns: a record comes before the first effect that it covers, also when
//! the power fails.

mod ground;
mod images;
mod leases;
#[cfg(not(fuzzing))]
mod schema;
#[cfg(fuzzing)]
pub mod schema;
mod vms;
mod wiring;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use crate::ground::Uids;
use crate::net::addresses::Subnet;

/// A handle on the records. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: std::sync::mpsc::Sender<Job>,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

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
        let connection = schema::open(path)?;
        let (jobs, inbox) = std::sync::mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                let mut connection = connection;
                for job in inbox {
                    job(&mut connection);
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
        self.run(move |connection| {
            let failed = |source| StoreError::Statement { attempted, source };
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
            let done = work(&transaction)?;
            transaction.commit().map_err(failed)?;
            Ok(done)
        })
        .await
    }

    async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // A caller that went away does not undo what it asked for.
            drop(reply.send(work(connection)));
        });
        self.jobs.send(job).map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
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
