//! The owner of one VM: a task that serialises what changes it and publishes what it has become.
//!
//! One request is worked on at a time. While it is, others are refused as busy; a kill, a forced removal and the end of a
//! lease cancel it and come next. Commands and copies do not come here: they take the published [`Guest`].

use std::path::PathBuf;
use std::sync::Arc;

use banger_api::change::Change;
use banger_api::vm::{Lifetime, Net};
use banger_linux::process::Process;
use tokio::sync::{mpsc, watch};

use super::alive::Hold;
use super::comeback::Comeback;
use super::create;
use super::definition::{Definition, VmRecord};
use super::error::VmError;
use super::publish::Published;
use super::request::{Outcome, Request, Verb, View};
use super::start::{self, Started, VmmEnd};
use super::state::{Event, State};
use super::unwritten::Unwritten;
use super::watch::{Wake, Watchers, until_cancelled};
use crate::context::Context;
use crate::guest::Guest;
use crate::operation::{Operation, Step};
use crate::vmm::Instance;

pub(super) struct Running {
    pub(super) instance: Arc<dyn Instance>,
    pub(super) guest: Option<Guest>,
    pub(super) ended: VmmEnd,
    pub(super) watchers: Watchers,
    /// Whether the guest is paused because the host's disk is full.
    pub(super) paused: bool,
    pub(super) _published: Published,
}

/// The owner of one VM.
pub(super) struct Actor {
    pub(super) context: Arc<Context>,
    pub(super) record: VmRecord,
    pub(super) definition: Arc<Definition>,
    /// The VMM's process, from its start to its end.
    pub(super) hold: Hold,
    /// The parts of a running VM.
    pub(super) running: Option<Running>,
    pub(super) run: u64,
    pub(super) comeback: Comeback,
    /// Its end, where that is still to be written down.
    pub(super) unwritten: Unwritten,
    pub(super) main_started: bool,
    pub(super) gone: bool,
    pub(super) busy: Option<&'static str>,
    pub(super) view: watch::Sender<View>,
    pub(super) wakes: mpsc::UnboundedSender<Wake>,
    pub(super) waking: Option<mpsc::UnboundedReceiver<Wake>>,
}

impl Actor {
    /// An owner for this record, and its view.
    pub(super) fn new(context: Arc<Context>, record: VmRecord, hold: Hold) -> (Actor, watch::Receiver<View>) {
        let (wakes, waking) = mpsc::unbounded_channel();
        let definition = Arc::new(record.definition.clone());
        let view = View {
            definition: Arc::clone(&definition),
            state: record.state.clone(),
            generation: record.generation,
            guest: None,
            pid: against_record(&hold, &record.state),
            console: None,
            paused: false,
            busy: None,
            gone: false,
            missed: false,
            starts_again: None,
        };
        let (view, views) = watch::channel(view);
        let actor = Actor {
            context,
            record,
            definition,
            hold,
            running: None,
            run: 0,
            comeback: Comeback::default(),
            unwritten: Unwritten::default(),
            main_started: false,
            gone: false,
            busy: None,
            view,
            wakes,
            waking: Some(waking),
        };
        (actor, views)
    }

