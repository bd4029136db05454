//! What a child does to itself between fork(2) and execve(2), and the start time by which a process is known.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use rustix::process::{Pid, Signal};

use super::Credentials;

/// What the child does to itself before it executes the program.
pub(super) struct Setup {
    pub(super) inherit: Vec<OwnedFd>,
    pub(super) credentials: Option<Credentials>,
    pub(super) no_new_privileges: bool,
    pub(super) session: bool,
    pub(super) terminal: bool,
    pub(super) parent: Option<Pid>,
    pub(super) pid_file: Option<File>,
}

impl Setup {
    pub(super) fn apply(&self) -> io::Result<()> {
        if self.session {
            rustix::process::setsid()?;
        }
        if self.terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        if let Some(parent) = self.parent {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if rustix::process::getppid() != Some(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
        }
        for fd in &self.inherit {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        }
        if let Some(file) = &self.pid_file {
            record_self(file)?;
        }
        if let Some(credentials) = &self.credentials {
            assume(credentials)?;
        }
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true)?;
        }
        Ok(())
    }
}

/// Raw system calls: the C library's wrappers want to change the threads that this child does not have.
fn assume(credentials: &Credentials) -> io::Result<()> {
    let groups = (credentials.groups.len(), credentials.groups.as_ptr());
    // SAFETY: the pointer and length are those of a live vector of `gid_t`; the other calls take integers.
    let results = unsafe {
        [
            libc::syscall(libc::SYS_setgroups, groups.0, groups.1),
            libc::syscall(libc::SYS_setresgid, credentials.gid, credentials.gid, credentials.gid),
            libc::syscall(libc::SYS_setresuid, credentials.uid, credentials.uid, credentials.uid),
        ]
    };
    if results.contains(&-1) { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn record_self(mut file: &File) -> io::Result<()> {
    let mut stat = [0u8; 1024];
    let length = File::open("/proc/self/stat")?.read(&mut stat)?;
    let start = start_time_field(&stat[..length]).ok_or(io::ErrorKind::InvalidData)?;
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let mut line = [0u8; 48];
    let mut rest = &mut line[..];
    writeln!(rest, "{pid} {start}")?;
    let left = rest.len();
    file.write_all(&line[..line.len() - left])
}

pub(super) fn read_start_time(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
    start_time_field(&stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Field 22 of proc_pid_stat(5). The second field, a name in parentheses, may itself hold blanks and parentheses.
pub(super) fn start_time_field(stat: &[u8]) -> Option<u64> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 2;
    let field = stat.get(after_name..)?.split(|&byte| byte == b' ').nth(19)?;
    std::str::from_utf8(field).ok()?.parse().ok()
}
