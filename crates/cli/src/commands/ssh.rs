//! `banger ssh`: the user's own ssh(1), told how to get to a VM.

use std::ffi::OsString;
use std::io::{IsTerminal, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use banger_api::vm::{Vm, VmState};
use banger_linux::process::{Attributes, Launch, Process, Program, Stream};
use clap::{Args, ValueHint};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use super::operation::{reach, showing};
use super::values::WaitLevel;
use crate::app::{App, own};
use crate::attach::interrupts::Interrupts;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output::complain;
use crate::ssh::options::{Caller, OLDEST, options, version};
use crate::ssh::target::{Target, target};
use crate::ssh::{keys, reach as guest};

/// The code that ssh ends with where it failed itself, or the connection broke.
const SSH_FAILED: u8 = 255;

/// How long a guest may take to say that it lives.
const ALIVE: Duration = Duration::from_secs(2);

/// Arguments of `ssh`.
#[derive(Debug, Args)]
#[command(after_help = "\
It runs your own ssh with your own ~/.ssh/config; the connection goes through the daemon, so that it needs neither a network nor \
DNS, and the host key is the one that the daemon made. You log in as the VM's user if that is you, else as root, by a key of \
banger's own. Options of ssh that are not listed go as `--option ForwardX11=yes` (ssh_config(5)); -o and -q are banger's own here. \
The exit code is ssh's: the command's, or 255; 125 if banger failed before it. \
`banger ssh-config --install` makes plain ssh, scp, rsync and git do the same.")]
pub struct Ssh {
    #[command(flatten)]
    passed: Passed,
    /// The VM, or USER@VM; also by its name in the domain of VMs, as devbox.vm
    #[arg(value_name = "NAME", value_parser = target)]
    name: Target,
    /// A command to run instead of a login shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Options that ssh itself has, under the same letters.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of ssh")]
struct Passed {
    /// Let the guest use the keys of your agent while you are in it
    #[arg(short = 'A', long)]
    forward_agent: bool,
    /// Forward a port of this host to the guest's side, as 8080:localhost:80
    #[arg(short = 'L', long = "local", value_name = "FORWARD")]
    local: Vec<String>,
    /// Forward a port of the guest to this side, likewise
    #[arg(short = 'R', long = "remote", value_name = "FORWARD")]
    remote: Vec<String>,
    /// Be a SOCKS proxy on this port
    #[arg(short = 'D', long = "dynamic", value_name = "PORT")]
    dynamic: Vec<String>,
    /// Whom to log in as
    #[arg(short = 'l', long = "login", value_name = "USER")]
    login: Option<String>,
    /// Another private key
    #[arg(short = 'i', long = "identity", value_name = "FILE", value_hint = ValueHint::FilePath)]
    identity: Vec<PathBuf>,
    /// Another file than ~/.ssh/config
    #[arg(short = 'F', long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Give the command a terminal; twice: also where there is none here
    #[arg(short = 't', long = "tty", action = clap::ArgAction::Count, overrides_with = "no_tty")]
    tty: u8,
    /// Give no terminal
    #[arg(short = 'T', long)]
    no_tty: bool,
    /// Run no command: forward only
    #[arg(short = 'N', long)]
    no_command: bool,
    /// Say what ssh does; up to three times
    #[arg(short = 'v', long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Any other option of ssh_config(5), as ForwardX11=yes
    #[arg(long = "option", value_name = "NAME=VALUE")]
    option: Vec<String>,
}

impl Passed {
    /// As words for ssh.
    fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let flags = [("-A", self.forward_agent), ("-T", self.no_tty), ("-N", self.no_command)];
        words.extend(flags.into_iter().filter(|(_, is_given)| *is_given).map(|(flag, _)| flag.into()));
        words.extend(std::iter::repeat_n("-t".into(), self.tty.into()));
        words.extend(std::iter::repeat_n("-v".into(), self.verbose.into()));
        let mut take = |flag: &str, value: OsString| words.extend([flag.into(), value]);
        for (flag, values) in [("-L", &self.local), ("-R", &self.remote), ("-D", &self.dynamic), ("-o", &self.option)] {
            values.iter().for_each(|value| take(flag, value.into()));
        }
        self.identity.iter().for_each(|file| take("-i", file.into()));
        self.config.iter().for_each(|file| take("-F", file.into()));
        words
    }
}

impl Ssh {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let program = app.environment.find_program("ssh").ok_or(Failure::NoSsh)?;
        let vm = guest::find(app, &self.name.host).await?;
        guest::check_up(&vm)?;
        let key = keys::managed(&app.environment)?;
        let mut interrupts = Interrupts::catch()?;
        let listens = guest::wait_for_server(app, &vm);
        showing(app, &vm.name, "guest.ssh", listens, &mut interrupts).await?;
        guest::let_in(app, &vm, &key).await?;
        let host = format!("{}.{}", vm.name, guest::domain(app).await?);
        let socket = socket(app);
        let caller = Caller { program: app.environment.program(), socket: socket.as_deref(), key: Some(&key.path) };
        let mut args = self.passed.words();
        for (name, value) in options(caller, &vm.name) {
            let mut option = OsString::from(format!("{name}="));
            option.push(value);
            args.extend(["-o".into(), option]);
        }
        args.extend(["-l".into(), self.login(&vm).into(), "--".into(), host.into()]);
        args.extend(self.command.iter().cloned());
        let code = run(app, &program, args, &mut interrupts).await?;
        if code == SSH_FAILED {
            say_if_too_old(app, &program).await?;
        } else if self.is_interactive() {
            remind(app, &vm).await;
        }
        Ok(code)
    }

    /// Whom to log in as: who was named; else the guest's user, where it is the caller; else root, whom every guest has.
    fn login(&self, vm: &Vm) -> String {
        let named = self.passed.login.as_ref().or(self.name.user.as_ref());
        let uid = rustix::process::getuid().as_raw();
        let own = vm.user.as_ref().filter(|user| user.uid == uid).map(|user| &user.name);
        named.or(own).map_or_else(|| "root".to_owned(), Clone::clone)
    }

    fn is_interactive(&self) -> bool {
        self.command.is_empty() && !self.passed.no_command && std::io::stdin().is_terminal()
    }
}

