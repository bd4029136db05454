//! Commands in guests. Their frames are passed on as they come; nothing here takes them apart.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use banger_api::error::ErrorCode;
use banger_api::exec::{Command, ExecRequest, ExecStarted};
use banger_protocol::call::{Answer, Call, Exec};
use banger_protocol::session::SessionError;
use serde::Deserialize;

use super::error::Failure;
use super::request::{self, Path, Query};
use super::upgrade;
use crate::context::random;
use crate::guest::{Guest, GuestError};
use crate::serve::Daemon;
use crate::vm::definition::{Definition, word};
use crate::vm::error::VmError;
use crate::vm::registry::Handle;
use crate::vm::request::View;
use crate::vm::spec::{check_env, check_workdir};
use crate::vm::state::{Denied, State as Doing};

/// What is attempted, in messages.
const RUN: &str = "run anything in";
const READ: &str = "read what was run in";

/// How long a running guest's agent may be away, as while a new daemon takes the guest over.
const AWAY: Duration = Duration::from_secs(10);

pub(super) async fn exec(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let handle = daemon.registry.find(&vm)?;
    if upgrade::asks(request.headers()) {
        let (upgrade, body) = upgrade::accept(request).await?;
        let request: ExecRequest = request::parse(&body)?;
        if request.detached || request.main {
            return Err(refused("a detached command has no stream: send the request without an upgrade"));
        }
        let (guest, definition) = guest_of(&handle, RUN).await?;
        let call = Call::Exec(command(request, &definition, None)?);
        let (first, stream) = guest.call_raw(&call).await.map_err(|error| named(error, &definition))?;
        return Ok(upgrade::answer(upgrade, first, stream));
    }
    let request: ExecRequest = request::parse(&request::bytes(request.into_body()).await?)?;
    if !request.detached {
        return Err(refused("a command that is not detached needs an upgrade to banger-stream"));
    }
    Ok(Json(start_detached(&handle, request).await?).into_response())
}

fn refused(message: &str) -> Failure {
    Failure::new(ErrorCode::Invalid, message, None)
}

async fn start_detached(handle: &Handle, request: ExecRequest) -> Result<ExecStarted, Failure> {
    let main = request.main;
    let id = if main { "main".to_owned() } else { word(&random::<6>().map_err(VmError::io("make up an id"))?) };
    let (guest, definition) = guest_of(handle, RUN).await?;
    let exec = command(request, &definition, Some(id.clone()))?;
    if main {
        handle.begin_main().await?;
    }
    match guest.call(&Call::Exec(exec)).await.map_err(|error| named(error, &definition))? {
        (Answer::Started { pid }, _) => {
            if main {
                handle.main_started().await?;
            }
            Ok(ExecStarted { id, pid })
        }
        _ => Err(GuestError::Unfitting.into()),
    }
}

/// What the agent is asked, over what the VM's definition says for all commands.
fn command(request: ExecRequest, definition: &Definition, detached: Option<String>) -> Result<Exec, Failure> {
    let term = request.tty.as_ref().map(|tty| &tty.term);
    if request.argv.iter().chain(&request.user).chain(term).any(|word| word.contains('\0')) {
        return Err(refused("a NUL cannot be in a command's words, user or terminal"));
    }
    check_env(&request.env).and_then(|()| check_env(&request.locale)).map_err(VmError::Spec)?;
    request.workdir.as_deref().map_or(Ok(()), check_workdir).map_err(VmError::Spec)?;
    let mut env = definition.env.clone();
    env.extend(request.env);
    Ok(Exec {
        argv: request.argv,
        env,
        locale: request.locale,
        time_zone: request.time_zone,
        workdir: request.workdir.or_else(|| definition.workdir.clone()),
        user: request.user,
        tty: request.tty,
        stdin: request.stdin,
        login_shell: request.login_shell,
        detached,
    })
}

pub(super) async fn commands(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
) -> Result<Json<Vec<Command>>, Failure> {
    let (guest, definition) = guest_of(&daemon.registry.find(&vm)?, READ).await?;
    match guest.call(&Call::Commands).await.map_err(|error| named(error, &definition))? {
        (Answer::Commands { commands }, _) => Ok(Json(commands)),
        _ => Err(GuestError::Unfitting.into()),
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Output {
    /// Go on until the command ends.
    #[serde(default)]
    follow: bool,
}

pub(super) async fn output(
    State(daemon): State<Arc<Daemon>>,
    Path((vm, id)): Path<(String, String)>,
    Query(Output { follow }): Query<Output>,
    request: Request,
) -> Result<Response, Failure> {
    call(&daemon, &vm, Call::Output { id, follow }, request).await
}

/// Makes a call whose frames go to the client.
pub(super) async fn call(daemon: &Daemon, vm: &str, call: Call, request: Request) -> Result<Response, Failure> {
    let handle = daemon.registry.find(vm)?;
    let (upgrade, _) = upgrade::accept(request).await?;
    let attempted = match call {
        Call::Put { .. } => "copy to",
        Call::Get { .. } => "copy from",
        _ => READ,
    };
    let (guest, definition) = guest_of(&handle, attempted).await?;
    let (first, stream) = guest.call_raw(&call).await.map_err(|error| named(error, &definition))?;
    Ok(upgrade::answer(upgrade, first, stream))
}

/// What is wrong with a guest is told with its name, and with what to do about it. What the agent itself refuses is not.
pub(super) fn named(error: GuestError, definition: &Definition) -> Failure {
    let name = definition.name.clone();
    match error {
        GuestError::Silent(_) => VmError::NoAgent(name).into(),
        GuestError::Session(SessionError::Full) => VmError::Full(name).into(),
        error @ (GuestError::Refused(_) | GuestError::TooOld(_) | GuestError::TooLong(_)) => error.into(),
        source => VmError::Unreachable { name, source }.into(),
    }
}

/// The agent of a VM that runs, or is about to.
pub(super) async fn guest_of(handle: &Handle, attempted: &'static str) -> Result<(Guest, Arc<Definition>), Failure> {
    let mut views = handle.follow();
    let decided = |view: &View| match view.state {
        Doing::Running(_) => view.guest.is_some() || view.paused,
        Doing::Starting => false,
        Doing::Creating | Doing::Stopped { .. } | Doing::Stopping | Doing::Removing => true,
    };
    loop {
        let view = views.borrow_and_update().clone();
        let name = view.definition.name.clone();
        let denied = |denied| Failure::from(VmError::Denied { attempted, name: name.clone(), denied });
        match (&view.state, view.guest) {
            (Doing::Running(_), _) if view.paused => return Err(VmError::Paused { attempted, name }.into()),
            (Doing::Running(_), Some(guest)) => return Ok((guest, view.definition)),
            (Doing::Running(_), None) => match tokio::time::timeout(AWAY, views.wait_for(decided)).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(denied(Denied::Removing)),
                Err(_) => return Err(VmError::NoAgent(name).into()),
            },
            // A start has its own deadline.
            (Doing::Starting, _) => {
                if views.changed().await.is_err() {
                    return Err(denied(Denied::Removing));
                }
            }
            (Doing::Creating, _) => return Err(denied(Denied::Creating)),
            (Doing::Stopped { .. }, _) => return Err(denied(Denied::NotRunning)),
            (Doing::Stopping, _) => return Err(denied(Denied::Stopping)),
            (Doing::Removing, _) => return Err(denied(Denied::Removing)),
        }
    }
}
