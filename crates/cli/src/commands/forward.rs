//! `banger forward`.

use banger_api::client::{FrameReader, FrameWriter, Request};
use banger_api::dial::Dial;
use banger_api::exec::Answer;
use banger_api::frame::{BEST_PAYLOAD, FrameError, Kind};
use banger_api::port::Publish;
use banger_linux::accept::Acceptor;
use clap::Args;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::values;
use crate::app::App;
use crate::attach::interrupts::Interrupts;
use crate::failure::{Failure, chain};
use crate::output::{complain, printable};

/// Arguments of `forward`.
#[derive(Debug, Args)]
#[command(after_help = "\
The channel carries it, so that it needs no network, and reaches what listens in the guest for the guest alone. `create --publish` does \
the same for as long as the VM runs.")]
pub struct Forward {
    /// The VM
    #[arg(value_parser = values::known_name)]
    name: String,
    /// Where to listen, and the port of the guest's if it is another
    #[arg(required = true, value_name = "[ADDRESS:]PORT[:GUEST]")]
    ports: Vec<Publish>,
}

impl Forward {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let mut interrupts = Interrupts::catch()?;
        // That there is such a VM is told before anybody connects.
        let vm: banger_api::vm::Vm = app.call(Request::get(["vms", &self.name])).await?;
        let mut listeners = Vec::new();
        for port in &self.ports {
            let listener =
                TcpListener::bind(port.at()).await.map_err(|source| Failure::Listen { at: port.at(), source })?;
            listeners.push((*port, listener));
        }
        for port in &self.ports {
            app.screen.say(&format!("{} leads to port {} of {}; Ctrl-C ends it", port.at(), port.guest, vm.name));
        }
        let work = async {
            let serve = |(port, listener)| serve(app, &self.name, port, listener);
            futures::future::join_all(listeners.into_iter().map(serve)).await
        };
        tokio::select! {
            _ = work => Ok(0),
            signal = interrupts.next() => Err(Failure::Interrupted { signal, what: "interrupted; nothing is forwarded any more".to_owned() }),
        }
    }
}

/// Serves who connects, one beside the other, for as long as it is asked to.
async fn serve(app: &App, name: &str, port: Publish, listener: TcpListener) {
    let mut connections = FuturesUnordered::new();
    let mut clients = Acceptor::new(listener);
    let short = |error: &std::io::Error| complain(&format!("{} accepts nobody for now: {error}", port.at()));
    loop {
        tokio::select! {
            client = clients.next(short) => connections.push(connect(app, name, port, client)),
            Some(ended) = connections.next() => if let Err(failure) = ended {
                complain(&format!("port {} of {name}: {}", port.guest, printable(&chain(&failure))));
            }
        }
    }
}

async fn connect(app: &App, name: &str, port: Publish, client: TcpStream) -> Result<(), Failure> {
    let request = Request::post(["vms", name, "dial"]).json(&Dial { port: port.guest });
    let mut upgraded = app.upgrade(request).await?;
    match upgraded.answer().await.map_err(broken)? {
        Answer::Done => {}
        Answer::Error(error) => return Err(Failure::Call(error)),
        _ => return Err(Failure::Answer { during: "before the connection was there" }),
    }
    // What is typed is not to wait for more of it. A connection that refuses this still carries all.
    client.set_nodelay(true).ok();
    let (reader, writer) = upgraded.split();
    let (says, hears) = client.into_split();
    match tokio::try_join!(there(says, writer), back(reader, hears)) {
        // Its client went away: that is no news to it.
        Err(FrameError::Io(_)) | Ok(_) => Ok(()),
        Err(error) => Err(broken(error)),
    }
}

async fn there(mut client: OwnedReadHalf, mut guest: FrameWriter) -> Result<FrameWriter, FrameError> {
    let mut bytes = Vec::with_capacity(BEST_PAYLOAD);
    loop {
        bytes.clear();
        let count = client.read_buf(&mut bytes).await.map_err(FrameError::Io)?;
        guest.send(Kind::Data, &bytes).await?;
        if count == 0 {
            // To close this half would hang up.
            return Ok(guest);
        }
    }
}

async fn back(mut guest: FrameReader, mut client: OwnedWriteHalf) -> Result<(), FrameError> {
    loop {
        let said = guest.next().await?;
        match said.kind {
            Kind::Data if said.payload.is_empty() => return client.shutdown().await.map_err(FrameError::Io),
            Kind::Data => client.write_all(&said.payload).await.map_err(FrameError::Io)?,
            other => return Err(FrameError::UnknownKind(other as u8)),
        }
    }
}

fn broken(source: FrameError) -> Failure {
    Failure::Stream { during: "while it was connected", source }
}
