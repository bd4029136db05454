//! `banger proxy` and `banger known-hosts`: what ssh(1) calls, and other programs may.

use std::num::NonZeroU16;

use banger_api::client::{FrameReader, FrameWriter, Request};
use banger_api::dial::Dial;
use banger_api::exec::Answer;
use banger_api::frame::{FrameError, Kind};
use bytes::Bytes;
use clap::Args;

use crate::app::{App, own};
use crate::attach::{Input, Output};
use crate::failure::Failure;
use crate::output::{Text, complain, write_text};
use crate::ssh::{keys, reach};

/// Arguments of `proxy`.
#[derive(Debug, Args)]
#[command(after_help = "\
It needs no network: the guest's agent connects to the port on the guest's own loopback. ssh's ProxyCommand uses it; \
`banger ssh-config` writes that down. For port 22 it waits until the guest's SSH server listens, and sees to it that banger's \
own key is let in.")]
pub struct Proxy {
    /// The VM: its name or id, or a name in the domain of VMs, as devbox.vm or www.devbox.vm
    #[arg(value_name = "NAME")]
    name: String,
    /// The TCP port
    #[arg(default_value = "22")]
    port: NonZeroU16,
}

/// Arguments of `known-hosts`.
#[derive(Debug, Args)]
#[command(after_help = "\
ssh's KnownHostsCommand uses it; `banger ssh-config` writes that down. The daemon made the key, and needs not ask the guest.")]
pub struct KnownHosts {
    /// The VM, as for `proxy`; also as ssh writes it with a port, [devbox.vm]:2222
    #[arg(value_name = "NAME")]
    name: String,
}

impl Proxy {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        match self.carry(app).await {
            Err(failure @ Failure::Stdout { .. }) => Err(failure),
            Err(failure) => {
                // Among what ssh says, a line that says who speaks.
                complain(&format!("banger: {}", failure.one_line()));
                Ok(1)
            }
            Ok(()) => Ok(0),
        }
    }

    async fn carry(&self, app: &App) -> Result<(), Failure> {
        let vm = reach::find(app, &self.name).await?;
        reach::check_up(&vm)?;
        if self.port.get() == reach::PORT {
            reach::wait_for_server(app, &vm).await?;
            match keys::managed(&app.environment) {
                Ok(key) => reach::let_in(app, &vm, &key).await?,
                // Its user may have a key of another kind.
                Err(error) => complain(&format!("banger: {}", crate::failure::chain(&error))),
            }
        }
        let request = Request::post(["vms", &vm.id, "dial"]).json(&Dial { port: self.port });
        let mut upgraded = app.upgrade(request).await?;
        match upgraded.answer().await.map_err(broken)? {
            Answer::Done => {}
            Answer::Error(error) => return Err(Failure::Call(error)),
            _ => return Err(Failure::Answer { during: "before the connection was there" }),
        }
        let (reader, writer) = upgraded.split();
        let sending = tokio::spawn(send(writer));
        let received = receive(reader).await;
        sending.abort();
        received
    }
}

/// Sends standard input until it ends, and that it has.
async fn send(mut writer: FrameWriter) {
    let mut input = Input::start();
    loop {
        let bytes = input.next().await;
        // Where nobody takes it any more, what is received says why.
        if writer.send(Kind::Data, &bytes).await.is_err() {
            return;
        }
        if bytes.is_empty() {
            // To close this half would hang up.
            return std::future::pending().await;
        }
    }
}

/// Writes what comes to standard output and closes that at its end; returns when both directions have ended.
async fn receive(mut reader: FrameReader) -> Result<(), Failure> {
    let mut output = Output::new();
    let mut said_all = false;
    loop {
        let frame = tokio::select! {
            frame = async { output.ready().await; reader.next().await } => frame,
            () = output.closed() => return Err(output.failure().await),
        };
        let frame = match frame {
            Err(FrameError::Ended) if said_all => return Ok(()),
            frame => frame.map_err(broken)?,
        };
        match frame.kind {
            Kind::Data if frame.payload.is_empty() => {
                output.finish().await?;
                close_stdout()?;
                said_all = true;
            }
            Kind::Data => output.stdout(Bytes::clone(&frame.payload)).await?,
            Kind::Failed => return Err(Failure::Call(frame.parse().map_err(broken)?)),
            other => return Err(broken(FrameError::UnknownKind(other as u8))),
        }
    }
}

/// Who reads it sees the end, while this program goes on.
fn close_stdout() -> Result<(), Failure> {
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").map_err(own("close standard output"))?;
    rustix::stdio::dup2_stdout(&null).map_err(|errno| own("close standard output")(errno.into()))
}

fn broken(source: FrameError) -> Failure {
    Failure::Stream { during: "while it was connected", source }
}

impl KnownHosts {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let host = match self.name.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:")) {
            Some((host, _port)) => host,
            None => &self.name,
        };
        let vm = reach::find(app, host).await?;
        write_text(&Text::line(&format!("{} {}", self.name, vm.host_key))).map(|()| 0)
    }
}
