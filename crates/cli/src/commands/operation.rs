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
use crate::output::stages::{PATIENCE, Stages, Unseen};
use crate::output::{Format, complain_json, complain_text};

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
            step = next_step(app, &mut operation) => match step {
                Ok(Step::Began(stage)) => stages.started(&stage),
                Ok(Step::Ended(stage, took)) => stages.finished(&stage, took),
                Ok(Step::Line(message)) => stages.progress(&message),
                Ok(Step::Done(result, took)) => break Ok((result, took)),
                Err(failure) => break Err(failure),
            },
            signal = interrupts.next() => break Err(cancelled(signal, &stages)),
            () = stages.live() => {}
        }
    };
    stages.clear();
    let (result, took) = outcome?;
    timings(app, stages.unseen(), took);
    Ok(Done { result, took, lease: operation })
}

/// As [`follow`], for one of several: nothing is shown, and the caller looks after interrupts.
///
/// # Errors
/// Every [`Failure`].
pub async fn follow_unseen<T: DeserializeOwned>(app: &App, request: Request) -> Result<(Done<T>, Unseen), Failure> {
    let mut operation = app.operation::<T>(request).await?;
    let mut unseen = Unseen::default();
    loop {
        match next_step(app, &mut operation).await? {
            Step::Began(_) | Step::Line(_) => {}
            Step::Ended(stage, took) => unseen.finished(&stage, took),
            Step::Done(result, took) => return Ok((Done { result, took, lease: operation }, unseen)),
        }
    }
}

/// Prints how long each stage took, where that was asked for.
pub fn timings(app: &App, stages: &Unseen, took: Duration) {
    if app.screen.timings {
        match app.screen.format {
            Format::Json => complain_json(&stages.json(took)),
            Format::Table | Format::Name => complain_text(&stages.table(took)),
        }
    }
}

/// What an operation's next event says.
enum Step<T> {
    Began(String),
    Ended(String, Duration),
    Line(String),
    Done(T, Duration),
}

async fn next_step<T: DeserializeOwned>(app: &App, operation: &mut Operation<T>) -> Result<Step<T>, Failure> {
    loop {
        return match operation.next().await.map_err(Failure::Client)? {
            Some(Event::Started { .. }) => continue,
            Some(Event::StageStarted { stage }) => Ok(Step::Began(stage)),
            Some(Event::StageFinished { stage, micros }) => Ok(Step::Ended(stage, Duration::from_micros(micros))),
            Some(Event::Progress { message }) => Ok(Step::Line(message)),
            Some(Event::Result { result, micros }) => Ok(Step::Done(result, Duration::from_micros(micros))),
            Some(Event::Error { error }) => Err(app.helped(ClientError::Api(Box::new(error))).await),
            None => {
                let request = operation.label().to_owned();
                Err(Failure::Client(ClientError::Lost { request, source: None }))
            }
        };
    }
}

/// Waits until the guest has come up to a level, as one more stage where that takes a while.
///
/// # Errors
/// Every [`Failure`].
pub async fn wait(app: &App, name: &str, level: WaitLevel, interrupts: &mut Interrupts) -> Result<Vm, Failure> {
    showing(app, name, &format!("guest.{}", level.word()), reach(app, name, level), interrupts).await
}

/// Waits for something of a guest's that comes up, as one more stage where that takes a while.
///
/// # Errors
/// Every [`Failure`].
pub async fn showing<T>(
    app: &App,
    name: &str,
    stage: &str,
    asked: impl Future<Output = Result<T, Failure>>,
    interrupts: &mut Interrupts,
) -> Result<T, Failure> {
    let mut stages = Stages::new(&app.screen);
    let began = Instant::now();
    stages.started(stage);
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
        stages.finished(stage, began.elapsed());
    } else {
        stages.clear();
    }
    result
}

/// Waits until the guest has come up to a level.
///
/// # Errors
/// Every [`Failure`].
pub async fn reach(app: &App, name: &str, level: WaitLevel) -> Result<Vm, Failure> {
    app.call(Request::get(["vms", name, "wait"]).query("level", level.word())).await
}
