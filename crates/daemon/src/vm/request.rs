//! What can be asked of a VM's owner, and what it publishes.

use std::sync::Arc;
use std::time::Duration;

use banger_api::change::Change;
use tokio::sync::oneshot;

use super::change::Wanted;
use super::definition::Definition;
use super::error::VmError;
use super::state::State;
use crate::guest::Guest;
use crate::operation::Operation;
use crate::vmm::Console;

/// What a VM has become.
#[derive(Debug, Clone)]
pub struct View {
    /// What it is.
    pub definition: Arc<Definition>,
    /// What it is doing.
    pub state: State,
    /// Counts the changes.
    pub generation: u64,
    /// The agent, where it answers.
    pub guest: Option<Guest>,
    /// The VMM's process id.
    pub pid: Option<u32>,
    /// Whether its guest is paused because the host's disk is full.
    pub paused: bool,
    /// The console, while it runs, where it has one.
    pub console: Option<Console>,
    /// The operation that is under way.
    pub busy: Option<&'static str>,
    /// Whether it is removed.
    pub gone: bool,
    /// Whether it is down and shall not be.
    pub missed: bool,
    /// When it starts by itself, in seconds since 1970-01-01 UTC.
    pub starts_again: Option<u64>,
}

/// What a request came to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The VM as it became.
    pub(super) view: View,
    /// The fields that a [`Verb::Change`] changed.
    pub(super) changes: Vec<Change>,
}

/// The answer to a request.
pub(super) type Reply = oneshot::Sender<Result<Outcome, VmError>>;

/// What can be asked of a VM's owner.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) verb: Verb,
    pub(super) operation: Operation,
    pub(super) reply: Reply,
}

/// The verbs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verb {
    /// Make the disks, and start it.
    Create { start: bool },
    /// Start it.
    Start,
    /// Start it if it went down by itself and comes back.
    StartAgain,
    /// Stop it, where it runs, and start it.
    Restart { force: bool, patience: Duration },
    /// Make it something else.
    Change(Wanted),
    /// Let the owners of these SSH keys in, too.
    Authorize(Vec<String>),
    /// Stop it; force does not ask the guest.
    Stop { force: bool, patience: Duration },
    /// Remove it; force also where it runs.
    Remove { force: bool },
    /// The connection that an ephemeral VM lives with has closed.
    LeaseEnded,
    /// Take over what an earlier daemon left.
    Recover,
    /// Nothing: the answer says that all before it is done.
    Settle,
    /// A main command is about to be started.
    BeginMain,
    /// A main command was started.
    MainStarted,
}

impl Verb {
    /// Whether it comes before what is under way.
    pub(super) fn overrides(&self) -> bool {
        matches!(self, Verb::Stop { force: true, .. } | Verb::Remove { force: true } | Verb::LeaseEnded)
    }
}
