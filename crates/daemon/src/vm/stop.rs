//! Asking a guest to go down: by its agent, then by its power button. Who does not follow is ended by `release`.

use std::time::Duration;

use super::start::VmmEnd;
use crate::context::Context;
use crate::guest::{self, Guest, GuestError};
use crate::operation::Operation;
use crate::vmm::Instance;

/// How long an agent that has no session may take to greet.
const AWAY: Duration = Duration::from_secs(10);

/// Asks, and waits until the VMM has ended or nobody listens. Errors are no failures: there is a harder way.
pub(super) async fn ask(
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