/// The daemon's socket, where it has to be named.
pub(super) fn socket(app: &App) -> Option<PathBuf> {
    let socket = app.client.socket();
    (!Environment::is_usual(socket)).then(|| socket.to_owned())
}

/// Runs ssh with this process's streams, in its process group; its exit code.
async fn run(app: &App, program: &Path, args: Vec<OsString>, interrupts: &mut Interrupts) -> Result<u8, Failure> {
    let mut launch = launch(app, program, args);
    (launch.stdin, launch.stdout, launch.stderr) = (Stream::Inherit, Stream::Inherit, Stream::Inherit);
    let mut children = signal(SignalKind::child()).map_err(own("catch signals"))?;
    let ssh = Process::start(launch)?;
    let mut ended = std::pin::pin!(ssh.ended());
    loop {
        tokio::select! {
            ended = &mut ended => return Ok(exit_code(ended?)),
            // What a terminal sends, it sends to ssh as well; what others send to this process is meant for both.
            number = interrupts.next() => {
                if [Signal::TERM, Signal::HUP].iter().any(|signal| signal.as_raw() == i32::from(number)) {
                    let signal = if i32::from(number) == Signal::HUP.as_raw() { Signal::HUP } else { Signal::TERM };
                    ssh.signal(signal)?;
                }
            }
            _ = children.recv() => {
                // By its own key (~^Z): who waits for this process is to have the terminal.
                if ssh.was_stopped() {
                    banger_linux::suspend::stop().map_err(own("stop with ssh"))?;
                    ssh.signal(Signal::CONT)?;
                }
            }
        }
    }
}

fn launch(app: &App, program: &Path, args: Vec<OsString>) -> Launch {
    let mut launch = Launch::new(Program::Ssh(program.to_owned()), args);
    launch.attributes = Attributes::Caller;
    launch.env = app.environment.vars().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // Files are named from where the user is.
    launch.workdir = Some(".".into());
    launch
}

/// As a shell reports it.
fn exit_code(status: Option<ExitStatus>) -> u8 {
    let Some(status) = status else { return SSH_FAILED };
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(SSH_FAILED)
}

/// Says that a VM runs on, if it does: who leaves a machine by ssh may think that it ends.
async fn remind(app: &App, vm: &Vm) {
    if vm.ephemeral || app.screen.quiet {
        return;
    }
    // The guest itself is asked: one that goes down as its user said does not answer any more.
    let lives = tokio::time::timeout(ALIVE, reach(app, &vm.id, WaitLevel::Agent)).await;
    if let Ok(Ok(vm)) = lives
        && vm.state == VmState::Running
    {
        let name = &vm.name;
        app.screen.say(&format!("{name} is still running; stop it with: banger vm stop {name}"));
    }
}

/// Says that ssh is older than what it was told, where it is.
async fn say_if_too_old(app: &App, program: &Path) -> Result<(), Failure> {
    let mut said = banger_linux::file::in_memory("ssh").map_err(own("hear which version ssh is"))?;
    let mut launch = launch(app, program, vec!["-V".into()]);
    let stderr = said.as_fd().try_clone_to_owned().map_err(own("hear which version ssh is"))?;
    launch.stderr = Stream::Fd(stderr);
    Process::start(launch)?.ended().await?;
    let mut text = String::new();
    said.rewind().and_then(|()| said.read_to_string(&mut text)).map_err(own("hear which version ssh is"))?;
    if let Some(found) = version(&text)
        && found < OLDEST
    {
        let ((major, minor), (least, least_minor)) = (found, OLDEST);
        complain(&format!(
            "help: this is OpenSSH {major}.{minor}, and `banger ssh` needs {least}.{least_minor} or later; `banger shell` needs none"
        ));
    }
    Ok(())
}
