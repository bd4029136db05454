//! A connection that carries frames.

use std::io::{self, IoSlice};

use banger_protocol::call::Answer;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::frame::{self, Frame, FrameError, Kind};

/// How much is read at once: a whole frame of the largest kind fits.
const READ: usize = frame::MAX_PAYLOAD + frame::HEAD;

/// Both directions.
#[derive(Debug)]
pub struct Upgraded {
    stream: UnixStream,
    received: BytesMut,
}

impl Upgraded {
    pub(super) fn new(stream: UnixStream, received: &[u8]) -> Upgraded {
        Upgraded { stream, received: BytesMut::from(received) }
    }

    /// One half each for reading and writing; the connection closes when both are dropped.
    pub fn split(self) -> (FrameReader, FrameWriter) {
        let (reader, writer) = self.stream.into_split();
        (FrameReader { stream: reader, received: self.received }, FrameWriter { stream: writer })
    }

    /// The socket for threads that may block, and what of the other side's frames was received already.
    ///
    /// # Errors
    /// Where the socket cannot leave the event loop.
    pub fn into_blocking(self) -> io::Result<(std::os::unix::net::UnixStream, BytesMut)> {
        let stream = self.stream.into_std()?;
        stream.set_nonblocking(false)?;
        Ok((stream, self.received))
    }

    /// The first frame: what the agent says to the call.
    ///
    /// # Errors
    /// [`FrameError`], also where the first frame is something else.
    pub async fn answer(&mut self) -> Result<Answer, FrameError> {
        next(&mut self.stream, &mut self.received).await?.parse()
    }
}

/// The half that receives.
#[derive(Debug)]
pub struct FrameReader {
    stream: OwnedReadHalf,
    received: BytesMut,
}

impl FrameReader {
    /// The next frame. May be dropped and called again without losing any.
    ///
    /// # Errors
    /// [`FrameError::Ended`] where the other side hung up between two frames; else that of a broken stream.
    pub async fn next(&mut self) -> Result<Frame, FrameError> {
        next(&mut self.stream, &mut self.received).await
    }
}

/// The half that sends.
#[derive(Debug)]
pub struct FrameWriter {
    stream: OwnedWriteHalf,
}

impl FrameWriter {
    /// Sends one frame without copying its payload. Not to be dropped half way: the stream would then be out of step.
    ///
    /// # Errors
    /// [`FrameError::TooLong`]; [`FrameError::Io`] where the other side hung up.
    pub async fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<(), FrameError> {
        let mut head = BytesMut::with_capacity(frame::HEAD);
        head.put_u8(kind as u8);
        let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= frame::MAX_PAYLOAD);
        head.put_u32(length.ok_or(FrameError::TooLong(payload.len()))?);
        let head: Bytes = head.freeze();
        let sent = self.stream.write_vectored(&[IoSlice::new(&head), IoSlice::new(payload)]).await;
        let sent = sent.map_err(FrameError::Io)?;
        if sent < frame::HEAD {
            self.stream.write_all(&head[sent..]).await.map_err(FrameError::Io)?;
        }
        self.stream.write_all(&payload[sent.saturating_sub(frame::HEAD)..]).await.map_err(FrameError::Io)
    }
}

async fn next(stream: &mut (impl tokio::io::AsyncRead + Unpin), received: &mut BytesMut) -> Result<Frame, FrameError> {
    loop {
        if let Some(frame) = frame::decode(received)? {
            return Ok(frame);
        }
        received.reserve(READ.saturating_sub(received.len()).max(4096));
        if stream.read_buf(received).await.map_err(FrameError::Io)? == 0 {
            return Err(match received.is_empty() {
                true => FrameError::Ended,
                false => FrameError::Io(io::ErrorKind::UnexpectedEof.into()),
            });
        }
    }
}
