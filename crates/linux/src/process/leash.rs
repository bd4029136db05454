//! Children that do not outlive who started them.

use std::process::ExitStatus;

use rustix::process::Signal;

use super::{Launch, Process, ProcessError};

/// A child that is killed and reaped when this is dropped before [`Leash::ended`] has returned: a cancelled operation
/// leaves no tool behind.
#[derive(Debug)]
pub struct Leash {
    process: Option<Process>,
}

impl Leash {
    /// Starts a program on a leash.
    ///
    /// # Errors
    /// [`ProcessError::Start`].
    pub fn start(launch: Launch) -> Result<Leash, ProcessError> {
        Ok(Leash { process: Some(Process::start(launch)?) })
    }

    /// A leash on a child.
    pub(super) fn of(process: Process) -> Leash {
        Leash { process: Some(process) }
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// [`ProcessError::Watch`].
    pub async fn ended(mut self) -> Result<ExitStatus, ProcessError> {
        let Some(process) = &self.process else { return Ok(ExitStatus::default()) };
        let status = process.ended().await?.unwrap_or_default();
        self.process = None;
        Ok(status)
    }

    /// The process, as long as it is on the leash.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Lets the process run on without a leash.
    pub fn release(mut self) -> Option<Process> {
        self.process.take()
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        if let Some(process) = &self.process
            && process.signal(Signal::KILL).is_ok()
        {
            // A killed child ends in no time. Waited for by poll, because `ended` may have made the pidfd one that does not
            // block. The error of a failed wait has nowhere to go.
            let mut fds = [rustix::event::PollFd::new(&process.pidfd, rustix::event::PollFlags::IN)];
            drop(rustix::event::poll(&mut fds, None).map(|_| process.reap()));
        }
    }
}
