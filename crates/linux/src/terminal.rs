//! Whether this process may read a terminal.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Whether this process is in the terminal's foreground (tcgetpgrp(3)): in the background, reading would stop it.
///
/// A process group that was made in another pid namespace has the number 0 here, on both sides of the comparison; where both are,
/// as below `unshare --pid --fork`, they are taken for the same.
pub fn is_foreground(terminal: BorrowedFd<'_>) -> bool {
    // SAFETY: both take and return integers.
    let (foreground, own) = unsafe { (libc::tcgetpgrp(terminal.as_raw_fd()), libc::getpgrp()) };
    foreground == own
}
