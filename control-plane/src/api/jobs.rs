//! `/v1/jobs`: list, show, retry, cancel, priority.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::request::{Asked, Body, Page};
use crate::error::ApiError;
use crate::state::{Parts, Shared};
use crate::store::jobs::{self, JobRow};
use crate::store::transaction;
use crate::{clock, views};

/// Most and least urgent.
const PRIORITIES: std::ops::RangeInclusive<i64> = -100..=100;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Listed {
    /// Those in this state alone: `?state=failed` are the dead letters, each with its reason.
    #[serde(default)]
    state: Option<jobs::State>,
}

/// A page of jobs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Jobs {
    jobs: Vec<views::Job>,
    /// The `after` of the next page; `null`: this was the last one.
    next: Option<String>,
}

/// Newest first.
#[utoipa::path(get, path = "/v1/jobs", params(Page, Listed), responses((status = 200, body = Jobs)))]
pub(crate) async fn list(
    State(parts): State<Shared>,
    Asked(page): Asked<Page>,
    Asked(listed): Asked<Listed>,
) -> Result<Json<Jobs>, ApiError> {
    let rows = jobs::list(&parts.store, listed.state, page.cursor()?, page.limit()).await?;
    let next = page.next(rows.len(), rows.last().map(|row| (row.created_ms, row.id.as_str())));
    Ok(Json(Jobs { jobs: rows.iter().map(views::Job::from).collect(), next }))
}

#[utoipa::path(get, path = "/v1/jobs/{job}", responses((status = 200, body = views::Job)))]
pub(crate) async fn show(State(parts): State<Shared>, Path(id): Path<String>) -> Result<Json<views::Job>, ApiError> {
    let row = jobs::get(&parts.store, &id).await?.ok_or(ApiError::NotFound("job"))?;
    Ok(Json(views::Job::from(&row)))
}

/// Ends a job that is queued or running. A worker that has it drops its work at its next word.
#[utoipa::path(post, path = "/v1/jobs/{job}/cancel", responses((status = 200, body = views::Job), (status = 409, description = "`not-cancellable`")))]
pub(crate) async fn cancel(State(parts): State<Shared>, Path(id): Path<String>) -> Result<Json<views::Job>, ApiError> {
    let job = transaction!(parts.store, |tx| jobs::cancel(tx, &id, parts.patience(), clock::now_ms()).await)?;
    let why = "only a job that is queued or running can be cancelled";
    let job = there(&parts, &id, job, "not-cancellable", why).await?;
    parts.tell_job(&job).await;
    Ok(Json(views::Job::from(&job)))
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Urgency {
    /// Higher goes first; 0 where nothing was said.
    #[schema(minimum = -100, maximum = 100)]
    priority: i64,
}

/// Sets how urgent a queued job is.
#[utoipa::path(post, path = "/v1/jobs/{job}/priority", request_body = Urgency, responses((status = 200, body = views::Job), (status = 409, description = "`not-queued`")))]
pub(crate) async fn prioritise(
    State(parts): State<Shared>,
    Path(id): Path<String>,
    Body(wish): Body<Urgency>,
) -> Result<Json<views::Job>, ApiError> {
    if !PRIORITIES.contains(&wish.priority) {
        return Err(ApiError::invalid("`priority` must be -100 to 100"));
    }
    let job = transaction!(parts.store, |tx| jobs::set_priority(tx, &id, wish.priority, clock::now_ms()).await)?;
    let job = there(&parts, &id, job, "not-queued", "only a queued job can be moved in the queue").await?;
    parts.tell_job(&job).await;
    Ok(Json(views::Job::from(&job)))
}

/// The job that was changed, or why it was not.
async fn there(
    parts: &Parts,
    id: &str,
    job: Option<JobRow>,
    word: &'static str,
    why: &str,
) -> Result<JobRow, ApiError> {
    if let Some(job) = job {
        return Ok(job);
    }
    jobs::get(&parts.store, id).await?.ok_or(ApiError::NotFound("job"))?;
    Err(ApiError::conflict(word, why))
}

/// Puts a failed or cancelled job back into the queue, with all its attempts.
#[utoipa::path(post, path = "/v1/jobs/{job}/retry", responses((status = 202, body = views::Job), (status = 409, description = "`not-failed`")))]
pub(crate) async fn retry(
    State(parts): State<Shared>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<views::Job>), ApiError> {
    let job = transaction!(parts.store, |tx| jobs::retry(tx, &id, clock::now_ms()).await)?;
    let job = there(&parts, &id, job, "not-failed", "only a failed or cancelled job can be retried").await?;
    parts.wake_workers();
    parts.tell_job(&job).await;
    Ok((StatusCode::ACCEPTED, Json(views::Job::from(&job))))
}
