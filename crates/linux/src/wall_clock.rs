//! The host's wall clock, when it jumps: after the host slept, or when somebody set it.

use std::io;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::Interest;

use crate::fd_stream::FdStream;

/// Tells each jump of the wall clock. A timer that is cancelled by one (`TFD_TIMER_CANCEL_ON_SET`, timerfd_create(2)): no
/// clock is read in between.
#[derive(Debug)]
pub struct Jumps {
    timer: FdStream,
}

/// So far in the future that the timer itself never goes off.
const NEVER: i64 = i64::MAX / 1_000_000_000 - 1;

impl Jumps {
    /// Begins to watch.
    ///
    /// # Errors
    /// Those of timerfd_create(2).
    pub fn new() -> io::Result<Jumps> {
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let jumps = Jumps { timer: FdStream::new(timer, Interest::READABLE)? };
        jumps.arm()?;
        Ok(jumps)
    }

    /// Waits for the next jump.
    ///
    /// # Errors
    /// Those of read(2) and timerfd_settime(2).
    pub async fn next(&self) -> io::Result<()> {
        loop {
            match self.timer.read_some(&mut [0; 8]).await {
                Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => return self.arm(),
                Err(error) => return Err(error),
                Ok(_) => self.arm()?,
            }
        }
    }

    fn arm(&self) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let when = Itimerspec { it_interval: zero, it_value: Timespec { tv_sec: NEVER, tv_nsec: 0 } };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        rustix::time::timerfd_settime(&self.timer, flags, &when)?;
        Ok(())
    }
}
