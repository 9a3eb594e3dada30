//! `/v1/worker`: how a transcode worker takes a job, shows that it lives, and hands over its result.
//!
//! A worker's name belongs to one process at a time. Each process makes a random `instance` at its start and sends it
//! with every claim; the slots of one process share it. A claim with another instance than before says that the process
//! before is gone: what runs under the name is taken from it and queued at once, instead of at the end of its lease. Two
//! processes that live under one name would take each other's jobs, so those of one host must be named apart.
//!
//! A failure's `message` says what went wrong and never what comes next: whether the job is tried again is decided
//! here, and said here. `worker-stopped` (retryable) gives the attempt back.
//!
//! Every call after the claim names the fence that the claim gave. A worker whose fence is not the newest one gets
//! 409 `lease-lost`, whatever it says, and must drop its work.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::request::Body;
use crate::error::ApiError;
use crate::state::{Parts, Shared};
use crate::store::jobs::{Claimant, Claimed, Ending, State as JobState};
use crate::store::tracks::Published;
use crate::store::{StoreError, early, jobs, transaction};
use crate::{clock, publication};

/// Longest wait of one claim, in milliseconds: shorter than what balancers allow a silent connection.
const WAIT_MAX_MS: u64 = 30_000;

/// A waiting claim looks again at least this often: a job may have been queued by another control plane, or by a
/// request that was cut off before it could wake anybody.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Longest text of the alias, in bytes: ten times the largest ladder.
const MASTER_MAX: usize = 64 * 1024;

/// Longest name of a worker and of its instance, in bytes.
const NAME_MAX: usize = 128;

/// Longest reason word and message, in bytes.
const REASON_MAX: usize = 64;
const MESSAGE_MAX: usize = 2000;

/// What a worker is doing.
const STAGES: [&str; 5] = ["fetch", "probe", "measure", "encode", "publish"];

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WorkerClaim)]
pub(crate) struct Claim {
    /// Name of the worker, for people; no other process has it.
    #[schema(min_length = 1)]
    worker: String,
    /// Random name of the process that bears the worker's name now.
    #[schema(min_length = 1)]
    instance: String,
    #[serde(default)]
    wait_ms: u64,
}

/// A job, and what its worker needs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = WorkerOffer)]
pub(crate) struct Offer {
    job: String,
    track: String,
    fence: i64,
    attempt: u32,
    lease_ms: i64,
    source: Source,
    /// Versions of attempts that died while they were listened to.
    early: Vec<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = WorkerSource)]
pub(crate) struct Source {
    key: String,
    bytes: u64,
    filename: String,
    /// What the publisher declared, in hex: the file is held against it.
    sha256: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = WorkerLease)]
pub(crate) struct Lease {
    lease_ms: i64,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = WorkerEarlyNoted)]
pub(crate) struct EarlyNoted {
    job: String,
    track: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = WorkerEnded)]
pub(crate) struct Ended {
    job: String,
    state: JobState,
}

/// The most urgent job, waited for; 204 where none came.
#[utoipa::path(post, path = "/v1/worker/claim", request_body = Claim, responses((status = 200, description = "A job", body = Offer), (status = 204, description = "None came in time")))]
pub(crate) async fn claim(State(parts): State<Shared>, Body(claim): Body<Claim>) -> Result<Response, ApiError> {
    for (what, name) in [("worker", &claim.worker), ("instance", &claim.instance)] {
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(ApiError::invalid(format!("`{what}` must be 1 to {NAME_MAX} bytes")));
        }
    }
    let claimant = Claimant { worker: &claim.worker, instance: &claim.instance };
    // Once, as it arrives. A wait that outlived its process must not take anything from the one that came after.
    replace(&parts, claimant).await?;
    let until = Instant::now() + Duration::from_millis(claim.wait_ms.min(WAIT_MAX_MS));
    // Subscribed before the first look, so that a job that comes in between wakes this claim.
    let mut queued = parts.queued.subscribe();
    loop {
        queued.mark_unchanged();
        if let Some((claimed, dead)) = take(&parts, claimant).await? {
            // No wait between commit and answer: a worker that hangs up in it would have a job that it knows nothing of.
            let answer = Json(offer(&parts, &claimed, &dead)).into_response();
            parts.tell_jobs_later(vec![claimed.job]);
            return Ok(answer);
        }
        let pause = jobs::next_due(&parts.store).await?.map_or(LOOK_AGAIN, |due_ms| {
            let pause = u64::try_from(due_ms - clock::now_ms()).unwrap_or(0).max(10);
            LOOK_AGAIN.min(Duration::from_millis(pause))
        });
        let look_again = until.min(Instant::now() + pause);
        if Instant::now() >= until {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        tokio::select! {
            _ = queued.changed() => {}
            () = tokio::time::sleep_until(look_again) => {}
            () = parts.shutdown.cancelled() => return Ok(StatusCode::NO_CONTENT.into_response()),
        }
    }
}

