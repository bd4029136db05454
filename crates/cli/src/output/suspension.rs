//! Ctrl-Z while a line is drawn: the line goes off the screen first, and comes back with the process.

use banger_linux::suspend;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// As long as this lives, the signal waits for [`Suspension::asked`]; then [`Suspension::stop`] does what it asks for.
#[derive(Debug)]
pub struct Suspension(Option<Signal>);

impl Suspension {
    /// Watches, if something is drawn, and unless the signal is ignored. Where it cannot be caught, it does what it always does.
    pub fn new(drawn: bool) -> Suspension {
        let kind = SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw());
        let caught = (drawn && !crate::attach::interrupts::is_ignored(kind)).then(|| signal(kind).ok()).flatten();
        if caught.is_some() {
            suspend::put_back().unwrap_or_default();
        }
        Suspension(caught)
    }

    /// Returns when the user wants this process to stop.
    pub async fn asked(&mut self) {
        match &mut self.0 {
            Some(signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        }
    }

    /// Stops, and returns when the process goes on. One that cannot be stopped goes on.
    pub fn stop(&self) {
        suspend::stop().unwrap_or_default();
    }
}

impl Drop for Suspension {
    fn drop(&mut self) {
        if self.0.is_some() {
            suspend::take_out().unwrap_or_default();
        }
    }
}
