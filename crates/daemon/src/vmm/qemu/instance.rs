//! A VM in QEMU that runs.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use banger_linux::process::Process;
use banger_protocol::boot;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::json;
use tokio::net::UnixStream;
use tokio::sync::{Mutex, watch};

use super::args::{Renewal, id};
use super::events::Events;
use super::launch::{EVENTS_SOCKET, QMP_SOCKET};
use super::qmp::{Qmp, QmpError};
use crate::vmm::{Channel, Console, Farewell, Instance, Shortage, VmmError};

/// How long QEMU may take over an errand. It needs about a millisecond, and more when the host is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the listener may take to hear the last of a QEMU that has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A VM in QEMU.
pub struct QemuInstance {
    process: Process,
    qmp: PathBuf,
    events: Events,
    console: Option<Console>,
    /// The channel that QEMU was started with, until somebody takes it. The lock also makes one renewal wait for another.
    untouched: Mutex<Option<UnixStream>>,
}

impl QemuInstance {
    /// A VM whose agent's port is `untouched`, or has a past that is not known.
    pub fn new(
        process: Process,
        runtime_dir: &Path,
        console: Option<Console>,
        untouched: Option<UnixStream>,
    ) -> QemuInstance {
        let events = Events::listen(runtime_dir.join(EVENTS_SOCKET), PATIENCE);
        let qmp = runtime_dir.join(QMP_SOCKET);
        QemuInstance { process, qmp, events, console, untouched: Mutex::new(untouched) }
    }

    async fn errand<T>(
        &self,
        what: &'static str,
        errand: impl Future<Output = Result<T, QmpError>>,
    ) -> Result<T, VmmError> {
        match tokio::time::timeout(PATIENCE, errand).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.explain(what, error)),
            Err(_) if self.process.has_ended() => Err(VmmError::Gone),
            Err(_) => Err(VmmError::Silent { attempted: what, seconds: PATIENCE.as_secs() }),
        }
    }

    fn explain(&self, what: &'static str, error: QmpError) -> VmmError {
        use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, UnexpectedEof};
        match error {
            // QEMU closes its sockets a moment before its process counts as ended.
            QmpError::Io(source)
                if matches!(source.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | UnexpectedEof)
                    || self.process.has_ended() =>
            {
                VmmError::Gone
            }
            QmpError::Io(source) => VmmError::Io { attempted: what.to_owned(), source },
            QmpError::Refused { command, description, .. } => {
                VmmError::Refused { command: command.to_owned(), reason: description }
            }
            QmpError::Malformed(said) => VmmError::Refused { command: what.to_owned(), reason: said },
        }
    }
}

#[async_trait]
impl Instance for QemuInstance {
    fn process(&self) -> &Process {
        &self.process
    }

    async fn connect(&self) -> Result<Box<dyn Channel>, VmmError> {
        let mut untouched = self.untouched.lock().await;
        if let Some(channel) = untouched.take() {
            return Ok(Box::new(channel));
        }
        let channel = self.errand("renew the channel", renew(&self.qmp)).await?;
        Ok(Box::new(channel))
    }

    fn abandoned(&self) -> BoxFuture<'static, ()> {
        let (qmp, events) = (self.qmp.clone(), self.events.clone());
        events.port_closed(move || newest_is_open(qmp.clone())).boxed()
    }

    fn farewell(&self) -> BoxFuture<'static, Option<Farewell>> {
        self.events.clone().farewell(LAST_WORDS).boxed()
    }

    fn shortage(&self) -> watch::Receiver<Shortage> {
        self.events.shortage()
    }

    async fn resume(&self) -> Result<(), VmmError> {
        let resume = async { Qmp::connect(&self.qmp, PATIENCE).await?.cont().await };
        self.errand("let the guest go on", resume).await
    }

    fn console(&self) -> Option<Console> {
        self.console.clone()
    }

    async fn grow_disk(&self, place: usize, bytes: u64) -> Result<(), VmmError> {
        let grow = async { Qmp::connect(&self.qmp, PATIENCE).await?.block_resize(&id::disk(place), bytes).await };
        self.errand("grow a disk", grow).await
    }

    async fn press_power_button(&self) -> Result<(), VmmError> {
        let press = async { Qmp::connect(&self.qmp, PATIENCE).await?.system_powerdown().await };
        self.errand("press the power button", press).await
    }
}

/// Whether the guest holds the newest port open.
async fn newest_is_open(qmp: PathBuf) -> Result<bool, QmpError> {
    let mut monitor = Qmp::connect(&qmp, PATIENCE).await?;
    let newest = newest(&monitor.chardevs().await?);
    monitor.chardev_is_open(&newest.channel()).await
}

fn newest(chardevs: &[String]) -> Renewal {
    chardevs.iter().filter_map(|name| Renewal::of_channel(name)).max().unwrap_or(Renewal(0))
}

/// A virtio serial port keeps no message boundaries: bytes of an old session may be in a socket, in QEMU's hands, in the
/// port's queues, or half read by the agent. First the old connection goes, and with it what was in it; then the port,
/// which the guest notices without fail; then both are made anew.
///
/// QEMU frees an unplugged port 50 ms later (when its RCU thread gets to it), and until then the old connection's name is
/// taken. Nobody waits for that: the new connection gets another name, and the old one is removed by the next renewal.
/// From any state that a cancelled renewal leaves behind, the next one leads out.
async fn renew(qmp: &Path) -> Result<UnixStream, QmpError> {
    let mut qmp = Qmp::connect(qmp, PATIENCE).await?;
    let chardevs = qmp.chardevs().await?;
    for name in chardevs.iter().filter(|name| Renewal::of_channel(name).is_some()) {
        match qmp.chardev_remove(name).await {
            Err(QmpError::Refused { .. }) => qmp.chardev_close(name).await?,
            result => result?,
        }
    }
    qmp.device_del(id::PORT).await?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let next = Renewal(newest(&chardevs).0 + 1);
    qmp.chardev_add(&next.channel(), theirs.into()).await?;
    qmp.device_add(json!({
        "driver": "virtserialport",
        "bus": id::SERIAL_BUS,
        "id": id::PORT,
        "chardev": next.channel(),
        "nr": next.port_number(),
        "name": boot::PORT,
    }))
    .await?;
    ours.set_nonblocking(true)?;
    Ok(UnixStream::from_std(ours)?)
}
