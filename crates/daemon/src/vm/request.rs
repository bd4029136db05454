//! What can be asked of a VM's owner, and what it publishes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::definition::Definition;
use super::error::VmError;
use super::state::State;
use crate::guest::Guest;
use crate::operation::Operation;

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
    /// The operation that is under way.
    pub busy: Option<&'static str>,
    /// Whether it is removed.
    pub gone: bool,
}

/// The answer to a request: the VM as it became.
pub(super) type Reply = oneshot::Sender<Result<View, VmError>>;

/// What can be asked of a VM's owner.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) verb: Verb,
    pub(super) operation: Operation,
    pub(super) reply: Reply,
}

/// The verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// Make the disks, and start it.
    Create { start: bool },
    /// Start it.
    Start,
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
    pub(super) fn overrides(self) -> bool {
        matches!(self, Verb::Stop { force: true, .. } | Verb::Remove { force: true } | Verb::LeaseEnded)
    }
}
