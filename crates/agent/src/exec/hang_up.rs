//! The end of a command whose caller has gone: SIGHUP to its group, and after a grace SIGKILL to its whole session.

use std::time::Duration;

use banger_linux::process::Process;
use banger_linux::session;
use rustix::process::Signal;
use tokio::time::Instant;

use super::input::group_of;

/// How long a command has after SIGHUP before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Ends a command and what it started, but for what left its session, as daemons do.
pub async fn hang_up(process: Process) {
    let deadline = Instant::now() + GRACE;
    if let Some(group) = group_of(&process) {
        // One that has ended cannot be signalled, and need not.
        rustix::process::kill_process_group(group, Signal::HUP).ok();
    }
    let leader = process.pid();
    let ended = tokio::time::timeout_at(deadline, process.ended()).await;
    loop {
        let members = session::members(leader).unwrap_or_default();
        if members.is_empty() {
            break;
        }
        let all = async {
            for member in &members {
                // One that cannot be watched is taken for ended; the next look shows.
                drop(member.ended().await);
            }
        };
        if tokio::time::timeout_at(deadline, all).await.is_err() {
            // The session's number cannot have been given away meanwhile: one of its members lives.
            for member in session::members(leader).unwrap_or_default() {
                drop(member.signal(Signal::KILL));
            }
            break;
        }
    }
    if ended.is_err() {
        // Killed, it is reaped.
        drop(process.ended().await);
    }
}
