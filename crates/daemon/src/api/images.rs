//! Images.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use banger_api::image::{Image, ImageBuild};

use super::error::{Failure, of_build};
use super::events::{self, HangUp};
use crate::operation::Operation;
use crate::serve::Daemon;

pub(super) async fn list(State(daemon): State<Arc<Daemon>>) -> Result<Json<Vec<Image>>, Failure> {
    Ok(Json(daemon.builds.list().await?))
}

pub(super) async fn show(State(daemon): State<Arc<Daemon>>, Path(image): Path<String>) -> Result<Json<Image>, Failure> {
    Ok(Json(daemon.builds.show(&image).await?))
}

pub(super) async fn remove(
    State(daemon): State<Arc<Daemon>>,
    Path(image): Path<String>,
) -> Result<Json<Image>, Failure> {
    Ok(Json(daemon.builds.remove(&image).await?))
}

pub(super) async fn build(State(daemon): State<Arc<Daemon>>, body: Bytes) -> Result<Response, Failure> {
    let request: ImageBuild = super::body(&body)?;
    let (operation, progress) = Operation::begin("image build", request.name.as_deref().unwrap_or("the default image"));
    let work = tokio::spawn({
        let operation = operation.clone();
        async move {
            let built = daemon.builds.build(&request, &operation).await;
            operation.ended(&built);
            let image = built.map_err(|error| of_build(&error))?;
            let wire = daemon.builds.wire(&image).await.map_err(|error| of_build(&error))?;
            Ok((wire, None))
        }
    });
    Ok(events::answer(operation, progress, work, HangUp::Cancels))
}
