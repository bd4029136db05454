//! Signals by which a machine is brought down.

use std::io;

use rustix::process::Pid;

/// Sends the signal that systemd takes for `systemctl poweroff`: `SIGRTMIN+4` (systemd(1)).
///
/// # Errors
/// Those of kill(2).
pub fn tell_systemd_to_power_off(init: Pid) -> io::Result<()> {
    send(init.as_raw_nonzero().get(), libc::SIGRTMIN() + 4)
}

/// Asks every process but the caller to end (`SIGTERM`), or ends it (`SIGKILL`). Only sensible as first process.
///
/// # Errors
/// Those of kill(2).
pub fn end_all(by_force: bool) -> io::Result<()> {
    const ALL: libc::pid_t = -1;
    send(ALL, if by_force { libc::SIGKILL } else { libc::SIGTERM })
}

fn send(pid: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: kill(2) takes two numbers and touches no memory.
    if unsafe { libc::kill(pid, signal) } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
