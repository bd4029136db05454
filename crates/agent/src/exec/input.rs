//! What a command is told: its input, its terminal's size, signals.

use std::os::fd::{AsFd, OwnedFd};

use banger_linux::fd_stream::FdStream;
use banger_linux::process::Process;
use banger_protocol::frame::{Frame, FrameError, Kind};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncWriteExt, Interest};

use super::launch::resize;
use crate::stream::Incoming;

/// Where a command's input goes.
#[derive(Debug)]
pub struct Input {
    stream: Option<FdStream>,
    terminal: Option<OwnedFd>,
}

impl Input {
    /// A terminal.
    pub fn terminal(terminal: OwnedFd) -> Result<Input, FrameError> {
        let stream = FdStream::new(terminal.try_clone().map_err(FrameError::Io)?, Interest::WRITABLE);
        Ok(Input { stream: Some(stream.map_err(FrameError::Io)?), terminal: Some(terminal) })
    }

    /// A pipe, or nothing.
    pub fn pipe(pipe: Option<OwnedFd>) -> Result<Input, FrameError> {
        let stream = pipe.map(|pipe| FdStream::new(pipe, Interest::WRITABLE)).transpose().map_err(FrameError::Io)?;
        Ok(Input { stream, terminal: None })
    }

    /// Does what the caller says until it has gone, and returns how that was noticed.
    pub async fn carry(&mut self, incoming: &mut Incoming, process: &Process) -> FrameError {
        loop {
            let frame = match incoming.next().await {
                Ok(frame) => frame,
                Err(error) => return error,
            };
            match frame.kind {
                Kind::Stdin if frame.payload.is_empty() => self.close(),
                Kind::Stdin => {
                    tokio::select! {
                        () = self.write(&frame) => {}
                        () = incoming.dropped() => return FrameError::Ended,
                    }
                }
                Kind::Resize => {
                    if let (Some(terminal), Some((rows, columns))) = (&self.terminal, frame.as_resize()) {
                        // A terminal that was hung up has no size any more.
                        drop(resize(terminal, rows, columns));
                    }
                }
                Kind::Signal => self.signal(&frame, process),
                kind @ (Kind::Message | Kind::Stdout | Kind::Stderr | Kind::Exit | Kind::Data | Kind::Failed) => {
                    return FrameError::UnknownKind(kind as u8);
                }
            }
        }
    }

    async fn write(&mut self, frame: &Frame) {
        if let Some(stream) = &mut self.stream
            && stream.write_all(&frame.payload).await.is_err()
        {
            // The command reads no more; what is still sent to it is thrown away.
            self.stream = None;
        }
    }

    /// A pipe is closed; a terminal gets its character for the end of input, where it is at the beginning of a line.
    fn close(&mut self) {
        if let Some(terminal) = &self.terminal {
            const END_OF_TRANSMISSION: &[u8] = b"\x04";
            // A terminal that takes no more has been hung up or is full of unread input; then nobody waits for an end.
            rustix::io::write(terminal, END_OF_TRANSMISSION).ok();
        } else {
            self.stream = None;
        }
    }

    /// Signals the group in the foreground of the terminal, else the command's own group.
    fn signal(&self, frame: &Frame, process: &Process) {
        let signal = frame.payload.first().and_then(|&number| Signal::from_named_raw(number.into()));
        let foreground = self.terminal.as_ref().and_then(|terminal| rustix::termios::tcgetpgrp(terminal.as_fd()).ok());
        if let (Some(signal), Some(group)) = (signal, foreground.or_else(|| group_of(process))) {
            // One that has ended cannot be signalled, and need not.
            rustix::process::kill_process_group(group, signal).ok();
        }
    }
}

/// A command leads its group, which has the same number.
pub fn group_of(process: &Process) -> Option<Pid> {
    Pid::from_raw(i32::try_from(process.pid()).ok()?)
}
