//! The network that VMs are in, and what does not fit.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use banger_api::network::{Lease, Network};
use banger_api::verify::Oddity;

use super::error::Failure;
use super::request::Path;
use crate::serve::Daemon;
use crate::vm::error::VmError;

pub(super) async fn show(State(daemon): State<Arc<Daemon>>) -> Result<Json<Network>, Failure> {
    let context = &daemon.context;
    let leases = context.store.leases().await.map_err(VmError::from)?;
    let vms = daemon.registry.list();
    let has_vm = |name: &str| vms.iter().any(|view| view.definition.name == name);
    Ok(Json(Network {
        subnet: context.store.subnet().await.map_err(VmError::from)?.map(|subnet| subnet.to_string()),
        domain: context.names.domain().to_string(),
        leases: leases.into_iter().map(|(name, address)| Lease { vm: has_vm(&name), name, address }).collect(),
    }))
}

pub(super) async fn forget(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
) -> Result<Json<Lease>, Failure> {
    let address = daemon.context.store.forget_lease(name.clone()).await.map_err(VmError::from)?;
    Ok(Json(Lease { name, address, vm: false }))
}

pub(super) async fn verify(State(daemon): State<Arc<Daemon>>) -> Result<Json<Vec<Oddity>>, Failure> {
    Ok(Json(crate::verify::verify(&daemon).await?))
}
