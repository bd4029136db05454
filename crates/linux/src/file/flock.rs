//! Whole-file locks of flock(2), which the kernel releases with the last descriptor.

use std::fs::File;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::FlockOperation;

/// Takes the lock if nobody holds it. Returns whether the caller has it.
///
/// # Errors
/// Those of flock(2).
pub fn try_lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes the lock, and waits at most that long for it. Returns whether the caller has it. A thread waits, because
/// flock(2) has no deadline.
///
/// # Errors
/// Those of flock(2).
pub fn lock_within(file: &File, time: Duration) -> io::Result<bool> {
    if try_lock(file)? {
        return Ok(true);
    }
    let (waiting, (had, answer)) = (file.try_clone()?, mpsc::channel());
    std::thread::spawn(move || {
        let locked = rustix::fs::flock(&waiting, FlockOperation::LockExclusive);
        // If nobody listens any more, the lock goes back with the descriptors.
        had.send(locked).ok();
    });
    match answer.recv_timeout(time) {
        Ok(locked) => Ok(locked.map(|()| true)?),
        Err(_) => Ok(false),
    }
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
