//! The terminal, or whatever the standard streams are, joined to a command in a guest.

use std::io::IsTerminal;
use std::time::Duration;

use banger_api::client::{FrameReader, FrameWriter, Upgraded};
use banger_api::exec::{Answer, Exit, Terminal};
use banger_api::frame::{Frame, FrameError, Kind};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::environment::Environment;
use crate::failure::Failure;

mod input;
pub mod interrupts;
mod output;
mod terminal;

pub use input::Input;
pub use output::Output;
pub use terminal::{Raw, size};

use interrupts::{Interrupts, WindowChanges};

/// How long a signal may wait behind input that the guest does not take, before hanging up tells it the same.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(1);

/// That many interrupts that a command survives are enough: the next one hangs up.
const MAX_INTERRUPTS: u32 = 3;

/// Whether standard input and output are terminals of which this process has the foreground.
pub fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && input::is_foreground()
}

/// Whether standard input may hold something for the guest.
pub fn has_input() -> bool {
    input::is_worth_reading()
}

/// The terminal to ask the guest for: this one's size and kind, or a plain one where there is none.
pub fn terminal(environment: &Environment) -> Terminal {
    let (rows, columns) = size().unwrap_or((24, 80));
    let term = environment.var("TERM").and_then(|term| term.to_str()).unwrap_or("dumb");
    Terminal { rows, columns, term: term.to_owned() }
}

/// Carries the streams of a command until it ends, and says how. Dropping the future hangs up.
///
/// # Errors
/// [`Failure::Call`] where the guest refuses the command; [`Failure::Stream`] where the guest or the daemon goes away;
/// [`Failure::Stdout`]; [`Failure::Interrupted`] where a signal had to be answered by hanging up.
pub async fn attach(
    mut upgraded: Upgraded,
    tty: bool,
    stdin: bool,
    interrupts: &mut Interrupts,
) -> Result<Exit, Failure> {
    let answer = tokio::select! {
        answer = upgraded.answer() => answer,
        signal = interrupts.next() => return Err(interrupted(signal)),
    };
    match answer.map_err(|source| Failure::Stream { during: "before the command began", source })? {
        Answer::Started { .. } => {}
        Answer::Error(error) => return Err(Failure::Call(error)),
        _ => return Err(Failure::Answer { during: "before the command began" }),
    }
    let raw = match tty {
        true => Raw::enter(),
        false => None,
    };
    let (reader, writer) = upgraded.split();
    let (controls, orders) = mpsc::unbounded_channel();
    let sender = tokio::spawn(send(writer, orders, stdin.then(Input::start)));
    let session = Session { reader, controls, output: Output::new(), raw, sent: 0, undelivered: None };
    let result = session.run(tty, interrupts).await;
    sender.abort();
    result
}

fn interrupted(signal: u8) -> Failure {
    Failure::Interrupted { signal, what: "interrupted; the guest's command was hung up on".to_owned() }
}

/// A frame to be sent out of turn, and whom to tell when it has left.
type Order = (Frame, oneshot::Sender<()>);

struct Session {
    reader: FrameReader,
    controls: mpsc::UnboundedSender<Order>,
    output: Output,
    raw: Option<Raw>,
    /// How many interrupts the command has been sent.
    sent: u32,
    /// The latest signal that has not left yet, and by when it was to.
    undelivered: Option<(u8, Instant, oneshot::Receiver<()>)>,
}

