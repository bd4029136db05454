//! The first process of a guest whose image has no init: it reaps orphans, and brings the machine down when the agent ends.

use std::time::{Duration, Instant};

use banger_linux::power;
use rustix::mount::{MountFlags, mount_remount};
use rustix::process::{Pid, PidfdFlags, WaitOptions};

/// How long everything has to end, once asked.
const GRACE: Duration = Duration::from_secs(5);

/// Reaps every child until the agent ends; then ends all others, first kindly, and writes everything to the disks. The
/// caller powers off.
pub fn supervise(agent: Pid) {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid == agent => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    // Nothing more can be done about one that does not end, nor about a disk that cannot be written.
    power::end_all(false).ok();
    reap_all(Instant::now() + GRACE);
    power::end_all(true).ok();
    reap_all(Instant::now() + GRACE);
    rustix::fs::sync();
    for on in ["/root", "/"] {
        mount_remount(on, MountFlags::RDONLY, "").ok();
    }
}

/// Reaps until there is no child left, or the deadline has passed.
fn reap_all(deadline: Instant) {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => {
                if !wait_for_one(deadline) {
                    return;
                }
            }
            Err(_no_child) => return,
        }
    }
}

/// Waits until some process other than this one ends; false where none can be found or the deadline has passed.
fn wait_for_one(deadline: Instant) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    let pidfds: Vec<_> = processes
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(|&pid| pid != Pid::INIT && std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).is_ok())
        .filter_map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok())
        .collect();
    let mut polled: Vec<_> =
        pidfds.iter().map(|pidfd| rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)).collect();
    let Ok(left) = deadline.saturating_duration_since(Instant::now()).try_into() else { return false };
    rustix::event::poll(&mut polled, Some(&left)).is_ok_and(|ended| ended > 0)
}
