//! VMs: their life, and how far their guests have come up.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use banger_api::change::{VmChanged, VmRename};
use banger_api::vm::{Level, Lifetime, Vm, VmCreate, VmState, VmStop};
use serde::Deserialize;

use super::error::{Failure, of_vm};
use super::events::{self, HangUp};
use crate::operation::Operation;
use crate::serve::Daemon;
use crate::vm::change::Wanted;
use crate::vm::error::VmError;
use crate::vm::request::View;
use crate::vm::state;

/// How long a guest may take to reach a level that somebody waits for, under emulation and load.
const LEVEL: Duration = Duration::from_secs(180);

pub(super) async fn list(State(daemon): State<Arc<Daemon>>) -> Json<Vec<Vm>> {
    let driver = daemon.context.vmm.capabilities().name;
    Json(daemon.registry.list().iter().map(|view| wire(view, driver)).collect())
}

pub(super) async fn show(State(daemon): State<Arc<Daemon>>, Path(vm): Path<String>) -> Result<Json<Vm>, Failure> {
    Ok(Json(daemon.wire(&daemon.registry.find(&vm)?.view())))
}

pub(super) async fn create(State(daemon): State<Arc<Daemon>>, body: Bytes) -> Result<Response, Failure> {
    let request: VmCreate = super::body(&body)?;
    let (operation, progress) = Operation::begin("create", request.name.as_deref().unwrap_or("a new VM"));
    let work = tokio::spawn({
        let operation = operation.clone();
        async move {
            let created = daemon.registry.create(&request, &operation).await.map_err(|error| of_vm(&error))?;
            let handle = created.handle.clone();
            let view = created.done().await.map_err(|error| of_vm(&error))?;
            let lease = (request.lifetime != Lifetime::Kept).then_some(handle);
            Ok((daemon.wire(&view), lease))
        }
    });
    Ok(events::answer(operation, progress, work, HangUp::Cancels))
}

pub(super) async fn start(State(daemon): State<Arc<Daemon>>, Path(vm): Path<String>) -> Result<Response, Failure> {
    let handle = daemon.registry.find(&vm)?;
    let (operation, progress) = Operation::begin("start", &vm);
    let work = tokio::spawn({
        let operation = operation.clone();
        async move { outcome(&daemon, handle.start(operation).await) }
    });
    Ok(events::answer(operation, progress, work, HangUp::Cancels))
}

pub(super) async fn stop(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    body: Bytes,
) -> Result<Response, Failure> {
    let request: VmStop = super::body(&body)?;
    let handle = daemon.registry.find(&vm)?;
    let patience = patience(&daemon, &request);
    let (operation, progress) = Operation::begin(if request.force { "kill" } else { "stop" }, &vm);
    let work = tokio::spawn({
        let operation = operation.clone();
        async move { outcome(&daemon, handle.stop(request.force, patience, operation).await) }
    });
    Ok(events::answer(operation, progress, work, HangUp::Leaves))
}

pub(super) async fn restart(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    body: Bytes,
) -> Result<Response, Failure> {
    let request: VmStop = super::body(&body)?;
    let handle = daemon.registry.find(&vm)?;
    let patience = patience(&daemon, &request);
    let (operation, progress) = Operation::begin("restart", &vm);
    let work = tokio::spawn({
        let operation = operation.clone();
        async move { outcome(&daemon, handle.restart(request.force, patience, operation).await) }
    });
    // Who hangs up half-way would be left with a VM that is down.
    Ok(events::answer(operation, progress, work, HangUp::Leaves))
}

fn patience(daemon: &Daemon, request: &VmStop) -> Duration {
    request.timeout.map_or(daemon.context.config.timeouts.stop(), |seconds| Duration::from_secs(seconds.into()))
}

pub(super) async fn set(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    body: Bytes,
) -> Result<Response, Failure> {
    let wanted = Wanted::Set(super::body(&body)?);
    change(daemon, &vm, "set", wanted)
}

