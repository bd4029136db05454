//! `banger exec` and `banger shell`.

use banger_api::client::Request;
use banger_api::exec::{ExecRequest, ExecStarted};
use clap::Args;

use super::operation::wait;
use super::values::{self, Variable, WaitLevel};
use crate::app::App;
use crate::attach::interrupts::Interrupts;
use crate::attach::{self, attach};
use crate::failure::Failure;
use crate::output::Text;
use crate::surroundings;

/// Whether the command gets a terminal.
#[derive(Debug, Clone, Copy, Args)]
pub struct TerminalChoice {
    /// Give the command a terminal [default: if standard input and output are one]
    #[arg(short, long, overrides_with = "no_tty")]
    pub tty: bool,
    /// Give the command no terminal
    #[arg(short = 'T', long, overrides_with = "tty")]
    pub no_tty: bool,
    /// Send standard input, as is done anyway
    #[arg(short, long)]
    pub interactive: bool,
}

impl TerminalChoice {
    /// What to do.
    pub fn wants_terminal(self) -> bool {
        self.tty || (!self.no_tty && attach::has_terminal())
    }
}

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub struct Exec {
    #[command(flatten)]
    terminal: TerminalChoice,
    /// Let the command run on by itself; print its id, under which `logs --command` finds its output
    #[arg(short, long, conflicts_with_all = ["tty", "interactive"])]
    detach: bool,
    /// A variable for the command; without a value, the one that it has here
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = values::variable)]
    env: Vec<Variable>,
    /// The directory in the guest where it runs
    #[arg(short, long, value_name = "DIR", value_parser = values::guest_directory)]
    workdir: Option<String>,
    /// The guest's user that runs it
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// The VM
    #[arg(value_parser = values::known_name)]
    name: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Arguments of `shell`.
#[derive(Debug, Args)]
pub struct Shell {
    /// Open it when the guest has come up this far: agent, system or ssh
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "system", hide_possible_values = true)]
    wait: WaitLevel,
    /// The directory in the guest where it opens
    #[arg(short, long, value_name = "DIR", value_parser = values::guest_directory)]
    workdir: Option<String>,
    /// The guest's user whose shell it is
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// The VM
    #[arg(value_parser = values::known_name)]
    name: String,
}

impl Exec {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let mut request = ExecRequest {
            argv: self.command,
            env: values::variables(&self.env, &app.environment)?,
            workdir: self.workdir,
            user: self.user,
            ..surroundings::request(&app.environment)
        };
        if self.detach {
            request.detached = true;
            let started: ExecStarted = app.call(Request::post(["vms", &self.name, "exec"]).json(&request)).await?;
            app.screen.print(&started, || Text::line(&started.id))?;
            return Ok(0);
        }
        let mut interrupts = Interrupts::catch()?;
        run_attached(app, &self.name, request, self.terminal.wants_terminal(), &mut interrupts).await
    }
}

impl Shell {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let mut interrupts = Interrupts::catch()?;
        wait(app, &self.name, self.wait, &mut interrupts).await?;
        let request = ExecRequest {
            workdir: self.workdir,
            user: self.user,
            login_shell: true,
            ..surroundings::request(&app.environment)
        };
        run_attached(app, &self.name, request, attach::has_terminal(), &mut interrupts).await
    }
}

/// Runs a command with this process's streams; its exit code.
pub async fn run_attached(
    app: &App,
    name: &str,
    mut request: ExecRequest,
    tty: bool,
    interrupts: &mut Interrupts,
) -> Result<u8, Failure> {
    request.tty = tty.then(|| attach::terminal(&app.environment));
    request.stdin = attach::has_input();
    let stdin = request.stdin;
    let request = Request::post(["vms", name, "exec"]).json(&request);
    let upgraded = tokio::select! {
        upgraded = app.upgrade(request) => upgraded?,
        signal = interrupts.next() => {
            return Err(Failure::Interrupted { signal, what: "interrupted before the command began".to_owned() });
        }
    };
    Ok(attach(upgraded, tty, stdin, interrupts).await?.shell_code())
}
