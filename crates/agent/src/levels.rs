//! Readiness levels, told as they are reached.
//!
//! Each is found out by a look at the guest, and a look is only taken when something happened that may have changed it: a
//! file that a unit of ours makes once the system is up, or another new entry of `/run`, where SSH servers note their pid.

use std::fs;
use std::io;
use std::path::Path;

use banger_linux::dir_watch::DirWatch;
use banger_protocol::call::{Answer, CallError, CallErrorCode, Level};
use banger_protocol::frame::FrameError;

use crate::boot::{STATE, SYSTEM_UP};
use crate::guest::{Guest, Kind};
use crate::stream::{Incoming, Outgoing};

/// The port of SSH.
const SSH: u16 = 22;

/// Tells the levels that are reached, and again at each change, until the caller has gone.
///
/// # Errors
/// Where the caller has gone.
pub async fn tell(guest: &Guest, incoming: &mut Incoming, outgoing: &Outgoing) -> Result<(), FrameError> {
    // Before the first look: what happens after it is then noticed.
    let directories: &[&Path] = if guest.is_fake() { &[] } else { &[Path::new("/run"), Path::new(STATE)] };
    let watch = match DirWatch::new(directories.iter().copied()) {
        Ok(watch) => watch,
        Err(error) => return outgoing.answer(&Answer::Error(cannot_watch(&error))).await,
    };
    let mut told = Vec::new();
    loop {
        let reached = reached(guest);
        if reached != told {
            outgoing.answer(&Answer::Levels { reached: reached.clone() }).await?;
            told = reached;
        }
        tokio::select! {
            changed = watch.changed() => changed.map_err(FrameError::Io)?,
            () = incoming.gone() => return Err(FrameError::Ended),
        }
    }
}

fn reached(guest: &Guest) -> Vec<Level> {
    let (system, ssh) = match &guest.kind {
        Kind::Real { has_init: true } => (Path::new(STATE).join(SYSTEM_UP).exists(), listens(SSH)),
        // Without an init there is nothing that comes up later.
        Kind::Real { has_init: false } => (true, listens(SSH)),
        Kind::Fake { .. } => (true, true),
    };
    let levels = [(true, Level::Agent), (system, Level::System), (ssh, Level::Ssh)];
    levels.into_iter().filter(|(reached, _)| *reached).map(|(_, level)| level).collect()
}

fn listens(port: u16) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .any(|table| fs::read_to_string(table).is_ok_and(|table| has_listener(&table, port)))
}

/// Whether a table as in proc_pid_net(5) has a listening socket (state 0A) on a port.
fn has_listener(table: &str, port: u16) -> bool {
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        local.ends_with(&suffix) && fields.nth(1) == Some("0A")
    })
}

fn cannot_watch(error: &io::Error) -> CallError {
    CallError { code: CallErrorCode::Failed, message: format!("cannot watch /run and {STATE}: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_from_a_connection() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue\n";
        let row = |local: &str, state: &str| format!("{head}   0: {local} 00000000:0000 {state} 00000000:00000000\n");
        assert!(has_listener(&row("00000000:0016", "0A"), 22));
        assert!(has_listener(&row("00000000000000000000000000000000:0016", "0A"), 22));
        assert!(!has_listener(&row("00000000:0016", "01"), 22));
        assert!(!has_listener(&row("00000000:0116", "0A"), 22));
        assert!(!has_listener(head, 22));
    }
}
