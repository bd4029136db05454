//! Images.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use banger_api::image::{Image, ImageBuild};

use super::error::{Failure, of_build};
use super::operations::{self, HangUp};
use super::request::{Body, Path};
use crate::image::request::check;
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
    let name = daemon.builds.show(&image).await?.name;
    let removed = operations::brief(daemon.changes(), ("image rm", Some(&name)), async move |operation| {
        let removed = daemon.builds.remove(&image).await;
        operation.ended(&removed);
        removed.map_err(|error| of_build(&error))
    });
    Ok(Json(removed.await?))
}

pub(super) async fn build(
    State(daemon): State<Arc<Daemon>>,
    Body(request): Body<ImageBuild>,
) -> Result<Response, Failure> {
    check(&request)?;
    let name = request.name.clone();
    let on = ("image build", name.as_deref());
    Ok(operations::answer(daemon.changes(), on, HangUp::Cancels, async move |operation| {
        let built = daemon.builds.build(&request, &operation).await;
        operation.ended(&built);
        let image = built.map_err(|error| of_build(&error))?;
        let wire = daemon.builds.wire(&image).await.map_err(|error| of_build(&error))?;
        Ok((wire, None))
    }))
}
