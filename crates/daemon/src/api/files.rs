//! Files, in and out, as tar streams. The daemon opens no path: the client reads and writes its own files, the agent those
//! in the guest.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use banger_protocol::call::Call;
use serde::Deserialize;

use super::error::Failure;
use super::exec::call;
use crate::serve::Daemon;

#[derive(Debug, Deserialize)]
pub(super) struct Put {
    path: String,
    name: String,
}

pub(super) async fn put(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    query: Result<Query<Put>, QueryRejection>,
    request: Request,
) -> Result<Response, Failure> {
    let Put { path, name } = super::query(query)?;
    call(&daemon, &vm, Call::Put { path, name }, request).await
}

#[derive(Debug, Deserialize)]
pub(super) struct Get {
    path: String,
    #[serde(default)]
    pattern: bool,
}

pub(super) async fn get(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
    query: Result<Query<Get>, QueryRejection>,
    request: Request,
) -> Result<Response, Failure> {
    let Get { path, pattern } = super::query(query)?;
    call(&daemon, &vm, Call::Get { path, pattern }, request).await
}
