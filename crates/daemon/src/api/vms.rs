//! VMs: their life, and how far their guests have come up.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use banger_api::change::{VmChanged, VmRename, VmSet};
use banger_api::vm::{Level, Lifetime, Vm, VmCreate, VmSshKeys, VmState, VmStop};
use serde::Deserialize;

use super::error::{Failure, of_vm};
use super::operations::{self, HangUp};
use super::request::{Body, Path, Query};
use crate::context::host;
use crate::operation::Operation;
use crate::serve::Daemon;
use crate::vm::change::{Wanted, plan};
use crate::vm::error::VmError;
use crate::vm::registry::Handle;
use crate::vm::request::View;
use crate::vm::{spec, state};

/// Why a VM is paused.
const DISK_FULL: &str = "host disk full";

/// How long a guest may take to reach a level that somebody waits for, under emulation and load.
const LEVEL: Duration = Duration::from_secs(180);

pub(super) async fn list(State(daemon): State<Arc<Daemon>>) -> Json<Vec<Vm>> {
    let driver = daemon.context.vmm.capabilities().name;
    Json(daemon.registry.list().iter().map(|view| wire(view, driver)).collect())
}

pub(super) async fn show(State(daemon): State<Arc<Daemon>>, Path(vm): Path<String>) -> Result<Json<Vm>, Failure> {
    Ok(Json(daemon.wire(&daemon.registry.find(&vm)?.view())))
}

pub(super) async fn create(
    State(daemon): State<Arc<Daemon>>,
    Body(request): Body<VmCreate>,
) -> Result<Response, Failure> {
    spec::check(&request).map_err(VmError::Spec)?;
    let name = request.name.clone();
    Ok(operations::answer(daemon.changes(), ("create", name.as_deref()), HangUp::Cancels, async move |operation| {
        let created = daemon.registry.create(&request, &operation).await;
        if created.is_err() {
            // There is no owner yet who would log it.
            operation.ended(&created);
        }
        let created = created.map_err(|error| of_vm(&error))?;
        let handle = created.handle.clone();
        let view = created.done().await.map_err(|error| of_vm(&error))?;
        let lease = (request.lifetime != Lifetime::Kept).then_some(handle);
        Ok((daemon.wire(&view), lease))
    }))
}

pub(super) async fn start(State(daemon): State<Arc<Daemon>>, Path(vm): Path<String>) -> Result<Response, Failure> {
    let handle = daemon.registry.find(&vm)?;
    Ok(answer(daemon, "start", handle, HangUp::Cancels, async |handle, operation| handle.start(operation).await))
}

pub(super) async fn stop(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    Body(request): Body<VmStop>,
) -> Result<Response, Failure> {
    let VmStop { force, timeout } = request;
    let handle = daemon.registry.find(&vm)?;
    let patience = patience(&daemon, timeout);
    let verb = if force { "kill" } else { "stop" };
    Ok(answer(daemon, verb, handle, HangUp::Leaves, async move |handle, operation| {
        handle.stop(force, patience, operation).await
    }))
}

pub(super) async fn restart(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    Body(request): Body<VmStop>,
) -> Result<Response, Failure> {
    let VmStop { force, timeout } = request;
    let handle = daemon.registry.find(&vm)?;
    let patience = patience(&daemon, timeout);
    // Who hangs up half-way would be left with a VM that is down.
    Ok(answer(daemon, "restart", handle, HangUp::Leaves, async move |handle, operation| {
        handle.restart(force, patience, operation).await
    }))
}

fn patience(daemon: &Daemon, timeout: Option<u32>) -> Duration {
    timeout.map_or(daemon.context.config.timeouts.stop(), |seconds| Duration::from_secs(seconds.into()))
}

pub(super) async fn set(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    Body(request): Body<VmSet>,
) -> Result<Response, Failure> {
    change(daemon, &vm, "set", Wanted::Set(request))
}

pub(super) async fn rename(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    Body(request): Body<VmRename>,
) -> Result<Response, Failure> {
    change(daemon, &vm, "rename", Wanted::Name(request.name))
}

fn change(daemon: Arc<Daemon>, vm: &str, verb: &'static str, wanted: Wanted) -> Result<Response, Failure> {
    let handle = daemon.registry.find(vm)?;
    let definition = handle.view().definition;
    // What makes no sense is refused before anything begins; what the VM is by then decides.
    plan(&definition, &wanted, &host()).map_err(VmError::Spec)?;
    Ok(operations::answer(daemon.changes(), (verb, Some(&definition.name)), HangUp::Leaves, async move |operation| {
        let (view, changes) = handle.change(wanted, operation).await.map_err(|error| of_vm(&error))?;
        Ok((VmChanged { vm: daemon.wire(&view), changes }, None))
    }))
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Remove {
    /// Also where it runs.
    #[serde(default)]
    force: bool,
}

pub(super) async fn remove(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    Query(Remove { force }): Query<Remove>,
) -> Result<Response, Failure> {
    let handle = daemon.registry.find(&vm)?;
    Ok(answer(daemon, "rm", handle, HangUp::Leaves, async move |handle, operation| {
        handle.remove(force, operation).await
    }))
}

/// An operation on a VM that there is.
fn answer<W>(
    daemon: Arc<Daemon>,
    verb: &'static str,
    handle: Handle,
    hang_up: HangUp,
    work: impl FnOnce(Handle, Operation) -> W,
) -> Response
where
    W: Future<Output = Result<View, VmError>> + Send + 'static,
{
    let name = handle.view().definition.name.clone();
    operations::answer(daemon.changes(), (verb, Some(&name)), hang_up, |operation| {
        let work = work(handle, operation);
        async move { work.await.map(|view| (daemon.wire(&view), None)).map_err(|error| of_vm(&error)) }
    })
}

pub(super) async fn add_ssh_keys(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    Body(VmSshKeys { ssh_keys }): Body<VmSshKeys>,
) -> Result<Json<Vm>, Failure> {
    let handle = daemon.registry.find(&vm)?;
    Ok(Json(daemon.wire(&handle.authorize(ssh_keys).await?)))
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    /// How far the guest shall have come up.
    level: Level,
}

pub(super) async fn wait(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    Query(Wait { level }): Query<Wait>,
) -> Result<Json<Vm>, Failure> {
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
        state::State::Running(run) if view.paused => (VmState::Paused, Some(DISK_FULL.to_owned()), Some(run)),
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
        net: definition.net,
        address: definition.address,
        publish: definition.publish.clone(),
        restart: definition.restart,
        starts_again: view.starts_again,
        workdir: definition.workdir.clone(),
        user: definition.user.clone(),
        created: definition.created,
        started: run.map(|run| run.since),
        host_key: definition.host_key_public.clone(),
    }
}
