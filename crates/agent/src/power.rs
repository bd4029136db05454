//! Powering off in order.

use std::io;
use std::path::Path;
use std::time::Duration;

use banger_linux::dir_watch::DirWatch;
use banger_linux::process::{Launch, Process, Program};
use rustix::process::Pid;

use crate::guest::{Guest, Kind};

/// How long an init that has just been started may take until it hears.
const INIT_HEARS_WITHIN: Duration = Duration::from_secs(30);

/// Where systemd takes notifications from; there once it heeds signals.
const SYSTEMD_HEARS: &str = "/run/systemd/notify";

/// How the rest of the way goes once the caller has its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Somebody else does what is to be done.
    GoOn,
    /// This process ends, and its parent powers off, or plays a machine that is off.
    End,
}

/// Hands the request over to whoever can power this guest off.
///
/// # Errors
/// Where its init cannot be told.
pub async fn off(guest: &Guest) -> io::Result<Then> {
    match guest.kind {
        Kind::Fake { .. } | Kind::Real { has_init: false } => Ok(Then::End),
        Kind::Real { has_init: true } => {
            let init = std::fs::read_link("/proc/1/exe")?;
            let name = init.to_string_lossy();
            // Our own first process is about to become the init.
            if name.contains("systemd") || name.starts_with("/init") {
                tell_systemd().await?;
            } else {
                let launch = Launch::new(Program::Command("/sbin/poweroff".into()), std::iter::empty::<&str>());
                Process::start(launch).map_err(io::Error::other)?.ended().await.map_err(io::Error::other)?;
            }
            Ok(Then::GoOn)
        }
    }
}

/// By the signal that means `systemctl poweroff` (systemd(1)). A systemd that has just been started would not hear it.
async fn tell_systemd() -> io::Result<()> {
    let hears = Path::new(SYSTEMD_HEARS);
    let watch = DirWatch::new(hears.parent())?;
    let wait = async {
        while !hears.exists() {
            watch.changed().await?;
        }
        Ok::<(), io::Error>(())
    };
    tokio::time::timeout(INIT_HEARS_WITHIN, wait).await??;
    banger_linux::power::tell_systemd_to_power_off(Pid::INIT)
}
