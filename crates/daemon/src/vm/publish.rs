//! Ports of the host that lead to a guest's: listened at while the VM runs, carried by its channel, so that they need no network.

use std::io;

use banger_api::port::Publish;
use banger_linux::accept::Acceptor;
use banger_protocol::call::Call;
use banger_protocol::frame::{self, BEST_PAYLOAD, Frame, FrameError, Kind};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::error::VmError;
use super::request::View;
use crate::guest::GuestError;

/// Ports that are listened at. Who connects waits until they are served.
#[derive(Debug, Default)]
pub(super) struct Bound(Vec<(Publish, TcpListener)>);

/// Ports that are served, until this is dropped.
#[derive(Debug, Default)]
pub(super) struct Published(#[expect(dead_code, reason = "what it holds ends with it")] JoinSet<()>);

/// Listens at all of them, or at none.
///
/// # Errors
/// [`VmError::Publish`].
pub(super) async fn bind(ports: &[Publish]) -> Result<Bound, VmError> {
    let mut bound = Vec::new();
    for port in ports {
        let listener = TcpListener::bind(port.at()).await;
        bound.push((*port, listener.map_err(|source| VmError::Publish { port: port.at(), source })?));
    }
    Ok(Bound(bound))
}

/// As [`bind`], for a VM that runs since an earlier daemon: what somebody else has taken meanwhile is told in the log.
pub(super) async fn bind_anew(ports: &[Publish], name: &str) -> Bound {
    let mut bound = Vec::new();
    for port in ports {
        match bind(&[*port]).await {
            Ok(Bound(one)) => bound.extend(one),
            Err(error) => {
                tracing::warn!(vm = name, error = crate::api::error::chain(&error), "a port is not published")
            }
        }
    }
    Bound(bound)
}

impl Bound {
    /// Serves them with whatever guest the VM has then.
    pub(super) fn serve(self, views: &watch::Receiver<View>) -> Published {
        let mut tasks = JoinSet::new();
        for (port, listener) in self.0 {
            tasks.spawn(serve(port, listener, views.clone()));
        }
        Published(tasks)
    }
}

async fn serve(port: Publish, listener: TcpListener, views: watch::Receiver<View>) {
    let mut connections = JoinSet::new();
    let mut clients = Acceptor::new(listener);
    let short =
        |error: &io::Error| tracing::warn!(%port, %error, "no connection to a published port can be accepted for now");
    loop {
        tokio::select! {
            client = clients.next(short) => drop(connections.spawn(connect(port, client, views.clone()))),
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Who cannot be connected to the guest is hung up on, as by a port that forwards to a closed one.
async fn connect(port: Publish, client: TcpStream, views: watch::Receiver<View>) {
    let view = views.borrow().clone();
    let Some(guest) = view.guest else { return };
    let carried = async {
        let (_, stream) = guest.call(&Call::Dial { port: port.guest.get() }).await?;
        carry(client, stream).await.map_err(GuestError::Frame)
    };
    if let Err(error) = carried.await {
        let (vm, error) = (&view.definition.name, crate::api::error::chain(&error));
        tracing::debug!(vm, %port, error, "a connection ended");
    }
}

/// Carries bytes both ways until both directions have ended.
async fn carry(client: TcpStream, guest: banger_protocol::session::Stream) -> Result<(), FrameError> {
    // What is typed is not to wait for more of it. A connection that refuses this still carries all.
    client.set_nodelay(true).ok();
    let (mut client_says, mut client_hears) = client.into_split();
    let (mut guest_says, mut guest_hears) = tokio::io::split(guest);
    let there = async {
        let mut bytes = BytesMut::new();
        loop {
            bytes.reserve(BEST_PAYLOAD);
            let count = client_says.read_buf(&mut bytes).await.map_err(FrameError::Io)?;
            frame::write(&mut guest_hears, &Frame::new(Kind::Data, bytes.split().freeze())).await?;
            if count == 0 {
                return Ok(());
            }
        }
    };
    let back = async {
        loop {
            let said = frame::read(&mut guest_says).await?;
            match said.kind {
                Kind::Data if said.payload.is_empty() => return client_hears.shutdown().await.map_err(FrameError::Io),
                Kind::Data => client_hears.write_all(&said.payload).await.map_err(FrameError::Io)?,
                // The guest's side broke it.
                _ => return Err(FrameError::Io(io::ErrorKind::ConnectionReset.into())),
            }
        }
    };
    tokio::try_join!(there, back).map(drop)
}
