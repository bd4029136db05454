//! One transfer: a thread that packs or unpacks, and a task that shows how far it is and listens for interrupts.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use banger_api::client::{Request, Upgraded};
use banger_api::exec::Answer;
use bytes::BytesMut;

use super::frames::{FrameSink, FrameSource, Meter};
use super::{CopyError, Packer};
use crate::app::App;
use crate::attach::interrupts::Interrupts;
use crate::copy::Owners;
use crate::failure::Failure;
use crate::output::overwrite;
use crate::output::suspension::Suspension;
use crate::size::Size;

/// A transfer that is done sooner shows no progress.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often progress is drawn.
const TICK: Duration = Duration::from_millis(200);

/// What a transfer did.
#[derive(Debug)]
pub struct Transfer {
    /// The files that tar cannot carry, or that are not made here.
    pub skipped: Vec<PathBuf>,
}

/// Sends what `pack` writes to a VM: it becomes `path`, or `path/name` where `path` is a directory.
///
/// # Errors
/// Every [`Failure`].
pub async fn put(
    app: &App,
    vm: &str,
    (path, name): (&[u8], &[u8]),
    owners: Owners,
    interrupts: &mut Interrupts,
    pack: impl FnOnce(&mut Packer<FrameSink>) -> Result<(), CopyError> + Send + 'static,
) -> Result<Transfer, Failure> {
    let request = Request::post(["vms", vm, "put"]).query("path", path).query("name", name);
    let (stream, received, _) = open(app, request, interrupts).await?;
    let meter = Meter::default();
    let counted = meter.clone();
    watch(app, &meter, interrupts, move || send(stream, received, counted, owners, pack)).await
}

/// Receives a path of a VM; `unpack` reads the tar stream.
///
/// # Errors
/// Every [`Failure`].
pub async fn get(
    app: &App,
    vm: &str,
    path: &[u8],
    interrupts: &mut Interrupts,
    unpack: impl FnOnce(&mut FrameSource) -> Result<Vec<PathBuf>, CopyError> + Send + 'static,
) -> Result<Transfer, Failure> {
    let request = Request::post(["vms", vm, "get"]).query("path", path);
    let (stream, received, _) = open(app, request, interrupts).await?;
    let meter = Meter::default();
    let counted = meter.clone();
    watch(app, &meter, interrupts, move || receive(stream, received, counted, unpack)).await
}

/// Receives what a pattern names in a VM; `unpack` is told how many files there are, and reads the tar stream.
///
/// # Errors
/// Every [`Failure`].
pub async fn get_matching(
    app: &App,
    vm: &str,
    pattern: &[u8],
    interrupts: &mut Interrupts,
    unpack: impl FnOnce(u32, &mut FrameSource) -> Result<Vec<PathBuf>, CopyError> + Send + 'static,
) -> Result<Transfer, Failure> {
    let request = Request::post(["vms", vm, "get"]).query("path", pattern).query("pattern", "true");
    let (stream, received, count) = open(app, request, interrupts).await?;
    let meter = Meter::default();
    let counted = meter.clone();
    watch(app, &meter, interrupts, move || receive(stream, received, counted, |tar| unpack(count, tar))).await
}

/// Begins a transfer: its connection, what came over it already, and how many files there are where that is told.
async fn open(
    app: &App,
    request: Request,
    interrupts: &mut Interrupts,
) -> Result<(UnixStream, BytesMut, u32), Failure> {
    let taken = |upgraded: Upgraded| upgraded.into_blocking().map_err(crate::app::own("take over the connection"));
    let begin = async {
        let mut upgraded: Upgraded = app.upgrade(request).await?;
        let answer = upgraded.answer().await;
        match answer.map_err(|source| Failure::Stream { during: "before copying began", source })? {
            Answer::Done => taken(upgraded).map(|(stream, received)| (stream, received, 1)),
            Answer::Files { count } => taken(upgraded).map(|(stream, received)| (stream, received, count)),
            Answer::Error(error) => Err(Failure::Call(error)),
            _ => Err(Failure::Answer { during: "before copying began" }),
        }
    };
    tokio::select! {
        opened = begin => opened,
        signal = interrupts.next() => Err(interrupted(signal)),
    }
}

