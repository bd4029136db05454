//! What happens, as it happens: lines of JSON until the client hangs up.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use banger_api::error::ErrorCode;
use serde::Deserialize;

use super::error::Failure;
use super::request::Query;
use crate::events::{Reader, Token};
use crate::serve::Daemon;

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Since {
    /// The token of the last line that the client has read. Without it, or where what came after is not known any more, the
    /// first line is a reset.
    #[cfg_attr(test, schemars(regex(pattern = banger_api::events::TOKEN)))]
    since: Option<String>,
}

pub(super) async fn follow(State(daemon): State<Arc<Daemon>>, Query(query): Query<Since>) -> Result<Response, Failure> {
    let since = query.since.map(|text| text.parse::<Token>().map_err(|problem| (text, problem)));
    let since = since.transpose().map_err(|(text, problem)| {
        let help = "give back the token of a line as it came, or none";
        Failure::new(ErrorCode::Invalid, format!("{text:?} cannot be a token: {problem}"), Some(help))
    })?;
    let (first, reader) = match since.and_then(|since| daemon.context.changes.resume(since)) {
        Some(reader) => (None, reader),
        None => {
            let (line, reader) = reset(&daemon).await?;
            (Some(line), reader)
        }
    };
    let lines = futures::stream::unfold((first, reader), async |(first, mut reader)| {
        let lines = match first {
            Some(line) => line,
            None => reader.next().await?,
        };
        Some((Ok::<Bytes, Infallible>(lines), (None, reader)))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// To list images takes a while; an image that comes or goes meanwhile has them listed anew.
async fn reset(daemon: &Daemon) -> Result<(Bytes, Reader), Failure> {
    loop {
        let as_of = daemon.context.changes.last_of_images();
        let images = daemon.builds.list().await?;
        if let Some(reset) = daemon.context.changes.reset(images, as_of) {
            return Ok(reset);
        }
    }
}