/// A job, and the versions of attempts that died while they were listened to.
async fn take(parts: &Parts, claimant: Claimant<'_>) -> Result<Option<(Claimed, Vec<String>)>, StoreError> {
    transaction!(parts.store, |tx| {
        match jobs::claim(tx, claimant, parts.patience(), clock::now_ms()).await? {
            Some(claimed) => {
                let dead = early::dead(tx, &claimed.job.id, claimed.job.fence).await?;
                Ok(Some((claimed, dead)))
            }
            None => Ok(None),
        }
    })
}

/// Queues again what ran in the process that had the claimant's name before.
async fn replace(parts: &Shared, claimant: Claimant<'_>) -> Result<(), StoreError> {
    let orphans = transaction!(parts.store, |tx| jobs::replace(tx, claimant, parts.patience(), clock::now_ms()).await)?;
    for job in &orphans {
        tracing::warn!(
            job.id,
            track.id = job.track,
            worker = claimant.worker,
            job.losses,
            "the worker is another process now; its job is taken back"
        );
    }
    if !orphans.is_empty() {
        parts.wake_workers();
        parts.tell_jobs_later(orphans);
    }
    Ok(())
}

fn offer(parts: &Parts, claimed: &Claimed, dead: &[String]) -> Offer {
    Offer {
        job: claimed.job.id.clone(),
        track: claimed.job.track.clone(),
        fence: claimed.job.fence,
        attempt: claimed.job.attempts,
        lease_ms: parts.patience().lease_ms,
        source: Source {
            key: claimed.source_key.clone(),
            bytes: claimed.source_bytes,
            filename: claimed.filename.clone(),
            sha256: claimed.sha256.clone(),
        },
        early: dead.to_vec(),
    }
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WorkerProgress)]
pub(crate) struct Progress {
    fence: i64,
    #[schema(pattern = "^(fetch|probe|measure|encode|publish)$")]
    stage: String,
    /// 0 to 1 over the whole job.
    progress: f64,
}

/// A sign of life. Extends the lease.
#[utoipa::path(post, path = "/v1/worker/jobs/{job}/progress", request_body = Progress, responses((status = 200, body = Lease), (status = 409, description = "`lease-lost`")))]
pub(crate) async fn progress(
    State(parts): State<Shared>,
    Path(id): Path<String>,
    Body(said): Body<Progress>,
) -> Result<Json<Lease>, ApiError> {
    if !STAGES.contains(&said.stage.as_str()) {
        return Err(ApiError::invalid(format!("`stage` must be one of: {}", STAGES.join(", "))));
    }
    if !said.progress.is_finite() {
        return Err(ApiError::invalid("`progress` must be a number from 0 to 1"));
    }
    let (share, patience) = (said.progress.clamp(0.0, 1.0), parts.patience());
    let job = transaction!(parts.store, |tx| jobs::progress(
        tx,
        &id,
        said.fence,
        &said.stage,
        share,
        patience,
        clock::now_ms()
    )
    .await)?;
    let job = job.map_err(|_| ApiError::lease_lost())?;
    parts.tell_job(&job).await;
    Ok(Json(Lease { lease_ms: patience.lease_ms }))
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WorkerEarly)]
pub(crate) struct Early {
    fence: i64,
    version: String,
}

/// The attempt can be played while the rest of it is encoded: from now on tickets lead to its `early.m3u8`. The alias
/// stays as it is until the result is published, so that nothing that a late worker says can move it.
#[utoipa::path(post, path = "/v1/worker/jobs/{job}/early", request_body = Early, responses((status = 200, body = EarlyNoted), (status = 409, description = "`lease-lost`")))]
pub(crate) async fn early(
    State(parts): State<Shared>,
    Path(id): Path<String>,
    Body(said): Body<Early>,
) -> Result<Json<EarlyNoted>, ApiError> {
    check_version(&said.version, said.fence)?;
    let now = clock::now_ms();
    let track = transaction!(parts.store, |tx| early::note(tx, (&id, said.fence), &said.version, now).await)?;
    let track = track.map_err(|_| ApiError::lease_lost())?;
    parts.tell_track(&track).await;
    Ok(Json(EarlyNoted { job: id, track }))
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = WorkerComplete)]
pub(crate) struct Complete {
    fence: i64,
    #[serde(flatten)]
    published: Published,
}

