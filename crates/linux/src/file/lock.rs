//! A lock that one process holds and that the kernel takes back however it ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// An flock(2) on a file, held until this is dropped or the process ends. The file stays, with the last holder's pid in it:
/// removing it would let two processes lock two files of one name.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{} is locked{}", path.display(), holder.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    Held {
        /// The lock's file.
        path: PathBuf,
        /// Who, where the file says it. It may lag by the instant between locking and writing.
        holder: Option<u32>,
    },
    /// The file could not be opened or written.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock, or says at once who has it. Makes the file where there is none.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn acquire(path: &Path) -> Result<Lock, LockError> {
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LockError::Held { path: path.to_owned(), holder: read_holder(&mut file) });
            }
            Err(error) => return Err(failed(error.into())),
        }
        write_holder(&mut file).map_err(failed)?;
        Ok(Lock { _file: file })
    }

    /// Who holds the lock on a file, if anybody does and the file says it.
    pub fn holder(path: &Path) -> Option<u32> {
        let mut file = File::open(path).ok()?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(rustix::io::Errno::WOULDBLOCK) => read_holder(&mut file),
            _ => None,
        }
    }
}

fn read_holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(Lock::holder(&path), None);
        let first = Lock::acquire(&path).unwrap();
        let me = Some(std::process::id());
        assert!(matches!(Lock::acquire(&path), Err(LockError::Held { holder, .. }) if holder == me));
        assert_eq!(Lock::holder(&path), me);
        drop(first);
        assert_eq!(Lock::holder(&path), None);
        Lock::acquire(&path).unwrap();
    }
}
