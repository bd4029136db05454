//! What a command says, on its way to the caller.

use std::os::fd::OwnedFd;

use banger_linux::fd_stream::FdStream;
use banger_protocol::frame::{BEST_PAYLOAD, FrameError, HEAD, Kind, put_head};
use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, Interest};
use tokio_util::sync::CancellationToken;

use crate::stream::Outgoing;

/// One of a command's output streams.
#[derive(Debug)]
pub struct Output {
    stream: FdStream,
    kind: Kind,
}

impl Output {
    /// Takes our end of a pipe or terminal.
    pub fn new(fd: OwnedFd, kind: Kind) -> Result<Output, FrameError> {
        Ok(Output { stream: FdStream::new(fd, Interest::READABLE).map_err(FrameError::Io)?, kind })
    }
}

/// Sends output until it ends, or until the command has ended and all that it said is sent: what it left behind in the
/// background may hold the stream open for ever. No more is read than the caller takes.
pub async fn carry(output: Option<Output>, outgoing: &Outgoing, ended: &CancellationToken) -> Result<(), FrameError> {
    let Some(mut output) = output else { return Ok(()) };
    // Most commands say little: room for more is made when there is more.
    let mut frame = BytesMut::with_capacity(4096);
    loop {
        frame.clear();
        frame.put_bytes(0, HEAD);
        let count = tokio::select! {
            biased;
            count = output.stream.read_buf(&mut frame) => count,
            () = ended.cancelled() => read_at_once(&output.stream, &mut frame),
        };
        // A terminal whose other side is closed fails to be read: its way of ending.
        let Ok(1..) = count else { return Ok(()) };
        put_head(&mut frame, output.kind)?;
        outgoing.send_encoded(&frame).await?;
        if frame.len() == frame.capacity() && frame.capacity() < BEST_PAYLOAD + HEAD {
            frame = BytesMut::with_capacity(BEST_PAYLOAD + HEAD);
        }
    }
}

/// Asks the kernel and not the event loop, which may not have heard yet of what is there.
fn read_at_once(stream: &FdStream, frame: &mut BytesMut) -> std::io::Result<usize> {
    frame.resize(BEST_PAYLOAD + HEAD, 0);
    let count = rustix::io::read(stream, &mut frame[HEAD..])?;
    frame.truncate(HEAD + count);
    Ok(count)
}
