//! The daemon itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use banger_api::daemon::{Finding, Status, Version};
use banger_linux::netlink::Netlink;

use crate::context::{Context, blocking};
use crate::dns::domain::Domain;
use crate::ground;
use crate::serve::Daemon;
use crate::vm::state;

pub(super) async fn version() -> Json<Version> {
    Json(this())
}

pub(super) async fn status(State(daemon): State<Arc<Daemon>>) -> Json<Status> {
    let vms = daemon.registry.list();
    let running = vms.iter().filter(|vm| matches!(vm.state, state::State::Running(_))).count();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let domain = domain(&daemon.context).await.to_string();
    Json(Status {
        version: this(),
        pid: std::process::id(),
        started: daemon.started,
        resident: banger_linux::host::resident_memory(),
        vms: count(vms.len()),
        running: count(running),
        state_dir: daemon.context.paths.state.display().to_string(),
        domain,
        log: daemon.context.paths.log().display().to_string(),
    })
}

pub(super) async fn stop(State(daemon): State<Arc<Daemon>>) -> StatusCode {
    daemon.shutdown.cancel();
    StatusCode::NO_CONTENT
}

pub(super) async fn doctor(State(daemon): State<Arc<Daemon>>) -> Json<Vec<Finding>> {
    Json(daemon.examine().await)
}

pub(super) async fn fix(State(daemon): State<Arc<Daemon>>) -> Json<Vec<Finding>> {
    Json(daemon.mend().await)
}

/// The domain of VMs' names. Before there is a network, the one that the first VM would get now: clients make lasting
/// settings from it, and another daemon's domain must not lead to this one.
async fn domain(context: &Context) -> Domain {
    let slot = if context.network.is_up().await {
        context.network.slot().await
    } else {
        let (id, choice) = (context.ground, context.config.ground.slot);
        // Without records or links, it is the slot that the daemon tries first.
        let had = context.store.scope().await.ok().flatten().map(|scope| scope.slot);
        let links = blocking(|| Netlink::open().and_then(|mut netlink| netlink.links())).await;
        ground::next(&links.unwrap_or_default(), id, choice, had)
    };
    slot.domain(&context.config.dns.domain)
}

fn this() -> Version {
    Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: banger_api::VERSION,
        protocol: banger_protocol::VERSION,
    }
}
