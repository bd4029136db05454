//! The frames of one call: a kind, a length, a payload.
//!
//! The same frames run between agent and daemon and, after an HTTP upgrade, between daemon and command line, so that the
//! daemon can pass an exec's output on without taking it apart. Layout: one byte of kind, four bytes of length in network
//! order, then at most [`MAX_PAYLOAD`] bytes.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest payload of one frame, in bytes. What is longer is sent as several frames.
pub const MAX_PAYLOAD: usize = 256 * 1024;

/// The length of a frame's head, in bytes.
pub const HEAD: usize = 5;

/// The payload that much data is best sent in, in bytes: with both heads (the multiplexer's has 12 bytes) it fills two of the
/// 32 KiB that a virtio serial port takes at once, and it stays in the processor's cache from hand to hand.
pub const BEST_PAYLOAD: usize = 64 * 1024 - 12 - HEAD;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A call or its answer, as JSON.
    Message = 1,
    /// Bytes for the command's standard input. An empty frame closes it.
    Stdin = 2,
    /// Bytes of the command's standard output, or of its terminal.
    Stdout = 3,
    /// Bytes of the command's standard error.
    Stderr = 4,
    /// The terminal's new size: rows, then columns, two bytes each in network order.
    Resize = 5,
    /// A signal for the command's process group: its number, one byte.
    Signal = 6,
    /// How the command ended, as JSON ([`crate::call::Exit`]). The last frame of an exec.
    Exit = 7,
    /// Bytes of a file transfer or of stored output. An empty frame ends them.
    Data = 8,
    /// The call failed after its answer, as JSON ([`crate::call::CallError`]). The last frame.
    Failed = 9,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Message,
            2 => Kind::Stdin,
            3 => Kind::Stdout,
            4 => Kind::Stderr,
            5 => Kind::Resize,
            6 => Kind::Signal,
            7 => Kind::Exit,
            8 => Kind::Data,
            9 => Kind::Failed,
            _ => return None,
        })
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: Kind,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: Bytes,
}

impl Frame {
    /// A frame of this kind with this payload.
    pub fn new(kind: Kind, payload: impl Into<Bytes>) -> Frame {
        Frame { kind, payload: payload.into() }
    }

    /// A frame whose payload is `message` as JSON.
    ///
    /// # Errors
    /// [`FrameError::Json`] where the value cannot be written as JSON.
    pub fn json(kind: Kind, message: &impl serde::Serialize) -> Result<Frame, FrameError> {
        Ok(Frame::new(kind, serde_json::to_vec(message).map_err(FrameError::Json)?))
    }

    /// The frame that tells a terminal's new size.
    pub fn resize(rows: u16, columns: u16) -> Frame {
        let mut payload = BytesMut::with_capacity(4);
        payload.put_u16(rows);
        payload.put_u16(columns);
        Frame::new(Kind::Resize, payload.freeze())
    }

    /// Rows and columns, where this is a well-formed [`Kind::Resize`].
    pub fn as_resize(&self) -> Option<(u16, u16)> {
        let mut payload = self.payload.clone();
        (self.kind == Kind::Resize && payload.len() == 4).then(|| (payload.get_u16(), payload.get_u16()))
    }

