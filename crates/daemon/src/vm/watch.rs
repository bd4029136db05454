//! What can happen to a VM while nobody asks anything of it, turned into messages to its owner.

use std::process::ExitStatus;
use std::sync::Arc;

use banger_protocol::call::CallErrorCode;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::comeback::End;
use super::error::VmError;
use super::start::VmmEnd;
use crate::guest::{self, Guest, GuestError};
use crate::operation::Operation;
use crate::vmm::Instance;

/// A message to the owner. The number says which of the VM's runs it is about.
#[derive(Debug)]
pub(super) enum Wake {
    /// The VMM ended.
    VmmEnded(u64, Option<ExitStatus>),
    /// The session with the agent broke.
    SessionOver(u64),
    /// A new session was opened.
    SessionOpened(u64, Guest, watch::Receiver<bool>),
    /// The guest is paused because the host's disk is full.
    Paused(u64),
    /// The guest that was paused runs steadily.
    GoesOn(u64),
    /// The main command ended, or is not there.
    MainEnded(u64),
    /// The pause before another try to write its end down is over.
    TimeToWrite,
    /// The pause before a start by itself is over; the run is the one that ended.
    TimeToStart(u64),
}

/// The watchers of one run; they end with it.
pub(super) struct Watchers {
    vm: String,
    pub(super) run: u64,
    pub(super) wakes: mpsc::UnboundedSender<Wake>,
    pub(super) tasks: JoinSet<()>,
}

impl Watchers {
    /// Watches the VMM of a run.
    pub(super) fn new(vm: String, run: u64, wakes: mpsc::UnboundedSender<Wake>, ended: VmmEnd) -> Watchers {
        let mut watchers = Watchers { vm, run, wakes, tasks: JoinSet::new() };
        watchers.spawn(async move { Some(Wake::VmmEnded(run, ended.await)) });
        watchers
    }

    /// Watches a session.
    pub(super) fn session(&mut self, mut over: watch::Receiver<bool>) {
        let run = self.run;
        self.spawn(async move {
            // The sender is dropped only with the session's driver: that is an end too.
            drop(over.wait_for(|over| *over).await);
            Some(Wake::SessionOver(run))
        });
    }

    /// Tells a guest the time to the instant, as its hello could not. Nobody waits for it.
    pub(super) fn tell_the_time(&mut self, guest: Guest) {
        let vm = self.vm.clone();
        self.spawn(async move {
            if let Err(error) = guest.set_clock().await {
                tracing::warn!(vm, error = crate::api::error::chain(&error), "a guest does not take the time");
            }
            None
        });
    }

    /// Opens a new session. An agent that is not there is waited for; there is no other way back to it.
    pub(super) fn reconnect(&mut self, instance: Arc<dyn Instance>) {
        let (run, vm) = (self.run, self.vm.clone());
        self.spawn(async move {
            match guest::connect_again(&*instance, &vm).await {
                Ok((guest, over)) => Some(Wake::SessionOpened(run, guest, over)),
                Err(error) => {
                    tracing::warn!(vm, error = crate::api::error::chain(&error), "no new session with an agent");
                    None
                }
            }
        });
    }

    /// Watches the main command.
    pub(super) fn main(&mut self, guest: Guest) {
        let run = self.run;
        self.spawn(async move {
            match guest.ended("main").await {
                Ok(()) => Some(Wake::MainEnded(run)),
                Err(GuestError::Refused(refusal)) if refusal.code == CallErrorCode::NotFound => {
                    Some(Wake::MainEnded(run))
                }
                // The session broke: the next one brings a new watcher.
                Err(_) => None,
            }
        });
    }

    fn spawn(&mut self, watch: impl Future<Output = Option<Wake>> + Send + 'static) {
        let wakes = self.wakes.clone();
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(async move {
            if let Some(wake) = watch.await {
                // An owner that is gone wants nothing more.
                drop(wakes.send(wake));
            }
        });
    }
}

/// Does the work of an operation, unless somebody asks it to give up first.
pub(super) async fn until_cancelled(
    operation: &Operation,
    work: impl Future<Output = Result<(), VmError>>,
) -> Result<(), VmError> {
    tokio::select! {
        done = work => done,
        () = operation.cancelled() => Err(VmError::Cancelled(operation.verb())),
    }
}

/// How a VM ended, in words.
pub(super) fn how_it_ended(end: End, status: Option<ExitStatus>, said: Option<&str>) -> String {
    match (end, status) {
        (End::PoweredOff, _) => "the guest went down".to_owned(),
        (End::Rebooted, _) => "the guest rebooted".to_owned(),
        (End::Failed, Some(status)) if !status.success() => format!("its VMM ended: {status}"),
        (End::Failed, _) => match said.filter(|said| said.contains("Kernel panic")) {
            Some(said) => format!("the guest's kernel gave up; its console ends with: {said}"),
            None => "its VMM ended".to_owned(),
        },
    }
}
