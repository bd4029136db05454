//! One operation on each of several VMs: they are looked up once, worked on together, and reported in the order in which they
//! were named. Those that can go on do so where others fail.

use std::time::Instant;

use banger_api::client::{ClientError, Request};
use banger_api::error::{ApiError, ErrorCode};
use banger_api::vm::{Vm, VmState};
use clap::Args;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::operation::{Done, follow, follow_unseen, reach, timings, wait};
use super::suggest;
use super::values::{self, WaitLevel};
use crate::app::App;
use crate::attach::interrupts::Interrupts;
use crate::failure::Failure;
use crate::output::stages::{Stages, Unseen};
use crate::output::{Format, Text, human};

/// The shortest beginning of an id that stands for a VM.
const SHORTEST_BEGINNING: usize = 3;

/// The VMs of one call.
#[derive(Debug, Args)]
pub struct Names {
    /// Every VM that this can be done with
    #[arg(short, long, conflicts_with = "names")]
    all: bool,
    /// The VMs: names, or ids or the beginnings of them
    #[arg(required_unless_present = "all", value_name = "NAME", value_parser = values::known_name)]
    names: Vec<String>,
}

/// What is done, and how it is told.
pub struct Work<'a, R> {
    /// The request for one VM.
    pub request: R,
    /// What the VM is afterwards: `running`.
    pub becomes: &'a str,
    /// What an interrupt does.
    pub on_cancel: &'a str,
    /// Which VMs `--all` means.
    pub all: fn(&Vm) -> bool,
    /// How far guests are to come up afterwards.
    pub level: Option<WaitLevel>,
}

impl Names {
    /// Does it. The exit code is 1 where it failed with one of several.
    ///
    /// # Errors
    /// Every [`Failure`] of a single VM; of several, interrupts and those of finding them.
    pub(super) async fn each<R: Fn(&str) -> Request>(self, app: &App, work: Work<'_, R>) -> Result<u8, Failure> {
        let mut interrupts = Interrupts::catch()?;
        let (vms, code) = match self.names.as_slice() {
            [name] => (vec![one(app, name, &work, &mut interrupts).await?], 0),
            _ => each_of(app, self.targets(app, work.all).await?, &work, &mut interrupts).await?,
        };
        match app.screen.format {
            Format::Table => {}
            Format::Json | Format::Name => {
                app.screen.print(&vms, || Text::lines(vms.iter().map(|vm| &vm.name)))?;
            }
        }
        Ok(code)
    }

    /// The VMs, found in one list; in place of one that is not there, why.
    async fn targets(&self, app: &App, all: fn(&Vm) -> bool) -> Result<Vec<Result<Vm, Failure>>, Failure> {
        let vms: Vec<Vm> = app.call(Request::get(["vms"])).await?;
        if self.all {
            return Ok(vms.into_iter().filter(all).map(Ok).collect());
        }
        Ok(resolve(&self.names, &vms))
    }
}

/// What each name stands for, in the order of the names; a VM that is named twice comes once.
fn resolve(names: &[String], vms: &[Vm]) -> Vec<Result<Vm, Failure>> {
    let mut found: Vec<Result<Vm, Failure>> = Vec::new();
    for name in names {
        match find(name, vms) {
            Ok(vm) if found.iter().flatten().any(|other: &Vm| other.id == vm.id) => {}
            Ok(vm) => found.push(Ok(vm.clone())),
            Err(failure) => found.push(Err(failure)),
        }
    }
    found
}

/// As the daemon does it: a name, an id, or the beginning of one id.
fn find<'a>(name: &str, vms: &'a [Vm]) -> Result<&'a Vm, Failure> {
    if let Some(vm) = vms.iter().find(|vm| vm.name == name).or_else(|| vms.iter().find(|vm| vm.id == name)) {
        return Ok(vm);
    }
    let beginning: Vec<&Vm> = match name.len() {
        ..SHORTEST_BEGINNING => Vec::new(),
        _ => vms.iter().filter(|vm| vm.id.starts_with(name)).collect(),
    };
    let (code, message, help) = match beginning.as_slice() {
        [vm] => return Ok(vm),
        [] => {
            let names: Vec<String> = vms.iter().map(|vm| vm.name.clone()).collect();
            let meant = suggest::nearest(name, &names).map(|name| format!("did you mean {name}? "));
            let help = format!("{}`banger ls` lists all VMs", meant.unwrap_or_default());
            (ErrorCode::VmNotFound, format!("there is no VM {name}"), help)
        }
        several => {
            let names: Vec<&str> = several.iter().map(|vm| vm.name.as_str()).collect();
            let message = format!("{name} is the beginning of several ids: {}", names.join(", "));
            (ErrorCode::Ambiguous, message, "give more of the id, or a name".to_owned())
        }
    };
    let error = ApiError { code, message, help: Some(help), also: Vec::new(), operation: None };
    Err(Failure::Client(ClientError::Api(Box::new(error))))
}

