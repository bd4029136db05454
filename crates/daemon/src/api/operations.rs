//! Mutating requests: each is an operation, told to who follows events, and most are answered by lines of JSON, the last one
//! the result.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use banger_api::error::{ApiError, ErrorCode};
use banger_api::events::{Change, Outcome as End};
use banger_api::operation::Event;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::error::{Failure, bounded};
use crate::events::Changes;
use crate::operation::{Operation, Progress};
use crate::vm::registry::Handle;

/// What a client that hangs up does to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HangUp {
    /// It cancels it.
    Cancels,
    /// It is not missed.
    Leaves,
}

/// What an operation came to, and the VM that lives as long as the connection, if one does.
pub type Outcome<T> = Result<(T, Option<Handle>), ApiError>;

/// Begins an operation and answers with its events. `on` is the VM or image that the request names. The work goes on by
/// itself: a handler that is dropped drops nothing of it.
pub fn answer<T, W>(
    changes: Arc<Changes>,
    (verb, on): (&'static str, Option<&str>),
    hang_up: HangUp,
    work: impl FnOnce(Operation) -> W,
) -> Response
where
    T: Serialize + Send + 'static,
    W: Future<Output = Outcome<T>> + Send + 'static,
{
    let (told, progress) = Told::begin(changes, verb, on);
    let work = tokio::spawn(work(told.operation.clone()));
    let (sender, mut receiver) = mpsc::unbounded_channel();
    tokio::spawn(pump(told, progress, work, hang_up, sender));
    let lines =
        futures::stream::poll_fn(move |cx| receiver.poll_recv(cx).map(|line| line.map(Ok::<Bytes, Infallible>)));
    let body = Body::from_stream(lines);
    ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// An operation whose answer is its result alone. It is not cancelled either by a client that hangs up.
///
/// # Errors
/// Those of the work.
pub async fn brief<T, W>(
    changes: Arc<Changes>,
    (verb, on): (&'static str, Option<&str>),
    work: impl FnOnce(Operation) -> W,
) -> Result<T, Failure>
where
    T: Send + 'static,
    W: Future<Output = Result<T, ApiError>> + Send + 'static,
{
    let (told, _) = Told::begin(changes, verb, on);
    let work = work(told.operation.clone());
    let work = tokio::spawn(async move {
        let done = tokio::spawn(work).await;
        told.ended(done)
    });
    work.await.map_err(|_| broken_off())?.map_err(Failure)
}

/// An operation that is told to who follows events: when it begins and, in any case, when it ends.
struct Told {
    operation: Operation,
    on: Option<String>,
    changes: Arc<Changes>,
}

impl Told {
    fn begin(changes: Arc<Changes>, verb: &'static str, on: Option<&str>) -> (Told, mpsc::UnboundedReceiver<Progress>) {
        let (operation, progress) = Operation::begin(verb, on.unwrap_or("what the daemon picks"));
        let told = Told { operation, on: on.map(str::to_owned), changes };
        told.changes.tell(Change::OperationStarted {
            operation: told.operation.id().to_owned(),
            verb: verb.to_owned(),
            on: told.on.clone(),
        });
        (told, progress)
    }

    /// What came of the work's task. Its error says which operation it was.
    fn ended<T>(&self, work: Result<Result<T, ApiError>, tokio::task::JoinError>) -> Result<T, ApiError> {
        let id = self.operation.id();
        let outcome = work.unwrap_or_else(|panicked| {
            tracing::error!(operation = id, %panicked, "the operation broke off");
            Err(broken_off().0)
        });
        let outcome = outcome.map_err(|error| ApiError { operation: Some(id.to_owned()), ..bounded(error) });
        let code = outcome.as_ref().err().map(|error| error.code);
        self.changes.tell(Change::OperationFinished {
            operation: id.to_owned(),
            verb: self.operation.verb().to_owned(),
            on: self.on.clone(),
            outcome: match code {
                None => End::Done,
                Some(ErrorCode::Cancelled) => End::Cancelled,
                Some(_) => End::Failed,
            },
            code,
            micros: self.operation.micros(),
        });
        outcome
    }
}

fn broken_off() -> Failure {
    let help = "the daemon's log says more";
    Failure::new(ErrorCode::Internal, "the daemon could not finish this: a bug", Some(help))
}

async fn pump<T: Serialize + Send + 'static>(
    told: Told,
    mut progress: mpsc::UnboundedReceiver<Progress>,
    mut work: JoinHandle<Outcome<T>>,
    hang_up: HangUp,
    client: mpsc::UnboundedSender<Bytes>,
) {
    let operation = &told.operation;
    send::<T>(&client, &Event::Started { operation: operation.id().to_owned() });
    let mut listens = true;
    let done = loop {
        tokio::select! {
            // The order keeps a stage's last line before the result.
            biased;
            Some(step) = progress.recv() => send::<T>(&client, &event(step)),
            done = &mut work => break done,
            () = client.closed(), if listens => {
                listens = false;
                if hang_up == HangUp::Cancels {
                    operation.cancel();
                }
            }
        }
    };
    while let Ok(step) = progress.try_recv() {
        send::<T>(&client, &event(step));
    }
    let micros = operation.micros();
    match told.ended(done) {
        Ok((result, lease)) => {
            send(&client, &Event::Result { result, micros });
            if let Some(vm) = lease {
                client.closed().await;
                vm.lease_ended().await;
            }
        }
        Err(error) => send::<T>(&client, &Event::Error { error }),
    }
}

fn event<T>(progress: Progress) -> Event<T> {
    match progress {
        Progress::Began { stage } => Event::StageStarted { stage: stage.to_owned() },
        Progress::Ended { stage, micros } => Event::StageFinished { stage: stage.to_owned(), micros },
        Progress::Line(message) => Event::Progress { message },
    }
}

fn send<T: Serialize>(client: &mpsc::UnboundedSender<Bytes>, event: &Event<T>) {
    let Ok(mut line) = serde_json::to_vec(event) else {
        tracing::error!("an event cannot be written as JSON");
        return;
    };
    line.push(b'\n');
    // A client that hung up reads no more; `pump` sees to what follows from that.
    drop(client.send(line.into()));
}
