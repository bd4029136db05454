//! What a VM's owner does about what happened while nobody asked.

use std::sync::Arc;
use std::time::Duration;

use banger_api::vm::Lifetime;

use super::actor::Actor;
use super::comeback::{comes_back, end_of};
use super::error::VmError;
use super::request::Request;
use super::start::last_words;
use super::state::State;
use super::watch::{Wake, how_it_ended};
use crate::context::unix_seconds;
use crate::operation::Operation;

impl Actor {
    /// Takes notice of what happened; what there is to do about it, where that is a request like any other.
    pub(super) async fn wake(&mut self, wake: Wake) -> Option<Request> {
        let current = self.run;
        let mut request = None;
        match wake {
            Wake::VmmEnded(run, status) if run == current && self.running.is_some() => {
                let operation = Operation::unwatched("ended", &self.definition.name);
                let said = last_words(self.context.paths.vm(self.definition.id.as_str()).console).await;
                let farewell = match &self.running {
                    Some(running) => running.instance.farewell().await,
                    None => None,
                };
                let end = end_of(status, farewell, said.as_deref());
                let reason = how_it_ended(end, status, said.as_deref());
                let ran = self.ran();
                self.record.wanted &= comes_back(self.record.definition.restart, end);
                let result = VmError::all(self.fall(&operation, Some(reason)).await);
                operation.ended(&result);
                if self.is_missed() {
                    self.start_later(ran);
                }
            }
            Wake::SessionOver(run) if run == current => {
                if let Some(running) = &mut self.running {
                    running.guest = None;
                    running.watchers.reconnect(Arc::clone(&running.instance));
                }
            }
            Wake::SessionOpened(run, guest, over) if run == current => {
                if let Some(running) = &mut self.running {
                    running.watchers.tell_the_time(guest.clone());
                    running.guest = Some(guest);
                    running.watchers.session(over);
                    self.watch_main();
                }
            }
            Wake::MainEnded(run) if run == current && self.record.definition.lifetime == Lifetime::Command => {
                let operation = Operation::unwatched("main command ended", &self.definition.name);
                let result = VmError::all(self.remove(&operation).await);
                operation.ended(&result);
            }
            Wake::Paused(run) if run == current => self.pauses(),
            Wake::GoesOn(run) if run == current => self.runs_again(),
            Wake::TimeToWrite => self.write_end().await,
            Wake::TimeToStart(run) if run == current => request = self.time_to_start(),
            Wake::VmmEnded(..)
            | Wake::SessionOver(_)
            | Wake::SessionOpened(..)
            | Wake::Paused(_)
            | Wake::GoesOn(_)
            | Wake::MainEnded(_)
            | Wake::TimeToStart(_) => {}
        }
        self.publish();
        request
    }

    /// An ephemeral VM goes when its main command has ended.
    pub(super) fn watch_main(&mut self) {
        if self.record.definition.lifetime == Lifetime::Command
            && self.main_started
            && let Some(running) = &mut self.running
            && let Some(guest) = running.guest.clone()
        {
            running.watchers.main(guest);
        }
    }

    /// How long it has run.
    fn ran(&self) -> Duration {
        match &self.record.state {
            State::Running(run) => Duration::from_secs(unix_seconds().saturating_sub(run.since)),
            _ => Duration::ZERO,
        }
    }
}