/// One VM, its stages shown as they come.
async fn one<R: Fn(&str) -> Request>(
    app: &App,
    name: &str,
    work: &Work<'_, R>,
    interrupts: &mut Interrupts,
) -> Result<Vm, Failure> {
    let Done { mut result, took, .. } = follow::<Vm>(app, (work.request)(name), interrupts, work.on_cancel).await?;
    if let Some(level) = work.level {
        result = wait(app, name, level, interrupts).await?;
    }
    app.screen.say(&format!("{} is {} in {}", result.name, work.becomes, human::duration(took)));
    Ok(result)
}

/// What became of one of several.
type Outcome = Result<(Done<Vm>, Unseen), Failure>;

/// Does it with these VMs, together; those with which it was done, and the exit code.
///
/// # Errors
/// [`Failure::Interrupted`].
pub(super) async fn each_of<R: Fn(&str) -> Request>(
    app: &App,
    targets: Vec<Result<Vm, Failure>>,
    work: &Work<'_, R>,
    interrupts: &mut Interrupts,
) -> Result<(Vec<Vm>, u8), Failure> {
    let count = targets.len();
    if count == 0 {
        app.screen.say("there is no VM that this can be done with");
    }
    let mut outcomes: Vec<Option<Outcome>> = Vec::new();
    let mut running = FuturesUnordered::new();
    for (place, target) in targets.into_iter().enumerate() {
        match target {
            Err(failure) => outcomes.push(Some(Err(failure))),
            Ok(vm) => {
                outcomes.push(None);
                running.push(async move { (place, with_one(app, &vm, work).await) });
            }
        }
    }
    let began = Instant::now();
    let mut stages = Stages::new(&app.screen);
    let mut reported = Report { app, becomes: work.becomes, vms: Vec::new(), code: 0, next: 0 };
    reported.all_that_can_be(&mut outcomes);
    stages.started(&doing(reported.next, count, work.becomes));
    loop {
        tokio::select! {
            done = running.next() => {
                let Some((place, outcome)) = done else { break };
                outcomes[place] = Some(outcome);
                stages.clear();
                reported.all_that_can_be(&mut outcomes);
                let ended = count - running.len();
                stages.started_at(&doing(ended, count, work.becomes), began);
            }
            signal = interrupts.next() => {
                stages.clear();
                let what = format!("interrupted with {} of {count} under way; {}", running.len(), work.on_cancel);
                return Err(Failure::Interrupted { signal, what });
            }
            () = stages.live() => {}
        }
    }
    stages.clear();
    Ok((reported.vms, reported.code))
}

fn doing(ended: usize, count: usize, becomes: &str) -> String {
    format!("{ended} of {count} {becomes}")
}

async fn with_one<R: Fn(&str) -> Request>(app: &App, vm: &Vm, work: &Work<'_, R>) -> Outcome {
    let (mut done, unseen) = follow_unseen::<Vm>(app, (work.request)(&vm.id)).await?;
    if let Some(level) = work.level {
        done.result = reach(app, &vm.id, level).await?;
    }
    Ok((done, unseen))
}

/// Tells outcomes in their order, each as soon as all before it are told.
struct Report<'a> {
    app: &'a App,
    becomes: &'a str,
    vms: Vec<Vm>,
    code: u8,
    next: usize,
}

impl Report<'_> {
    fn all_that_can_be(&mut self, outcomes: &mut [Option<Outcome>]) {
        while let Some(outcome) = outcomes.get_mut(self.next).and_then(Option::take) {
            self.next += 1;
            match outcome {
                Ok((done, unseen)) => {
                    let took = human::duration(done.took);
                    self.app.screen.say(&format!("{} is {} in {took}", done.result.name, self.becomes));
                    timings(self.app, &unseen, done.took);
                    self.vms.push(done.result);
                }
                Err(failure) => {
                    failure.print();
                    self.code = 1;
                }
            }
        }
    }
}

/// Whether a VM does not run.
pub fn is_down(vm: &Vm) -> bool {
    vm.state == VmState::Stopped
}

/// Whether a VM runs, or is about to.
pub fn is_up(vm: &Vm) -> bool {
    matches!(vm.state, VmState::Starting | VmState::Running | VmState::Paused | VmState::Stopping)
}
