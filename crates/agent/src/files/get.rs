//! Files from the guest.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use banger_protocol::call::Answer;
use banger_protocol::frame::{self, BEST_PAYLOAD, Frame, FrameError, HEAD, Kind};
use rustix::buffer::spare_capacity;
use tokio::sync::mpsc;

use super::pack::{Sink, changed};
use super::{AHEAD, FilesError, Source, pack};
use crate::guest::Guest;
use crate::stream::{Incoming, Outgoing};

/// How long a frame is with its head.
const FRAME: usize = HEAD + BEST_PAYLOAD;

/// Gives files: that of a path, or all that a pattern names.
///
/// # Errors
/// Where the caller has gone.
pub async fn get(
    guest: &Guest,
    path: &str,
    pattern: bool,
    incoming: &mut Incoming,
    outgoing: &Outgoing,
) -> Result<(), FrameError> {
    let sources = match find(guest.path(path), pattern).await {
        Ok(sources) => sources,
        Err(error) => return outgoing.answer(&Answer::Error(error.to_call_error())).await,
    };
    let count = u32::try_from(sources.len()).unwrap_or(u32::MAX);
    outgoing.answer(&if pattern { Answer::Files { count } } else { Answer::Done }).await?;
    let (tell, mut pieces) = mpsc::channel(AHEAD);
    let packing = tokio::task::spawn_blocking(move || {
        let mut writer = Pieces { tell, frame: new_frame() };
        pack(&sources, &mut writer)?;
        writer.flush().map_err(FilesError::Stream)
    });
    let send = async {
        while let Some(piece) = pieces.recv().await {
            outgoing.send_encoded(&piece).await?;
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

/// A pattern may have many directories to look into: that takes a thread.
async fn find(path: PathBuf, pattern: bool) -> Result<Vec<Source>, FilesError> {
    if !pattern {
        return Source::find(&path).map(|source| vec![source]);
    }
    let found = tokio::task::spawn_blocking(move || Source::matching(&path)).await;
    found.unwrap_or_else(|panic| Err(FilesError::Stream(io::Error::other(panic))))
}

/// A blocking writer whose bytes become frames, without being moved once more.
struct Pieces {
    tell: mpsc::Sender<Vec<u8>>,
    /// A frame that is not full; its head is written when it is sent.
    frame: Vec<u8>,
}

fn new_frame() -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME);
    frame.extend_from_slice(&[0; HEAD]);
    frame
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(FRAME - self.frame.len());
        self.frame.extend_from_slice(&bytes[..count]);
        if self.frame.len() == FRAME {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.frame.len() == HEAD {
            return Ok(());
        }
        let mut full = std::mem::replace(&mut self.frame, new_frame());
        frame::put_head(&mut full, Kind::Data).map_err(io::Error::other)?;
        self.tell.blocking_send(full).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Sink for Pieces {
    fn take_file(&mut self, file: &File, length: u64) -> io::Result<()> {
        let mut taken = 0;
        while taken < length {
            let before = self.frame.len();
            match rustix::io::pread(file, spare_capacity(&mut self.frame), taken) {
                Ok(0) => return Err(changed()),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            // What the file has grown by is not its own, nor is what an allocation has room for beyond a frame.
            let most = usize::try_from(length - taken).unwrap_or(usize::MAX).min(FRAME - before);
            self.frame.truncate(before + most);
            taken += (self.frame.len() - before) as u64;
            if self.frame.len() == FRAME {
                self.flush()?;
            }
        }
        Ok(())
    }
}
