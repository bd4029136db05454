//! Connections to TCP ports of guests. They are carried by the channel and need no network.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use banger_api::dial::Dial;
use banger_protocol::call::Call;

use super::error::Failure;
use super::exec::{guest_of, named};
use super::request::{self, Path};
use super::upgrade;
use crate::serve::Daemon;

pub(super) async fn dial(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let handle = daemon.registry.find(&vm)?;
    let (upgrade, body) = upgrade::accept(request).await?;
    let Dial { port } = request::parse(&body)?;
    let (guest, definition) = guest_of(&handle, "connect to").await?;
    let call = Call::Dial { port: port.get() };
    let (first, stream) = guest.call_raw(&call).await.map_err(|error| named(error, &definition))?;
    Ok(upgrade::answer(upgrade, first, stream))
}
