//! The points at which an operation can fail or be killed, for the tests that try every one of them.
//!
//! Each effect on the host and each record of one is a [`Step`], and is passed before and after: so there is a point before
//! the effect, one after it but before its record, and one after both. In a daemon that nobody tests, passing does nothing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// An effect on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The record of a new VM.
    Reserve,
    /// The clone of the image's root disk.
    CloneRoot,
    /// The clone of the work seed.
    CloneWork,
    /// The record that a VM starts.
    RecordStart,
    /// The port of the network, with its address and TAP.
    ClaimPort,
    /// The rules that let a port's packets through.
    AdmitPort,
    /// The runtime directory and the initramfs of a boot.
    Prepare,
    /// The VMM's process.
    StartVmm,
    /// The agent's answer.
    AwaitAgent,
    /// The record that a VM runs.
    RecordRunning,
    /// The record that a VM stops.
    RecordStop,
    /// The request to power off.
    PowerOff,
    /// The end of the VMM's process.
    EndVmm,
    /// The end of the port of the network.
    ReleasePort,
    /// The end of the runtime directory.
    RemoveRuntime,
    /// The record that a VM has stopped.
    RecordStopped,
    /// The record of what a VM is from now on.
    RecordChange,
    /// The new size of a work disk that is in use.
    GrowDisk,
    /// The record that a VM goes.
    RecordRemove,
    /// The end of the disks.
    RemoveDisks,
    /// The end of the record.
    Forget,
    /// The record of a new image.
    ReserveImage,
    /// The packages in an image's tree.
    InstallPackages,
    /// The tree as an image has it.
    PrepareTree,
    /// The kernel and its modules.
    UnpackKernel,
    /// The root disk.
    MakeRootDisk,
    /// The work seed.
    MakeWorkSeed,
    /// The finished image in its place.
    PublishImage,
    /// The record that an image can be used.
    CompleteImage,
    /// The record that an image goes.
    RetireImage,
    /// The end of an image's files.
    RemoveImage,
    /// The end of an image's record.
    ForgetImage,
}

impl Step {
    /// All of them.
    pub const ALL: [Step; 32] = [
        Step::Reserve,
        Step::CloneRoot,
        Step::CloneWork,
        Step::RecordStart,
        Step::ClaimPort,
        Step::AdmitPort,
        Step::Prepare,
        Step::StartVmm,
        Step::AwaitAgent,
        Step::RecordRunning,
        Step::RecordStop,
        Step::PowerOff,
        Step::EndVmm,
        Step::ReleasePort,
        Step::RemoveRuntime,
        Step::RecordStopped,
        Step::RecordChange,
        Step::GrowDisk,
        Step::RecordRemove,
        Step::RemoveDisks,
        Step::Forget,
        Step::ReserveImage,
        Step::InstallPackages,
        Step::PrepareTree,
        Step::UnpackKernel,
        Step::MakeRootDisk,
        Step::MakeWorkSeed,
        Step::PublishImage,
        Step::CompleteImage,
        Step::RetireImage,
        Step::RemoveImage,
        Step::ForgetImage,
    ];
}

/// When, relative to the effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing is done yet.
    Before,
    /// The effect is done.
    After,
}

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The step fails.
    Fail,
    /// The step never goes on, and the test is told: it kills the daemon, or cancels the operation.
    Hang,
}

/// A planned fault. It strikes once.
#[derive(Debug)]
struct Plan {
    point: (Step, Phase),
    mode: Mode,
}

/// The faults of one daemon: none, but in tests.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    shared: Option<Arc<Shared>>,
    gate: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Shared {
    plans: Mutex<Vec<Plan>>,
    struck: Notify,
}

/// A fault that a test planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fault was injected {phase:?} {step:?}")]
pub struct Injected {
    /// Where.
    pub step: Step,
    /// When.
    pub phase: Phase,
}

impl Faults {
    /// Faults that a test can plan.
    pub fn plannable() -> Faults {
        Faults { shared: Some(Arc::default()), gate: None }
    }

    /// No faults, but a gate, a named pipe: the daemon listens, but others cannot find its socket until somebody has opened
    /// the pipe for writing and closed it.
    pub fn gated(gate: Option<PathBuf>) -> Faults {
        Faults { shared: None, gate }
    }

    /// Waits at the gate, if there is one.
    pub async fn before_announcement(&self) {
        if let Some(gate) = &self.gate {
            // A gate that cannot be read is open.
            drop(tokio::fs::read(gate).await);
        }
    }

    /// Plans a fault.
    pub fn plan(&self, step: Step, phase: Phase, mode: Mode) {
        if let Some(shared) = &self.shared {
            shared.plans().push(Plan { point: (step, phase), mode });
        }
    }

    /// Takes back all plans; whether there was one that had not struck.
    pub fn unplan(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| !std::mem::take(&mut *shared.plans()).is_empty())
    }

    /// Ends when a planned [`Mode::Hang`] has struck.
    pub async fn struck(&self) {
        match &self.shared {
            Some(shared) => shared.struck.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Does one step: an effect on the host, or its record.
    ///
    /// # Errors
    /// Those of the work; [`Injected`], where a test planned so.
    pub async fn step<T, E: From<Injected>>(
        &self,
        step: Step,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.pass(step, Phase::Before).await?;
        let done = work.await?;
        self.pass(step, Phase::After).await?;
        Ok(done)
    }

    /// Passes a point.
    ///
    /// # Errors
    /// [`Injected`], where a test planned so.
    async fn pass(&self, step: Step, phase: Phase) -> Result<(), Injected> {
        let Some(shared) = &self.shared else { return Ok(()) };
        match shared.take(step, phase) {
            None => Ok(()),
            Some(Mode::Fail) => Err(Injected { step, phase }),
            Some(Mode::Hang) => {
                shared.struck.notify_one();
                std::future::pending().await
            }
        }
    }
}

impl Shared {
    fn plans(&self) -> MutexGuard<'_, Vec<Plan>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, step: Step, phase: Phase) -> Option<Mode> {
        let mut plans = self.plans();
        let planned = plans.iter().position(|plan| plan.point == (step, phase))?;
        Some(plans.remove(planned).mode)
    }
}
