//! What listens in a guest, and where it is reached.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use banger_api::port::Port;
use banger_protocol::call::{Answer, Call, Listener};

use super::error::Failure;
use super::exec::{guest_of, named};
use super::request::Path;
use crate::guest::GuestError;
use crate::serve::Daemon;
use crate::vm::definition::Definition;

pub(super) async fn list(
    State(daemon): State<Arc<Daemon>>,
    Path(vm): Path<String>,
) -> Result<Json<Vec<Port>>, Failure> {
    let handle = daemon.registry.find(&vm)?;
    let (guest, definition) = guest_of(&handle, "look for ports of").await?;
    let (answer, _) = guest.call(&Call::Ports).await.map_err(|error| named(error, &definition))?;
    let Answer::Ports { ports } = answer else { return Err(named(GuestError::Unfitting, &definition)) };
    Ok(Json(of_guest(ports, &definition, daemon.context.names.domain().as_str())))
}

/// Ports, each once, with the ways to it. `listeners` are sorted by port.
fn of_guest(listeners: Vec<Listener>, definition: &Definition, domain: &str) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for Listener { port, address, process } in listeners {
        if ports.last().is_none_or(|last| last.port != port) {
            let published = definition.publish.iter().filter(|publish| publish.guest.get() == port);
            ports.push(Port {
                port,
                addresses: Vec::new(),
                process: None,
                reached_at: None,
                published_at: published.map(banger_api::port::Publish::at).collect(),
            });
        }
        let Some(last) = ports.last_mut() else { continue };
        // The network has no IPv6; what listens at all addresses of both listens at ::.
        let is_reached = definition.address.is_some_and(|own| address.is_unspecified() || address == own);
        if is_reached {
            last.reached_at = Some(format!("{}.{domain}:{port}", definition.name));
        }
        if !last.addresses.contains(&address) {
            last.addresses.push(address);
        }
        last.process = last.process.take().or(process);
    }
    ports
}
