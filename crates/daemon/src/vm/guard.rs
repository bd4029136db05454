//! What a VM's owner refuses because a process of the VM lives: a second VMM on the same disks, and the removal of
//! disks in use.

use std::sync::Arc;

use super::actor::Actor;
use super::alive::{Living, look_for};
use super::definition::{Traces, VmRecord};
use super::error::VmError;
use super::state::State;
use crate::context::Context;

impl Actor {
    /// Refuses to start a VM whose VMM lives, whatever its record says, and a VM whose disks other processes may use.
    pub(super) async fn nothing_lives(&mut self) -> Result<(), VmError> {
        let attempted = "start";
        self.look().await?.then_refuse_strangers(attempted, &self.record)?;
        match self.hold.living() {
            Some(_) => Err(self.lives(attempted)),
            None => Ok(()),
        }
    }

    /// Refuses to remove a VM whose disks other processes may use; without force, also a VM whose VMM lives.
    pub(super) async fn may_be_removed(&mut self, force: bool) -> Result<(), VmError> {
        let runs = matches!(self.record.state, State::Starting | State::Running(_) | State::Stopping);
        if runs && !force {
            return Err(VmError::RemoveRunning(self.record.definition.name.clone()));
        }
        let attempted = "remove";
        self.look().await?.then_refuse_strangers(attempted, &self.record)?;
        match self.hold.living() {
            Some(_) if !force => Err(self.lives(attempted)),
            _ => Ok(()),
        }
    }

    /// Looks for the VMM of a VM that is recorded as stopped. Without force, refuses to end it: the daemon cannot ask such a
    /// guest to shut down, and what it has not written is lost.
    pub(super) async fn may_be_stopped(&mut self, force: bool) -> Result<(), VmError> {
        self.look().await?;
        match self.hold.living() {
            Some(_) if !force => Err(self.lives("stop")),
            _ => Ok(()),
        }
    }

    /// Looks for living processes of the VM. Holds the VMM from now on, if it did not already.
    async fn look(&mut self) -> Result<Living, VmError> {
        let context = Arc::clone(&self.context);
        let mut living = look_for(&context, &self.record).await?;
        match self.hold.living() {
            // Whatever its command line says by now, it is the VMM.
            Some(held) => living.strangers.retain(|stranger| stranger.pid != held.pid()),
            None => {
                self.hold = living.hold();
                self.publish();
            }
        }
        Ok(living)
    }

    fn lives(&self, attempted: &'static str) -> VmError {
        let pid = self.hold.living().map_or(0, banger_linux::process::Process::pid);
        VmError::Lives { attempted, name: self.record.definition.name.clone(), pid }
    }

    /// What identifies the held VMM later. The owner records it with the next state.
    pub(super) fn traces(&self) -> Option<Traces> {
        let process = self.hold.living()?.identity().ok()?;
        Some(Traces { process, tap: self.context.network.tap(self.record.definition.id.as_str()) })
    }
}

impl Living {
    fn then_refuse_strangers(self, attempted: &'static str, record: &VmRecord) -> Result<(), VmError> {
        match self.strangers {
            strangers if strangers.is_empty() => Ok(()),
            processes => Err(VmError::Strangers { attempted, name: record.definition.name.clone(), processes }),
        }
    }
}

/// Refuses to delete the disks of a VM that has a living process.
pub(super) async fn disks_are_unused(context: &Context, record: &VmRecord) -> Result<(), VmError> {
    let attempted = "delete the disks of";
    let living = look_for(context, record).await?;
    if let Some(process) = &living.vmm {
        return Err(VmError::Lives { attempted, name: record.definition.name.clone(), pid: process.pid() });
    }
    living.then_refuse_strangers(attempted, record)
}
