//! Why something was not done with a VM.

use std::io;

use banger_protocol::session::MAX_CALLS;

use super::alive::Stranger;
use super::identity::IdentityError;
use super::spec::SpecError;
use super::state::Denied;
use crate::boot::BootError;
use crate::guest::GuestError;
use crate::net::network::NetworkError;
use crate::operation::fault::Injected;
use crate::storage::StorageError;
use crate::store::StoreError;
use crate::vmm::VmmError;

/// Why something was not done with a VM.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The request cannot be made a machine of.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// There is no such VM.
    #[error("there is no VM {name}")]
    NotFound {
        /// The name that was asked for.
        name: String,
        /// A name that is near.
        suggestion: Option<String>,
    },
    /// The VM is not in a state for this.
    #[error("cannot {attempted} {name}: {denied}")]
    Denied {
        /// What was attempted.
        attempted: &'static str,
        /// The VM.
        name: String,
        /// Why not.
        denied: Denied,
    },
    /// The VM runs, and was to be removed without force.
    #[error("cannot remove {0}: it is running")]
    RemoveRunning(String),
    /// Its guest is paused: its VMM found no space for what the guest wrote.
    #[error("cannot {attempted} {name}: it is paused, because the host's disk is full")]
    Paused {
        /// What was attempted.
        attempted: &'static str,
        /// The VM.
        name: String,
    },
    /// Its VMM lives, though the record says that it does not run.
    #[error("cannot {attempted} {name}: its VMM lives, as process {pid}")]
    Lives {
        /// What was attempted.
        attempted: &'static str,
        /// The VM.
        name: String,
        /// Its VMM's process id.
        pid: u32,
    },
    /// Processes that are not known as its VMM run as its user, and may use its disks.
    #[error("cannot {attempted} {name}: {} {} as its user", listed(processes), if processes.len() == 1 { "runs" } else { "run" })]
    Strangers {
        /// What was attempted.
        attempted: &'static str,
        /// The VM.
        name: String,
        /// These processes.
        processes: Vec<Stranger>,
    },
    /// The VM goes when it stops, and was to be restarted.
    #[error("cannot restart {0}: it is removed when it stops")]
    RestartRemoved(String),
    /// Several VMs' ids begin like this.
    #[error("{beginning} is the beginning of several ids: {}", names.join(", "))]
    Ambiguous {
        /// What was asked for.
        beginning: String,
        /// The VMs' names.
        names: Vec<String>,
    },
    /// Another operation is under way.
    #[error("{name} is busy: its {verb} is under way")]
    Busy {
        /// The VM.
        name: String,
        /// The other operation's verb.
        verb: &'static str,
    },
    /// The records failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A disk could not be made.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What the guest boots from could not be made.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The identity could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The VMM failed.
    #[error(transparent)]
    Vmm(#[from] VmmError),
    /// A port of the host cannot be listened at.
    #[error("cannot publish a port at {port}")]
    Publish {
        /// The address and port.
        port: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The guest did not do as asked.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The agent did not answer in time after a start.
    #[error("the agent in {name} did not answer within {seconds} s{}", quoted(said))]
    AgentSilent {
        /// The VM.
        name: String,
        /// The deadline.
        seconds: u64,
        /// The end of the console's log.
        said: Option<String>,
    },
    /// The guest went down before its agent answered.
    #[error("{name} went down before its agent answered ({status}){}", quoted(said))]
    WentDown {
        /// The VM.
        name: String,
        /// How its VMM ended.
        status: String,
        /// The end of the console's log.
        said: Option<String>,
    },
    /// The VM runs, but its agent does not answer.
    #[error("the agent in {0} does not answer")]
    NoAgent(String),
    /// The session with the agent failed.
    #[error("cannot talk to the agent in {name}")]
    Unreachable {
        /// The VM.
        name: String,
        /// Why.
        #[source]
        source: GuestError,
    },
    /// As many calls are under way as a guest takes.
    #[error("{MAX_CALLS} commands, copies and readers are at work in {0}, which is the most")]
    Full(String),
    /// A file or directory could not be dealt with.
    #[error("cannot {attempted}")]
    Io {
        /// What was attempted, on what.
        attempted: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A VMM's process would not end.
    #[error("cannot end the VMM of {name}")]
    Unending {
        /// The VM.
        name: String,
        /// Why.
        #[source]
        source: banger_linux::process::ProcessError,
    },
    /// A test planned it.
    #[error(transparent)]
    Injected(#[from] Injected),
    /// Somebody asked to give up.
    #[error("the {0} was cancelled")]
    Cancelled(&'static str),
    /// The daemon is going down.
    #[error("the daemon is going down")]
    Closing,
    /// The cause, and what else failed while cleaning up after it.
    #[error("{cause}")]
    WithAftermath {
        /// The cause.
        #[source]
        cause: Box<VmError>,
        /// What failed after it.
        also: Vec<VmError>,
    },
}

impl VmError {
    /// The error with what else failed after it.
    pub fn with(self, also: Vec<VmError>) -> VmError {
        if also.is_empty() { self } else { VmError::WithAftermath { cause: Box::new(self), also } }
    }

    /// The first of several errors, the rest beside it.
    ///
    /// # Errors
    /// That one, where there is any.
    pub fn all(mut errors: Vec<VmError>) -> Result<(), VmError> {
        if errors.is_empty() {
            return Ok(());
        }
        let first = errors.remove(0);
        Err(first.with(errors))
    }

    /// An [`VmError::Io`] of this attempt.
    pub fn io(attempted: impl Into<String>) -> impl FnOnce(io::Error) -> VmError {
        let attempted = attempted.into();
        move |source| VmError::Io { attempted, source }
    }
}

fn listed(processes: &[Stranger]) -> String {
    processes.iter().map(Stranger::to_string).collect::<Vec<_>>().join(", ")
}

fn quoted(said: &Option<String>) -> String {
    said.as_deref().map(|said| format!("; its console ends with: {said}")).unwrap_or_default()
}
