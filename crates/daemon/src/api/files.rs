//! Files, in and out, as tar streams. The daemon opens no path: the client reads and writes its own files, the agent those
//! in the guest.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use banger_protocol::call::Call;
use serde::Deserialize;

use super::error::Failure;
use super::exec::call;
use super::request::{Path, Query};
use crate::serve::Daemon;

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Put {
    /// Where to in the guest, as `cp` takes its last argument: a directory, or the new name.
    path: String,
    /// The name of the tar stream's first entry: it becomes `path`, or is put into `path` where that is a directory.
    name: String,
}

pub(super) async fn put(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    Query(Put { path, name }): Query<Put>,
    request: Request,
) -> Result<Response, Failure> {
    call(&daemon, &vm, Call::Put { path, name }, request).await
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Get {
    /// An absolute path in the guest.
    path: String,
    /// Whether the path is a pattern, as a shell's: `*`, `?` and `[...]`.
    #[serde(default)]
    pattern: bool,
}

pub(super) async fn get(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    Query(Get { path, pattern }): Query<Get>,
    request: Request,
) -> Result<Response, Failure> {
    call(&daemon, &vm, Call::Get { path, pattern }, request).await
}
