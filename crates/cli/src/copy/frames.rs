//! A tar stream in data frames, over a blocking socket.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use banger_api::exec::CallError;
use banger_api::frame::{self, Frame, FrameError, Kind};
use bytes::{Buf, Bytes, BytesMut};

/// How many bytes have passed; shared with whoever shows it.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    /// How many so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Writes data frames. What is written is sent when a frame is full, or by [`FrameSink::end`].
#[derive(Debug)]
pub struct FrameSink {
    stream: UnixStream,
    /// A frame with its head in front.
    buffer: Vec<u8>,
    meter: Meter,
}

impl FrameSink {
    /// Writes to this stream.
    pub fn new(stream: UnixStream, meter: Meter) -> FrameSink {
        let mut buffer = Vec::with_capacity(frame::HEAD + frame::MAX_PAYLOAD);
        buffer.resize(frame::HEAD, 0);
        FrameSink { stream, buffer, meter }
    }

    /// Sends what is left, and the empty frame that ends the data.
    ///
    /// # Errors
    /// Where the other side hung up.
    pub fn end(mut self) -> io::Result<()> {
        if self.buffer.len() > frame::HEAD {
            self.send()?;
        }
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        let payload = self.buffer.len() - frame::HEAD;
        let length = u32::try_from(payload).map_err(io::Error::other)?;
        self.buffer[0] = Kind::Data as u8;
        self.buffer[1..frame::HEAD].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&self.buffer)?;
        self.buffer.truncate(frame::HEAD);
        self.meter.add(payload);
        Ok(())
    }
}

impl Write for FrameSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = frame::HEAD + frame::MAX_PAYLOAD - self.buffer.len();
        let taken = room.min(bytes.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if taken == room {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads data frames up to the empty one.
#[derive(Debug)]
pub struct FrameSource {
    stream: UnixStream,
    received: BytesMut,
    payload: Bytes,
    meter: Meter,
    end: Option<Result<(), CallError>>,
}

impl FrameSource {
    /// Reads from this stream, after what has been received already.
    pub fn new(stream: UnixStream, received: BytesMut, meter: Meter) -> FrameSource {
        FrameSource { stream, received, payload: Bytes::new(), meter, end: None }
    }

    /// Reads what is left and says how the transfer ended.
    ///
    /// # Errors
    /// Where the stream breaks off.
    pub fn finish(&mut self) -> io::Result<Result<(), CallError>> {
        loop {
            if let Some(end) = self.end.take() {
                return Ok(end);
            }
            self.payload = Bytes::new();
            self.fill()?;
        }
    }

    /// Unblocks whoever writes to the same socket.
    pub fn shut_down(&self) {
        // It fails only where the socket is down already.
        drop(self.stream.shutdown(Shutdown::Both));
    }

    /// The next payload, or the end.
    fn fill(&mut self) -> io::Result<()> {
        let frame = self.next_frame()?;
        match frame.kind {
            Kind::Data if frame.payload.is_empty() => self.end = Some(Ok(())),
            Kind::Data => {
                self.meter.add(frame.payload.len());
                self.payload = frame.payload;
            }
            Kind::Failed => self.end = Some(Err(frame.parse().map_err(io::Error::other)?)),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame that is no data")),
        }
        Ok(())
    }

    fn next_frame(&mut self) -> io::Result<Frame> {
        loop {
            match frame::decode(&mut self.received) {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(FrameError::Io(error)) => return Err(error),
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
            let filled = self.received.len();
            self.received.resize(filled + frame::HEAD + frame::MAX_PAYLOAD, 0);
            let count = self.stream.read(&mut self.received[filled..]);
            self.received.truncate(filled + *count.as_ref().unwrap_or(&0));
            if count? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl Read for FrameSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.payload.is_empty() {
            match &self.end {
                Some(Ok(())) => return Ok(0),
                // [`FrameSource::finish`] tells why.
                Some(Err(_)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => self.fill()?,
            }
        }
        let count = buffer.len().min(self.payload.len());
        self.payload.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
