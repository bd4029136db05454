//! The API's whole surface on one page. Handlers decode, hand over, and encode; they own nothing.

pub mod error;
pub mod listener;

pub mod bounds;
mod console;
mod daemon;
mod dial;
mod dns;
mod events;
mod exec;
mod files;
mod images;
mod network;
mod openapi;
mod operations;
mod ports;
mod request;
mod stats;
mod upgrade;
mod vms;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::{HeaderValue, Method};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{self, MethodRouter};
use banger_api::error::ErrorCode;

use self::error::Failure;
pub(crate) use self::vms::wire;
use crate::serve::Daemon;

/// All that can be asked. Each line's first word is its name in `openapi/table.rs`, which says the rest of it: what it takes,
/// what it answers, how it can fail. A test holds the two against each other.
fn routes() -> Vec<Route> {
    vec![
        get("getOpenApi", "/v1/openapi.json", openapi::document),
        get("getVersion", "/v1/version", daemon::version),
        get("getDaemon", "/v1/daemon", daemon::status),
        post("stopDaemon", "/v1/daemon/stop", daemon::stop),
        get("getDoctor", "/v1/doctor", daemon::doctor),
        post("fixHost", "/v1/doctor/fix", daemon::fix),
        get("verify", "/v1/verify", network::verify),
        get("showNetwork", "/v1/network", network::show),
        delete("forgetAddress", "/v1/network/leases/{name}", network::forget),
        get("getDns", "/v1/dns", dns::status),
        post("installDns", "/v1/dns/install", dns::install),
        post("uninstallDns", "/v1/dns/uninstall", dns::uninstall),
        get("followEvents", "/v1/events", events::follow),
        get("listVms", "/v1/vms", vms::list),
        post("createVm", "/v1/vms", vms::create),
        get("showVm", "/v1/vms/{vm}", vms::show),
        patch("setVm", "/v1/vms/{vm}", vms::set),
        delete("removeVm", "/v1/vms/{vm}", vms::remove),
        post("startVm", "/v1/vms/{vm}/start", vms::start),
        post("stopVm", "/v1/vms/{vm}/stop", vms::stop),
        post("restartVm", "/v1/vms/{vm}/restart", vms::restart),
        post("renameVm", "/v1/vms/{vm}/rename", vms::rename),
        post("addSshKeys", "/v1/vms/{vm}/ssh-keys", vms::add_ssh_keys),
        get("waitForVm", "/v1/vms/{vm}/wait", vms::wait),
        post("exec", "/v1/vms/{vm}/exec", exec::exec),
        get("listCommands", "/v1/vms/{vm}/commands", exec::commands),
        post("readOutput", "/v1/vms/{vm}/commands/{id}/output", exec::output),
        post("dial", "/v1/vms/{vm}/dial", dial::dial),
        post("putFiles", "/v1/vms/{vm}/put", files::put),
        post("getFiles", "/v1/vms/{vm}/get", files::get),
        get("readConsole", "/v1/vms/{vm}/console", console::log),
        post("attachConsole", "/v1/vms/{vm}/console/attach", console::attach),
        get("listPorts", "/v1/vms/{vm}/ports", ports::list),
        get("measureVm", "/v1/vms/{vm}/stats", stats::one),
        get("measureVms", "/v1/stats", stats::all),
        get("listImages", "/v1/images", images::list),
        post("buildImage", "/v1/images", images::build),
        get("showImage", "/v1/images/{image}", images::show),
        delete("removeImage", "/v1/images/{image}", images::remove),
    ]
}

/// One thing that can be asked.
struct Route {
    id: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "the document is made by a test"))]
    method: Method,
    path: &'static str,
    handler: MethodRouter<Arc<Daemon>>,
}

/// All paths.
pub fn router(daemon: Arc<Daemon>) -> Router {
    routes()
        .into_iter()
        .fold(Router::new(), |router, Route { id, path, handler, .. }| {
            let bounded = move |request: Request, next: Next| bounds::enforce(id, request, next);
            router.route(path, handler.route_layer(middleware::from_fn(bounded)))
        })
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&daemon), say_who))
        .with_state(daemon)
}

fn get<T: 'static>(id: &'static str, path: &'static str, handler: impl Handler<T, Arc<Daemon>>) -> Route {
    Route { id, method: Method::GET, path, handler: routing::get(handler) }
}

fn post<T: 'static>(id: &'static str, path: &'static str, handler: impl Handler<T, Arc<Daemon>>) -> Route {
    Route { id, method: Method::POST, path, handler: routing::post(handler) }
}

fn patch<T: 'static>(id: &'static str, path: &'static str, handler: impl Handler<T, Arc<Daemon>>) -> Route {
    Route { id, method: Method::PATCH, path, handler: routing::patch(handler) }
}

fn delete<T: 'static>(id: &'static str, path: &'static str, handler: impl Handler<T, Arc<Daemon>>) -> Route {
    Route { id, method: Method::DELETE, path, handler: routing::delete(handler) }
}

async fn unknown(request: Request) -> Failure {
    let message = format!("this daemon does not know {} {}", request.method(), request.uri().path());
    let help =
        "client and daemon may be of different versions: `banger version` tells, `banger daemon stop` ends the old one";
    Failure::new(ErrorCode::Unsupported, message, Some(help))
}

async fn not_allowed(request: Request) -> Failure {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    Failure::new(ErrorCode::MethodNotAllowed, message, Some("the answer's header Allow has what it takes"))
}

/// Every answer says which daemon it is from, and warns while there is little space.
async fn say_who(State(daemon): State<Arc<Daemon>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Some(free) = daemon.context.space.low() {
        headers.insert("banger-free", HeaderValue::from(free));
    }
    headers.insert("banger-api", HeaderValue::from(banger_api::VERSION));
    headers.insert("banger-version", HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    response
}
