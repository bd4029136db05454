//! A second process from this one, for a program that becomes two before it has threads.

use std::io;

use rustix::process::Pid;

/// Which of the two the caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that was there; the other has this pid.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Forks.
///
/// # Errors
/// Those of fork(2), and [`io::ErrorKind::InvalidInput`] where the process has threads: a child of one of them could wait
/// for ever for a lock that another held.
pub fn fork() -> io::Result<Side> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: there is one thread, so the child is a whole copy of the process: no lock is held by a thread it lacks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid).map_or(Side::Child, Side::Parent)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        // The test harness itself runs each test on a thread.
        assert_eq!(fork().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
