//! Commands that live as long as their caller listens: fed, listened to, signalled, and hung up on.

mod hang_up;
mod input;
pub mod launch;
mod output;

use std::rc::Rc;

use banger_linux::process::Process;
use banger_protocol::call::{Answer, Exec, Exit};
use banger_protocol::frame::{FrameError, Kind};
use tokio_util::sync::CancellationToken;

use crate::guest::Guest;
use crate::stream::{Incoming, Outgoing};
use input::Input;
pub use launch::{Started, Streams, start};
use output::Output;

/// Runs a command for as long as its caller stays.
///
/// # Errors
/// Where the caller has gone; the command is then being ended.
pub async fn run(
    guest: &Rc<Guest>,
    exec: &Exec,
    incoming: &mut Incoming,
    outgoing: &Rc<Outgoing>,
) -> Result<(), FrameError> {
    let Started { process, streams } = match start(guest, exec) {
        Ok(started) => started,
        Err(error) => return outgoing.answer(&Answer::Error(error)).await,
    };
    let result = attend(&process, streams, incoming, outgoing).await;
    if result.is_err() {
        tokio::task::spawn_local(hang_up::hang_up(process));
    }
    result
}

/// Carries a command's streams until it has ended or its caller has gone.
async fn attend(
    process: &Process,
    streams: Streams,
    incoming: &mut Incoming,
    outgoing: &Outgoing,
) -> Result<(), FrameError> {
    let (mut input, outputs) = match streams {
        Streams::Terminal(terminal) => {
            let output = Output::new(terminal.try_clone().map_err(FrameError::Io)?, Kind::Stdout)?;
            (Input::terminal(terminal)?, [Some(output), None])
        }
        Streams::Pipes { stdin, stdout, stderr } => {
            let outputs = [Some(Output::new(stdout, Kind::Stdout)?), Some(Output::new(stderr, Kind::Stderr)?)];
            (Input::pipe(stdin)?, outputs)
        }
    };
    outgoing.answer(&Answer::Started { pid: process.pid() }).await?;

    let ended = CancellationToken::new();
    let [first, second] = outputs.map(|output| output::carry(output, outgoing, &ended));
    let end = async {
        let exit = exit_of(process).await;
        ended.cancel();
        Ok(exit)
    };
    tokio::select! {
        all = async { tokio::try_join!(end, first, second) } => {
            let (exit, (), ()) = all?;
            outgoing.exit(exit).await
        }
        gone = input.carry(incoming, process) => Err(gone),
    }
}

/// Waits until a command has ended, and says how.
pub async fn exit_of(process: &Process) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    let Ok(Some(status)) = process.ended().await else { return Exit::Lost };
    let code = status.code().and_then(|code| u8::try_from(code).ok()).map(Exit::Code);
    let signal = || status.signal().and_then(|signal| u8::try_from(signal).ok()).map(Exit::Signal);
    code.or_else(signal).unwrap_or(Exit::Lost)
}
