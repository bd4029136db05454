//! The API's whole surface on one page. Handlers decode, hand over, and encode; they own nothing.

pub mod error;
pub mod listener;

mod console;
mod daemon;
mod events;
mod exec;
mod files;
mod images;
mod stats;
mod upgrade;
mod vms;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use banger_api::error::ErrorCode;

use self::error::Failure;
pub(crate) use self::vms::wire;
use crate::serve::Daemon;

/// All paths.
pub fn router(daemon: Arc<Daemon>) -> Router {
    let v1 = Router::new()
        .route("/version", get(daemon::version))
        .route("/daemon", get(daemon::status))
        .route("/daemon/stop", post(daemon::stop))
        .route("/doctor", get(daemon::doctor))
        .route("/vms", get(vms::list).post(vms::create))
        .route("/vms/{vm}", get(vms::show).patch(vms::set).delete(vms::remove))
        .route("/vms/{vm}/start", post(vms::start))
        .route("/vms/{vm}/stop", post(vms::stop))
        .route("/vms/{vm}/restart", post(vms::restart))
        .route("/vms/{vm}/rename", post(vms::rename))
        .route("/vms/{vm}/wait", get(vms::wait))
        .route("/vms/{vm}/exec", post(exec::exec))
        .route("/vms/{vm}/commands", get(exec::commands))
        .route("/vms/{vm}/commands/{id}/output", post(exec::output))
        .route("/vms/{vm}/put", post(files::put))
        .route("/vms/{vm}/get", post(files::get))
        .route("/vms/{vm}/console", get(console::log))
        .route("/vms/{vm}/console/attach", post(console::attach))
        .route("/vms/{vm}/stats", get(stats::one))
        .route("/stats", get(stats::all))
        .route("/images", get(images::list).post(images::build))
        .route("/images/{image}", get(images::show).delete(images::remove));
    Router::new()
        .nest("/v1", v1)
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(middleware::from_fn(say_who))
        .with_state(daemon)
}

async fn unknown(request: Request) -> Response {
    let message = format!("this daemon does not know {} {}", request.method(), request.uri().path());
    let help =
        "client and daemon may be of different versions: `banger version` tells, `banger daemon stop` ends the old one";
    Failure::new(ErrorCode::Unsupported, message, Some(help)).into_response()
}

/// Every answer says which daemon it is from.
async fn say_who(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert("banger-api", HeaderValue::from(banger_api::VERSION));
    headers.insert("banger-version", HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    response
}

/// A request's body as JSON; an empty one is an empty object.
fn body<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|problem| {
        Failure::new(ErrorCode::Invalid, format!("the request's body cannot be used: {problem}"), None)
    })
}

/// A request's query.
fn query<T: serde::de::DeserializeOwned>(
    query: Result<axum::extract::Query<T>, axum::extract::rejection::QueryRejection>,
) -> Result<T, Failure> {
    query.map(|query| query.0).map_err(|problem| {
        Failure::new(ErrorCode::Invalid, format!("the request's query cannot be used: {}", problem.body_text()), None)
    })
}
