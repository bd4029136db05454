//! Programs and processes. The only place that starts a program, from the list in [`Program`].

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The programs that banger may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// `/usr/bin/qemu-system-x86_64`.
    Qemu,
    /// `/usr/bin/mmdebstrap`.
    Mmdebstrap,
    /// `/sbin/mke2fs`.
    Mke2fs,
    /// A static agent, as the fake VMM runs it on the host; the caller names the file.
    Agent(PathBuf),
    /// A command that a guest's user asked for; only the agent starts it.
    Command(PathBuf),
}

/// How to start a program.
#[derive(Debug)]
pub struct Launch {
    /// Which.
    pub program: Program,
    /// Its arguments, without the program's name.
    pub args: Vec<OsString>,
}

/// A process, known by pid and start time, held by a pidfd: a number that was reused is never taken for it.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    start_time: u64,
    pidfd: OwnedFd,
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When it started, in clock ticks after boot (proc_pid_stat(5), field 22).
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// Its pidfd; readable once it has ended (pidfd_open(2)).
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }
}

/// Why a process could not be started or watched.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("cannot start {program}")]
    Start {
        /// The program's path.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
