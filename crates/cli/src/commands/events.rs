//! `banger events`.

use std::time::Duration;

use banger_api::client::{ClientError, Request};
use banger_api::events::{Change, Line, Outcome};
use banger_api::vm::Vm;
use clap::Args;

use crate::app::App;
use crate::failure::Failure;
use crate::output::{Format, Text, human, printable, write_json_line, write_text};
use crate::size::Size;

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Go on after the line with this token, which `-o json` prints; without it the first line has all that there is
    #[arg(long, value_name = "TOKEN")]
    since: Option<String>,
}

impl Events {
    /// Prints until it is interrupted, or the daemon ends.
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let mut since = self.since;
        loop {
            let request = Request::get(["events"]);
            let request = match &since {
                Some(token) => request.query("since", token),
                None => request,
            };
            let label = request.label();
            let mut lines = app.with_daemon(async || app.client.lines::<Line>(request.clone()).await).await?;
            loop {
                let Some(line) = lines.next().await? else {
                    return Err(ClientError::Lost { request: label, source: None }.into());
                };
                print(&line, app.screen.format)?;
                if line.change == Change::Lagged {
                    // What comes next is forgotten: a new beginning says how things are now.
                    since = None;
                    break;
                }
            }
        }
    }
}

fn print(line: &Line, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => write_json_line(line),
        Format::Name => write_text(&Text::line(&line.token)),
        Format::Table => {
            let told = format!("{}  {}", human::utc(line.at), printable(&sentence(&line.change)));
            write_text(&Text::line(&told))
        }
    }
}

fn sentence(change: &Change) -> String {
    let on = |on: &Option<String>| on.as_ref().map_or(String::new(), |on| format!(" {on}"));
    match change {
        Change::Reset { vms, images } => format!("there are {} VMs and {} images", vms.len(), images.len()),
        Change::VmCreated { vm } => format!("vm {} is new: {}", vm.name, doing(vm)),
        Change::VmChanged { vm } => format!("vm {} is {}", vm.name, doing(vm)),
        Change::VmRemoved { vm } => format!("vm {} is gone", vm.name),
        Change::ImageBuilt { image } => format!("image {} is new", image.name),
        Change::ImageRemoved { image } => format!("image {} is gone", image.name),
        Change::SpaceLow { directory, free } => format!("only {} are free below {directory}", Size(*free)),
        Change::SpaceEnough { directory, free } => format!("{} are free below {directory} again", Size(*free)),
        Change::OperationStarted { operation, verb, on: name } => {
            format!("operation {operation} begins: {verb}{}", on(name))
        }
        Change::OperationFinished { operation, verb, on: name, outcome, micros, .. } => {
            let outcome = match outcome {
                Outcome::Done => "done",
                Outcome::Failed => "failed",
                Outcome::Cancelled => "cancelled",
            };
            let took = human::duration(Duration::from_micros(*micros));
            format!("operation {operation} ends: {verb}{} {outcome} in {took}", on(name))
        }
        Change::Lagged => "lines are missing: they were not read in time".to_owned(),
    }
}

fn doing(vm: &Vm) -> String {
    let reason = vm.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
    format!("{}{reason}, generation {}", vm.state.as_str(), vm.generation)
}
