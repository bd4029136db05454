//! The API as a document for programs: OpenAPI 3.1, checked in as `docs/openapi.json` and carried by the daemon as it is
//! there. It is made from the routes, from [`table`] and from the types themselves, by a test: no program carries what makes
//! it.

#[cfg(test)]
mod assembly;
#[cfg(test)]
mod table;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

/// The document, as it was when this daemon was built.
pub(super) const DOCUMENT: &str = include_str!("../../../../docs/openapi.json");

pub(super) async fn document() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT)
}
