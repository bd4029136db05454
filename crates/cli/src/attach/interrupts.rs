//! The signals by which a user or a system asks this process to stop, and the one that tells of a resized window.

use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::own;
use crate::failure::Failure;

/// Hang-up, interrupt, quit, terminate: those that are not ignored by inheritance, as under nohup(1).
#[derive(Debug)]
pub struct Interrupts {
    signals: Vec<(u8, Signal)>,
}

impl Interrupts {
    /// From now on these signals do not end the process: they come out of [`Interrupts::next`].
    ///
    /// # Errors
    /// [`Failure::Own`].
    pub fn catch() -> Result<Interrupts, Failure> {
        let mut signals = Vec::new();
        for kind in [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::terminate()] {
            if !is_ignored(kind) {
                let number = kind.as_raw_value();
                let caught = signal(kind).map_err(own("catch signals"))?;
                signals.push((u8::try_from(number).unwrap_or(u8::MAX), caught));
            }
        }
        Ok(Interrupts { signals })
    }

    /// The number of the next one.
    pub async fn next(&mut self) -> u8 {
        std::future::poll_fn(|context| {
            for (number, signal) in &mut self.signals {
                if let Poll::Ready(Some(())) = signal.poll_recv(context) {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Changes of the terminal: of its size, or of its modes, which a shell sets while this process is stopped.
#[derive(Debug)]
pub struct WindowChanges(Option<[Signal; 2]>);

impl WindowChanges {
    /// Watches, if there is a terminal.
    ///
    /// # Errors
    /// [`Failure::Own`].
    pub fn new(tty: bool) -> Result<WindowChanges, Failure> {
        if !tty {
            return Ok(WindowChanges(None));
        }
        let continued = SignalKind::from_raw(rustix::process::Signal::CONT.as_raw());
        let catch = |kind| signal(kind).map_err(own("catch signals"));
        Ok(WindowChanges(Some([catch(SignalKind::window_change())?, catch(continued)?])))
    }

    /// Returns at the next one.
    pub async fn next(&mut self) {
        match &mut self.0 {
            Some([size, modes]) => tokio::select! {
                _ = size.recv() => {}
                _ = modes.recv() => {}
            },
            None => std::future::pending().await,
        }
    }
}

/// Whether a signal is ignored, as by inheritance.
pub fn is_ignored(kind: SignalKind) -> bool {
    ignored() & (1 << (kind.as_raw_value() - 1)) != 0
}

/// The mask of ignored signals (proc_pid_status(5), SigIgn). Where it cannot be read none is taken to be.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
