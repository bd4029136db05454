//! A lock that one process holds and that the kernel takes back however it ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How long a lock may stay with nobody.
const PATIENCE: Duration = Duration::from_secs(5);

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
    /// A holder that was killed can leave the lock for a moment to a child that has not executed its program yet: that is waited
    /// for.
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
                let holder = read_holder(&mut file);
                if holder.is_some_and(lives) || !left_within(&file, PATIENCE).map_err(failed)? {
                    return Err(LockError::Held { path: path.to_owned(), holder });
                }
            }
            Err(error) => return Err(failed(error.into())),
        }
        write_holder(&mut file).map_err(failed)?;
        Ok(Lock { _file: file })
    }
}

fn read_holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Whether a lock is had within that time by waiting for it, which a thread of its own does: flock(2) knows no deadline.
fn left_within(file: &File, time: Duration) -> io::Result<bool> {
    let (waiting, (had, answer)) = (file.try_clone()?, mpsc::channel());
    std::thread::spawn(move || {
        let locked = rustix::fs::flock(&waiting, FlockOperation::LockExclusive);
        // Where nobody listens any more it is given back with the descriptors.
        had.send(locked).ok();
    });
    match answer.recv_timeout(time) {
        Ok(locked) => Ok(locked.map(|()| true)?),
        Err(_) => Ok(false),
    }
}

/// Whether there is such a process that has not ended.
fn lives(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(Ok(process)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return false };
    // What has ended and is not yet waited for can be read (pidfd_open(2)).
    let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&Timespec::default()));
    ended.is_ok_and(|ended| ended == 0)
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
        let first = Lock::acquire(&path).unwrap();
        let me = Some(std::process::id());
        assert!(matches!(Lock::acquire(&path), Err(LockError::Held { holder, .. }) if holder == me));
        drop(first);
        Lock::acquire(&path).unwrap();
    }

    #[test]
    fn what_is_left_of_a_dead_holder_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        // Past the largest number that a process can have (proc(5), pid_max).
        std::fs::write(&path, format!("{}\n", 1 << 30)).unwrap();
        let left = File::open(&path).unwrap();
        rustix::fs::flock(&left, FlockOperation::LockExclusive).unwrap();
        let other = File::open(&path).unwrap();
        assert!(!left_within(&other, Duration::from_millis(20)).unwrap());
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Lock::acquire(&path).unwrap());
            drop((left, other));
            drop(second.join().unwrap());
        });
    }
}