/// Runs the transfer in a thread. When an interrupt leaves it behind, the end of the process closes its connection.
async fn watch(
    app: &App,
    meter: &Meter,
    interrupts: &mut Interrupts,
    transfer: impl FnOnce() -> Result<Transfer, Failure> + Send + 'static,
) -> Result<Transfer, Failure> {
    let began = Instant::now();
    let mut thread = tokio::task::spawn_blocking(transfer);
    let mut ticks = tokio::time::interval_at((began + PATIENCE).into(), TICK);
    let live = app.screen.live && !app.screen.quiet;
    let mut suspension = Suspension::new(live);
    let result = loop {
        tokio::select! {
            result = &mut thread => break result.unwrap_or_else(|error| {
                Err(Failure::Own { attempted: "copy", source: io::Error::other(error) })
            }),
            signal = interrupts.next() => break Err(interrupted(signal)),
            _ = ticks.tick(), if live => draw(meter.bytes(), began.elapsed()),
            () = suspension.asked() => {
                clear();
                suspension.stop();
            }
        }
    };
    if live && began.elapsed() > PATIENCE {
        clear();
    }
    result
}

fn clear() {
    overwrite("");
}

fn draw(bytes: u64, elapsed: Duration) {
    // The lossy cast is for people: a rate of more than 2^52 bytes a second is out of reach.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rate = Size((bytes as f64 / elapsed.as_secs_f64()) as u64);
    overwrite(&format!("copying: {}, {rate}/s", Size(bytes)));
}

fn interrupted(signal: u8) -> Failure {
    Failure::Interrupted { signal, what: "interrupted; what was copied so far stays".to_owned() }
}

fn send(
    stream: UnixStream,
    received: BytesMut,
    meter: Meter,
    owners: Owners,
    pack: impl FnOnce(&mut Packer<FrameSink>) -> Result<(), CopyError>,
) -> Result<Transfer, Failure> {
    let unusable = |source| Failure::Own { attempted: "share the connection", source };
    let mut verdict = FrameSource::new(stream.try_clone().map_err(unusable)?, received, Meter::default());
    let closing = stream.try_clone().map_err(unusable)?;
    // The guest may refuse half way, while this side is still writing: then its word unblocks the writer.
    let listener = std::thread::spawn(move || {
        let end = verdict.finish();
        if !matches!(end, Ok(Ok(()))) {
            verdict.shut_down();
        }
        end
    });
    let mut packer = Packer::new(FrameSink::new(stream, meter), owners);
    let packed = pack(&mut packer).and_then(|()| packer.end()).and_then(|(sink, skipped)| {
        sink.end().map_err(CopyError::Lost)?;
        Ok(skipped)
    });
    if matches!(&packed, Err(error) if !matches!(error, CopyError::Lost(_))) {
        // This side failed: the guest is not to take what came so far for all.
        drop(closing.shutdown(Shutdown::Both));
    }
    let end = listener.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
    match (packed, end) {
        (Err(error), _) if !matches!(error, CopyError::Lost(_)) => Err(error.into()),
        (_, Ok(Err(refusal))) => Err(Failure::Call(refusal)),
        (Err(error), _) => Err(error.into()),
        (Ok(_), Err(source)) => Err(CopyError::Lost(source).into()),
        (Ok(skipped), Ok(Ok(()))) => Ok(Transfer { skipped }),
    }
}

fn receive(
    stream: UnixStream,
    received: BytesMut,
    meter: Meter,
    unpack: impl FnOnce(&mut FrameSource) -> Result<Vec<PathBuf>, CopyError>,
) -> Result<Transfer, Failure> {
    let mut source = FrameSource::new(stream, received, meter);
    let unpacked = match unpack(&mut source) {
        // The guest may have broken off for a reason that it tells after.
        Err(error @ (CopyError::Archive(_) | CopyError::Nothing)) => Err(error),
        Err(error) => return Err(error.into()),
        Ok(skipped) => Ok(skipped),
    };
    match (source.finish(), unpacked) {
        (Ok(Err(refusal)), _) => Err(Failure::Call(refusal)),
        (_, Err(error)) => Err(error.into()),
        (Err(error), Ok(_)) => Err(CopyError::Lost(error).into()),
        (Ok(Ok(())), Ok(skipped)) => Ok(Transfer { skipped }),
    }
}
