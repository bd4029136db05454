//! `banger console`.

use std::io::IsTerminal;

use banger_api::client::{FrameReader, FrameWriter, Request};
use banger_api::console::Attached;
use banger_api::frame::{Frame, Kind};
use clap::Args;

use super::values;
use crate::app::App;
use crate::attach::interrupts::{Interrupts, WindowChanges};
use crate::attach::{self, Input, Output, Raw};
use crate::failure::Failure;
use crate::output::{complain, printable};

/// Arguments of `console`.
#[derive(Debug, Args)]
#[command(after_help = "\
On the console is what the guest's kernel and init write, and a shell of root's, which banger's agent starts there. Unlike \
`banger shell` it works where the agent does not any more. `banger logs --console NAME` prints what was written before.")]
pub struct Console {
    /// The key that leaves the console: ^ and a letter or one of []\\^_
    #[arg(long, value_name = "KEY", default_value = "^]", value_parser = values::control_key)]
    escape: u8,
    /// The VM
    #[arg(value_parser = values::known_name)]
    name: String,
}

impl Console {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let name = &self.name;
        if !std::io::stdin().is_terminal() {
            let help = format!("`banger logs --console --follow {name}` reads along without one");
            return Err(Failure::usage("a console needs a terminal on standard input", help));
        }
        let mut interrupts = Interrupts::catch()?;
        let request = Request::post(["vms", name, "console", "attach"]).json(&attach::terminal(&app.environment));
        let (mut reader, writer) = app.upgrade(request).await?.split();
        let broken = |source| Failure::Stream { during: "before the console was there", source };
        let attached: Attached = reader.next().await.map_err(broken)?.parse().map_err(broken)?;
        if let Some(reason) = &attached.reason {
            complain(&format!("no shell was started there: {}", printable(reason)));
        }
        let key = key_name(self.escape);
        app.screen.say(&format!("this is {name}'s console; {key} leaves it"));
        let raw = Raw::enter();
        let ended = self.carry(reader, writer, raw.as_ref(), &mut interrupts).await;
        drop(raw);
        let ended = ended?;
        // The console's own last line may be unfinished.
        app.screen.say("");
        app.screen.say(&match ended {
            Ended::Left => format!("left {name}'s console; it goes on"),
            Ended::Down => format!("{name} went down"),
        });
        Ok(0)
    }

    async fn carry(
        &self,
        mut reader: FrameReader,
        mut writer: FrameWriter,
        raw: Option<&Raw>,
        interrupts: &mut Interrupts,
    ) -> Result<Ended, Failure> {
        let broken = |source| Failure::Stream { during: "on the console", source };
        let (mut input, mut output) = (Input::start(), Output::new());
        let mut window = WindowChanges::new(true)?;
        loop {
            tokio::select! {
                frame = reader.next() => {
                    let frame: Frame = frame.map_err(broken)?;
                    match frame.kind {
                        Kind::Stdout => output.stdout(frame.payload).await?,
                        Kind::Data => break,
                        _ => {}
                    }
                }
                keys = input.next() => {
                    let end = keys.iter().position(|&key| key == self.escape);
                    let typed = &keys[..end.unwrap_or(keys.len())];
                    if !typed.is_empty() {
                        writer.send(Kind::Stdin, typed).await.map_err(broken)?;
                    }
                    if end.is_some() || keys.is_empty() {
                        output.finish().await?;
                        return Ok(Ended::Left);
                    }
                }
                () = window.next() => {
                    raw.iter().for_each(|raw| raw.renew());
                    if let Some((rows, columns)) = attach::size() {
                        let resize = Frame::resize(rows, columns);
                        writer.send(resize.kind, &resize.payload).await.map_err(broken)?;
                    }
                }
                signal = interrupts.next() => {
                    return Err(Failure::Interrupted { signal, what: "interrupted; the console goes on".to_owned() });
                }
            }
        }
        output.finish().await?;
        Ok(Ended::Down)
    }
}

/// How a visit to a console ended.
enum Ended {
    /// Its user left.
    Left,
    /// The VM went down.
    Down,
}

/// `Ctrl-]`.
fn key_name(key: u8) -> String {
    format!("Ctrl-{}", char::from(key | 0x40))
}
