//! `banger ls` and `banger show`.

use banger_api::client::Request;
use banger_api::port::Publish;
use banger_api::vm::{RestartPolicy, Vm};
use clap::Args;

use super::values;
use crate::app::App;
use crate::failure::Failure;
use crate::output::{Format, Text, human, table};
use crate::size::Size;

/// Arguments of `ls`.
#[derive(Debug, Args)]
pub struct List {}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The VM
    #[arg(value_parser = values::known_name)]
    name: String,
}

impl List {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let vms: Vec<Vm> = app.call(Request::get(["vms"])).await?;
        // As with docker and lima, a quiet list is one of names.
        let names_only = app.screen.quiet || app.screen.format == Format::Name;
        app.screen.print(&vms, || match (names_only, vms.is_empty()) {
            (true, _) => Text::lines(vms.iter().map(|vm| &vm.name)),
            (false, _) => overview(app, &vms, human::now()),
        })?;
        if vms.is_empty() && app.screen.format == Format::Table {
            app.screen.say("no VMs yet: `banger run` makes one and opens a shell in it");
        }
        if let Some(free) = app.client.low_space() {
            app.screen
                .say(&format!("only {} are free for VMs on the host: without space they stand still", Size(free)));
        }
        Ok(0)
    }
}

impl Show {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let vm: Vm = app.call(Request::get(["vms", &self.name])).await?;
        app.screen.print(&vm, || match app.screen.format {
            Format::Name => Text::line(&vm.name),
            Format::Table | Format::Json => details(&vm, human::now()),
        })?;
        Ok(0)
    }
}

fn overview(app: &App, vms: &[Vm], now: u64) -> Text {
    let head = ["NAME", "STATE", "ADDRESS", "IMAGE", "CPUS", "MEMORY", "DISK", "CREATED"];
    let row = |vm: &Vm| {
        vec![
            vm.name.clone(),
            vm.state.as_str().to_owned(),
            vm.address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
            vm.image.clone(),
            vm.cpus.to_string(),
            Size(vm.memory).to_string(),
            Size(vm.disk).to_string(),
            human::ago(vm.created, now),
        ]
    };
    app.screen.table(&head, &vms.iter().map(row).collect::<Vec<_>>())
}

fn details(vm: &Vm, now: u64) -> Text {
    let mut state = match &vm.reason {
        Some(reason) => format!("{} ({reason})", vm.state.as_str()),
        None => vm.state.as_str().to_owned(),
    };
    if let Some(then) = vm.starts_again {
        state += &format!("; starts again in {} s", then.saturating_sub(now));
    }
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    table::fields(&[
        ("name", vm.name.clone()),
        ("id", vm.id.clone()),
        ("state", state),
        ("image", vm.image.clone()),
        ("cpus", vm.cpus.to_string()),
        ("memory", Size(vm.memory).to_string()),
        ("disk", Size(vm.disk).to_string()),
        ("workdir", text(&vm.workdir)),
        ("user", vm.user.as_ref().map_or(String::new(), |user| format!("{} ({})", user.name, user.uid))),
        ("network", vm.net.as_str().to_owned()),
        ("address", vm.address.map(|address| address.to_string()).unwrap_or_default()),
        ("published", vm.publish.iter().map(Publish::to_string).collect::<Vec<_>>().join(" ")),
        ("restart", if vm.restart == RestartPolicy::No { String::new() } else { vm.restart.as_str().to_owned() }),
        ("removed", if vm.ephemeral { "when its command or client ends".to_owned() } else { String::new() }),
        ("vmm", vm.vmm.clone()),
        ("accelerator", text(&vm.accelerator)),
        ("pid", vm.pid.map_or(String::new(), |pid| pid.to_string())),
        ("boot id", text(&vm.boot_id)),
        ("host key", vm.host_key.clone()),
        ("created", human::ago(vm.created, now)),
        ("started", vm.started.map_or(String::new(), |started| human::ago(started, now))),
    ])
}
