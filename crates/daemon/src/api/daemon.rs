//! The daemon itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use banger_api::daemon::{Finding, Status, Version};

use crate::serve::Daemon;
use crate::vm::state;

pub(super) async fn version() -> Json<Version> {
    Json(this())
}

pub(super) async fn status(State(daemon): State<Arc<Daemon>>) -> Json<Status> {
    let vms = daemon.registry.list();
    let running = vms.iter().filter(|vm| matches!(vm.state, state::State::Running(_))).count();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Json(Status {
        version: this(),
        pid: std::process::id(),
        started: daemon.started,
        resident: banger_linux::host::resident_memory(),
        vms: count(vms.len()),
        running: count(running),
        state_dir: daemon.context.paths.state.display().to_string(),
        domain: daemon.context.names.domain().to_string(),
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

fn this() -> Version {
    Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: banger_api::VERSION,
        protocol: banger_protocol::VERSION,
    }
}
