//! Answers that become a stream of frames in both directions.

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use banger_api::error::ErrorCode;
use banger_protocol::frame::{self, Frame};
use banger_protocol::session::Stream;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::error::Failure;

/// The protocol's name in the upgrade header.
pub(super) const TOKEN: &str = "banger-stream";

/// Bytes that are under way in each direction.
const BUFFER: usize = 128 * 1024;

/// Whether a request asks for an upgrade. One that does says so to the next hop, too (RFC 9110, section 7.8); hyper would do
/// without.
pub fn asks(headers: &HeaderMap) -> bool {
    let hop = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut options = hop.flat_map(|value| value.split(',')).map(str::trim);
    headers.get(UPGRADE).is_some_and(|token| token == TOKEN)
        && options.any(|option| option.eq_ignore_ascii_case("upgrade"))
}

/// A request that wants to become a stream: what makes it one, and its body.
///
/// # Errors
/// Where the client does not ask for an upgrade, or its body is too long.
pub async fn accept(request: Request) -> Result<(OnUpgrade, Bytes), Failure> {
    let (mut parts, body) = request.into_parts();
    let asked = asks(&parts.headers);
    let upgrade = parts
        .extensions
        .remove::<OnUpgrade>()
        .filter(|_| asked)
        .ok_or_else(|| Failure::new(ErrorCode::Invalid, format!("this needs an upgrade to {TOKEN}"), None))?;
    Ok((upgrade, super::request::bytes(body).await?))
}

/// Answers, and from then on passes bytes between the client and the agent. The agent's first frame goes before.
pub fn answer(upgrade: OnUpgrade, first: Frame, mut agent: Stream) -> Response {
    // A client that hangs up: the agent's stream ends with it.
    serve(upgrade, move |mut client| async move {
        if frame::write(&mut client, &first).await.is_ok() {
            drop(tokio::io::copy_bidirectional_with_sizes(&mut client, &mut agent, BUFFER, BUFFER).await);
        }
    })
}

/// Answers, and from then on does this with the client's stream.
pub fn serve<F>(upgrade: OnUpgrade, work: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static) -> Response
where
    F: Future<Output = ()> + Send,
{
    tokio::spawn(async move {
        // A client that went away before it was a stream wants nothing more.
        if let Ok(client) = upgrade.await {
            work(TokioIo::new(client)).await;
        }
    });
    let headers = [(CONNECTION, HeaderValue::from_static("upgrade")), (UPGRADE, HeaderValue::from_static(TOKEN))];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
