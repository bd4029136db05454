//! `banger start`, `stop`, `restart`, `kill` and `rm`.

use banger_api::client::Request;
use banger_api::vm::{Vm, VmStop};
use clap::Args;

use super::several::{Names, Work, is_down, is_up};
use super::values::WaitLevel;
use crate::app::App;
use crate::failure::Failure;

/// Arguments of `start`.
#[derive(Debug, Args)]
pub struct Start {
    /// Return when the guest has come up this far: agent, system or ssh [default: agent]
    #[arg(long, value_name = "LEVEL", value_enum, hide_possible_values = true)]
    wait: Option<WaitLevel>,
    #[command(flatten)]
    names: Names,
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub struct Stop {
    /// How long the guest may take before it is forced, in seconds
    #[arg(short = 't', long, value_name = "SECONDS")]
    timeout: Option<u32>,
    #[command(flatten)]
    names: Names,
}

/// Arguments of `restart`.
#[derive(Debug, Args)]
pub struct Restart {
    /// How long the guest may take to go down before it is forced, in seconds
    #[arg(short = 't', long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// Do not ask it to go down: end it at once
    #[arg(short, long, conflicts_with = "timeout")]
    force: bool,
    /// Return when the guest has come up this far: agent, system or ssh [default: agent]
    #[arg(long, value_name = "LEVEL", value_enum, hide_possible_values = true)]
    wait: Option<WaitLevel>,
    #[command(flatten)]
    names: Names,
}

/// Arguments of `kill`.
#[derive(Debug, Args)]
pub struct Kill {
    #[command(flatten)]
    names: Names,
}

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub struct Remove {
    /// Also those that run
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    names: Names,
}

impl Start {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let request = |name: &str| Request::post(["vms", name, "start"]);
        let on_cancel = "the start is undone; its disks are kept";
        let work = Work { request, becomes: "running", on_cancel, all: is_down, level: self.wait };
        self.names.each(app, work).await
    }
}

impl Stop {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        stop(app, self.names, &VmStop { force: false, timeout: self.timeout }).await
    }
}

impl Kill {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        stop(app, self.names, &VmStop { force: true, timeout: None }).await
    }
}

async fn stop(app: &App, names: Names, stop: &VmStop) -> Result<u8, Failure> {
    let request = |name: &str| Request::post(["vms", name, "stop"]).json(stop);
    let work = Work { request, becomes: "stopped", on_cancel: "the stop goes on", all: is_up, level: None };
    names.each(app, work).await
}

impl Restart {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let stop = VmStop { force: self.force, timeout: self.timeout };
        let request = |name: &str| Request::post(["vms", name, "restart"]).json(&stop);
        let on_cancel = "the restart goes on";
        let work = Work { request, becomes: "running again", on_cancel, all: is_up, level: self.wait };
        self.names.each(app, work).await
    }
}

impl Remove {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let request = |name: &str| removal(name, self.force);
        let all: fn(&Vm) -> bool = if self.force { |_| true } else { is_down };
        let work = Work { request, becomes: "removed", on_cancel: "the removal goes on", all, level: None };
        self.names.each(app, work).await
    }
}

/// The request that removes a VM.
pub fn removal(name: &str, force: bool) -> Request {
    Request::delete(["vms", name]).query("force", if force { "true" } else { "false" })
}
