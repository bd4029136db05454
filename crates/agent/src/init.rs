//! The first process of a guest whose image has no init: it reaps orphans and powers off when the agent ends.

use rustix::process::{Pid, WaitOptions};

/// Reaps every child until the agent ends.
pub fn supervise(agent: Pid) {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid != agent => {}
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return,
        }
    }
}
