//! Whether and when a VM that went down by itself starts again, and how it does.

use std::process::ExitStatus;
use std::time::Duration;

use banger_api::vm::{Lifetime, RestartPolicy};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::actor::Actor;
use super::error::VmError;
use super::request::{Request, Verb};
use super::state::State;
use super::watch::{Wake, until_cancelled};
use crate::context::unix_nanos;
use crate::operation::Operation;
use crate::vmm::Farewell;

/// How a VM went down without anybody's asking for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its guest powered itself off.
    PoweredOff,
    /// Its guest wants to come up again.
    Rebooted,
    /// Its VMM or its guest's kernel failed, or the host went down under it.
    Failed,
}

/// How a VMM ended, by its status, by what it said of its guest, and by the console's last words.
pub(super) fn end_of(status: Option<ExitStatus>, farewell: Option<Farewell>, said: Option<&str>) -> End {
    // A kernel that panics resets its machine.
    if said.is_some_and(|said| said.contains("Kernel panic")) {
        return End::Failed;
    }
    match (farewell, status) {
        (Some(Farewell::Rebooted), _) => End::Rebooted,
        (Some(Farewell::PoweredOff), _) => End::PoweredOff,
        (None, Some(status)) if status.success() => End::PoweredOff,
        (None, _) => End::Failed,
    }
}

/// Whether a VM that was to run starts again after such an end. A reboot is what a machine does of its own accord, whatever
/// its policy.
pub(super) fn comes_back(policy: RestartPolicy, end: End) -> bool {
    match (policy, end) {
        (RestartPolicy::Always, _) | (_, End::Rebooted) | (RestartPolicy::OnFailure, End::Failed) => true,
        (RestartPolicy::OnFailure, End::PoweredOff) | (RestartPolicy::No, _) => false,
    }
}

/// How long a VM has to run so that its next end counts as the first one.
const STEADY: Duration = Duration::from_secs(60);

/// The first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(300));

/// How long to wait before the start that follows so many in a row: twice as long each time.
fn pause(starts: u32) -> Duration {
    PAUSES.0.saturating_mul(1 << starts.min(16)).min(PAUSES.1)
}

/// The starts of one VM by itself.
#[derive(Debug, Default)]
pub(super) struct Comeback {
    /// How many there were in a row.
    starts: u32,
    /// When the next one comes, in seconds since 1970-01-01 UTC.
    pub(super) at: Option<u64>,
    waiting: Option<AbortOnDropHandle<()>>,
}

impl Actor {
    /// Whether it is down and shall not be.
    pub(super) fn is_missed(&self) -> bool {
        self.record.wanted
            && self.record.definition.lifetime == Lifetime::Kept
            && matches!(self.record.state, State::Stopped { .. })
    }

    /// Starts it after a pause.
    pub(super) fn start_later(&mut self, ran: Duration) {
        if ran >= STEADY {
            self.comeback.starts = 0;
        }
        let pause = pause(self.comeback.starts);
        self.comeback.starts += 1;
        self.comeback.at = Some((unix_nanos() + u64::try_from(pause.as_nanos()).unwrap_or(0)).div_ceil(1_000_000_000));
        let (wakes, run) = (self.wakes.clone(), self.run);
        self.comeback.waiting = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            // An owner that is gone wants nothing more.
            drop(wakes.send(Wake::TimeToStart(run)));
        })));
        let name = &self.definition.name;
        tracing::info!(vm = name, seconds = pause.as_secs_f64(), starts = self.comeback.starts, "starts again");
    }

    /// What its time to start asks for; nobody waits for the answer.
    pub(super) fn time_to_start(&self) -> Option<Request> {
        self.is_missed().then(|| Request {
            verb: Verb::StartAgain,
            operation: Operation::unwatched("start", &self.definition.name),
            reply: oneshot::channel().0,
        })
    }

    /// Starts it if it is missed; where that fails, once more after a pause.
    pub(super) async fn start_again(&mut self, operation: &Operation) -> Result<(), VmError> {
        if !self.is_missed() {
            return Ok(());
        }
        let started = match self.nothing_lives().await {
            Ok(()) => {
                let started = until_cancelled(operation, self.start(operation)).await;
                self.or_release(started, operation).await
            }
            // Leave a living VM alone.
            refused => refused,
        };
        // Who cancelled it wants something else.
        if started.is_err() && !operation.is_cancelled() && self.is_missed() {
            self.start_later(Duration::ZERO);
        }
        started
    }

    /// Starts it for its user, who is told where that fails: it is not tried again then.
    pub(super) async fn start_once(&mut self, operation: &Operation) -> Result<(), VmError> {
        self.nothing_lives().await?;
        let started = until_cancelled(operation, self.start(operation)).await;
        if started.is_err() {
            self.record.wanted = false;
        }
        self.or_release(started, operation).await
    }

    /// Stops it, where it runs, and starts it.
    pub(super) async fn restart(
        &mut self,
        operation: &Operation,
        force: bool,
        patience: Duration,
    ) -> Result<(), VmError> {
        if self.record.definition.lifetime != Lifetime::Kept {
            return Err(VmError::RestartRemoved(self.definition.name.clone()));
        }
        // Cut off between the two, it is still wanted: the next daemon starts it if it is to come back at all.
        self.stop_wanting(operation, force, patience, true).await?;
        self.start_once(operation).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn ends_are_told_apart() {
        let ok = Some(ExitStatus::from_raw(0));
        let killed = Some(ExitStatus::from_raw(9));
        assert_eq!(end_of(ok, Some(Farewell::PoweredOff), None), End::PoweredOff);
        assert_eq!(end_of(ok, Some(Farewell::Rebooted), Some("reboot: Restarting system")), End::Rebooted);
        assert_eq!(end_of(ok, Some(Farewell::Rebooted), Some("Kernel panic - not syncing")), End::Failed);
        assert_eq!(end_of(killed, None, None), End::Failed);
        assert_eq!(end_of(ok, None, None), End::PoweredOff);
        // One that an earlier daemon started has no status here.
        assert_eq!(end_of(None, Some(Farewell::PoweredOff), None), End::PoweredOff);
        assert_eq!(end_of(None, None, None), End::Failed);
    }

    #[test]
    fn each_policy_brings_back_what_it_says() {
        use RestartPolicy::{Always, No, OnFailure};
        let of = |policy| [End::PoweredOff, End::Rebooted, End::Failed].map(|end| comes_back(policy, end));
        assert_eq!(of(No), [false, true, false]);
        assert_eq!(of(OnFailure), [false, true, true]);
        assert_eq!(of(Always), [true, true, true]);
    }

    #[test]
    fn pauses_double_up_to_five_minutes() {
        assert_eq!(pause(0), Duration::from_millis(250));
        assert_eq!(pause(3), Duration::from_secs(2));
        assert_eq!(pause(u32::MAX), Duration::from_secs(300));
        assert!((0..30).all(|starts| pause(starts) <= pause(starts + 1)));
    }
}
