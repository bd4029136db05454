//! How busy VMs are: what /proc says of their VMMs, and what their guests say of themselves.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use banger_api::stats::{Load, VmStats};
use banger_linux::usage::{Usage, usage};
use banger_protocol::call::{Answer, Call};

use super::error::{Failure, chain};
use super::request::Path;
use crate::context::{blocking, unix_nanos};
use crate::guest::{Guest, GuestError};
use crate::serve::Daemon;
use crate::vm::error::VmError;
use crate::vm::request::View;
use crate::vm::state::Denied;

/// How long a guest may take to say how busy it is. One that is very busy is told of without its own words.
const ANSWER: Duration = Duration::from_secs(2);

pub(super) async fn all(State(daemon): State<Arc<Daemon>>) -> Json<Vec<VmStats>> {
    let views = daemon.registry.list();
    let measured = futures::future::join_all(views.iter().map(|view| measure(&daemon, view))).await;
    Json(measured.into_iter().flatten().collect())
}

pub(super) async fn one(State(daemon): State<Arc<Daemon>>, Path(vm): Path<String>) -> Result<Json<VmStats>, Failure> {
    let view = daemon.registry.find(&vm)?.view();
    measure(&daemon, &view).await.map(Json).ok_or_else(|| {
        let name = view.definition.name.clone();
        VmError::Denied { attempted: "measure", name, denied: Denied::NotRunning }.into()
    })
}

/// Nothing where it does not run.
async fn measure(daemon: &Daemon, view: &View) -> Option<VmStats> {
    let pid = view.pid?;
    let paths = daemon.context.paths.vm(view.definition.id.as_str());
    let of_host = blocking(move || {
        let used = usage(pid).ok()?;
        let blocks = |path| std::fs::metadata(path).map_or(0, |disk| disk.blocks() * 512);
        Some((used, blocks(paths.root) + blocks(paths.work), unix_nanos() / 1000))
    });
    let (of_host, guest) = tokio::join!(of_host, load(view.guest.as_ref()));
    let (Usage { cpu_micros, resident, read, written }, disk, at) = of_host?;
    let (guest, guest_error) = match guest {
        Ok(load) => (Some(load), None),
        Err(reason) => (None, Some(reason)),
    };
    let definition = &view.definition;
    Some(VmStats {
        id: definition.id.to_string(),
        name: definition.name.clone(),
        cpus: definition.cpus,
        at,
        cpu_micros,
        resident,
        read,
        written,
        disk,
        guest,
        guest_error,
    })
}

async fn load(guest: Option<&Guest>) -> Result<Load, String> {
    let guest = guest.ok_or_else(|| "its agent does not answer".to_owned())?;
    match tokio::time::timeout(ANSWER, guest.call(&Call::Load)).await {
        Ok(Ok((Answer::Load(load), _))) => Ok(load),
        Ok(Ok(_)) => Err(GuestError::Unfitting.to_string()),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(GuestError::Silent(ANSWER.as_secs()).to_string()),
    }
}
