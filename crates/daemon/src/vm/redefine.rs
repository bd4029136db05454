//! Changing a VM that exists: the record first, then the guest, where it runs and can be told. What it cannot be told it
//! finds at its next start, so that a change never half fails.

use std::sync::Arc;

use banger_api::change::{Change, Effect};
use banger_protocol::boot::serial;
use banger_protocol::call::Call;

use super::actor::Actor;
use super::change::{self, Wanted, field};
use super::definition::Definition;
use super::error::VmError;
use super::spec;
use super::start;
use super::state::{Denied, State};
use crate::context;
use crate::operation::{Operation, Step};

impl Actor {
    /// Makes the VM what is wanted; every field that is another now.
    pub(super) async fn change(&mut self, operation: &Operation, wanted: &Wanted) -> Result<Vec<Change>, VmError> {
        let name = self.definition.name.clone();
        if self.record.state == State::Removing {
            return Err(VmError::Denied { attempted: "change", name, denied: Denied::Removing });
        }
        let (definition, mut changes) = change::plan(&self.record.definition, wanted, &context::host())?;
        if changes.is_empty() {
            return Ok(changes);
        }
        self.redefine(operation, definition).await?;
        for change in &mut changes {
            let told = match change.field.as_str() {
                field::NAME => self.tell_name(operation).await,
                field::DISK => self.grow_work_disk(operation).await,
                _ => continue,
            };
            match told {
                None => {}
                Some(Ok(())) => change.effect = Effect::Now,
                Some(Err(error)) => change.reason = Some(crate::api::error::chain(&error)),
            }
        }
        Ok(changes)
    }

    /// Lets the owners of these SSH keys in, too. The guest is told first: what is recorded is never told it again while it
    /// runs.
    pub(super) async fn authorize(&mut self, operation: &Operation, keys: &[String]) -> Result<(), VmError> {
        let name = self.definition.name.clone();
        if self.record.state == State::Removing {
            return Err(VmError::Denied { attempted: "add SSH keys to", name, denied: Denied::Removing });
        }
        let keys = spec::with_keys(&self.definition.ssh_keys, keys)?;
        if keys == self.definition.ssh_keys {
            return Ok(());
        }
        if let Some(running) = &self.running {
            let guest = running.guest.as_ref().ok_or(VmError::NoAgent(name))?;
            let user = self.definition.user.as_ref().map(|user| user.name.clone());
            guest.call(&Call::Authorize { keys: keys.clone(), user }).await?;
        }
        let definition = Definition { ssh_keys: keys, ..self.record.definition.clone() };
        self.redefine(operation, definition).await
    }

    /// Records what it is from now on.
    async fn redefine(&mut self, operation: &Operation, definition: Definition) -> Result<(), VmError> {
        let mut record = self.record.clone();
        record.definition = definition;
        record.generation += 1;
        let context = Arc::clone(&self.context);
        let save = async {
            context.store.redefine_vm(record.clone()).await?;
            self.definition = Arc::new(record.definition.clone());
            self.record = record;
            Ok(())
        };
        let saved = operation.stage("record.save", context.step(Step::RecordChange, save)).await;
        self.publish();
        saved
    }

    /// Tells a guest that runs its new name; nothing where none runs.
    async fn tell_name(&self, operation: &Operation) -> Option<Result<(), VmError>> {
        let running = self.running.as_ref()?;
        let name = self.definition.name.clone();
        let tell = async {
            let guest = running.guest.as_ref().ok_or_else(|| VmError::NoAgent(name.clone()))?;
            Ok(guest.call(&Call::SetName { name }).await.map(drop)?)
        };
        Some(operation.stage("guest.name", tell).await)
    }

    /// Gives a guest that runs a larger work disk; nothing where none runs.
    async fn grow_work_disk(&self, operation: &Operation) -> Option<Result<(), VmError>> {
        let running = self.running.as_ref()?;
        let bytes = self.definition.disk;
        let machine = start::machine(&self.context, &self.definition);
        let place = machine.disks.iter().position(|disk| disk.serial == serial::WORK)?;
        let grow = async { Ok(running.instance.grow_disk(place, bytes).await?) };
        let grown = operation.stage("disk.grow", self.context.step(Step::GrowDisk, grow)).await;
        if grown.is_err() {
            return Some(grown);
        }
        let tell = async {
            let guest = running.guest.as_ref().ok_or_else(|| VmError::NoAgent(self.definition.name.clone()))?;
            Ok(guest.call(&Call::Grow { bytes }).await.map(drop)?)
        };
        Some(operation.stage("guest.grow", tell).await)
    }
}
