//! Commands: started, fed, listened to, signalled, and ended with their session.

mod launch;

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use banger_linux::fd_stream::FdStream;
use banger_linux::process::Process;
use banger_protocol::call::{Answer, CallError, CallErrorCode, Exec, Exit};
use banger_protocol::frame::{FrameError, HEAD, Kind};
use bytes::{BufMut, BytesMut};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};

use crate::guest::Guest;
use crate::stream::{Incoming, Outgoing};

/// How long a command has after SIGHUP before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// How much output is sent in one frame: with its head, one frame of the multiplexer.
const OUTPUT: usize = 64 * 1024 - HEAD;

/// Runs a command for as long as its caller stays.
pub async fn run(
    guest: &Rc<Guest>,
    exec: &Exec,
    incoming: &mut Incoming,
    outgoing: &Rc<Outgoing>,
) -> Result<(), FrameError> {
    let started = match launch::start(guest, exec) {
        Ok(started) => started,
        Err(error) => return outgoing.answer(&Answer::Error(error)).await,
    };
    outgoing.answer(&Answer::Started { pid: started.process.pid() }).await?;
    let process = started.process;
    let out = pump(started.stdout, Kind::Stdout, outgoing);
    let err = pump(started.stderr, Kind::Stderr, outgoing);
    let (_, _) = tokio::join!(out, err);
    let status = process.ended().await;
    let exit = match status {
        Ok(Some(status)) => {
            use std::os::unix::process::ExitStatusExt;
            match (status.code(), status.signal()) {
                (Some(code), _) => Exit::Code(u8::try_from(code).unwrap_or(255)),
                (None, Some(signal)) => Exit::Signal(u8::try_from(signal).unwrap_or(0)),
                _ => Exit::Lost,
            }
        }
        _ => Exit::Lost,
    };
    outgoing.exit(exit).await
}

async fn pump(pipe: Option<OwnedFd>, kind: Kind, outgoing: &Outgoing) -> Result<(), FrameError> {
    let Some(pipe) = pipe else { return Ok(()) };
    let mut pipe = FdStream::new(pipe, Interest::READABLE).map_err(FrameError::Io)?;
    let mut buffer = BytesMut::with_capacity(OUTPUT + HEAD);
    loop {
        buffer.clear();
        buffer.put_u8(kind as u8);
        buffer.put_u32(0);
        let count = pipe.read_buf(&mut buffer).await.map_err(FrameError::Io)?;
        if count == 0 {
            return Ok(());
        }
        let length = u32::try_from(count).unwrap_or(0).to_be_bytes();
        buffer[1..HEAD].copy_from_slice(&length);
        outgoing.send_encoded(&buffer).await?;
    }
}
