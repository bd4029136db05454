//! How a VM's owner takes back what did not succeed, at its two depths: what a VM holds while it runs, or all of it.

use std::sync::Arc;

use banger_api::vm::Lifetime;

use super::actor::Actor;
use super::comeback::Comeback;
use super::error::VmError;
use super::release::release;
use super::remove::remove;
use super::state::{Event, State};
use crate::operation::{Operation, Step};

impl Actor {
    /// A failed create is removed.
    pub(super) async fn or_remove(&mut self, made: Result<(), VmError>, operation: &Operation) -> Result<(), VmError> {
        match made {
            Ok(()) => Ok(()),
            Err(cause) => Err(cause.with(self.remove(operation).await)),
        }
    }

    /// A failed start is released; the disks stay.
    pub(super) async fn or_release(
        &mut self,
        started: Result<(), VmError>,
        operation: &Operation,
    ) -> Result<(), VmError> {
        let Err(cause) = started else { return Ok(()) };
        let reason = format!("its start failed: {}", crate::api::error::chain(&cause));
        Err(cause.with(self.fall(operation, Some(reason)).await))
    }

    /// Releases what a VM holds that is not to run any more.
    pub(super) async fn fall(&mut self, operation: &Operation, reason: Option<String>) -> Vec<VmError> {
        self.running = None;
        let context = Arc::clone(&self.context);
        let mut errors = release(&context, &self.record, &mut self.hold, operation).await;
        if errors.is_empty() && matches!(self.record.state, State::Starting | State::Running(_) | State::Stopping) {
            errors.extend(self.has_ended(operation, reason).await.err());
        }
        if errors.is_empty() && self.record.definition.lifetime != Lifetime::Kept {
            errors = self.remove(operation).await;
        }
        errors
    }

    pub(super) async fn remove(&mut self, operation: &Operation) -> Vec<VmError> {
        if self.record.state != State::Removing
            && let Err(error) = self.advance(operation, Step::RecordRemove, Event::Remove).await
        {
            return vec![error];
        }
        self.running = None;
        self.comeback = Comeback::default();
        let context = Arc::clone(&self.context);
        let errors = remove(&context, &self.record, &mut self.hold, operation).await;
        self.gone = errors.is_empty();
        errors
    }
}
