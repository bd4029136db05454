//! A tar stream in data frames, over a blocking socket.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use banger_api::exec::CallError;
use banger_api::frame::{self, FrameError, Kind};
use bytes::{Buf, BytesMut};

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
        let mut buffer = Vec::with_capacity(frame::HEAD + frame::BEST_PAYLOAD);
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
        let room = frame::HEAD + frame::BEST_PAYLOAD - self.buffer.len();
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

/// Reads data frames up to the empty one. Most bytes go from the socket right into the reader's buffer.
#[derive(Debug)]
pub struct FrameSource {
    stream: UnixStream,
    /// What came before this took over.
    received: BytesMut,
    /// How much of the current frame's payload is still to come.
    left: usize,
    meter: Meter,
    end: Option<Result<(), CallError>>,
}

impl FrameSource {
    /// Reads from this stream, after what has been received already.
    pub fn new(stream: UnixStream, received: BytesMut, meter: Meter) -> FrameSource {
        FrameSource { stream, received, left: 0, meter, end: None }
    }

    /// Reads what is left and says how the transfer ended.
    ///
    /// # Errors
    /// Where the stream breaks off.
    pub fn finish(&mut self) -> io::Result<Result<(), CallError>> {
        let mut ignored = vec![0; 64 * 1024];
        loop {
            if let Some(end) = self.end.take() {
                return Ok(end);
            }
            // An end is not an error here, whatever it was.
            match self.read(&mut ignored) {
                Err(error) if self.end.is_none() => return Err(error),
                _ => {}
            }
        }
    }

    /// Unblocks whoever writes to the same socket.
    pub fn shut_down(&self) {
        // It fails only where the socket is down already.
        drop(self.stream.shutdown(Shutdown::Both));
    }

    /// Reads a head, and all of a frame that is not data.
    fn next_frame(&mut self) -> io::Result<()> {
        let mut head = [0; frame::HEAD];
        self.receive_exactly(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > frame::MAX_PAYLOAD {
            return Err(invalid(FrameError::TooLong(length)));
        }
        if head[0] == Kind::Data as u8 {
            self.left = length;
            if length == 0 {
                self.end = Some(Ok(()));
            }
            return Ok(());
        }
        let mut whole = BytesMut::from(head.as_slice());
        whole.resize(frame::HEAD + length, 0);
        self.receive_exactly(&mut whole[frame::HEAD..])?;
        match frame::decode(&mut whole).map_err(invalid)? {
            Some(frame) if frame.kind == Kind::Failed => {
                self.end = Some(Err(frame.parse().map_err(invalid)?));
                Ok(())
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a frame that is no data")),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.received.is_empty() {
            return self.stream.read(buffer);
        }
        let count = buffer.len().min(self.received.len());
        self.received.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }

    fn receive_exactly(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.receive(&mut buffer[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    }
}

impl Read for FrameSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            match &self.end {
                Some(Ok(())) => return Ok(0),
                // [`FrameSource::finish`] tells why.
                Some(Err(_)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => self.next_frame()?,
            }
        }
        let most = buffer.len().min(self.left);
        match self.receive(&mut buffer[..most])? {
            0 if most > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.left -= count;
                self.meter.add(count);
                Ok(count)
            }
        }
    }
}

fn invalid(error: FrameError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
