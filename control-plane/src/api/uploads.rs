//! `POST /v1/tracks/{track}/uploaded`: the file is there, whole or in parts; check it, and queue its transcode.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Serialize;

use super::multipart::{Report, note};
use super::request::{Body, track_id};
use super::tracks::view;
use crate::error::ApiError;
use crate::state::{Parts, Shared};
use crate::store::tracks::{Status, TrackRow};
use crate::store::{StoreError, jobs, tracks, transaction, uploads};
use crate::{clock, ids, multipart, views};

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Uploaded {
    track: views::Track,
    job: views::Job,
}

/// Holds the object against what was declared and enqueues one job, in the transaction that makes the track `queued`.
/// Calling it again answers the same job.
#[utoipa::path(post, path = "/v1/tracks/{track}/uploaded", request_body = Option<Report>, responses((status = 202, description = "The job is queued, or was before", body = Uploaded), (status = 409, description = "`upload-missing`, `size-mismatch`, `upload-abandoned`")))]
pub(crate) async fn uploaded(
    State(parts): State<Shared>,
    Path(id): Path<String>,
    Body(report): Body<Report>,
) -> Result<(StatusCode, Json<Uploaded>), ApiError> {
    let id = track_id(id)?;
    let row = tracks::get(&parts.store, &id).await?.ok_or(ApiError::NotFound("track"))?;
    if row.status == Status::Uploading {
        match uploads::get(&parts.store, &id).await? {
            Some(upload) => {
                note(&parts, &upload, &report).await?;
                multipart::complete(&parts, upload).await?;
            }
            None => {
                check(&parts, &row).await?;
                enqueue(&parts, &id).await?;
            }
        }
    }
    let job = jobs::latest_of(&parts.store, &id).await?.ok_or_else(|| {
        let why = row.message.unwrap_or_else(|| "the upload is over".to_owned());
        ApiError::conflict("upload-abandoned", why)
    })?;
    let body = Uploaded { track: view(&parts, &id).await?, job: views::Job::from(&job) };
    Ok((StatusCode::ACCEPTED, Json(body)))
}

async fn check(parts: &Parts, row: &TrackRow) -> Result<(), ApiError> {
    let found = parts.objects.head(&row.upload_key).await?.ok_or_else(|| {
        ApiError::conflict("upload-missing", "the file is not there yet: PUT it to the upload's URL first")
    })?;
    if found.bytes == row.bytes {
        return Ok(());
    }
    let (there, declared) = (found.bytes, row.bytes);
    Err(ApiError::conflict(
        "size-mismatch",
        format!("the file that arrived has {there} bytes, {declared} were declared: upload it again"),
    ))
}

/// Queues the job of an upload that is there, and forgets the upload.
pub(crate) async fn enqueue(parts: &Parts, track: &str) -> Result<(), ApiError> {
    let job = ids::other()?;
    let now = clock::now_ms();
    let max_attempts = parts.jobs.max_attempts;
    if transaction!(parts.store, |tx| {
        // Guarded: of two calls at once, one finds the track queued already and leaves its job alone.
        let first = tracks::transition(tx, track, Status::Uploading, Status::Queued, now).await?;
        if first {
            jobs::enqueue(tx, &job, track, max_attempts, now).await?;
            uploads::remove(tx, track).await?;
        }
        Ok::<bool, StoreError>(first)
    })? {
        parts.wake_workers();
        if let Some(job) = jobs::get(&parts.store, &job).await? {
            parts.tell_job(&job).await;
        }
    }
    Ok(())
}
