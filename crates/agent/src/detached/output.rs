//! A detached command's log, sent to whoever asks for it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use banger_protocol::call::{Answer, CallError, CallErrorCode};
use banger_protocol::frame::{self, Frame, FrameError, Kind};
use bytes::{Buf, BytesMut};

use super::Detached;
use super::log::segments;
use crate::stream::{Incoming, Outgoing};

/// How much is read from the disk at once: the longest frame of a log fits.
const READ: usize = 256 * 1024;

/// Sends what is kept of a command's output, and with `follow` what comes, until it has ended.
///
/// # Errors
/// Where the caller has gone.
pub async fn send(
    detached: &Detached,
    id: &str,
    follow: bool,
    incoming: &mut Incoming,
    outgoing: &Outgoing,
) -> Result<(), FrameError> {
    let found = detached.directory_of(id).and_then(|directory| Ok((directory, detached.progress(id)?)));
    let (directory, mut progress) = match found {
        Ok(found) => found,
        Err(error) => return outgoing.answer(&Answer::Error(error)).await,
    };
    outgoing.answer(&Answer::Done).await?;
    let mut reader = Reader::new(&directory);
    loop {
        let now = *progress.borrow_and_update();
        if let Err(error) = reader.send_until(now.written, outgoing).await? {
            let message = format!("cannot read the output of {id}: {error}");
            return outgoing.failed(&CallError { code: CallErrorCode::Failed, message }).await;
        }
        if let Some(exit) = now.exit {
            return outgoing.exit(exit).await;
        }
        if !follow {
            return outgoing.send(&Frame::new(Kind::Data, "")).await;
        }
        tokio::select! {
            // An error means that the command has ended, and then `now.exit` says so.
            _ = progress.changed() => {}
            () = incoming.gone() => return Err(FrameError::Ended),
        }
    }
}

/// Reads a log from its beginning, over the borders of its files.
struct Reader<'a> {
    directory: &'a Path,
    position: u64,
    open: Option<(u64, Arc<File>)>,
    pending: BytesMut,
}

impl<'a> Reader<'a> {
    fn new(directory: &'a Path) -> Reader<'a> {
        Reader { directory, position: 0, open: None, pending: BytesMut::new() }
    }

    /// Sends all frames up to a position. The outer error is the caller's stream, the inner one the log.
    async fn send_until(&mut self, end: u64, outgoing: &Outgoing) -> Result<io::Result<()>, FrameError> {
        while self.position < end {
            let read = match self.read(end).await {
                Ok(read) => read,
                Err(error) => return Ok(Err(error)),
            };
            if let Some(dropped) = read.dropped {
                self.pending.clear();
                let marker = format!("banger: {dropped} bytes of older output were dropped here\n");
                outgoing.send(&Frame::new(Kind::Stderr, marker)).await?;
            }
            if read.bytes.is_empty() {
                // A file that a crash cut short.
                return Ok(Ok(()));
            }
            self.pending.extend_from_slice(&read.bytes);
            let whole = whole_frames(&self.pending);
            outgoing.send_encoded(&self.pending[..whole]).await?;
            self.pending.advance(whole);
        }
        Ok(Ok(()))
    }

    /// The next bytes of the log, from the file that has them or else from the oldest that is left.
    async fn read(&mut self, end: u64) -> io::Result<Read> {
        let mut dropped = None;
        loop {
            let (start, file) = match &self.open {
                Some((start, file)) => (*start, file.clone()),
                None => {
                    let segments = segments(self.directory);
                    let holds = segments.iter().rev().find(|(start, _)| *start <= self.position);
                    let Some((start, path)) = holds.or(segments.first()) else { return Ok(Read::default()) };
                    let file = match File::open(path) {
                        Ok(file) => Arc::new(file),
                        // It was the oldest, and was removed just now.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                        Err(error) => return Err(error),
                    };
                    if *start > self.position {
                        dropped = Some(start - self.position);
                        self.position = *start;
                    }
                    self.open = Some((*start, file.clone()));
                    (*start, file)
                }
            };
            let at = self.position - start;
            let want = usize::try_from(end.saturating_sub(self.position)).unwrap_or(READ).min(READ);
            let bytes = tokio::task::spawn_blocking(move || {
                let mut bytes = vec![0; want];
                let count = file.read_at(&mut bytes, at)?;
                bytes.truncate(count);
                Ok::<_, io::Error>(bytes)
            });
            let bytes = bytes.await.map_err(io::Error::other)??;
            self.position += bytes.len() as u64;
            let is_last = segments(self.directory).last().is_none_or(|(last, _)| *last <= start);
            if !bytes.is_empty() || is_last {
                return Ok(Read { bytes, dropped });
            }
            // This file is done with: another one was begun before the end was told.
            self.open = None;
        }
    }
}

#[derive(Default)]
struct Read {
    bytes: Vec<u8>,
    dropped: Option<u64>,
}

/// How many bytes at the front of `log` are whole frames.
fn whole_frames(log: &[u8]) -> usize {
    let mut whole = 0;
    while let Some(head) = log.get(whole + 1..whole + frame::HEAD) {
        let length = head.iter().fold(0usize, |length, &byte| length << 8 | usize::from(byte));
        if length > log.len() || whole + frame::HEAD + length > log.len() {
            break;
        }
        whole += frame::HEAD + length;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_frame_is_left_for_later() {
        let log = [3, 0, 0, 0, 2, b'a', b'b', 4, 0, 0, 0, 1, b'c', 3, 0, 0];
        assert_eq!(whole_frames(&log), 13);
        assert_eq!(whole_frames(&log[..12]), 7);
        assert_eq!(whole_frames(&[]), 0);
        assert_eq!(whole_frames(&[3, 0xff, 0xff, 0xff, 0xff, 0]), 0);
    }
}
