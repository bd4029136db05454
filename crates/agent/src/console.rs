//! A login shell of root's on the guest's console, for whoever looks at it: it lives on where the agent does not.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use banger_protocol::call::{CallError, CallErrorCode, Exec, Terminal};

use crate::exec::launch;
use crate::guest::Guest;

/// Sees to it that a shell runs there, in a terminal of this size and kind. One that runs already is only told the size.
///
/// # Errors
/// The error that the caller is to be told.
pub fn open(guest: &Guest, terminal: &Terminal) -> Result<(), CallError> {
    let failed = |what: &str, source: io::Error| CallError {
        code: CallErrorCode::Failed,
        message: format!("cannot {what} the console: {source}"),
    };
    if guest.is_fake() {
        let message = "a fake guest has no console to type at".to_owned();
        return Err(CallError { code: CallErrorCode::Invalid, message });
    }
    let tty = tty().map_err(|source| failed("open", source))?;
    launch::resize(&tty, terminal.rows, terminal.columns).map_err(|source| failed("set the size of", source))?;
    let mut shell = guest.console_shell.borrow_mut();
    if shell.as_ref().is_some_and(|shell| !shell.has_ended()) {
        return Ok(());
    }
    let exec = Exec { login_shell: true, tty: Some(terminal.clone()), ..Exec::default() };
    *shell = Some(launch::start_on(guest, &exec, tty)?);
    Ok(())
}

/// The terminal behind `/dev/console`: of several, the last one is read from
/// (Documentation/admin-guide/serial-console.rst).
fn tty() -> io::Result<OwnedFd> {
    let active = fs::read_to_string("/sys/class/tty/console/active")?;
    let name = active.split_ascii_whitespace().last().ok_or(io::ErrorKind::NotFound)?;
    let flags = rustix::fs::OFlags::NOCTTY.bits().cast_signed();
    let tty = OpenOptions::new().read(true).write(true).custom_flags(flags).open(Path::new("/dev").join(name))?;
    Ok(tty.into())
}
