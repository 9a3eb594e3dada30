//! `/v1/jobs`: list, show, retry.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde_json::{Value, json};

use super::request::{Asked, Page};
use crate::error::ApiError;
use crate::state::Shared;
use crate::store::{StoreError, jobs};
use crate::{clock, views};

/// Newest first.
pub(crate) async fn list(State(parts): State<Shared>, Asked(page): Asked<Page>) -> Result<Json<Value>, ApiError> {
    let rows = jobs::list(&parts.store, page.cursor()?, page.limit()).await?;
    let next = page.next(rows.len(), rows.last().map(|row| (row.created_ms, row.id.as_str())));
    let shown: Vec<views::Job> = rows.iter().map(views::Job::from).collect();
    Ok(Json(json!({ "jobs": shown, "next": next })))
}

pub(crate) async fn show(State(parts): State<Shared>, Path(id): Path<String>) -> Result<Json<views::Job>, ApiError> {
    let row = jobs::get(&parts.store, &id).await?.ok_or(ApiError::NotFound("job"))?;
    Ok(Json(views::Job::from(&row)))
}

/// Puts a failed job back into the queue, with all its attempts.
pub(crate) async fn retry(
    State(parts): State<Shared>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<views::Job>), ApiError> {
    let mut tx = parts.store.begin().await?;
    let job = jobs::retry(&mut tx, &id, clock::now_ms()).await?;
    tx.commit().await.map_err(StoreError::from)?;
    let Some(job) = job else {
        jobs::get(&parts.store, &id).await?.ok_or(ApiError::NotFound("job"))?;
        return Err(ApiError::conflict("not-failed", "only a failed job can be retried"));
    };
    parts.wake_workers();
    parts.tell_job(&job).await;
    Ok((StatusCode::ACCEPTED, Json(views::Job::from(&job))))
}
