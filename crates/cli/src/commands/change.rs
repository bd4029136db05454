//! `banger set` and `banger rename`.

use std::collections::BTreeMap;

use banger_api::change::{Change, Effect, VmChanged, VmRename, VmSet};
use banger_api::client::Request;
use banger_api::vm::{RestartPolicy, VmState};
use clap::Args;

use super::operation::follow;
use super::values::{self, Variable};
use crate::app::App;
use crate::attach::interrupts::Interrupts;
use crate::failure::Failure;
use crate::output::{Format, Text, printable};
use crate::size::Size;

/// Arguments of `set`.
#[derive(Debug, Args)]
#[command(after_help = "\
What a running VM cannot be told at once takes effect when it is started next: `banger restart NAME`. Variables, the \
directory and the restart policy hold at once for what is run from then on; a work disk grows while it is in use.")]
pub struct Set {
    /// Number of processors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cpus: Option<u32>,
    /// Memory, as 512M or 4G
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    memory: Option<Size>,
    /// Size of the work disk, which is /root, as 16G: it can only grow
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    disk: Option<Size>,
    /// A variable for all its commands; without a value, the one that it has here
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = values::variable)]
    env: Vec<Variable>,
    /// A variable to take away
    #[arg(long, value_name = "NAME")]
    unset_env: Vec<String>,
    /// The directory in the guest where its commands run by default; an empty one takes it away
    #[arg(short, long, value_name = "DIR", value_parser = values::guest_directory_or_none)]
    workdir: Option<String>,
    /// When it starts again by itself: no, on-failure or always
    #[arg(long, value_name = "POLICY", value_enum, hide_possible_values = true)]
    restart: Option<Policy>,
    /// The VM
    #[arg(value_parser = values::known_name)]
    name: String,
}

/// Arguments of `rename`.
#[derive(Debug, Args)]
pub struct Rename {
    /// The VM
    #[arg(value_parser = values::known_name)]
    name: String,
    /// Its new name
    #[arg(value_parser = values::new_name)]
    new_name: String,
}

/// When a VM starts again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// Never
    No,
    /// When it failed, or the host went down under it
    OnFailure,
    /// Whenever it goes down by itself
    Always,
}

impl From<Policy> for RestartPolicy {
    fn from(policy: Policy) -> RestartPolicy {
        match policy {
            Policy::No => RestartPolicy::No,
            Policy::OnFailure => RestartPolicy::OnFailure,
            Policy::Always => RestartPolicy::Always,
        }
    }
}

impl Set {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let mut env: BTreeMap<String, Option<String>> = BTreeMap::new();
        env.extend(self.unset_env.into_iter().map(|name| (name, None)));
        let given = values::variables(&self.env, &app.environment)?;
        env.extend(given.into_iter().map(|(name, value)| (name, Some(value))));
        let set = VmSet {
            cpus: self.cpus,
            memory: self.memory.map(|size| size.0),
            disk: self.disk.map(|size| size.0),
            env,
            workdir: self.workdir,
            restart: self.restart.map(RestartPolicy::from),
        };
        if set == VmSet::default() {
            return Err(Failure::usage("nothing is to be changed", "say what, as: banger set --cpus 4 NAME"));
        }
        change(app, Request::patch(["vms", &self.name]).json(&set)).await
    }
}

impl Rename {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let request = VmRename { name: self.new_name };
        change(app, Request::post(["vms", &self.name, "rename"]).json(&request)).await
    }
}

async fn change(app: &App, request: Request) -> Result<u8, Failure> {
    let mut interrupts = Interrupts::catch()?;
    let changed: VmChanged = follow(app, request, &mut interrupts, "the change goes on").await?.result;
    match app.screen.format {
        Format::Table => tell(app, &changed),
        Format::Json | Format::Name => app.screen.print(&changed, || Text::line(&changed.vm.name))?,
    }
    Ok(0)
}

/// Says of each field when its change takes effect.
fn tell(app: &App, VmChanged { vm, changes }: &VmChanged) {
    if changes.is_empty() {
        app.screen.say(&format!("{} has all that already", vm.name));
    }
    let running = matches!(vm.state, VmState::Running | VmState::Paused);
    for change in changes {
        app.screen.say(&printable(&sentence(change, running)));
    }
    if running && changes.iter().any(|change| change.effect == Effect::NextStart) {
        app.screen.say(&format!("`banger restart {}` brings the rest into effect", vm.name));
    }
}

fn sentence(change: &Change, running: bool) -> String {
    let shown = |value: &Option<String>| match (change.field.as_str(), value) {
        (_, None) => "none".to_owned(),
        ("memory" | "disk", Some(bytes)) => bytes.parse().map_or_else(|_| bytes.clone(), |size| Size(size).to_string()),
        (_, Some(value)) => value.clone(),
    };
    let effect = match (change.effect, running, &change.reason) {
        (Effect::Now, _, _) => "now".to_owned(),
        (Effect::NextStart, _, Some(reason)) => format!("at its next start, because {reason}"),
        (Effect::NextStart, true, None) => "at its next start".to_owned(),
        (Effect::NextStart, false, None) => "when it is started".to_owned(),
    };
    format!("{}: {} instead of {}, {effect}", change.field, shown(&change.to), shown(&change.from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_with_its_effect() {
        let change = |field: &str, from: Option<&str>, to: Option<&str>, effect| Change {
            field: field.to_owned(),
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            effect,
            reason: None,
        };
        let disk = change("disk", Some("8589934592"), Some("17179869184"), Effect::Now);
        assert_eq!(sentence(&disk, true), "disk: 16 GiB instead of 8 GiB, now");
        let cpus = change("cpus", Some("2"), Some("4"), Effect::NextStart);
        assert_eq!(sentence(&cpus, true), "cpus: 4 instead of 2, at its next start");
        assert_eq!(sentence(&cpus, false), "cpus: 4 instead of 2, when it is started");
        let gone = change("env.A", Some("1"), None, Effect::Now);
        assert_eq!(sentence(&gone, false), "env.A: none instead of 1, now");
        let refused = Change {
            reason: Some("its agent is too old".into()),
            ..change("name", Some("a"), Some("b"), Effect::NextStart)
        };
        assert_eq!(sentence(&refused, true), "name: b instead of a, at its next start, because its agent is too old");
    }
}