impl Session {
    async fn run(mut self, tty: bool, interrupts: &mut Interrupts) -> Result<Exit, Failure> {
        let mut window = WindowChanges::new(tty)?;
        let exit = loop {
            tokio::select! {
                frame = next_frame(&mut self.reader, &self.output) => {
                    if let Some(exit) = self.receive(frame).await? {
                        break exit;
                    }
                }
                () = self.output.closed() => return Err(self.output.failure().await),
                signal = interrupts.next() => self.interrupt(signal, tty)?,
                () = window.next() => {
                    self.raw.iter().for_each(Raw::renew);
                    if let Some((rows, columns)) = size() {
                        self.control(Frame::resize(rows, columns));
                    }
                }
                signal = overdue(&mut self.undelivered) => return Err(interrupted(signal)),
            }
        };
        // What the command wrote last may still wait for a slow reader.
        tokio::select! {
            flushed = self.output.finish() => flushed?,
            signal = interrupts.next() => return Err(interrupted(signal)),
        }
        // Held until here: the terminal stays raw until the last byte is out.
        drop(self.raw.take());
        Ok(exit)
    }

    async fn receive(&mut self, frame: Result<Frame, FrameError>) -> Result<Option<Exit>, Failure> {
        let broken = |source| Failure::Stream { during: "while the command ran", source };
        let frame = frame.map_err(broken)?;
        match frame.kind {
            Kind::Stdout => self.output.stdout(frame.payload).await?,
            Kind::Stderr => self.output.stderr(frame.payload).await?,
            Kind::Exit => return frame.parse().map(Some).map_err(broken),
            Kind::Failed => return Err(Failure::Call(frame.parse().map_err(broken)?)),
            // What this version does not know of it does not show.
            Kind::Message | Kind::Stdin | Kind::Resize | Kind::Signal | Kind::Data => {}
        }
        Ok(None)
    }

    /// Passes a signal on. On a terminal of its own the guest's shell would ignore it: there, hanging up is what ends it.
    fn interrupt(&mut self, signal: u8, tty: bool) -> Result<(), Failure> {
        if tty || self.sent == MAX_INTERRUPTS {
            return Err(interrupted(signal));
        }
        self.sent += 1;
        let delivered = self.control(Frame::new(Kind::Signal, vec![signal]));
        // They leave in their order: this one tells of those before it, of which the oldest sets the deadline.
        let deadline =
            self.undelivered.take().map_or_else(|| Instant::now() + SIGNAL_PATIENCE, |(_, deadline, _)| deadline);
        self.undelivered = Some((signal, deadline, delivered));
        Ok(())
    }

    fn control(&self, frame: Frame) -> oneshot::Receiver<()> {
        let (done, delivered) = oneshot::channel();
        // Where the sender has ended the guest has hung up, which the reader is about to see.
        drop(self.controls.send((frame, done)));
        delivered
    }
}

/// The next frame, as soon as there is room for what it carries: what waits here waits in the guest.
async fn next_frame(reader: &mut FrameReader, output: &Output) -> Result<Frame, FrameError> {
    output.ready().await;
    reader.next().await
}

/// Returns a signal that did not leave in time; never where all have left.
async fn overdue(undelivered: &mut Option<(u8, Instant, oneshot::Receiver<()>)>) -> u8 {
    loop {
        let Some((signal, deadline, delivered)) = undelivered else { return std::future::pending().await };
        match tokio::time::timeout_at(*deadline, delivered).await {
            Ok(_) => *undelivered = None,
            Err(_) => return *signal,
        }
    }
}

/// Sends orders as they come and input as the guest takes it.
async fn send(mut writer: FrameWriter, mut orders: mpsc::UnboundedReceiver<Order>, mut input: Option<Input>) {
    loop {
        let sent = tokio::select! {
            biased;
            order = orders.recv() => {
                let Some((frame, done)) = order else { return };
                let sent = writer.send(frame.kind, &frame.payload).await;
                // Whoever asked may have given up waiting.
                done.send(()).unwrap_or(());
                sent
            }
            chunk = next_chunk(&mut input) => {
                if chunk.is_empty() {
                    input = None;
                }
                writer.send(Kind::Stdin, &chunk).await
            }
        };
        // The guest does not listen any more; how the command ended is for the reader to hear.
        if sent.is_err() {
            return;
        }
    }
}

async fn next_chunk(input: &mut Option<Input>) -> Bytes {
    match input {
        Some(input) => input.next().await,
        None => std::future::pending().await,
    }
}
