//! `banger daemon`.

use std::time::Duration;

use banger_api::client::{ClientError, Request};
use banger_api::daemon::Status;
use banger_linux::process::{Attributes, Process, ProcessError};
use clap::{Args, Subcommand};

use crate::app::App;
use crate::daemon_start;
use crate::failure::Failure;
use crate::output::{Format, Text, human, table};
use crate::size::Size;

/// As `systemctl status` of a unit that does not run.
const NOT_RUNNING: u8 = 3;

/// How long a daemon may take to end: its operations are cancelled and undone first.
const DEADLINE: Duration = Duration::from_secs(60);

/// A verb on the daemon.
#[derive(Debug, Subcommand)]
pub enum DaemonVerb {
    /// Run the daemon in the foreground, as a service manager does
    Run(Run),
    /// Start the daemon, unless it runs
    Start(Start),
    /// Stop the daemon; VMs run on, and the next daemon takes them over
    Stop(Stop),
    /// Show how the daemon is doing; the exit code is 3 if it does not run
    Status(ShowStatus),
}

/// Arguments of `daemon run`.
#[derive(Debug, Args)]
pub struct Run {}

/// Arguments of `daemon start`.
#[derive(Debug, Args)]
pub struct Start {}

/// Arguments of `daemon stop`.
#[derive(Debug, Args)]
pub struct Stop {}

/// Arguments of `daemon status`.
#[derive(Debug, Args)]
pub struct ShowStatus {}

pub(super) async fn run(app: &App, verb: DaemonVerb) -> Result<u8, Failure> {
    match verb {
        DaemonVerb::Run(_) => Err(daemon_start::replace(&app.environment).into()),
        DaemonVerb::Start(_) => start(app).await,
        DaemonVerb::Stop(_) => stop(app).await,
        DaemonVerb::Status(_) => status(app).await,
    }
}

async fn start(app: &App) -> Result<u8, Failure> {
    match ask(app).await {
        Ok(status) => app.screen.say(&format!("the daemon runs already, as process {}", status.pid)),
        Err(error) if error.lacks_daemon() => {
            daemon_start::ensure(app, Attributes::Caller).await?;
            app.screen.say(&format!("the daemon listens on {}", app.client.socket().display()));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(0)
}

async fn stop(app: &App) -> Result<u8, Failure> {
    let status = match ask(app).await {
        Ok(status) => status,
        Err(error) if error.lacks_daemon() => {
            app.screen.say("no daemon runs");
            return Ok(0);
        }
        Err(error) => return Err(error.into()),
    };
    // Held before it is told to stop: its number cannot be another process's by then.
    let process = match Process::open(status.pid, None) {
        Ok(process) => Some(process),
        Err(ProcessError::Gone { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    match app.client.of_any_version().call::<()>(Request::post(["daemon", "stop"])).await {
        // It is ending already.
        Err(error) if error.lacks_daemon() => {}
        result => result?,
    }
    if let Some(process) = process {
        match tokio::time::timeout(DEADLINE, process.ended()).await {
            Ok(ended) => drop(ended?),
            Err(_) => return Err(Failure::StillRunning { pid: status.pid, seconds: DEADLINE.as_secs() }),
        }
    }
    let running = match status.running {
        0 => String::new(),
        1 => "; 1 VM runs on".to_owned(),
        count => format!("; {count} VMs run on"),
    };
    app.screen.say(&format!("the daemon has stopped{running}"));
    Ok(0)
}

async fn status(app: &App) -> Result<u8, Failure> {
    let status = match ask(app).await {
        Ok(status) => status,
        Err(ClientError::NotRunning { socket }) => {
            app.screen.say(&format!("no daemon listens on {}", socket.display()));
            return Ok(NOT_RUNNING);
        }
        Err(error) => return Err(error.into()),
    };
    app.screen.print(&status, || match app.screen.format {
        Format::Name => Text::line(&status.pid.to_string()),
        Format::Table | Format::Json => table::fields(&[
            ("version", status.version.version.clone()),
            ("socket", app.client.socket().display().to_string()),
            ("pid", status.pid.to_string()),
            ("started", human::ago(status.started, human::now())),
            ("memory", Size(status.resident).to_string()),
            ("vms", format!("{}, {} running", status.vms, status.running)),
            ("domain", status.domain.clone()),
            ("state", status.state_dir.clone()),
            ("log", status.log.clone()),
        ]),
    })?;
    Ok(0)
}

/// Also a daemon of another version: to see and to stop it is what its user wants then.
async fn ask(app: &App) -> Result<Status, ClientError> {
    app.client.of_any_version().call(Request::get(["daemon"])).await
}
