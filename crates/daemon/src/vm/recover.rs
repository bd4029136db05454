//! What a new daemon makes of what an earlier one left. Decides; the owner of the VM does it.

use super::definition::VmRecord;
use super::start;
use super::state::State;
use crate::context::Context;
use crate::vmm::{Instance, VmmError};
use banger_api::vm::Lifetime;

/// What to do with a VM.
pub(super) enum Plan {
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
    /// Its VMM lives but cannot be spoken to: a guest is not ended for that. A kill still works.
    Leave(VmmError),
}

/// Decides by the record and by what lives.
pub(super) async fn plan(record: &VmRecord, context: &Context) -> Plan {
    let lifetime = record.definition.lifetime;
    // The daemon's promise of `--rm` holds when the daemon was killed: the connection went with it.
    if lifetime == Lifetime::Connection || (lifetime == Lifetime::Command && !record.main) {
        return Plan::Remove;
    }
    match &record.state {
        State::Creating | State::Removing => Plan::Remove,
        State::Stopped { reason } => Plan::Release(reason.clone()),
        State::Starting | State::Running(_) | State::Stopping => {
            if record.host_boot != context.host_boot {
                return Plan::Release(Some("the host was rebooted".to_owned()));
            }
            let machine = start::machine(context, &record.definition);
            match (context.vmm.adopt(&machine).await, &record.state) {
                (Ok(instance), State::Starting) => Plan::AwaitAgent(instance),
                (Ok(instance), State::Stopping) => Plan::GoDown(instance),
                (Ok(instance), _) => Plan::Adopt(instance),
                (Err(VmmError::Gone), State::Starting) => {
                    Plan::Release(Some("the daemon ended while it was starting".to_owned()))
                }
                (Err(VmmError::Gone), State::Stopping) => Plan::Release(None),
                (Err(VmmError::Gone), _) => Plan::Release(Some("its VMM ended while no daemon ran".to_owned())),
                (Err(error), _) => Plan::Leave(error),
            }
        }
    }
}
