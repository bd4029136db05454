//! A VM's end that cannot be written down, as on a full disk: it has ended nevertheless, and the record follows when it can. A
//! daemon that ends before finds a record of a VM that runs, and no process.

use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::actor::Actor;
use super::error::VmError;
use super::state::Event;
use super::watch::Wake;
use crate::operation::{Operation, Step};

/// How long until the next try.
const PAUSE: Duration = Duration::from_secs(10);

/// What waits to be written down, if something does.
#[derive(Debug, Default)]
pub(super) struct Unwritten(Option<AbortOnDropHandle<()>>);

impl Actor {
    /// Records that it has ended: at once, or as soon as that can be written.
    ///
    /// # Errors
    /// Those of [`Actor::advance`], but for those of the records.
    pub(super) async fn has_ended(&mut self, operation: &Operation, reason: Option<String>) -> Result<(), VmError> {
        let event = Event::Ended { reason };
        let state = self.next(event.clone())?;
        let error = match self.advance(operation, Step::RecordStopped, event).await {
            Err(VmError::Store(error)) => crate::api::error::chain(&error),
            advanced => return advanced,
        };
        self.record.state = state;
        self.record.traces = None;
        self.record.generation += 1;
        operation.line(format!("it has stopped, which cannot be written down yet: {error}"));
        tracing::warn!(vm = self.definition.name, error, "that it has stopped cannot be written down yet");
        self.write_later();
        self.publish();
        Ok(())
    }

    /// Tries once more to write its end down.
    pub(super) async fn write_end(&mut self) {
        if self.unwritten.0.is_none() {
            return;
        }
        match self.context.store.update_vm(self.record.clone()).await {
            Ok(()) => self.unwritten = Unwritten::default(),
            Err(_) => self.write_later(),
        }
    }

    fn write_later(&mut self) {
        let wakes = self.wakes.clone();
        self.unwritten = Unwritten(Some(AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(PAUSE).await;
            // An owner that is gone wants nothing more.
            drop(wakes.send(Wake::TimeToWrite));
        }))));
    }
}
