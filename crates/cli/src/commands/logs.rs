//! `banger logs`.

use banger_api::client::Request;
use banger_api::exec::{Answer, CallErrorCode, Command, Exit};
use banger_api::frame::Kind;
use bytes::Bytes;
use clap::Args;

use super::values;
use crate::app::App;
use crate::attach::Output;
use crate::failure::Failure;
use crate::output::visible::Visible;
use crate::output::{Format, Text, human, printable, write_bytes};

/// The id of the command that `run -d` starts.
const MAIN: &str = "main";

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Go on until the command ends, or with --console the VM
    #[arg(short, long)]
    follow: bool,
    /// What the guest's kernel and init wrote to its console
    #[arg(long, conflicts_with_all = ["command", "list"])]
    console: bool,
    /// The output of another detached command: an id that `exec -d` printed
    #[arg(long, value_name = "ID")]
    command: Option<String>,
    /// List the detached commands
    #[arg(long, conflicts_with_all = ["follow", "command", "raw"])]
    list: bool,
    /// Print every byte as it is; otherwise a terminal shows control characters other than colours as escapes
    #[arg(long)]
    raw: bool,
    /// The VM
    #[arg(value_parser = values::known_name)]
    name: String,
}

impl Logs {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        if self.console {
            let request = Request::get(["vms", &self.name, "console"]);
            let request = request.query("follow", if self.follow { "true" } else { "false" });
            let mut console = app.with_daemon(async || app.client.download(request.clone()).await).await?;
            let mut shown = Shown::on(app.screen.stdout_is_terminal && !self.raw);
            while let Some(bytes) = console.next().await? {
                write_bytes(&shown.of(bytes))?;
            }
            write_bytes(&shown.rest())?;
        } else if self.list {
            list(app, &self.name).await?;
        } else {
            self.output(app).await?;
        }
        Ok(0)
    }

    async fn output(&self, app: &App) -> Result<(), Failure> {
        let id = self.command.as_deref().unwrap_or(MAIN);
        let request = Request::post(["vms", &self.name, "commands", id, "output"]);
        let request = request.query("follow", if self.follow { "true" } else { "false" });
        let mut upgraded = app.upgrade(request).await?;
        let broken = |source| Failure::Stream { during: "while reading the output", source };
        match upgraded.answer().await.map_err(broken)? {
            Answer::Done => {}
            Answer::Error(error) if error.code == CallErrorCode::NotFound => {
                let name = &self.name;
                return Err(Failure::NoCommand {
                    source: error,
                    help: format!("`banger logs --list {name}` lists what there is; `--console` shows how it booted"),
                });
            }
            Answer::Error(error) => return Err(Failure::Call(error)),
            _ => return Err(Failure::Answer { during: "while reading the output" }),
        }
        let (mut frames, _writer) = upgraded.split();
        let mut output = Output::new();
        let mut stdout = Shown::on(app.screen.stdout_is_terminal && !self.raw);
        let mut stderr = Shown::on(app.screen.stderr_is_terminal && !self.raw);
        let ended = loop {
            tokio::select! {
                frame = async { output.ready().await; frames.next().await } => {
                    let frame = frame.map_err(broken)?;
                    match frame.kind {
                        Kind::Stdout => output.stdout(stdout.of(frame.payload)).await?,
                        Kind::Stderr => output.stderr(stderr.of(frame.payload)).await?,
                        Kind::Failed => break Err(Failure::Call(frame.parse().map_err(broken)?)),
                        Kind::Exit => break Ok(()),
                        Kind::Data if frame.payload.is_empty() => break Ok(()),
                        Kind::Data | Kind::Message | Kind::Stdin | Kind::Resize | Kind::Signal => {}
                    }
                }
                () = output.closed() => return Err(output.failure().await),
            }
        };
        output.stdout(stdout.rest()).await?;
        output.stderr(stderr.rest()).await?;
        output.finish().await?;
        ended
    }
}

/// A guest's output: as a terminal may have it, or as it is.
struct Shown(Option<Visible>);

impl Shown {
    fn on(terminal: bool) -> Shown {
        Shown(terminal.then(Visible::default))
    }

    fn of(&mut self, bytes: Bytes) -> Bytes {
        match &mut self.0 {
            Some(visible) => visible.take(&bytes).into(),
            None => bytes,
        }
    }

    fn rest(&mut self) -> Bytes {
        self.0.as_mut().map_or_else(Bytes::new, |visible| visible.finish().into())
    }
}

async fn list(app: &App, name: &str) -> Result<(), Failure> {
    let commands: Vec<Command> = app.call(Request::get(["vms", name, "commands"])).await?;
    let now = human::now();
    app.screen.print(&commands, || match app.screen.format {
        Format::Name => Text::lines(commands.iter().map(|command| &command.id)),
        Format::Table | Format::Json => {
            let row = |command: &Command| {
                let state = match command.exit {
                    None => "running".to_owned(),
                    Some(Exit::Code(code)) => format!("exit {code}"),
                    Some(Exit::Signal(signal)) => format!("signal {signal}"),
                    Some(Exit::Lost) => "lost".to_owned(),
                };
                let words = printable(&command.argv.join(" "));
                vec![command.id.clone(), state, human::ago(command.started, now), words]
            };
            let rows: Vec<_> = commands.iter().map(row).collect();
            app.screen.table(&["ID", "STATE", "STARTED", "COMMAND"], &rows)
        }
    })
}
