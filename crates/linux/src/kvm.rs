//! Whether the kernel's KVM is any good here.
//!
//! That `/dev/kvm` opens says little. There are hosts, virtual machines themselves, whose `/dev/kvm` opens, creates VMs, and
//! then runs guest code in software, a thousand times slower than a processor: a stock kernel never finishes booting there,
//! and QEMU's own emulation is much the better choice. So the probe measures: a guest that counts down for 10^6
//! instructions and halts, three times, of which the best counts, as a busy host makes any single one slow. Hardware takes
//! 0.2-0.5 ms for that, software that interprets 500 ms or more. The line between them is drawn at 20 million instructions
//! per second: twenty times less than the slowest hardware, and ten times more than what was measured in software.
//!
//! Guest code is cut off after 150 ms, whatever the device does: a timer's signal ends the guest's run, and what it has
//! counted by then is its rate.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

mod machine;

use machine::{Ended, Guest};

/// What the kernel's KVM is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// It runs guest code on the processor.
    Real {
        /// The rate that was measured.
        instructions_per_second: u64,
    },
    /// It opens, but is no faster than emulation.
    Slow {
        /// The rate that was measured.
        instructions_per_second: u64,
    },
    /// There is none, or it does not work.
    Absent {
        /// What failed.
        why: String,
    },
    /// The caller may not use it.
    Denied {
        /// What failed.
        why: String,
    },
}

/// How many instructions a second are taken for hardware.
const REAL: u64 = 20_000_000;

/// How long guest code may run, all runs together.
const CUT_OFF: Duration = Duration::from_millis(150);

/// How much longer the rest may take: making a VM, which an emulated host with working KVM was seen to need a second for
/// when it has just booted, and a run that does not heed its signal.
const GRACE: Duration = Duration::from_secs(2);

/// How many instructions one run has.
const INSTRUCTIONS: u32 = 1_000_000;

/// Measures. Takes a few milliseconds where KVM is real, 160 where it is slow, and never more than 2.2 s.
pub fn probe() -> Probe {
    probe_device(Path::new("/dev/kvm"))
}

fn probe_device(device: &Path) -> Probe {
    let kvm = match OpenOptions::new().read(true).write(true).open(device) {
        Ok(kvm) => kvm,
        Err(error) => {
            let why = format!("{}: {error}", device.display());
            return if error.kind() == io::ErrorKind::PermissionDenied {
                Probe::Denied { why }
            } else {
                Probe::Absent { why }
            };
        }
    };
    // A thread of its own: the signal is for it alone, and a device that hangs in the kernel hangs nobody else.
    let (sender, measured) = mpsc::channel();
    std::thread::spawn(move || drop(sender.send(measure(&kvm))));
    match measured.recv_timeout(CUT_OFF + GRACE) {
        Ok(Ok(instructions_per_second)) if instructions_per_second > REAL => Probe::Real { instructions_per_second },
        Ok(Ok(instructions_per_second)) => Probe::Slow { instructions_per_second },
        Ok(Err(error)) => Probe::Absent { why: format!("{} cannot run a guest: {error}", device.display()) },
        Err(_) => Probe::Slow { instructions_per_second: 0 },
    }
}

/// The best rate of three runs, or of those before the cut-off, in instructions per second.
fn measure(kvm: &File) -> io::Result<u64> {
    let mut guest = Guest::new(kvm)?;
    let _alarm = Alarm::set(&guest, CUT_OFF)?;
    let mut best = 0;
    for _ in 0..3 {
        let start = Instant::now();
        let (ended, executed) = guest.count_down(INSTRUCTIONS)?;
        let nanos = start.elapsed().as_nanos().max(1);
        let rate = u128::from(executed) * 1_000_000_000 / nanos;
        best = best.max(u64::try_from(rate).unwrap_or(u64::MAX));
        if ended == Ended::ByAlarm {
            break;
        }
    }
    Ok(best)
}

/// A timer that sends the calling thread a signal, which it has blocked but for the time in the guest.
struct Alarm {
    timer: libc::timer_t,
}

impl Alarm {
    const SIGNAL: libc::c_int = libc::SIGALRM;

    fn set(guest: &Guest, after: Duration) -> io::Result<Alarm> {
        // SAFETY: all zeros is a valid value of each of these plain C structures.
        let (mut blocked, mut event, mut when): (libc::sigset_t, libc::sigevent, libc::itimerspec) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
        // SAFETY: the set lives through both calls, which touch only it and this thread's signal mask.
        let masked = unsafe {
            libc::sigemptyset(&raw mut blocked);
            libc::sigaddset(&raw mut blocked, Alarm::SIGNAL);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, std::ptr::null_mut())
        };
        if masked != 0 {
            return Err(io::Error::from_raw_os_error(masked));
        }
        guest.interrupted_by_any_signal()?;
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = Alarm::SIGNAL;
        event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
        let mut timer: libc::timer_t = std::ptr::null_mut();
        // SAFETY: both pointers are to live local values.
        if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let alarm = Alarm { timer };
        when.it_value.tv_nsec = libc::c_long::from(after.subsec_nanos());
        // SAFETY: the timer exists, the pointer is to a live local value, and the old value is not asked for.
        if unsafe { libc::timer_settime(alarm.timer, 0, &raw const when, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(alarm)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: the timer exists, and nobody else knows it. A signal that is pending dies with the thread.
        unsafe { libc::timer_delete(self.timer) };
    }
}

/// Calls ioctl(2) with a number or nothing as its argument. The result, which is not negative.
fn ioctl(fd: &impl AsRawFd, request: libc::c_ulong, argument: usize) -> io::Result<libc::c_int> {
    // SAFETY: only for requests of KVM whose argument is a number, or a pointer that the caller vouches for.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same, for requests whose result is a new descriptor.
fn ioctl_fd(fd: &impl AsRawFd, request: libc::c_ulong) -> io::Result<OwnedFd> {
    let raw = ioctl(fd, request, 0)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_device_is_absent() {
        assert!(matches!(probe_device(Path::new("/dev/no-such-kvm")), Probe::Absent { .. }));
        assert!(matches!(probe_device(Path::new("/dev/null")), Probe::Absent { .. }));
    }

    #[test]
    fn the_probe_does_not_hang_and_judges_by_the_rate() {
        let start = Instant::now();
        let found = probe();
        assert!(start.elapsed() < CUT_OFF + GRACE + Duration::from_secs(1), "{:?}", start.elapsed());
        match found {
            Probe::Real { instructions_per_second } => assert!(instructions_per_second > REAL),
            Probe::Slow { instructions_per_second } => assert!(instructions_per_second <= REAL),
            Probe::Absent { why } | Probe::Denied { why } => banger_skip::skipped!("no KVM to measure: {why}"),
        }
    }

    #[test]
    fn a_guest_that_never_halts_is_cut_off() {
        let Ok(kvm) = OpenOptions::new().read(true).write(true).open("/dev/kvm") else {
            banger_skip::skipped!("no /dev/kvm");
            return;
        };
        let start = Instant::now();
        let run = std::thread::spawn(move || {
            let mut guest = Guest::new(&kvm)?;
            let _alarm = Alarm::set(&guest, CUT_OFF)?;
            guest.count_down(u32::MAX)
        });
        let (ended, executed) = run.join().unwrap().unwrap();
        // Hardware of 10 GHz would be through after 400 ms.
        assert_eq!(ended, Ended::ByAlarm);
        assert!(executed > 0 && start.elapsed() >= CUT_OFF, "{executed} in {:?}", start.elapsed());
    }
}
