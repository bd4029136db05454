//! What a new daemon makes of what an earlier one left: decided by the record and by what lives, then done by the owner.

use std::sync::Arc;

use super::actor::{Actor, Running};
use super::alive::Hold;
use super::comeback::{End, comes_back};
use super::definition::VmRecord;
use super::error::VmError;
use super::publish;
use super::start::{self, Started};
use super::state::State;
use super::watch::Watchers;
use crate::context::Context;
use crate::guest;
use crate::operation::Operation;
use crate::vmm::{Instance, VmmError};
use banger_api::vm::Lifetime;

/// What to do with a VM.
enum Plan {
    /// Its create or its removal was cut off, or its connection is gone: remove it.
    Remove,
    /// It does not run: release what is left, and say why.
    Release(Option<String>),
    /// It was going down: go on.
    GoDown(Box<dyn Instance>),
    /// It runs: take it over.
    Adopt(Box<dyn Instance>),
    /// It was starting and its VMM lives: wait for its agent.
    AwaitAgent(Box<dyn Instance>),
    /// Its VMM lives, but the daemon cannot take it over, or the record says that it is stopped: that is no reason to
    /// end a guest. A kill still works.
    Leave(VmError),
}

/// Decides by the record and by what lives.
async fn plan(record: &VmRecord, hold: &Hold, context: &Context) -> Plan {
    let lifetime = record.definition.lifetime;
    // The daemon's promise of `--rm` holds when the daemon was killed: the connection went with it.
    if lifetime == Lifetime::Connection || (lifetime == Lifetime::Command && !record.main) {
        return Plan::Remove;
    }
    match &record.state {
        State::Creating | State::Removing => Plan::Remove,
        State::Stopped { reason } => match hold.living() {
            Some(process) => {
                let (attempted, name) = ("release", record.definition.name.clone());
                Plan::Leave(VmError::Lives { attempted, name, pid: process.pid() })
            }
            None => Plan::Release(reason.clone()),
        },
        State::Starting | State::Running(_) | State::Stopping => {
            let held = match hold {
                Hold::Held(process) => process.try_clone().map_err(VmmError::Process),
                Hold::Gone if record.host_boot != context.host_boot => {
                    return Plan::Release(Some("the host was rebooted".to_owned()));
                }
                Hold::Gone => Err(VmmError::Gone),
                // The release looks again and names them.
                Hold::Unknown => return Plan::Release(Some("its VMM ended while no daemon ran".to_owned())),
            };
            let machine = start::machine(context, &record.definition);
            let adopted = match held {
                Ok(process) => context.vmm.adopt(&machine, process).await,
                Err(error) => Err(error),
            };
            match (adopted, &record.state) {
                (Ok(instance), State::Starting) => Plan::AwaitAgent(instance),
                (Ok(instance), State::Stopping) => Plan::GoDown(instance),
                (Ok(instance), _) => Plan::Adopt(instance),
                (Err(VmmError::Gone), State::Starting) => {
                    Plan::Release(Some("the daemon ended while it was starting".to_owned()))
                }
                (Err(VmmError::Gone), State::Stopping) => Plan::Release(None),
                (Err(VmmError::Gone), _) => Plan::Release(Some("its VMM ended while no daemon ran".to_owned())),
                (Err(error), _) => Plan::Leave(error.into()),
            }
        }
    }
}

impl Actor {
    /// Takes over what an earlier daemon left of this VM.
    pub(super) async fn recover(&mut self, operation: &Operation) -> Result<(), VmError> {
        let context = Arc::clone(&self.context);
        match plan(&self.record, &self.hold, &context).await {
            Plan::Remove => VmError::all(self.remove(operation).await),
            Plan::Release(reason) => {
                // Nobody saw how it ended: that is a failure. Who is missed then is started by the registry, in its turn.
                self.record.wanted &= comes_back(self.record.definition.restart, End::Failed);
                VmError::all(self.fall(operation, reason).await)
            }
            Plan::GoDown(instance) => {
                self.adopt(instance).await?;
                self.go_down(operation, false, context.config.timeouts.stop()).await
            }
            Plan::Adopt(instance) => {
                self.adopt(instance).await?;
                Ok(())
            }
            Plan::Leave(error) => Err(error),
            Plan::AwaitAgent(instance) => {
                let awaited = self.await_agent(operation, Arc::from(instance)).await;
                self.or_release(awaited, operation).await
            }
        }
    }

    /// Finishes a start that an earlier daemon began.
    async fn await_agent(&mut self, operation: &Operation, instance: Arc<dyn Instance>) -> Result<(), VmError> {
        let ended = start::end_of(&*instance)?;
        let answer = start::first_answer(
            &self.context,
            &self.definition,
            guest::connect_again(&*instance, &self.definition.name),
            &ended,
        );
        let (guest, session_over) = operation.stage("agent.ready", answer).await?;
        let run = start::run_of(&self.context, &guest);
        let bound = publish::bind_anew(&self.definition.publish, &self.definition.name).await;
        self.take(operation, Started { instance, ended, guest, session_over, run, bound }).await
    }

    /// Takes over a VM that runs; its agent is connected to behind.
    async fn adopt(&mut self, instance: Box<dyn Instance>) -> Result<(), VmError> {
        let instance: Arc<dyn Instance> = Arc::from(instance);
        let ended = start::end_of(&*instance)?;
        self.run += 1;
        let mut watchers = Watchers::new(self.definition.name.clone(), self.run, self.wakes.clone(), ended.clone());
        watchers.reconnect(Arc::clone(&instance));
        watchers.storage(Arc::clone(&instance), self.disks());
        let bound = publish::bind_anew(&self.definition.publish, &self.definition.name).await;
        let published = bound.serve(&self.view.subscribe());
        self.running = Some(Running { instance, guest: None, ended, watchers, paused: false, _published: published });
        self.main_started = self.record.main;
        self.record.traces = self.traces();
        self.publish();
        Ok(())
    }
}
