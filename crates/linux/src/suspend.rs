//! Being stopped from the keyboard (SIGTSTP): a program that has drawn something takes it off the screen before it stops.
//!
//! Whoever catches the signal installs a handler once for the life of the process. It is taken out here whenever nothing is
//! drawn, and put back when something is again: a caught signal that nobody waits for would make Ctrl-Z do nothing.

use std::io;
use std::sync::{Mutex, PoisonError};

use libc::{SIG_DFL, SIGTSTP, c_int};

/// The handler that was taken out.
static HANDLER: Mutex<Option<libc::sigaction>> = Mutex::new(None);

/// Takes the handler out: from now on the signal stops the process.
///
/// # Errors
/// Those of sigaction(2).
pub fn take_out() -> io::Result<()> {
    let mut handler = HANDLER.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: all-zero bytes are a valid sigaction: no flags, an empty mask, SIG_DFL.
    let mut usual: libc::sigaction = unsafe { std::mem::zeroed() };
    usual.sa_sigaction = SIG_DFL;
    let was = exchange(SIGTSTP, Some(&usual))?;
    if was.sa_sigaction != SIG_DFL {
        *handler = Some(was);
    }
    Ok(())
}

/// Puts back the handler that was taken out last, if one was.
///
/// # Errors
/// Those of sigaction(2).
pub fn put_back() -> io::Result<()> {
    match HANDLER.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(handler) => exchange(SIGTSTP, Some(&handler)).map(drop),
        None => Ok(()),
    }
}

/// Stops this process as the signal does that was caught, and returns when it goes on. Where nobody could let it go on (an
/// orphaned process group), the kernel does not stop it.
///
/// # Errors
/// Those of sigaction(2) and raise(3).
pub fn stop() -> io::Result<()> {
    take_out()?;
    // SAFETY: raise has no precondition.
    let raised = if unsafe { libc::raise(SIGTSTP) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    put_back()?;
    raised
}

fn exchange(signal: c_int, action: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let new = action.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: as above; it is overwritten.
    let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `new` is null or points to an action that is the default or was installed before; `old` is writable.
    if unsafe { libc::sigaction(signal, new, &raw mut old) } == 0 { Ok(old) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_goes_and_comes_back() {
        extern "C" fn nothing(_: c_int) {}
        // SAFETY: as in `exchange`.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
        exchange(SIGTSTP, Some(&action)).unwrap();
        take_out().unwrap();
        take_out().unwrap();
        assert_eq!(exchange(SIGTSTP, None).unwrap().sa_sigaction, SIG_DFL);
        put_back().unwrap();
        assert_eq!(exchange(SIGTSTP, None).unwrap().sa_sigaction, action.sa_sigaction);
        put_back().unwrap();
        assert_eq!(exchange(SIGTSTP, None).unwrap().sa_sigaction, action.sa_sigaction);
    }
}