pub(super) async fn rename(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    body: Bytes,
) -> Result<Response, Failure> {
    let request: VmRename = super::body(&body)?;
    change(daemon, &vm, "rename", Wanted::Name(request.name))
}

fn change(daemon: Arc<Daemon>, vm: &str, verb: &'static str, wanted: Wanted) -> Result<Response, Failure> {
    let handle = daemon.registry.find(vm)?;
    let (operation, progress) = Operation::begin(verb, vm);
    let work = tokio::spawn({
        let operation = operation.clone();
        async move {
            let (view, changes) = handle.change(wanted, operation).await.map_err(|error| of_vm(&error))?;
            Ok((VmChanged { vm: daemon.wire(&view), changes }, None))
        }
    });
    Ok(events::answer(operation, progress, work, HangUp::Leaves))
}

#[derive(Debug, Deserialize)]
pub(super) struct Remove {
    #[serde(default)]
    force: bool,
}

pub(super) async fn remove(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    query: Result<Query<Remove>, QueryRejection>,
) -> Result<Response, Failure> {
    let force = super::query(query)?.force;
    let handle = daemon.registry.find(&vm)?;
    let (operation, progress) = Operation::begin("rm", &vm);
    let work = tokio::spawn({
        let operation = operation.clone();
        async move { outcome(&daemon, handle.remove(force, operation).await) }
    });
    Ok(events::answer(operation, progress, work, HangUp::Leaves))
}

fn outcome(daemon: &Daemon, result: Result<View, VmError>) -> events::Outcome<Vm> {
    result.map(|view| (daemon.wire(&view), None)).map_err(|error| of_vm(&error))
}

#[derive(Debug, Deserialize)]
pub(super) struct Wait {
    level: Level,
}

pub(super) async fn wait(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    query: Result<Query<Wait>, QueryRejection>,
) -> Result<Json<Vm>, Failure> {
    let level = super::query(query)?.level;
    let handle = daemon.registry.find(&vm)?;
    let reach = async {
        loop {
            let (guest, definition) = super::exec::guest_of(&handle, "wait for").await?;
            match guest.reached(level).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    // A session that broke has a successor; a guest that refuses will go on refusing.
                    let mut views = handle.follow();
                    let changed = views.wait_for(|view| {
                        view.guest.as_ref().is_none_or(|now| now.welcome.nonce != guest.welcome.nonce)
                    });
                    if tokio::time::timeout(Duration::from_secs(1), changed).await.is_err() {
                        return Err(super::exec::named(error, &definition));
                    }
                }
            }
        }
    };
    let silent = |_| Failure::from(crate::guest::GuestError::Silent(LEVEL.as_secs()));
    tokio::time::timeout(LEVEL, reach).await.map_err(silent)??;
    Ok(Json(daemon.wire(&handle.view())))
}

/// A VM as the API tells it.
pub(crate) fn wire(view: &View, driver: &str) -> Vm {
    let definition = &view.definition;
    let (state, reason, run) = match &view.state {
        state::State::Creating => (VmState::Creating, None, None),
        state::State::Stopped { reason } => (VmState::Stopped, reason.clone(), None),
        state::State::Starting => (VmState::Starting, None, None),
        state::State::Running(run) => (VmState::Running, None, Some(run)),
        state::State::Stopping => (VmState::Stopping, None, None),
        state::State::Removing => (VmState::Removing, None, None),
    };
    Vm {
        id: definition.id.to_string(),
        name: definition.name.clone(),
        state,
        reason,
        generation: view.generation,
        image: definition.image.clone(),
        cpus: definition.cpus,
        memory: definition.memory,
        disk: definition.disk,
        vmm: driver.to_owned(),
        accelerator: run.map(|run| run.accelerator.clone()),
        pid: view.pid,
        boot_id: run.map(|run| run.boot_id.clone()),
        ephemeral: definition.lifetime != Lifetime::Kept,
        restart: definition.restart,
        starts_again: view.starts_again,
        workdir: definition.workdir.clone(),
        user: definition.user.clone(),
        created: definition.created,
        started: run.map(|run| run.since),
        host_key: definition.host_key_public.clone(),
    }
}
