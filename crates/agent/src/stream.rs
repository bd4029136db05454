//! One call's stream, in two halves that live in different tasks.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use banger_protocol::call::{Answer, CallError, Exit};
use banger_protocol::frame::{self, Frame, FrameError, Kind};
use banger_protocol::session::Stream;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Mutex;

use crate::connection::Traffic;

/// Splits a stream.
pub fn split(stream: Stream, traffic: Rc<Traffic>) -> (Incoming, Outgoing) {
    let stream = Rc::new(RefCell::new(stream));
    (Incoming { stream: stream.clone(), traffic }, Outgoing { stream: Mutex::new(Half(stream)) })
}

/// The half that is read. Its end means that the caller has gone.
pub struct Incoming {
    stream: Rc<RefCell<Stream>>,
    traffic: Rc<Traffic>,
}

impl Incoming {
    /// The next frame.
    pub async fn next(&mut self) -> Result<Frame, FrameError> {
        frame::read(self).await
    }

    /// Waits until the caller has dropped the stream, though there may be more to read.
    pub async fn dropped(&self) {
        loop {
            // Made before the look, so that what arrives after it wakes.
            let arrival = self.traffic.arrived.notified();
            if self.stream.borrow().is_closed() {
                return;
            }
            arrival.await;
        }
    }

    /// Reads until the caller has gone, and throws away what it says.
    pub async fn gone(&mut self) {
        while self.next().await.is_ok() {}
    }
}

impl AsyncRead for Incoming {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buffer)
    }
}

/// The half that is written, by one task at a time.
pub struct Outgoing {
    stream: Mutex<Half>,
}

struct Half(Rc<RefCell<Stream>>);

impl Outgoing {
    /// Sends one frame.
    pub async fn send(&self, frame: &Frame) -> Result<(), FrameError> {
        let mut bytes = BytesMut::with_capacity(frame::HEAD + frame.payload.len());
        frame::encode(&mut bytes, frame)?;
        self.send_encoded(&bytes).await
    }

    /// Sends whole frames that are encoded already.
    pub async fn send_encoded(&self, bytes: &[u8]) -> Result<(), FrameError> {
        let mut half = self.stream.lock().await;
        half.write_all(bytes).await.map_err(FrameError::Io)?;
        half.flush().await.map_err(FrameError::Io)
    }

    /// Sends an answer.
    pub async fn answer(&self, answer: &Answer) -> Result<(), FrameError> {
        self.send(&Frame::json(Kind::Message, answer)?).await
    }

    /// Sends how a command ended; nothing follows.
    pub async fn exit(&self, exit: Exit) -> Result<(), FrameError> {
        self.send(&Frame::json(Kind::Exit, &exit)?).await
    }

    /// Sends that the call failed after its answer; nothing follows.
    pub async fn failed(&self, error: &CallError) -> Result<(), FrameError> {
        self.send(&Frame::json(Kind::Failed, error)?).await
    }

    /// Says that nothing follows.
    pub async fn finish(&self) {
        let mut half = self.stream.lock().await;
        // A stream that is broken is finished too.
        drop(half.shutdown().await);
    }
}

impl AsyncWrite for Half {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}
