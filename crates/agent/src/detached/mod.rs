//! Commands that live on without their caller. Their output and exit code stay in the guest, on its root disk.
//!
//! One directory for each, named by its id: `command.json` says what it is, `exit` how it ended, and `output-*` hold what
//! it said ([`log`]). One without `exit` that this agent does not run went down with an earlier boot: it is lost.

mod log;
mod output;
mod record;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use banger_protocol::call::{Answer, CallError, CallErrorCode, Command, Exec, Exit};
use banger_protocol::frame::FrameError;
use banger_protocol::words::is_command_id;
use tokio::sync::watch;

use crate::exec::{self, Started};
use crate::guest::Guest;
use crate::stream::{Incoming, Outgoing};
pub use output::send as send_output;
use record::Record;

/// How many ended commands are kept; the oldest go first.
const KEPT: usize = 64;

/// The detached commands.
#[derive(Debug)]
pub struct Detached {
    directory: PathBuf,
    running: Rc<RefCell<HashMap<String, watch::Receiver<Progress>>>>,
}

/// How far a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// How much output it has made, in bytes of its log.
    pub written: u64,
    /// How it ended.
    pub exit: Option<Exit>,
}

impl Detached {
    /// Those whose records are below `directory`, which need not exist.
    pub fn new(directory: PathBuf) -> Detached {
        Detached { directory, running: Rc::default() }
    }

    /// Every command, newest first.
    pub fn list(&self) -> Vec<Command> {
        let mut records = record::read_all(&self.directory);
        records.sort_by_key(|record| std::cmp::Reverse(record.started_nanos));
        records.into_iter().map(|record| self.describe(record)).collect()
    }

    /// How far a command is, now and as it goes on.
    pub fn progress(&self, id: &str) -> Result<watch::Receiver<Progress>, CallError> {
        if let Some(progress) = self.running.borrow().get(id) {
            return Ok(progress.clone());
        }
        let directory = self.directory_of(id)?;
        if record::read(&directory).is_none() {
            return Err(not_found(id));
        }
        let exit = record::read_exit(&directory).unwrap_or(Exit::Lost);
        Ok(watch::channel(Progress { written: log::length(&directory), exit: Some(exit) }).1)
    }

    /// Where a command's records are.
    pub fn directory_of(&self, id: &str) -> Result<PathBuf, CallError> {
        if !is_command_id(id) {
            let message = format!("{id:?} is no id of a command: letters, digits, '-' and '_' make one");
            return Err(CallError { code: CallErrorCode::Invalid, message });
        }
        Ok(self.directory.join(id))
    }

    fn describe(&self, record: Record) -> Command {
        let exit = match self.running.borrow().get(&record.id) {
            Some(progress) => progress.borrow().exit,
            None => Some(record::read_exit(&self.directory.join(&record.id)).unwrap_or(Exit::Lost)),
        };
        Command { id: record.id, argv: record.argv, started: record.started_nanos / 1_000_000_000, exit }
    }

    /// Removes the records of the oldest commands that have ended, so that at most [`KEPT`] are left.
    fn forget_oldest(&self) {
        let ended = self.list().into_iter().filter(|command| command.exit.is_some());
        for command in ended.skip(KEPT) {
            // What cannot be removed now is tried again with the next command.
            drop(fs::remove_dir_all(self.directory.join(command.id)));
        }
    }
}

/// Starts a command that lives on.
///
/// # Errors
/// Where the caller has gone, before or after.
pub async fn start(guest: &Rc<Guest>, exec: &Exec, id: &str, outgoing: &Outgoing) -> Result<(), FrameError> {
    let answer = match launch(guest, exec, id) {
        Ok(pid) => Answer::Started { pid },
        Err(error) => Answer::Error(error),
    };
    outgoing.answer(&answer).await
}

/// Waits until a command has ended, and tells how.
///
/// # Errors
/// Where the caller has gone.
pub async fn wait(
    detached: &Detached,
    id: &str,
    incoming: &mut Incoming,
    outgoing: &Outgoing,
) -> Result<(), FrameError> {
    let mut progress = match detached.progress(id) {
        Ok(progress) => progress,
        Err(error) => return outgoing.answer(&Answer::Error(error)).await,
    };
    outgoing.answer(&Answer::Done).await?;
    let end = async {
        // The sender goes only after it has told the end.
        let end = progress.wait_for(|progress| progress.exit.is_some()).await;
        end.ok().and_then(|progress| progress.exit).unwrap_or(Exit::Lost)
    };
    tokio::select! {
        exit = end => outgoing.exit(exit).await,
        () = incoming.gone() => Err(FrameError::Ended),
    }
}

fn launch(guest: &Rc<Guest>, exec: &Exec, id: &str) -> Result<u32, CallError> {
    let detached = &guest.detached;
    let directory = detached.directory_of(id)?;
    let failed = |error: io::Error| {
        let message = format!("cannot keep the records of a command in {}: {error}", directory.display());
        CallError { code: CallErrorCode::Failed, message }
    };
    detached.forget_oldest();
    record::create(&directory, id, &exec.argv).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            let message = format!("there is a command with the id {id} already");
            return CallError { code: CallErrorCode::Invalid, message };
        }
        failed(error)
    })?;
    let begun = log::Log::create(&directory).map_err(failed).and_then(|log| Ok((log, exec::start(guest, exec)?)));
    let (log, Started { process, streams }) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            // A command that never ran leaves no record.
            drop(fs::remove_dir_all(&directory));
            return Err(error);
        }
    };
    let pid = process.pid();
    let (tell, progress) = watch::channel(Progress::default());
    let tell = Rc::new(tell);
    let recorder = log::Recorder::spawn(log, streams).map_err(failed)?;
    detached.running.borrow_mut().insert(id.to_owned(), progress);
    let (running, id) = (detached.running.clone(), id.to_owned());
    tokio::task::spawn_local(async move {
        let exit = recorder.follow(&process, &tell).await;
        // Where the disk takes no exit code, this agent still knows it, until the guest goes down.
        let recorded = tokio::task::spawn_blocking(move || record::write_exit(&directory, exit)).await;
        tell.send_modify(|progress| progress.exit = Some(exit));
        if matches!(recorded, Ok(Ok(()))) {
            running.borrow_mut().remove(&id);
        }
    });
    Ok(pid)
}

fn not_found(id: &str) -> CallError {
    CallError { code: CallErrorCode::NotFound, message: format!("there is no detached command with the id {id}") }
}
