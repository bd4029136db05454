//! Following an operation to its end, stage by stage.

use std::time::{Duration, Instant};

use banger_api::client::{ClientError, Operation, Request};
use banger_api::operation::Event;
use banger_api::vm::Vm;
use serde::de::DeserializeOwned;

use super::values::WaitLevel;
use crate::app::App;
use crate::attach::interrupts::Interrupts;
use crate::failure::Failure;
use crate::output::stages::{PATIENCE, Stages};
use crate::output::{Format, complain};

/// What came out of an operation.
#[derive(Debug)]
pub struct Done<T> {
    /// The result.
    pub result: T,
    /// How long the daemon took.
    pub took: Duration,
    /// The connection, for a lease that hangs on it.
    pub lease: Operation<T>,
}

/// Begins an operation, shows its stages, and returns what came out. An interrupt hangs up; `on_cancel` says what that
/// does.
///
/// # Errors
/// Every [`Failure`].
pub async fn follow<T: DeserializeOwned>(
    app: &App,
    request: Request,
    interrupts: &mut Interrupts,
    on_cancel: &str,
) -> Result<Done<T>, Failure> {
    let mut stages = Stages::new(&app.screen);
    let cancelled = |signal, stages: &Stages| {
        let during = stages.current().map_or(String::new(), |stage| format!(" during {stage}"));
        Failure::Interrupted { signal, what: format!("interrupted{during}; {on_cancel}") }
    };
    let mut operation = tokio::select! {
        operation = app.operation::<T>(request) => operation?,
        signal = interrupts.next() => return Err(cancelled(signal, &stages)),
    };
    let outcome = loop {
        tokio::select! {
            event = operation.next() => match event.map_err(Failure::Client) {
                Ok(Some(Event::Started { .. })) => {}
                Ok(Some(Event::StageStarted { stage })) => stages.started(&stage),
                Ok(Some(Event::StageFinished { stage, micros })) => {
                    stages.finished(&stage, Duration::from_micros(micros));
                }
                Ok(Some(Event::Progress { message })) => stages.progress(&message),
                Ok(Some(Event::Result { result, micros })) => break Ok((result, Duration::from_micros(micros))),
                Ok(Some(Event::Error { error })) => break Err(app.helped(ClientError::Api(Box::new(error))).await),
                Ok(None) => {
                    let request = operation.label().to_owned();
                    break Err(Failure::Client(ClientError::Lost { request, source: None }));
                }
                Err(failure) => break Err(failure),
            },
            signal = interrupts.next() => break Err(cancelled(signal, &stages)),
            () = stages.live() => {}
        }
    };
    stages.clear();
    let (result, took) = outcome?;
    if app.screen.timings {
        match app.screen.format {
            Format::Json => complain(&stages.json(took)),
            Format::Table | Format::Name => complain(stages.table(took).trim_end()),
        }
    }
    Ok(Done { result, took, lease: operation })
}

/// Waits until the guest has come up to a level, as one more stage where that takes a while.
///
/// # Errors
/// Every [`Failure`].
pub async fn wait(app: &App, name: &str, level: WaitLevel, interrupts: &mut Interrupts) -> Result<Vm, Failure> {
    let mut stages = Stages::new(&app.screen);
    let stage = format!("guest.{}", level.word());
    let began = Instant::now();
    stages.started(&stage);
    let asked = app.call(Request::get(["vms", name, "wait"]).query("level", level.word()));
    let mut asked = std::pin::pin!(asked);
    let result = loop {
        tokio::select! {
            result = &mut asked => break result,
            signal = interrupts.next() => {
                break Err(Failure::Interrupted { signal, what: format!("interrupted; {name} goes on coming up") });
            }
            () = stages.live() => {}
        }
    };
    if result.is_ok() && began.elapsed() > PATIENCE {
        stages.finished(&stage, began.elapsed());
    } else {
        stages.clear();
    }
    result
}