    /// Works until the VM is gone, or nobody can ask any more.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        let Some(mut waking) = self.waking.take() else { return };
        let mut next = None;
        while !self.gone {
            let request = match next.take() {
                Some(request) => request,
                None => tokio::select! {
                    Some(wake) = waking.recv() => match self.wake(wake).await {
                        Some(request) => request,
                        None => continue,
                    },
                    request = inbox.recv() => match request {
                        Some(request) => request,
                        None => return,
                    },
                },
            };
            next = self.serve(request, &mut inbox).await;
        }
        // Who wanted it gone has what it wanted.
        if let Some(Request { verb: Verb::Remove { .. } | Verb::LeaseEnded, reply, .. }) = next {
            drop(reply.send(Ok(self.outcome(Vec::new()))));
        }
    }

    /// Works on one request and refuses others meanwhile. One that overrides is returned, to come next; during a recovery
    /// any is.
    async fn serve(&mut self, request: Request, inbox: &mut mpsc::Receiver<Request>) -> Option<Request> {
        let Request { verb, operation, reply } = request;
        let (name, recovers) = (self.record.definition.name.clone(), verb == Verb::Recover);
        self.busy = Some(operation.verb());
        self.publish();
        let mut waiting = None;
        let result = {
            let work = self.perform(verb, &operation);
            tokio::pin!(work);
            loop {
                tokio::select! {
                    result = &mut work => break result,
                    Some(other) = inbox.recv(), if waiting.is_none() => {
                        if other.verb.overrides() {
                            operation.cancel();
                            waiting = Some(other);
                        } else if recovers {
                            // Nobody asked for what is under way: who comes meanwhile only has to wait.
                            waiting = Some(other);
                        } else {
                            let busy = VmError::Busy { name: name.clone(), verb: operation.verb() };
                            // Who does not wait for the answer does not need it.
                            drop(other.reply.send(Err(busy)));
                        }
                    }
                }
            }
        };
        self.busy = None;
        self.publish();
        operation.ended(&result);
        drop(reply.send(result.map(|changes| self.outcome(changes))));
        waiting
    }

    fn outcome(&self, changes: Vec<Change>) -> Outcome {
        Outcome { view: self.view.borrow().clone(), changes }
    }

    async fn perform(&mut self, verb: Verb, operation: &Operation) -> Result<Vec<Change>, VmError> {
        match verb {
            Verb::Change(wanted) => self.change(operation, &wanted).await,
            verb => self.perform_plainly(verb, operation).await.map(|()| Vec::new()),
        }
    }

    async fn perform_plainly(&mut self, verb: Verb, operation: &Operation) -> Result<(), VmError> {
        match verb {
            Verb::Change(_) => Ok(()),
            Verb::Create { start } => {
                let made = until_cancelled(operation, self.create(operation, start)).await;
                self.or_remove(made, operation).await
            }
            Verb::Start => match &self.record.state {
                State::Running(_) => self.go_on("start").await,
                _ => self.start_once(operation).await,
            },
            Verb::StartAgain => self.start_again(operation).await,
            Verb::Authorize(keys) => self.authorize(operation, &keys).await,
            Verb::Restart { force, patience } => self.restart(operation, force, patience).await,
            Verb::Stop { force, patience } => self.stop_wanting(operation, force, patience, false).await,
            Verb::Remove { force } => {
                self.may_be_removed(force).await?;
                VmError::all(self.remove(operation).await)
            }
            Verb::LeaseEnded => {
                let stays = match self.record.definition.lifetime {
                    Lifetime::Kept => true,
                    Lifetime::Connection => false,
                    Lifetime::Command => self.main_started,
                };
                if stays { Ok(()) } else { VmError::all(self.remove(operation).await) }
            }
            Verb::Recover => self.recover(operation).await,
            Verb::Settle => Ok(()),
            Verb::BeginMain => {
                self.main_started = false;
                self.record.main = true;
                Ok(self.context.store.update_vm(self.record.clone()).await?)
            }
            Verb::MainStarted => {
                self.main_started = true;
                self.watch_main();
                Ok(())
            }
        }
    }

    async fn create(&mut self, operation: &Operation, start: bool) -> Result<(), VmError> {
        let context = Arc::clone(&self.context);
        create::make_disks(&context, &self.definition, operation).await?;
        if !start {
            let syncing = create::sync_disks(&context, &self.definition);
            operation.stage("disk.sync", create::synced(syncing)).await?;
            return self.advance(operation, Step::RecordStopped, Event::Made).await;
        }
        // One write for both steps: a crash between them would tell nothing that a crash before them does not.
        self.record.state = self.next(Event::Made)?;
        self.advance(operation, Step::RecordStart, Event::Start).await?;
        let syncing = create::sync_disks(&context, &self.definition);
        let started = start::start(&context, &self.definition, &mut self.hold, operation).await?;
        operation.stage("disk.sync", create::synced(syncing)).await?;
        self.take(operation, started).await
    }

    pub(super) async fn start(&mut self, operation: &Operation) -> Result<(), VmError> {
        let context = Arc::clone(&self.context);
        self.record.main = false;
        self.main_started = false;
        self.advance(operation, Step::RecordStart, Event::Start).await?;
        self.settle_address().await?;
        let started = start::start(&context, &self.definition, &mut self.hold, operation).await?;
        self.take(operation, started).await
    }

    /// Takes the address that its name has now: another one, where the subnet is another than when it ran last.
    async fn settle_address(&mut self) -> Result<(), VmError> {
        if self.definition.net == Net::None {
            return Ok(());
        }
        let subnet = self.context.subnet().await?;
        let address = self.context.store.lease(self.definition.name.clone(), subnet).await?;
        if self.definition.address != Some(address) {
            self.record.definition.address = Some(address);
            self.definition = Arc::new(self.record.definition.clone());
            self.publish();
        }
        Ok(())
    }

    /// Records that it runs, and publishes it with its guest: who sees it running can run something in it.
    pub(super) async fn take(&mut self, operation: &Operation, started: Started) -> Result<(), VmError> {
        self.save(operation, Step::RecordRunning, Event::Ready(started.run)).await?;
        self.run += 1;
        let mut watchers =
            Watchers::new(self.definition.name.clone(), self.run, self.wakes.clone(), started.ended.clone());
        watchers.session(started.session_over);
        watchers.tell_the_time(started.guest.clone());
        watchers.storage(Arc::clone(&started.instance), self.disks());
        let guest = Some(started.guest);
        let published = started.bound.serve(&self.view.subscribe());
        self.running = Some(Running {
            instance: started.instance,
            guest,
            ended: started.ended,
            watchers,
            paused: false,
            _published: published,
        });
        self.publish();
        Ok(())
    }

    /// Where its disks are.
    pub(super) fn disks(&self) -> PathBuf {
        self.context.paths.vm(self.definition.id.as_str()).state
    }

    pub(super) fn next(&self, event: Event) -> Result<State, VmError> {
        let attempted = match event {
            Event::Made | Event::Ready(_) => "go on with",
            Event::Start => "start",
            Event::Stop | Event::Ended { .. } => "stop",
            Event::Remove => "remove",
        };
        let denied = |denied| VmError::Denied { attempted, name: self.record.definition.name.clone(), denied };
        self.record.state.next(event).map_err(denied)
    }

    /// Records the state after `event`, then publishes it.
    pub(super) async fn advance(&mut self, operation: &Operation, step: Step, event: Event) -> Result<(), VmError> {
        let saved = self.save(operation, step, event).await;
        self.publish();
        saved
    }

    /// Records the state after `event`.
    async fn save(&mut self, operation: &Operation, step: Step, event: Event) -> Result<(), VmError> {
        let starts = event == Event::Start;
        let state = self.next(event)?;
        let mut record = self.record.clone();
        record.traces = self.traces();
        record.state = state;
        record.wanted |= starts;
        record.generation += 1;
        record.host_boot.clone_from(&self.context.host_boot);
        let context = Arc::clone(&self.context);
        let save = async {
            context.store.update_vm(record.clone()).await?;
            self.record = record;
            self.unwritten = Unwritten::default();
            Ok(())
        };
        operation.stage("record.save", context.step(step, save)).await
    }

    pub(super) fn publish(&self) {
        let running = self.running.as_ref();
        let ghost = || against_record(&self.hold, &self.record.state);
        let view = View {
            definition: Arc::clone(&self.definition),
            state: self.record.state.clone(),
            generation: self.record.generation,
            guest: running.and_then(|running| running.guest.clone()),
            pid: running.map(|running| running.instance.process().pid()).or_else(ghost),
            console: running.and_then(|running| running.instance.console()),
            paused: running.is_some_and(|running| running.paused),
            busy: self.busy,
            gone: self.gone,
            missed: self.is_missed(),
            starts_again: self.comeback.at.filter(|_| self.is_missed()),
        };
        self.view.send_replace(view.clone());
        self.context.tell(&view);
    }
}

/// The process of a VM's VMM that lives although the record says that the VM is stopped.
fn against_record(hold: &Hold, state: &State) -> Option<u32> {
    hold.living().filter(|_| matches!(state, State::Stopped { .. })).map(Process::pid)
}
