//! The log of a detached command: its output as frames, in files that are bounded.
//!
//! A log is one run of bytes, of which only the last part is kept, in files named by the position of their first byte. A
//! file that is full is followed by another, and the one before it is removed: at least [`SEGMENT`] bytes are kept, and at
//! most twice as many. Each file begins with a whole frame. A thread of its own writes it: a slow disk holds up the command,
//! and nobody else.

use std::fs::{self, File};
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use banger_linux::process::Process;
use banger_protocol::call::Exit;
use banger_protocol::frame::{HEAD, Kind};
use rustix::event::{PollFd, PollFlags};
use tokio::sync::{mpsc, watch};

use super::Progress;
use crate::exec::{self, Streams};

/// How large a file grows.
pub const SEGMENT: u64 = 32 * 1024 * 1024;

const PREFIX: &str = "output-";

/// How much output makes one frame.
const CHUNK: usize = 64 * 1024;

/// The writing end of a log.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    file: File,
    /// The position of the file's first byte.
    start: u64,
    /// The position behind the last byte.
    end: u64,
    segment: u64,
}

impl Log {
    /// Begins the log of a command.
    ///
    /// # Errors
    /// Where its first file cannot be made.
    pub fn create(directory: &Path) -> io::Result<Log> {
        let file = File::create_new(path(directory, 0))?;
        Ok(Log { directory: directory.to_owned(), file, start: 0, end: 0, segment: SEGMENT })
    }

    /// Appends whole frames.
    fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        if self.end - self.start >= self.segment {
            self.file = File::create_new(path(&self.directory, self.end))?;
            for (start, old) in segments(&self.directory) {
                if start < self.start {
                    fs::remove_file(old)?;
                }
            }
            self.start = self.end;
        }
        let at = self.end - self.start;
        if let Err(error) = self.file.write_all_at(frames, at) {
            // A full disk may have taken a part: what follows it would not be read as frames.
            self.file.set_len(at)?;
            return Err(error);
        }
        self.end += frames.len() as u64;
        Ok(())
    }
}

/// The files of a log with the positions of their first bytes, in order.
pub fn segments(directory: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let position = |path: &Path| path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse::<u64>().ok();
    let mut found: Vec<_> =
        entries.flatten().filter_map(|entry| Some((position(&entry.path())?, entry.path()))).collect();
    found.sort();
    found
}

/// The position behind the last byte of a log.
pub fn length(directory: &Path) -> u64 {
    segments(directory).last().map_or(0, |(start, path)| start + fs::metadata(path).map_or(0, |file| file.len()))
}

fn path(directory: &Path, start: u64) -> PathBuf {
    directory.join(format!("{PREFIX}{start}"))
}

/// The thread that writes a log.
#[derive(Debug)]
pub struct Recorder {
    /// Closed to say that the command has ended.
    running: PipeWriter,
    written: mpsc::UnboundedReceiver<u64>,
}

impl Recorder {
    /// Starts it.
    ///
    /// # Errors
    /// Where the system gives no pipe or thread.
    pub fn spawn(log: Log, streams: Streams) -> io::Result<Recorder> {
        let (ended, running) = io::pipe()?;
        let (tell, written) = mpsc::unbounded_channel();
        let streams = match streams {
            Streams::Terminal(terminal) => vec![(terminal, Kind::Stdout)],
            Streams::Pipes { stdin: _, stdout, stderr } => vec![(stdout, Kind::Stdout), (stderr, Kind::Stderr)],
        };
        std::thread::Builder::new().stack_size(256 * 1024).spawn(move || record(log, streams, &ended.into(), &tell))?;
        Ok(Recorder { running, written })
    }

    /// Tells how far the log is while the command runs; then has the rest written, and says how the command ended.
    pub async fn follow(self, process: &Process, tell: &watch::Sender<Progress>) -> Exit {
        let Recorder { running, mut written } = self;
        let end = async {
            let exit = exec::exit_of(process).await;
            drop(running);
            exit
        };
        let log = async {
            while let Some(position) = written.recv().await {
                tell.send_modify(|progress| progress.written = position);
            }
        };
        tokio::join!(end, log).0
    }
}

/// Writes what the streams say, until all have ended, or `ended` has and nothing more is there to be read at once.
fn record(mut log: Log, mut streams: Vec<(OwnedFd, Kind)>, ended: &OwnedFd, tell: &mpsc::UnboundedSender<u64>) {
    let mut frame = vec![0; CHUNK + HEAD];
    let mut has_ended = false;
    while !streams.is_empty() {
        if !has_ended {
            has_ended = wait(&streams, ended);
        }
        let mut read_any = false;
        streams.retain(|(stream, kind)| {
            if !has_ended && !is_readable(stream) {
                return true;
            }
            match read_now(stream, &mut frame[HEAD..]) {
                Ok(count @ 1..) => {
                    read_any = true;
                    frame[0] = *kind as u8;
                    frame[1..HEAD].copy_from_slice(&u32::try_from(count).unwrap_or(0).to_be_bytes());
                    // A disk that is full loses output; the command is not held up by that.
                    if log.append(&frame[..HEAD + count]).is_ok() {
                        // Nobody listens where the agent is going down.
                        tell.send(log.end).ok();
                    }
                    true
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => true,
                Ok(_) | Err(_) => false,
            }
        });
        if has_ended && !read_any {
            break;
        }
    }
    drop(log.file.sync_data());
}

/// Waits until there is something to do; whether the command has ended.
fn wait(streams: &[(OwnedFd, Kind)], ended: &OwnedFd) -> bool {
    let mut polled: Vec<_> =
        streams.iter().map(|(stream, _)| stream).chain([ended]).map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    match rustix::event::poll(&mut polled, None) {
        Ok(_) => polled.last().is_some_and(|last| !last.revents().is_empty()),
        Err(error) => error != rustix::io::Errno::INTR,
    }
}

fn is_readable(stream: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }))
        .is_ok_and(|ready| ready > 0)
}

fn read_now(stream: &OwnedFd, buffer: &mut [u8]) -> Result<usize, rustix::io::Errno> {
    if is_readable(stream) { rustix::io::read(stream, buffer) } else { Err(rustix::io::Errno::AGAIN) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_its_last_part() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log { segment: 10, ..Log::create(dir.path()).unwrap() };
        for _ in 0..5 {
            log.append(b"seven b").unwrap();
        }
        let starts: Vec<u64> = segments(dir.path()).into_iter().map(|(start, _)| start).collect();
        assert_eq!(starts, [14, 28]);
        assert_eq!(length(dir.path()), 35);
    }
}