/// The result. Once this answers 200 it is kept, and the track will be published whatever happens to the worker.
#[utoipa::path(post, path = "/v1/worker/jobs/{job}/complete", request_body = Complete, responses((status = 200, body = Ended), (status = 409, description = "`lease-lost`")))]
pub(crate) async fn complete(
    State(parts): State<Shared>,
    Path(id): Path<String>,
    Body(complete): Body<Complete>,
) -> Result<Json<Ended>, ApiError> {
    check_result(&complete)?;
    let taken = publication::accept(&parts, &id, complete.fence, &complete.published).await?;
    let job = taken.map_err(|_| ApiError::lease_lost())?;
    // Carried to its end even where the worker hangs up.
    let publisher = Shared::clone(&parts);
    let task =
        parts.tasks.spawn(async move { publication::carry_out(&publisher, &job).await.map(|ended| (job, ended)) });
    let (job, ended) =
        task.await.map_err(|error| ApiError::Internal(format!("publishing a track panicked: {error}")))??;
    let state = ended.map_or(job.state, |job| job.state);
    Ok(Json(Ended { job: id, state }))
}

/// The folder must be the attempt's own.
fn check_version(version: &str, fence: i64) -> Result<(), ApiError> {
    let spelled =
        version.len() <= 64 && version.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if spelled && version.ends_with(&format!("-{fence}")) {
        return Ok(());
    }
    Err(ApiError::invalid("`version` must be lower-case letters and digits that end in -<fence>"))
}

/// The alias must name nothing but the attempt's own folder, and the folder must be this attempt's.
fn check_result(complete: &Complete) -> Result<(), ApiError> {
    let Published { version, master, renditions, .. } = &complete.published;
    check_version(version, complete.fence)?;
    if master.len() > MASTER_MAX || !master.starts_with("#EXTM3U") {
        return Err(ApiError::invalid("`master` is not a playlist (RFC 8216, section 4.3.1.1), or is too long"));
    }
    let folder = format!("{version}/");
    // A line of its own, or an attribute of a tag (EXT-X-MEDIA).
    let named =
        |line: &'_ str| line.split_once("URI=\"").and_then(|(_, rest)| rest.split('"').next().map(str::to_owned));
    let lines = master.lines().map(str::trim).filter(|line| !line.is_empty());
    let uris: Vec<String> =
        lines.filter_map(|line| if line.starts_with('#') { named(line) } else { Some(line.to_owned()) }).collect();
    let stray = |uri: &&String| !uri.starts_with(&folder) || uri.split('/').any(|part| part == ".." || part.is_empty());
    if let Some(uri) = uris.iter().find(stray) {
        return Err(ApiError::invalid(format!("`master` names {uri:?}, which is not under {folder}")));
    }
    if uris.is_empty() || renditions.len() > 64 {
        return Err(ApiError::invalid("`master` names no rendition, or there are more than 64"));
    }
    Ok(())
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WorkerFail)]
pub(crate) struct Fail {
    fence: i64,
    /// Word.
    #[schema(pattern = "^[a-z0-9-]{1,64}$")]
    reason: String,
    /// Sentence for a person about what went wrong.
    message: String,
    retryable: bool,
}

/// A failed attempt: tried again after a pause where that may help and attempts are left.
#[utoipa::path(post, path = "/v1/worker/jobs/{job}/fail", request_body = Fail, responses((status = 200, body = Ended), (status = 409, description = "`lease-lost`")))]
pub(crate) async fn fail(
    State(parts): State<Shared>,
    Path(id): Path<String>,
    Body(said): Body<Fail>,
) -> Result<Json<Ended>, ApiError> {
    let word = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if said.reason.is_empty() || said.reason.len() > REASON_MAX || !word(&said.reason) {
        return Err(ApiError::invalid("`reason` must be a word of lower-case letters, digits and dashes"));
    }
    let message = bounded(&said.message, MESSAGE_MAX);
    let ending = Ending::said(&said.reason, message, said.retryable);
    let job = transaction!(parts.store, |tx| {
        jobs::end(tx, (&id, said.fence), JobState::Running, ending, parts.patience(), clock::now_ms()).await
    })?;
    let job = job.map_err(|_| ApiError::lease_lost())?;
    parts.wake_workers();
    parts.tell_job(&job).await;
    Ok(Json(Ended { job: id, state: job.state }))
}

/// The longest beginning of `text` that has at most `max` bytes.
fn bounded(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("")
}