    /// The payload read as JSON.
    ///
    /// # Errors
    /// [`FrameError::Json`] where the payload is something else.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, FrameError> {
        serde_json::from_slice(&self.payload).map_err(FrameError::Json)
    }
}

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream failed.
    #[error("the stream failed")]
    Io(#[source] io::Error),
    /// The stream ended between two frames.
    #[error("the stream ended")]
    Ended,
    /// The kind's byte means nothing in this version.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// The length is over [`MAX_PAYLOAD`].
    #[error("a frame of {0} bytes is over the limit of {MAX_PAYLOAD}")]
    TooLong(usize),
    /// The payload is not the JSON that was expected.
    #[error("a frame's JSON could not be read or written")]
    Json(#[source] serde_json::Error),
}

/// Takes one whole frame from the front of `buffer`, or nothing while it is incomplete.
///
/// # Errors
/// [`FrameError::UnknownKind`] and [`FrameError::TooLong`]; the stream is then unusable.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    if buffer.len() < HEAD {
        return Ok(None);
    }
    let (kind, length) = parse_head(&[buffer[0], buffer[1], buffer[2], buffer[3], buffer[4]])?;
    if buffer.len() < HEAD + length {
        buffer.reserve(HEAD + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(HEAD);
    Ok(Some(Frame { kind, payload: buffer.split_to(length).freeze() }))
}

/// Reads one frame.
///
/// # Errors
/// [`FrameError::Ended`] where the stream ends before a frame begins; [`FrameError::Io`] where it fails or ends within one.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Frame, FrameError> {
    let mut head = [0; HEAD];
    let first = stream.read(&mut head).await.map_err(FrameError::Io)?;
    if first == 0 {
        return Err(FrameError::Ended);
    }
    stream.read_exact(&mut head[first..]).await.map_err(FrameError::Io)?;
    let (kind, length) = parse_head(&head)?;
    // Not zeroed before: in an emulated guest that costs as much as to read.
    let mut payload = BytesMut::with_capacity(length).limit(length);
    while payload.has_remaining_mut() {
        if stream.read_buf(&mut payload).await.map_err(FrameError::Io)? == 0 {
            return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Ok(Frame { kind, payload: payload.into_inner().freeze() })
}

/// Writes one frame and flushes it.
///
/// # Errors
/// [`FrameError::TooLong`] before anything is written; [`FrameError::Io`] where the stream fails.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> Result<(), FrameError> {
    let mut bytes = BytesMut::with_capacity(HEAD + frame.payload.len());
    encode(&mut bytes, frame)?;
    stream.write_all(&bytes).await.map_err(FrameError::Io)?;
    stream.flush().await.map_err(FrameError::Io)
}

/// Writes the head of a frame into the first [`HEAD`] bytes of `whole`, whose others are the payload.
///
/// # Errors
/// [`FrameError::TooLong`].
///
/// # Panics
/// Where `whole` is shorter than a head.
pub fn put_head(whole: &mut [u8], kind: Kind) -> Result<(), FrameError> {
    let length = whole.len() - HEAD;
    let told = u32::try_from(length).ok().filter(|_| length <= MAX_PAYLOAD).ok_or(FrameError::TooLong(length))?;
    whole[0] = kind as u8;
    whole[1..HEAD].copy_from_slice(&told.to_be_bytes());
    Ok(())
}

/// Appends one frame to `buffer`.
///
/// # Errors
/// [`FrameError::TooLong`]; the buffer is then unchanged.
pub fn encode(buffer: &mut BytesMut, frame: &Frame) -> Result<(), FrameError> {
    let length = frame.payload.len();
    if length > MAX_PAYLOAD {
        return Err(FrameError::TooLong(length));
    }
    buffer.put_u8(frame.kind as u8);
    buffer.put_u32(u32::try_from(length).map_err(|_| FrameError::TooLong(length))?);
    buffer.put_slice(&frame.payload);
    Ok(())
}

fn parse_head(head: &[u8; HEAD]) -> Result<(Kind, usize), FrameError> {
    let kind = Kind::from_byte(head[0]).ok_or(FrameError::UnknownKind(head[0]))?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > MAX_PAYLOAD {
        return Err(FrameError::TooLong(length));
    }
    Ok((kind, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = decode(&mut buffer) {
                prop_assert!(frame.payload.len() <= MAX_PAYLOAD);
            }
        }

        #[test]
        fn what_is_encoded_comes_back_in_any_pieces(payload in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
            let frame = Frame::new(Kind::Stdout, payload);
            let mut bytes = BytesMut::new();
            encode(&mut bytes, &frame).unwrap();
            let cut = cut.min(bytes.len() - 1);
            let mut buffer = BytesMut::from(&bytes[..cut]);
            prop_assert_eq!(decode(&mut buffer).unwrap(), None);
            buffer.extend_from_slice(&bytes[cut..]);
            prop_assert_eq!(decode(&mut buffer).unwrap(), Some(frame));
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_it_is_reserved() {
        let mut buffer = BytesMut::from(&[8, 0xff, 0xff, 0xff, 0xff][..]);
        assert!(matches!(decode(&mut buffer), Err(FrameError::TooLong(_))));
    }
}
