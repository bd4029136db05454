//! Files from the guest.

use std::io::{self, Write};

use banger_protocol::call::Answer;
use banger_protocol::frame::{Frame, FrameError, HEAD, Kind};
use banger_protocol::session::MAX_MESSAGE;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;

use super::{AHEAD, FilesError, Source, pack};
use crate::guest::Guest;
use crate::stream::{Incoming, Outgoing};

/// How much of the stream makes one frame: with its head, three messages of the multiplexer.
const PIECE: usize = 3 * MAX_MESSAGE - HEAD;

/// Gives files.
///
/// # Errors
/// Where the caller has gone.
pub async fn get(guest: &Guest, path: &str, incoming: &mut Incoming, outgoing: &Outgoing) -> Result<(), FrameError> {
    let source = match Source::find(&guest.path(path)) {
        Ok(source) => source,
        Err(error) => return outgoing.answer(&Answer::Error(error.to_call_error())).await,
    };
    outgoing.answer(&Answer::Done).await?;
    let (tell, mut pieces) = mpsc::channel(AHEAD);
    let packing = tokio::task::spawn_blocking(move || {
        let mut writer = Pieces { tell, piece: BytesMut::with_capacity(PIECE) };
        pack(&source, &mut writer)?;
        writer.flush().map_err(FilesError::Stream)
    });
    let send = async {
        while let Some(piece) = pieces.recv().await {
            outgoing.send(&Frame::new(Kind::Data, piece)).await?;
        }
        Ok(())
    };
    tokio::select! {
        sent = send => sent?,
        // With the receiver the thread's next piece fails, and it ends.
        () = incoming.gone() => return Err(FrameError::Ended),
    }
    match packing.await {
        Ok(Ok(())) => outgoing.send(&Frame::new(Kind::Data, "")).await,
        Ok(Err(error)) => outgoing.failed(&error.to_call_error()).await,
        Err(panic) => outgoing.failed(&FilesError::Stream(io::Error::other(panic)).to_call_error()).await,
    }
}

/// A blocking writer whose bytes become frames.
struct Pieces {
    tell: mpsc::Sender<Bytes>,
    piece: BytesMut,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.piece.len());
        self.piece.put_slice(&bytes[..count]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.piece, BytesMut::with_capacity(PIECE));
        self.tell.blocking_send(full.freeze()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
