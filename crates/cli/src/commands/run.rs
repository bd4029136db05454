//! `banger run`: create, bring a project in, run a command.

use std::path::PathBuf;

use banger_api::client::{Operation, Request};
use banger_api::exec::{ExecRequest, ExecStarted};
use banger_api::vm::{Lifetime, User, Vm};
use clap::{Args, ValueHint};

use super::cp::report_skipped;
use super::create::{Shape, announce};
use super::exec::{TerminalChoice, run_attached};
use super::lifecycle::removal;
use super::operation::{follow, wait};
use super::values::{self, WaitLevel};
use crate::app::App;
use crate::attach::has_terminal;
use crate::attach::interrupts::Interrupts;
use crate::caller;
use crate::checkout::Checkout;
use crate::complete::Offer;
use crate::copy::{self, Owners};
use crate::failure::Failure;
use crate::output::human;
use crate::pull::{How, Pull};
use crate::surroundings;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
With DIR, a git checkout, its tracked files and those that are neither tracked nor ignored are copied to /root/NAME, \
NAME being the directory's name, and the command runs there. Submodules come as empty directories. Without CMD a shell \
is opened. The exit code is the command's; 125 if banger failed, 126 and 127 if the command cannot be run or found.

With --user it is the user's that the VM has beside root, and DIR goes to that user's home. With --pull what the command changes \
in its copy of DIR comes back when it has ended, well or not; ignored files do not, and DIR itself stays as it is.")]
pub struct Run {
    /// Remove the VM when the command ends, or when this program does
    #[arg(long)]
    rm: bool,
    /// Let the command run on by itself; print the VM's name
    #[arg(short, long, conflicts_with_all = ["tty", "interactive"])]
    detach: bool,
    /// The VM's name; one is made up if it is left out
    #[arg(long, value_name = "NAME", value_parser = values::new_name, add = Offer::New)]
    name: Option<String>,
    #[command(flatten)]
    shape: Shape,
    /// Run the command when the guest has come up this far: agent, system or ssh [default: agent; system for a shell]
    #[arg(long, value_name = "LEVEL", value_enum, hide_possible_values = true)]
    wait: Option<WaitLevel>,
    /// The guest's user that runs it
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Bring back what changed in the VM's copy of DIR: as NAME.patch, or on a new branch banger/NAME
    #[arg(long, value_name = "patch|branch", value_enum, hide_possible_values = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "patch")]
    #[arg(requires = "directory", conflicts_with = "detach")]
    pull: Option<How>,
    #[command(flatten)]
    terminal: TerminalChoice,
    /// A git checkout whose files the VM is to have
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    directory: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Run {
    pub(super) async fn run(mut self, app: &App) -> Result<u8, Failure> {
        if self.rm && self.detach && self.command.is_empty() {
            return Err(Failure::usage(
                "--rm with --detach needs a command",
                "write it at the end: banger run --rm -d -- CMD",
            ));
        }
        let checkout = match &self.directory {
            Some(directory) => Some(Checkout::list(directory, &app.environment).await?),
            None => None,
        };
        let place = match &checkout {
            Some(checkout) => Some(Place::of(checkout, self.user.as_deref(), caller::user(&app.environment))?),
            None => None,
        };
        if let Some(place) = &place {
            self.shape.workdir.get_or_insert_with(|| place.path.clone());
        }
        let lifetime = match (self.rm, self.detach) {
            (false, _) => Lifetime::Kept,
            (true, false) => Lifetime::Connection,
            (true, true) => Lifetime::Command,
        };
        let create = self.shape.request(app, self.name.clone(), lifetime)?;
        let mut interrupts = Interrupts::catch()?;
        let request = Request::post(["vms"]).json(&create);
        let done = follow::<Vm>(app, request, &mut interrupts, "the VM is not created").await?;
        let vm = done.result;
        let sentence = format!("{} is running in {}", vm.name, human::duration(done.took));
        if !self.detach {
            app.screen.say(&sentence);
        }
        let leased = lifetime == Lifetime::Connection;
        let result = self.work(app, &vm, checkout.zip(place), &sentence, &mut interrupts).await;
        if leased {
            remove(app, &vm, done.lease, &mut interrupts).await;
        }
        if result.is_err() && lifetime == Lifetime::Kept {
            crate::output::complain(&format!("also: {} runs on: `banger rm --force {}` removes it", vm.name, vm.name));
        }
        result
    }

    /// All that happens in the VM.
    async fn work(
        self,
        app: &App,
        vm: &Vm,
        project: Option<(Checkout, Place)>,
        sentence: &str,
        interrupts: &mut Interrupts,
    ) -> Result<u8, Failure> {
        let mut pull = None;
        if let Some((checkout, place)) = project {
            if let Some(how) = self.pull {
                pull = Some((Pull::begin(app, &checkout, how).await?, place.path.clone()));
            }
            bring(app, vm, checkout, &place, interrupts).await?;
        }
        let level = match (self.wait, self.command.is_empty() && !self.detach) {
            (Some(level), _) => level,
            (None, true) => WaitLevel::System,
            // The VM's creation has waited for it already.
            (None, false) => WaitLevel::Agent,
        };
        if level != WaitLevel::Agent {
            wait(app, &vm.name, level, interrupts).await?;
        }
        let command = self.command.clone();
        let request = ExecRequest {
            login_shell: self.command.is_empty(),
            argv: self.command,
            user: self.user,
            ..surroundings::request(&app.environment)
        };
        if !self.detach {
            let tty = match request.login_shell {
                true => has_terminal() && !self.terminal.no_tty,
                false => self.terminal.wants_terminal(),
            };
            let code = run_attached(app, &vm.name, request, tty, interrupts).await?;
            let Some((pull, path)) = pull else { return Ok(code) };
            return match pull.finish(app, vm, &path, &command, interrupts).await {
                Err(failure) if code != 0 => {
                    // The code to end with is the command's.
                    failure.print();
                    Ok(code)
                }
                result => result.map(|()| code),
            };
        }
        if !request.login_shell {
            let request = ExecRequest { detached: true, main: true, ..request };
            app.call::<ExecStarted>(Request::post(["vms", &vm.name, "exec"]).json(&request)).await?;
        }
        announce(app, vm, sentence)?;
        Ok(0)
    }
}

/// Where a checkout goes in a guest, and whose it is there.
struct Place {
    /// The directory that it goes into, as the agent understands it.
    parent: String,
    /// What it becomes.
    path: String,
    owners: Owners,
}

impl Place {
    /// The home of whoever is to run the command: root, or the user that the VM has beside root.
    fn of(checkout: &Checkout, user: Option<&str>, caller: Option<User>) -> Result<Place, Failure> {
        let name = &checkout.name;
        match (user, caller) {
            // The agent takes `.` for root's home.
            (None | Some("root" | "0"), _) => {
                Ok(Place { parent: ".".to_owned(), path: format!("/root/{name}"), owners: Owners::Root })
            }
            (Some(user), Some(caller)) if user == caller.name => {
                let parent = format!("/home/{user}");
                Ok(Place { path: format!("{parent}/{name}"), parent, owners: Owners::Of(caller.uid, caller.gid) })
            }
            (Some(user), caller) => Err(Failure::usage(
                format!("DIR cannot be given to the user {user}"),
                match caller {
                    Some(caller) => format!("name the user that the VM will have, {}, or nobody", caller.name),
                    None => "leave --user out: the VM will have no user beside root".to_owned(),
                },
            )),
        }
    }
}

/// Copies a checkout's files to their place.
async fn bring(
    app: &App,
    vm: &Vm,
    checkout: Checkout,
    place: &Place,
    interrupts: &mut Interrupts,
) -> Result<(), Failure> {
    let name = checkout.name.clone();
    let target = (place.parent.as_bytes(), name.as_bytes());
    let transfer = copy::put(app, &vm.name, target, place.owners, interrupts, move |packer| {
        packer.files(&checkout.directory, checkout.name.as_ref(), &checkout.files)
    });
    report_skipped(app, &transfer.await?);
    Ok(())
}

/// Removes the VM and waits until it is gone, so that its name is free when this program ends. The lease does the same,
/// unwatched, where this fails or is interrupted.
async fn remove(app: &App, vm: &Vm, lease: Operation<Vm>, interrupts: &mut Interrupts) {
    let removed = async {
        let mut operation = app.client.operation::<Vm>(removal(&vm.id, true)).await?;
        while operation.next().await?.is_some() {}
        Ok::<_, banger_api::client::ClientError>(())
    };
    tokio::select! {
        // What the command's exit code tells is worth more than what went wrong here, which the daemon logs.
        result = removed => drop(result),
        _ = interrupts.next() => {}
    }
    drop(lease);
}
