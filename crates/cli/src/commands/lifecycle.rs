//! `banger start`, `stop`, `kill` and `rm`: one operation on each of several VMs.

use banger_api::client::Request;
use banger_api::vm::{Vm, VmStop};
use clap::Args;

use super::operation::{follow, wait};
use super::values::{self, WaitLevel};
use crate::app::App;
use crate::attach::interrupts::Interrupts;
use crate::failure::Failure;
use crate::output::{Format, human};

/// The VMs of one call.
#[derive(Debug, Args)]
pub struct Names {
    /// The VMs
    #[arg(required = true, value_name = "NAME", value_parser = values::known_name)]
    names: Vec<String>,
}

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
        each(app, self.names, request, ("running", "the start is undone; its disks are kept"), self.wait).await
    }
}

impl Stop {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let stop = VmStop { force: false, timeout: self.timeout };
        let request = |name: &str| Request::post(["vms", name, "stop"]).json(&stop);
        each(app, self.names, request, ("stopped", "the stop goes on"), None).await
    }
}

impl Kill {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let stop = VmStop { force: true, timeout: None };
        let request = |name: &str| Request::post(["vms", name, "stop"]).json(&stop);
        each(app, self.names, request, ("stopped", "the stop goes on"), None).await
    }
}

impl Remove {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let request = |name: &str| removal(name, self.force);
        each(app, self.names, request, ("removed", "the removal goes on"), None).await
    }
}

/// The request that removes a VM.
pub fn removal(name: &str, force: bool) -> Request {
    Request::delete(["vms", name]).query("force", if force { "true" } else { "false" })
}

/// The operation on one VM after the other. A failure is told and the next one's turn comes; the exit code is then 1.
/// `words` are what the VM is afterwards, and what an interrupt does.
async fn each(
    app: &App,
    names: Names,
    request: impl Fn(&str) -> Request,
    (state, on_cancel): (&str, &str),
    level: Option<WaitLevel>,
) -> Result<u8, Failure> {
    let mut names = names.names;
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let mut interrupts = Interrupts::catch()?;
    let single = names.len() == 1;
    let mut vms = Vec::new();
    let mut code = 0;
    for name in names {
        let outcome = async {
            let mut done = follow::<Vm>(app, request(&name), &mut interrupts, on_cancel).await?;
            if let Some(level) = level {
                done.result = wait(app, &name, level, &mut interrupts).await?;
            }
            Ok::<_, Failure>(done)
        };
        match outcome.await {
            Ok(done) => {
                app.screen.say(&format!("{} is {state} in {}", done.result.name, human::duration(done.took)));
                vms.push(done.result);
            }
            Err(failure) if single || matches!(failure, Failure::Interrupted { .. }) => return Err(failure),
            Err(failure) => {
                failure.print();
                code = 1;
            }
        }
    }
    match app.screen.format {
        Format::Table => {}
        Format::Json | Format::Name => {
            app.screen.print(&vms, || vms.iter().map(|vm| format!("{}\n", vm.name)).collect())?;
        }
    }
    Ok(code)
}
