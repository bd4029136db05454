//! How the host is told names.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use banger_api::dns::{Dns, DnsInstall};

use super::error::Failure;
use super::request::Body;
use crate::context::{Context, blocking};
use crate::dns::wiring;
use crate::doctor;
use crate::serve::Daemon;

pub(super) async fn status(State(daemon): State<Arc<Daemon>>) -> Result<Json<Dns>, Failure> {
    Ok(Json(dns(&daemon.context).await?))
}

pub(super) async fn install(
    State(daemon): State<Arc<Daemon>>,
    Body(request): Body<DnsInstall>,
) -> Result<Json<Dns>, Failure> {
    let context = Arc::clone(&daemon.context);
    to_the_end(async move {
        let subnet = context.subnet().await?;
        context.wiring.install(&context.store, &context.names, subnet, request.hosts_file).await?;
        dns(&context).await
    })
    .await
}

pub(super) async fn uninstall(State(daemon): State<Arc<Daemon>>) -> Result<Json<Dns>, Failure> {
    let context = Arc::clone(&daemon.context);
    to_the_end(async move {
        context.wiring.uninstall(&context.store, &context.names).await?;
        dns(&context).await
    })
    .await
}

/// What is begun on the host is brought to its end, also when the client hangs up.
async fn to_the_end(work: impl Future<Output = Result<Dns, Failure>> + Send + 'static) -> Result<Json<Dns>, Failure> {
    match tokio::spawn(work).await {
        Ok(done) => done.map(Json),
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // A runtime that is shutting down drops its tasks; this one with them.
            Err(_) => std::future::pending().await,
        },
    }
}

async fn dns(context: &Context) -> Result<Dns, Failure> {
    let seen = wiring::look(&context.wiring, &context.names).await;
    let names = &context.names;
    let subnet = match names.subnet() {
        Some(subnet) => Some(subnet),
        None => context.store.subnet().await?,
    };
    let refusals = names.refusals();
    let findings = blocking({
        let seen = seen.clone();
        move || doctor::of_names(&seen, &refusals)
    });
    Ok(Dns {
        wired: seen.wired,
        resolves: seen.resolves(),
        address: seen.address(),
        domain: names.domain().to_string(),
        server: names.for_host(),
        findings: findings.await,
        by_hand: names.for_host().map_or_else(Vec::new, |server| {
            wiring::by_hand(names.domain().as_str(), &names.slot().bridge(), server, subnet)
        }),
        name: seen.name,
    })
}
