//! Guests' consoles: the log, what comes after it, and a keyboard.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use banger_api::console::Attached;
use banger_api::exec::Terminal;
use banger_protocol::call::Call;
use banger_protocol::frame::{self, Frame, FrameError, Kind};
use futures::StreamExt;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::error::{Failure, chain};
use super::request::{self, Path, Query};
use super::upgrade;
use crate::guest::Guest;
use crate::serve::Daemon;
use crate::vm::error::VmError;
use crate::vm::state::Denied;
use crate::vmm::Console;

/// How long an agent may take to see to a shell. Without one the console can still be read.
const SHELL: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    /// Go on with what comes after it, until the VM ends.
    #[serde(default)]
    follow: bool,
}

pub(super) async fn log(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    Query(Log { follow }): Query<Log>,
) -> Result<Response, Failure> {
    let view = daemon.registry.find(&vm)?.view();
    let kind = [(CONTENT_TYPE, "application/octet-stream")];
    if follow
        && let Some(console) = view.console
        && let Some(attached) = console.attach().await
    {
        let before = futures::stream::iter([Bytes::from(attached.before)]);
        let after = futures::stream::unfold(attached.says, async |mut says| Some((said(&mut says).await?, says)));
        let bytes = before.chain(after).map(Ok::<Bytes, Infallible>);
        return Ok((kind, Body::from_stream(bytes)).into_response());
    }
    let log = daemon.context.paths.vm(view.definition.id.as_str()).console;
    let attempted = format!("read the console's log {}", log.display());
    let read = crate::vmm::qemu::console::read(&log).await;
    Ok((kind, read.map_err(VmError::io(attempted))?).into_response())
}

pub(super) async fn attach(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let view = daemon.registry.find(&vm)?.view();
    let (upgrade, body) = upgrade::accept(request).await?;
    let terminal: Terminal = request::parse(&body)?;
    let denied = |denied| {
        let name = view.definition.name.clone();
        Failure::from(VmError::Denied { attempted: "attach to the console of", name, denied })
    };
    let console = view.console.ok_or_else(|| match view.pid {
        Some(_) => denied(Denied::NoConsole),
        None => denied(Denied::NotRunning),
    })?;
    let attached = console.attach().await.ok_or_else(|| denied(Denied::NotRunning))?;
    let shell = open_shell(view.guest.as_ref(), terminal.clone()).await;
    let first = Attached { shell: shell.is_ok(), reason: shell.err() };
    let first = Frame::json(Kind::Message, &first).map_err(crate::guest::GuestError::Frame)?;
    Ok(upgrade::serve(upgrade, move |client| async move {
        let (mut reader, mut writer) = tokio::io::split(client);
        if frame::write(&mut writer, &first).await.is_ok() {
            tokio::select! {
                _ = show(attached.says, &mut writer) => {}
                _ = take_keys(&mut reader, &console, view.guest, terminal) => {}
            }
        }
    }))
}

async fn open_shell(guest: Option<&Guest>, terminal: Terminal) -> Result<(), String> {
    let guest = guest.ok_or_else(|| "the guest's agent does not answer".to_owned())?;
    match tokio::time::timeout(SHELL, guest.call(&Call::Console(terminal))).await {
        Ok(called) => called.map(drop).map_err(|error| chain(&error)),
        Err(_) => Err(format!("the guest's agent did not answer within {} s", SHELL.as_secs())),
    }
}

/// Shows what the console says until the VM ends, and says so, or until the client has gone.
async fn show(mut says: Receiver<Bytes>, client: &mut (impl AsyncWrite + Unpin)) -> Result<(), FrameError> {
    while let Some(bytes) = said(&mut says).await {
        frame::write(client, &Frame::new(Kind::Stdout, bytes)).await?;
    }
    frame::write(client, &Frame::new(Kind::Data, Bytes::new())).await
}

/// What the console says next; nothing when the VM has ended. Who reads too slowly misses something, and sees that.
async fn said(says: &mut Receiver<Bytes>) -> Option<Bytes> {
    match says.recv().await {
        Ok(bytes) => Some(bytes),
        Err(RecvError::Lagged(_)) => {
            Some(Bytes::from_static(b"\r\n[banger: some of the console's output is left out]\r\n"))
        }
        Err(RecvError::Closed) => None,
    }
}

/// Types what the client sends, and passes the size of its window on, until it hangs up.
async fn take_keys(
    client: &mut (impl AsyncRead + Unpin),
    console: &Console,
    guest: Option<Guest>,
    mut terminal: Terminal,
) -> Result<(), FrameError> {
    loop {
        let frame = frame::read(client).await?;
        if frame.kind == Kind::Stdin && !console.types(frame.payload.clone()).await {
            return Ok(());
        }
        if let Some((rows, columns)) = frame.as_resize() {
            (terminal.rows, terminal.columns) = (rows, columns);
            // Keys do not wait for this. A size that is not taken is no reason to stop.
            if let Some(guest) = guest.clone() {
                let terminal = terminal.clone();
                tokio::spawn(async move { drop(open_shell(Some(&guest), terminal).await) });
            }
        }
    }
}
