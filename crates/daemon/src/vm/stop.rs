//! Stopping a VM: its guest is asked by its agent, then by its power button. Who does not follow is ended by `release`.

use std::sync::Arc;
use std::time::Duration;

use banger_api::vm::Lifetime;

use super::actor::{Actor, Running};
use super::comeback::Comeback;
use super::error::VmError;
use super::paused;
use super::release::release;
use super::start::VmmEnd;
use super::state::{Event, State};
use crate::context::Context;
use crate::guest::{self, Guest, GuestError};
use crate::operation::{Operation, Step};
use crate::vmm::Instance;

/// How long an agent that has no session may take to greet.
const AWAY: Duration = Duration::from_secs(10);

/// How long a guest may keep its turn to go down.
const GOING_DOWN: Duration = Duration::from_secs(5);

impl Actor {
    /// Stops it; `wanted` is whether it shall run nevertheless, as in a restart.
    pub(super) async fn stop_wanting(
        &mut self,
        operation: &Operation,
        force: bool,
        patience: Duration,
        wanted: bool,
    ) -> Result<(), VmError> {
        if matches!(self.record.state, State::Stopped { .. }) {
            self.may_be_stopped(force).await?;
        }
        let force = force || self.cannot_go_down(operation).await;
        self.comeback = Comeback::default();
        let wanted_before = std::mem::replace(&mut self.record.wanted, wanted);
        match &self.record.state {
            // An earlier daemon's mistake, or the records are older than the events: the process decides.
            State::Stopped { .. } if self.hold.may_live() => {
                self.context.store.update_vm(self.record.clone()).await?;
            }
            State::Stopped { .. } if wanted_before == wanted => return Ok(()),
            State::Stopped { .. } => return Ok(self.context.store.update_vm(self.record.clone()).await?),
            // An earlier stop could not end the VMM: try again.
            State::Stopping => {}
            _ => match self.advance(operation, Step::RecordStop, Event::Stop).await {
                // It is to end, whatever can be written down.
                Err(VmError::Store(_)) if force => {}
                advanced => advanced?,
            },
        }
        self.go_down(operation, force, patience).await
    }

    /// What a stop does once it is recorded.
    pub(super) async fn go_down(
        &mut self,
        operation: &Operation,
        force: bool,
        patience: Duration,
    ) -> Result<(), VmError> {
        let context = Arc::clone(&self.context);
        let mut errors = Vec::new();
        // No watcher of this run may open a session beside the one that the stop may need.
        let running = self.running.take();
        if let (Some(Running { instance, guest, ended, watchers, .. }), false) = (running, force) {
            drop(watchers);
            let disks = self.disks();
            let ask = ask(&context, &self.definition.name, &*instance, guest, &ended, patience, operation);
            let ask = async {
                tokio::select! {
                    () = context.turns.stops.during(operation, GOING_DOWN, ask) => {}
                    // What it writes on its way down may find no space.
                    () = paused::keep_going(&*instance, &disks) => {}
                    // Not given up, but hurried: a kill came.
                    () = operation.cancelled() => {}
                }
                Ok(())
            };
            errors.extend(context.step(Step::PowerOff, ask).await.err());
        }
        errors.extend(release(&context, &self.record, &mut self.hold, operation).await);
        if errors.is_empty() && !matches!(self.record.state, State::Stopped { .. }) {
            errors.extend(self.has_ended(operation, None).await.err());
        }
        if errors.is_empty() && self.record.definition.lifetime != Lifetime::Kept {
            errors = self.remove(operation).await;
        }
        VmError::all(errors)
    }
}

/// Asks, and waits until the VMM has ended or nobody listens. Errors are no failures: there is a harder way.
async fn ask(
    context: &Context,
    name: &str,
    instance: &dyn Instance,
    guest: Option<Guest>,
    ended: &VmmEnd,
    patience: Duration,
    operation: &Operation,
) {
    let by_agent = async {
        let asked = match guest {
            Some(guest) => guest.power_off().await,
            None => find_and_ask(name, instance, patience.min(AWAY)).await,
        };
        match asked {
            Ok(()) => goes_down(ended, patience).await,
            Err(error) => {
                operation.line(format!("the guest's agent does not power off: {}", crate::api::error::chain(&error)));
                false
            }
        }
    };
    if operation.stage("guest.poweroff", by_agent).await {
        return;
    }
    if !context.vmm.capabilities().power_button {
        return;
    }
    let by_button = async {
        if let Err(error) = instance.press_power_button().await {
            operation.line(format!("the power button does not work: {}", crate::api::error::chain(&error)));
            return;
        }
        goes_down(ended, context.config.timeouts.button()).await;
    };
    operation.stage("vmm.button", by_button).await;
}

/// A guest that was just taken over, or whose agent is away for a moment, is asked over a session of its own.
async fn find_and_ask(name: &str, instance: &dyn Instance, patience: Duration) -> Result<(), GuestError> {
    match tokio::time::timeout(patience, guest::connect(instance, name)).await {
        Ok(connected) => connected?.0.power_off().await,
        Err(_) => Err(GuestError::Silent(patience.as_secs())),
    }
}

async fn goes_down(ended: &VmmEnd, patience: Duration) -> bool {
    tokio::time::timeout(patience, ended.clone()).await.is_ok()
}
