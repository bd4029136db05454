//! Files to the guest.

use std::io::{self, Read};

use banger_protocol::call::Answer;
use banger_protocol::frame::{Frame, FrameError, Kind};
use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::{AHEAD, Destination, FilesError, unpack};
use crate::guest::Guest;
use crate::stream::{Incoming, Outgoing};

/// Takes files. Says that all is written, or what could not be, once the caller has said that all is sent.
///
/// # Errors
/// Where the caller has gone; what it had sent stays.
pub async fn put(
    guest: &Guest,
    path: &str,
    name: &str,
    incoming: &mut Incoming,
    outgoing: &Outgoing,
) -> Result<(), FrameError> {
    let destination = match Destination::open(&guest.path(path), name) {
        Ok(destination) => destination,
        Err(error) => return outgoing.answer(&Answer::Error(error.to_call_error())).await,
    };
    outgoing.answer(&Answer::Done).await?;
    let (pieces, taken) = mpsc::channel(AHEAD);
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces { taken, piece: Bytes::new(), complete: false };
        unpack(&mut pieces, &destination)?;
        pieces.rest().map_err(FilesError::Stream)
    });
    let received = receive(incoming, &pieces).await;
    drop(pieces);
    let result = match unpacking.await {
        Ok(result) => result,
        Err(panic) => Err(FilesError::Stream(io::Error::other(panic))),
    };
    received?;
    match result {
        Ok(()) => outgoing.send(&Frame::new(Kind::Data, "")).await,
        Err(error) => {
            outgoing.failed(&error.to_call_error()).await?;
            // The caller may still be sending, and would wait for ever if nobody took it.
            incoming.gone().await;
            Ok(())
        }
    }
}

/// Hands the caller's data on, until its end or until nobody wants more.
async fn receive(incoming: &mut Incoming, pieces: &mpsc::Sender<Piece>) -> Result<(), FrameError> {
    loop {
        let frame = incoming.next().await?;
        match frame.kind {
            Kind::Data if frame.payload.is_empty() => {
                pieces.send(Piece::End).await.ok();
                return Ok(());
            }
            Kind::Data => {
                if pieces.send(Piece::Data(frame.payload)).await.is_err() {
                    return Ok(());
                }
            }
            other => return Err(FrameError::UnknownKind(other as u8)),
        }
    }
}

enum Piece {
    Data(Bytes),
    End,
}

/// The caller's data as a blocking reader. A stream that stops without its end is an error, not an end.
struct Pieces {
    taken: mpsc::Receiver<Piece>,
    piece: Bytes,
    complete: bool,
}

impl Pieces {
    /// Reads what follows the archive: tar pads it.
    fn rest(&mut self) -> io::Result<()> {
        while self.fill()? {
            self.piece.clear();
        }
        Ok(())
    }

    fn fill(&mut self) -> io::Result<bool> {
        while self.piece.is_empty() && !self.complete {
            match self.taken.blocking_recv() {
                Some(Piece::Data(data)) => self.piece = data,
                Some(Piece::End) => self.complete = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the transfer broke off")),
            }
        }
        Ok(!self.piece.is_empty())
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece[..count]);
        self.piece.advance(count);
        Ok(count)
    }
}
