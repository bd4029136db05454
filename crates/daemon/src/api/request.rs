//! What a request brings: its path, its query, its body. What cannot be used is refused in the one shape of a failure.

use std::error::Error;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use banger_api::error::ErrorCode;
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;

use super::error::Failure;

/// The largest body of a request, in bytes. The largest that makes sense is an exec with many arguments.
pub const MAX_BODY: usize = 1024 * 1024;

/// The parameters in a request's path.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, Failure> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|path| Path(path.0)).map_err(|problem| unusable("path", &problem.body_text()))
    }
}

/// The parameters in a request's query.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Query<T>, Failure> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query.map(|query| Query(query.0)).map_err(|problem| unusable("query", &problem.body_text()))
    }
}

/// A request's body as JSON, whatever its content type says; an empty one is an empty object.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Body<T>, Failure> {
        parse(&bytes(request.into_body()).await?).map(Body)
    }
}

/// A body's bytes as JSON; no bytes are an empty object.
///
/// # Errors
/// Where they are something else.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    // Serde would also take a list of a type's fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(unusable("body", "it is no JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|problem| unusable("body", &problem.to_string()))
}

/// A body's bytes.
///
/// # Errors
/// Where there are too many, or they break off.
pub(super) async fn bytes(body: axum::body::Body) -> Result<Bytes, Failure> {
    axum::body::to_bytes(body, MAX_BODY).await.map_err(|problem| {
        if problem.source().is_some_and(|source| source.is::<LengthLimitError>()) {
            Failure::new(ErrorCode::TooLarge, format!("the request's body is over the limit of {MAX_BODY} bytes"), None)
        } else {
            unusable("body", &problem.to_string())
        }
    })
}

/// A value that the document does not allow.
pub(super) fn out_of_bounds(part: &str, excess: &str) -> Failure {
    let help = "docs/openapi.json says what each field can be";
    Failure::new(ErrorCode::Invalid, format!("the request's {part} cannot be used: {excess}"), Some(help))
}

pub(super) fn unusable(part: &str, problem: &str) -> Failure {
    Failure::new(ErrorCode::Invalid, format!("the request's {part} cannot be used: {problem}"), None)
}
