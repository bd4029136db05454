//! Long answers: lines of JSON about an operation, the last one its result.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use banger_api::error::ApiError;
use banger_api::operation::Event;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

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

/// Answers with an operation's events. The work goes on by itself: a handler that is dropped drops nothing of it.
pub fn answer<T: Serialize + Send + 'static>(
    operation: Operation,
    progress: mpsc::UnboundedReceiver<Progress>,
    work: JoinHandle<Outcome<T>>,
    hang_up: HangUp,
) -> Response {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    tokio::spawn(pump(operation, progress, work, hang_up, sender));
    let lines =
        futures::stream::poll_fn(move |cx| receiver.poll_recv(cx).map(|line| line.map(Ok::<Bytes, Infallible>)));
    let body = Body::from_stream(lines);
    ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

async fn pump<T: Serialize + Send + 'static>(
    operation: Operation,
    mut progress: mpsc::UnboundedReceiver<Progress>,
    mut work: JoinHandle<Outcome<T>>,
    hang_up: HangUp,
    client: mpsc::UnboundedSender<Bytes>,
) {
    send::<T>(&client, &Event::Started { operation: operation.id().to_owned() });
    let mut listens = true;
    let outcome = loop {
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
    match outcome {
        Ok(Ok((result, lease))) => {
            send(&client, &Event::Result { result, micros });
            if let Some(vm) = lease {
                client.closed().await;
                vm.lease_ended().await;
            }
        }
        Ok(Err(mut error)) => {
            error.operation = Some(operation.id().to_owned());
            send::<T>(&client, &Event::Error { error });
        }
        Err(panicked) => {
            tracing::error!(operation = operation.id(), %panicked, "the operation broke off");
            let error = ApiError {
                code: banger_api::error::ErrorCode::Internal,
                message: "the daemon could not finish this: a bug".to_owned(),
                help: Some("the daemon's log says more".to_owned()),
                also: Vec::new(),
                operation: Some(operation.id().to_owned()),
            };
            send::<T>(&client, &Event::Error { error });
        }
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
