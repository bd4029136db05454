//! Whole-file locks of flock(2), which the kernel releases with the last descriptor.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// Takes the lock if nobody holds it. Returns whether the caller has it.
///
/// # Errors
/// Those of flock(2).
pub fn try_lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes the lock, and waits at most that long for it. Returns whether the caller has it.
///
/// # Errors
/// Those of flock(2).
pub fn lock_within(file: &File, time: Duration) -> io::Result<bool> {
    if try_lock(file)? {
        return Ok(true);
    }
    let (had, deadline) = (lock_behind(file)?, Instant::now() + time);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&had, PollFlags::IN)], Some(&left)) {
            Ok(_) => return try_lock(file),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Waits for the lock on a thread of its own, because flock(2) has no deadline. The returned pipe hangs up when the
/// thread has the lock, which belongs to the file that the caller shares. If the caller gave up, the lock goes back
/// with the descriptors.
pub(super) fn lock_behind(file: &File) -> io::Result<OwnedFd> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let file = file.try_clone()?;
    std::thread::spawn(move || {
        // If it fails, so does the caller's own attempt.
        rustix::fs::flock(&file, FlockOperation::LockExclusive).ok();
        drop(writer);
    });
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_had_once_and_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = File::create(&path).unwrap();
        let second = File::open(&path).unwrap();
        assert!(try_lock(&first).unwrap() && !try_lock(&second).unwrap());
        assert!(!lock_within(&second, Duration::from_millis(20)).unwrap());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| lock_within(&File::open(&path).unwrap(), Duration::from_secs(10)).unwrap());
            drop((first, second));
            assert!(waits.join().unwrap());
        });
    }
}
