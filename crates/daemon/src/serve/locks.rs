//! The locks of a daemon: one on its state directory, one on its runtime directory. Older daemons know only the second.

use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_linux::file::{Claim, Holder, Lock, LockError};
use tokio::net::UnixStream;

use crate::paths::Paths;

/// The file name of a daemon's program.
const PROGRAM: &str = "bangerd";

/// How long the remains of a killed daemon may hold the state directory's lock.
const REMAINS: Duration = Duration::from_secs(5);

/// How long another process may hold the runtime directory's lock. If it holds the lock longer although the other lock is
/// free, it is no daemon of these directories: an older daemon made the file so that every user could lock it.
const SQUATTER: Duration = Duration::from_secs(1);

/// Both locks, held until this is dropped.
#[derive(Debug)]
pub struct Locks {
    state: Lock,
    runtime: Lock,
    paths: Paths,
}

/// Why a daemon does not own its directories.
#[derive(Debug, thiserror::Error)]
pub enum LocksError {
    /// Another daemon owns the runtime directory.
    #[error("another daemon, process {pid}, runs on {}", path.display())]
    Taken {
        /// The runtime directory.
        path: PathBuf,
        /// The other daemon.
        pid: u32,
    },
    /// Another daemon owns the state directory, and has another runtime directory.
    #[error("another daemon, process {pid}, runs on {}; its runtime directory is {}", path.display(), runtime.display())]
    Elsewhere {
        /// The state directory.
        path: PathBuf,
        /// The other daemon.
        pid: u32,
        /// Its runtime directory.
        runtime: PathBuf,
    },
    /// Another daemon replaced the lock of the runtime directory.
    #[error("{} is not the file any more that this daemon locked", path.display())]
    Lost {
        /// The lock.
        path: PathBuf,
    },
    /// A lock could not be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl LocksError {
    /// The daemon that listens on the API's socket, or is about to.
    pub fn winner(&self) -> Option<u32> {
        match self {
            // A daemon in another pid namespace has no number here.
            LocksError::Taken { pid, .. } => Some(*pid).filter(|&pid| pid > 0),
            LocksError::Elsewhere { .. } | LocksError::Lost { .. } | LocksError::Lock(_) => None,
        }
    }

    /// One line: what to do.
    pub fn help(&self) -> String {
        match self {
            LocksError::Taken { .. } => "use it, or end it with `banger daemon stop`".to_owned(),
            LocksError::Elsewhere { runtime, .. } => {
                let runtime = runtime.display();
                format!(
                    "set BANGER_RUNTIME_DIR={runtime} to use it or to end it, or BANGER_STATE_DIR to another directory"
                )
            }
            LocksError::Lost { .. } => "start it again".to_owned(),
            LocksError::Lock(LockError::Squatted { path } | LockError::Held { path, .. }) => {
                format!("`fuser -v {}` names the process; end it", path.display())
            }
            LocksError::Lock(LockError::Unfit { path, .. }) => format!("look at it, then rm -r {}", path.display()),
            LocksError::Lock(LockError::Io { .. }) => {
                "run it as root, or set BANGER_STATE_DIR and BANGER_RUNTIME_DIR to directories of your own".to_owned()
            }
        }
    }
}

impl Locks {
    /// Takes both, the state directory's first: no other user can hold it.
    ///
    /// # Errors
    /// [`LocksError`].
    pub async fn take(paths: &Paths) -> Result<Locks, LocksError> {
        let runtime = paths.runtime.canonicalize().unwrap_or_else(|_| paths.runtime.clone());
        let note = runtime.display().to_string();
        let path = paths.state_lock();
        let claim = Claim { path: &path, note: &note, program: PROGRAM, patience: REMAINS };
        let state = Lock::acquire(claim).map_err(|error| match error {
            LockError::Held { holder, .. } if holder.note == note => taken(paths, &holder),
            LockError::Held { holder, .. } => LocksError::Elsewhere {
                path: paths.state.clone(),
                pid: holder.pid,
                runtime: PathBuf::from(holder.note),
            },
            error => LocksError::Lock(error),
        })?;
        let runtime = take_runtime(paths).await?;
        // A daemon was killed while it replaced the file.
        if let Err(error) = banger_linux::file::remove_tree(&paths.new_lock()) {
            tracing::warn!(%error, "a file beside the lock stays");
        }
        Ok(Locks { state, runtime, paths: paths.clone() })
    }

    /// Whether both files are still those that this daemon locked. The daemon asks before it replaces another's socket.
    ///
    /// # Errors
    /// [`LocksError::Lost`].
    pub fn check(&self) -> Result<(), LocksError> {
        match (self.state.is_in_place(), self.runtime.is_in_place()) {
            (true, true) => Ok(()),
            (false, _) => Err(LocksError::Lost { path: self.paths.state_lock() }),
            (true, false) => Err(LocksError::Lost { path: self.paths.lock() }),
        }
    }
}

async fn take_runtime(paths: &Paths) -> Result<Lock, LocksError> {
    let path = paths.lock();
    // Older daemons read a number from it and nothing else.
    let claim = Claim { path: &path, note: "", program: PROGRAM, patience: SQUATTER };
    match Lock::acquire(claim) {
        Err(LockError::Squatted { .. }) => {}
        result => return result.map_err(|error| of_runtime(paths, error)),
    }
    // An older daemon in another pid namespace, or one whose program was renamed: its socket identifies it.
    if let Some(pid) = listener(&paths.socket()).await {
        return Err(LocksError::Taken { path: paths.runtime.clone(), pid });
    }
    tracing::warn!(path = %path.display(), "a process that is no daemon holds the lock; replacing its file");
    let claim = Claim { patience: Duration::ZERO, ..claim };
    Lock::acquire_or_replace(claim, &paths.new_lock()).map_err(|error| of_runtime(paths, error))
}

fn of_runtime(paths: &Paths, error: LockError) -> LocksError {
    match error {
        LockError::Held { holder, .. } => taken(paths, &holder),
        error => LocksError::Lock(error),
    }
}

fn taken(paths: &Paths, holder: &Holder) -> LocksError {
    LocksError::Taken { path: paths.runtime.clone(), pid: holder.pid }
}

/// The process that listens on a socket, if it runs as this user or root; zero if it has no number here.
async fn listener(socket: &Path) -> Option<u32> {
    let peer = UnixStream::connect(socket).await.ok()?.peer_cred().ok()?;
    let trusted = peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw();
    trusted.then(|| peer.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default())
}
