//! What a shell may offer for the word under the cursor. The scripts in `completions/` ask, by a word that is no verb.
//!
//! Arguments say themselves what can stand there: by their values, by the kind of path they take, and where they take the
//! name of a VM or an image, by [`Offer`], on the argument or once on its verb. Names come from the daemon, if one answers
//! in time. Nobody who presses a key wants a daemon to be started or to read an error: whatever goes wrong, nothing is said.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use banger_api::client::{Client, Request};
use banger_api::image::Image;
use banger_api::vm::{Vm, VmState};
use clap::builder::{ArgExt, CommandExt};
use clap::{Arg, Command, ValueHint};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use crate::environment::Environment;
use crate::output::escape::steers;
use crate::output::{printable, write_bytes};

/// The word by which the scripts ask; all that follows it has been typed, the last word up to the cursor.
pub const ASKED: &str = "__complete";

/// How long the daemon may take, in all.
const PATIENCE: Duration = Duration::from_millis(150);

/// What a script takes for "and the files of this host", as no name begins so.
const FILES: &str = ":files";
const DIRECTORIES: &str = ":directories";

/// What is offered for an argument that takes a name. On a verb it holds for its arguments `name` and `names`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Every VM: what such arguments offer that say nothing.
    Vms,
    /// VMs that run, or will in a moment.
    Running,
    /// VMs that do not run.
    Stopped,
    /// Images.
    Images,
    /// Running VMs with a colon, and this host's files.
    Places,
    /// Nothing: a new name.
    New,
}

impl ArgExt for Offer {}
impl CommandExt for Offer {}

/// Prints what can stand in place of the last word, one candidate a line, after a tab what it is.
pub fn print(command: Command, typed: Vec<OsString>, environment: &Environment) {
    let last = typed.len().saturating_sub(1);
    let current = typed.last().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let names = Arc::new(Names::new(&typed, environment));
    let mut command = prepare(command, &names);
    let Ok(candidates) = clap_complete::engine::complete(&mut command, typed, last, None) else { return };
    let mut lines = String::new();
    for candidate in candidates {
        let value = candidate.get_value().to_string_lossy();
        // Options are for who asks for them: they would hide the names.
        if value.starts_with('-') && !current.starts_with('-') {
            continue;
        }
        // Nobody can type it, and it is no name of banger's.
        if value.contains(steers) {
            continue;
        }
        // Of a verb's names its own comes first, where that is what was begun.
        let verb = candidate.get_id().and_then(|id| id.strip_prefix("command::"));
        lines += verb.filter(|verb| verb.starts_with(&current)).unwrap_or(&value);
        if let Some(help) = candidate.get_help() {
            let help = help.to_string();
            lines += &format!("\t{}", printable(help.lines().next().unwrap_or_default()));
        }
        lines.push('\n');
    }
    // A shell that has gone is told nothing.
    drop(write_bytes(lines.as_bytes()));
}

/// Gives every argument that takes a name or a path what completes it.
fn prepare(command: Command, names: &Arc<Names>) -> Command {
    let by_verb = command.get::<Offer>().copied().unwrap_or(Offer::Vms);
    command
        .mut_args(|argument| {
            let named = matches!(argument.get_id().as_str(), "name" | "names").then_some(by_verb);
            match argument.get::<Offer>().copied().or(named) {
                Some(offer) => {
                    let names = Arc::clone(names);
                    argument.add(ArgValueCompleter::new(move |current: &OsStr| names.offered(offer, current)))
                }
                None => by_path(argument),
            }
        })
        .mut_subcommands(|verb| prepare(verb, names))
}

/// Leaves paths to the shell, which knows how to quote them.
fn by_path(argument: Arg) -> Arg {
    let sign = match argument.get_value_hint() {
        ValueHint::AnyPath | ValueHint::FilePath | ValueHint::ExecutablePath => FILES,
        ValueHint::DirPath => DIRECTORIES,
        _ => return argument,
    };
    argument.add(ArgValueCompleter::new(move |_: &OsStr| vec![CompletionCandidate::new(sign)]))
}

/// The names that the daemon knows, asked for once and only if they are wanted.
struct Names {
    client: Client,
    typed: Vec<OsString>,
    /// The engine asks again for the same word in some places.
    vms: Mutex<Option<Vec<Vm>>>,
}

impl Names {
    fn new(typed: &[OsString], environment: &Environment) -> Names {
        let mut host = None;
        for (at, word) in typed.iter().enumerate() {
            let word = word.to_string_lossy();
            if word == "--host" {
                host = typed.get(at + 1).map(PathBuf::from);
            } else if let Some(path) = word.strip_prefix("--host=") {
                host = Some(PathBuf::from(path));
            }
        }
        Names { client: environment.client(host), typed: typed.to_vec(), vms: Mutex::default() }
    }

    fn offered(&self, offer: Offer, current: &OsStr) -> Vec<CompletionCandidate> {
        let Some(current) = current.to_str() else { return Vec::new() };
        // In order of what is wanted; VMs on their way are among those that run.
        let up =
            |vm: &Vm| matches!(vm.state, VmState::Running | VmState::Paused | VmState::Starting | VmState::Stopping);
        match offer {
            Offer::New => Vec::new(),
            Offer::Images => self.named(current, "", self.images()),
            Offer::Vms => self.named(current, "", of(self.vms().iter())),
            Offer::Running => self.named(current, "", of(self.vms().iter().filter(|vm| up(vm)))),
            Offer::Stopped => self.named(current, "", of(self.vms().iter().filter(|vm| !up(vm)))),
            // What is in the guest, nobody here knows.
            Offer::Places if current.contains(':') && !current.starts_with(['/', '.']) => Vec::new(),
            Offer::Places => {
                let mut places = self.named(current, ":", of(self.vms().iter().filter(|vm| up(vm))));
                places.push(CompletionCandidate::new(FILES));
                places
            }
        }
    }

    /// Those that begin as what is typed, but for those that are typed already.
    fn named(&self, current: &str, suffix: &str, names: Vec<(String, String)>) -> Vec<CompletionCandidate> {
        let before = self.typed.split_last().map_or(&[][..], |(_, before)| before);
        let wanted = |name: &str| name.starts_with(current) && !before.iter().any(|word| word == name);
        let candidate = |(name, text): (String, String)| {
            CompletionCandidate::new(format!("{name}{suffix}")).help(Some(text.into()))
        };
        names.into_iter().filter(|(name, _)| wanted(name)).map(candidate).collect()
    }

    fn vms(&self) -> Vec<Vm> {
        let mut known = self.vms.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert_with(|| self.ask(Request::get(["vms"]))).clone()
    }

    fn images(&self) -> Vec<(String, String)> {
        let images: Vec<Image> = self.ask(Request::get(["images"]));
        images.into_iter().map(|image| (image.name, image.system)).collect()
    }

    /// An empty list where there is no daemon, none of this version, or none that answers in time.
    fn ask<T: serde::de::DeserializeOwned>(&self, request: Request) -> Vec<T> {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
        let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, self.client.call(request)).await });
        runtime.shutdown_background();
        answer.ok().and_then(Result::ok).unwrap_or_default()
    }
}

fn of<'a>(vms: impl Iterator<Item = &'a Vm>) -> Vec<(String, String)> {
    vms.map(|vm| (vm.name.clone(), format!("{}, {}", vm.state.as_str(), vm.image))).collect()
}
