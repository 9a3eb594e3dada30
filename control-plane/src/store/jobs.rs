//! Jobs: a table of our own, since a worker that comes back late must never publish.
//!
//! ```text
//!            claim (fence+1, attempt+1)      complete            alias written
//!   queued ───────────────────────────► running ────► publishing ─────────────► done
//!     ▲ ▲  tried again (see Ending)        │               │ given up
//!     │ └──────────────────────────────────┤ ended         ▼
//!     │  retry (all counts at 0)           ├──────────► failed
//!     ├────────────────────────────────────┼───────────────┘        delete of the track ends any state
//!     │  retry            cancel (queued,  ▼
//!     └─────────────────── running) ── cancelled
//! ```
//!
//! Invariants: a job is `running` for exactly the worker that holds its newest `fence`; every statement of a worker
//! names its fence, and one with an older fence changes nothing; `due_ms` says when the job needs attention next, in
//! every state; a job never leaves `publishing` before its alias is written or given up; only an attempt that a worker
//! itself calls failed is used up, a worker that stops or is lost gives it back. Of the jobs that are due the most urgent
//! goes first; among equals, one of the publisher with the fewest running, and of those the one that was served longest ago,
//! so that a thousand uploads of one hold up no other. Each function is one step in the
//! caller's transaction, takes the time as an argument and reads no clock.

mod ending;
mod publishing;

use serde::{Deserialize, Serialize};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::{FromRow, Row};

use super::dialect::{self, args};
use super::tracks::{self, Status};
use super::{Store, StoreError, Write, uploads};

pub(crate) use ending::{Ending, end, expire_leases, replace};
pub(crate) use publishing::{
    begin_publishing, due_publications, finish_publishing, pending_completion, postpone_publishing,
};

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = JobState)]
pub(crate) enum State {
    Queued,
    Running,
    Publishing,
    Done,
    Failed,
    Cancelled,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Publishing => "publishing",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        Ok(match text {
            "queued" => Self::Queued,
            "running" => Self::Running,
            "publishing" => Self::Publishing,
            "done" => Self::Done,
            "failed" => Self::Failed,
            "cancelled" => Self::Cancelled,
            other => return Err(StoreError::Unknown { column: "jobs.state", value: other.to_owned() }),
        })
    }
}

/// A row of `jobs`.
#[derive(Clone, Debug)]
pub(crate) struct JobRow {
    pub(crate) id: String,
    pub(crate) track: String,
    /// On whose behalf the track was added.
    pub(crate) publisher: String,
    pub(crate) state: State,
    pub(crate) priority: i64,
    /// Attempts that failed, and the one that runs.
    pub(crate) attempts: u32,
    pub(crate) max_attempts: u32,
    /// Times that its worker was lost. Counted apart from attempts: a machine that restarts is no fault of the file.
    pub(crate) losses: u32,
    pub(crate) fence: i64,
    pub(crate) progress: f64,
    pub(crate) stage: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) publish_tries: u32,
    pub(crate) created_ms: i64,
    pub(crate) updated_ms: i64,
}

impl JobRow {
    fn read(row: &AnyRow) -> Result<Self, StoreError> {
        let count = |column| row.try_get::<i64, _>(column).map(|count| u32::try_from(count).unwrap_or(0));
        Ok(Self {
            id: row.try_get("id")?,
            track: row.try_get("track")?,
            publisher: row.try_get("publisher")?,
            state: State::parse(row.try_get("state")?)?,
            priority: row.try_get("priority")?,
            attempts: count("attempts")?,
            max_attempts: count("max_attempts")?,
            losses: count("losses")?,
            fence: row.try_get("fence")?,
            progress: row.try_get("progress")?,
            stage: row.try_get("stage")?,
            reason: row.try_get("reason")?,
            message: row.try_get("message")?,
            publish_tries: count("publish_tries")?,
            created_ms: row.try_get("created_ms")?,
            updated_ms: row.try_get("updated_ms")?,
        })
    }
}

impl FromRow<'_, AnyRow> for JobRow {
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Self::read(row).map_err(|error| match error {
            StoreError::Sql(error) => error,
            other => sqlx::Error::Decode(Box::new(other)),
        })
    }
}

/// Who claims: one process that works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimant<'a> {
    /// Belongs to one process at a time.
    pub(crate) worker: &'a str,
    /// Random, made by the process at its start: tells it from the one that had its name before.
    pub(crate) instance: &'a str,
}

/// What a worker needs for a claimed job.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub(crate) job: JobRow,
    pub(crate) source_key: String,
    pub(crate) source_bytes: u64,
    pub(crate) filename: String,
    /// SHA-256 of the file in hex, where the publisher declared one.
    pub(crate) sha256: Option<String>,
}

/// How long a worker may be silent and how often a job is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Lease in milliseconds.
    pub(crate) lease_ms: i64,
    /// Wait before the second attempt, doubled for each further one.
    pub(crate) backoff_ms: i64,
    /// Longest wait.
    pub(crate) backoff_max_ms: i64,
}

impl Patience {
    /// Wait after this many failed attempts or lost workers.
    pub(crate) fn backoff(&self, failures: u32) -> i64 {
        let doubled = self.backoff_ms.saturating_mul(1i64 << failures.saturating_sub(1).min(20));
        doubled.min(self.backoff_max_ms)
    }
}

/// Reason and message of a job that was cancelled, and of its track.
const CANCELLED: (&str, &str) = ("cancelled", "The transcode was cancelled. Retry it, or delete the track.");

/// Jobs that one claim looks at: where as many others claim at the same time, it looks again a moment later.
const CANDIDATES: i64 = 16;

/// Why a worker's word about a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseLost;

/// Puts a job in the queue, in the transaction that makes its track `queued`.
pub(crate) async fn enqueue(
    tx: &mut Write,
    id: &str,
    track: &str,
    max_attempts: u32,
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO jobs (id, track, publisher, state, max_attempts, due_ms, stage, created_ms, updated_ms) \
         SELECT ?, id, publisher, 'queued', ?, ?, 'queued', ?, ? FROM tracks WHERE id = ?",
    )
    .bind(id)
    .bind(i64::from(max_attempts))
    .bind(now)
    .bind(now)
    .bind(now)
    .bind(track)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(crate) async fn get(store: &Store, id: &str) -> Result<Option<JobRow>, StoreError> {
    Ok(sqlx::query_as("SELECT * FROM jobs WHERE id = ?").bind(id).fetch_optional(store.read()).await?)
}

/// The job that was created last for a track.
pub(crate) async fn latest_of(store: &Store, track: &str) -> Result<Option<JobRow>, StoreError> {
    Ok(sqlx::query_as("SELECT * FROM jobs WHERE track = ? ORDER BY created_ms DESC, id DESC LIMIT 1")
        .bind(track)
        .fetch_optional(store.read())
        .await?)
}

/// Newest first.
pub(crate) async fn list(
    store: &Store,
    state: Option<State>,
    before: Option<(i64, &str)>,
    limit: u32,
) -> Result<Vec<JobRow>, StoreError> {
    let (created, id) = before.unwrap_or((i64::MAX, ""));
    let word = state.map(State::word);
    Ok(sqlx::query_as(
        "SELECT * FROM jobs WHERE (? IS NULL OR state = ?) AND (created_ms < ? OR (created_ms = ? AND id < ?)) \
         ORDER BY created_ms DESC, id DESC LIMIT ?",
    )
    .bind(word)
    .bind(word)
    .bind(created)
    .bind(created)
    .bind(id)
    .bind(i64::from(limit))
    .fetch_all(store.read())
    .await?)
}

/// Changes a job where `guard` holds, and gives it as it then is; the guard's arguments come last.
async fn change(
    tx: &mut Write,
    id: &str,
    changes: &str,
    guard: &str,
    args: AnyArguments,
) -> Result<Option<JobRow>, StoreError> {
    dialect::changed(tx, "jobs", changes, guard, args, id).await
}

/// Hands the next due job to a worker. Looking takes no lock; what is taken is taken by one guarded statement, and one
/// that another claim is about to take is passed over.
pub(crate) async fn claim(
    tx: &mut Write,
    claimant: Claimant<'_>,
    patience: Patience,
    now: i64,
) -> Result<Option<Claimed>, StoreError> {
    let candidates: Vec<String> = sqlx::query_scalar(
        "SELECT q.id FROM jobs q \
         LEFT JOIN (SELECT publisher, COUNT(*) AS running FROM jobs WHERE state = 'running' GROUP BY publisher) r \
         ON r.publisher = q.publisher LEFT JOIN queue_turns t ON t.publisher = q.publisher \
         WHERE q.state = 'queued' AND q.due_ms <= ? ORDER BY q.priority DESC, COALESCE(r.running, 0), \
         COALESCE(t.served_ms, 0), q.created_ms, q.id LIMIT ?",
    )
    .bind(now)
    .bind(CANDIDATES)
    .fetch_all(&mut **tx)
    .await?;
    for id in candidates {
        if let Some(job) = take(tx, &id, claimant, patience, now).await? {
            tracks::follow_job(tx, &job.track, Status::Transcoding, None, now).await?;
            let turn = "queue_turns (publisher, served_ms) VALUES (?, ?)";
            dialect::upsert(tx, turn, "publisher", "served_ms = new(served_ms)", args![&job.publisher, now]).await?;
            let (source_key, bytes, filename): (String, i64, String) =
                sqlx::query_as("SELECT upload_key, bytes, filename FROM tracks WHERE id = ?")
                    .bind(&job.track)
                    .fetch_one(&mut **tx)
                    .await?;
            let sha256 = uploads::declared(tx, &job.track).await?;
            let source_bytes = u64::try_from(bytes).unwrap_or(0);
            return Ok(Some(Claimed { job, source_key, source_bytes, filename, sha256 }));
        }
    }
    Ok(None)
}

/// Takes one job, unless somebody else took it or is about to.
async fn take(
    tx: &mut Write,
    id: &str,
    claimant: Claimant<'_>,
    patience: Patience,
    now: i64,
) -> Result<Option<JobRow>, StoreError> {
    if !dialect::free(tx, "SELECT id FROM jobs WHERE id = ? AND state = 'queued'", args![id]).await? {
        return Ok(None);
    }
    change(
        tx,
        id,
        "state = 'running', fence = fence + 1, attempts = attempts + 1, worker = ?, instance = ?, due_ms = ?, \
         progress = 0, stage = 'fetch', reason = NULL, message = NULL, completion = NULL, updated_ms = ?",
        "state = 'queued' AND due_ms <= ?",
        args![claimant.worker, claimant.instance, now + patience.lease_ms, now, now],
    )
    .await
}

/// When the next queued job is due, for a claimer that found none.
pub(crate) async fn next_due(store: &Store) -> Result<Option<i64>, StoreError> {
    Ok(sqlx::query_scalar("SELECT MIN(due_ms) FROM jobs WHERE state = 'queued'").fetch_one(store.read()).await?)
}

/// A sign of life: records progress and extends the lease. An expired lease that nobody took yet is still held.
pub(crate) async fn progress(
    tx: &mut Write,
    id: &str,
    fence: i64,
    stage: &str,
    progress: f64,
    patience: Patience,
    now: i64,
) -> Result<Result<JobRow, LeaseLost>, StoreError> {
    let job = change(
        tx,
        id,
        "stage = ?, progress = ?, due_ms = ?, updated_ms = ?",
        "state = 'running' AND fence = ?",
        args![stage, progress, now + patience.lease_ms, now, fence],
    )
    .await?;
    Ok(job.ok_or(LeaseLost))
}

/// Ends a job that nobody wants any more. A worker that has it hears so at its next word. `None`: there is no such job that
/// is queued or running.
pub(crate) async fn cancel(
    tx: &mut Write,
    id: &str,
    patience: Patience,
    now: i64,
) -> Result<Option<JobRow>, StoreError> {
    let job = change(
        tx,
        id,
        "state = 'cancelled', reason = ?, message = ?, worker = NULL, instance = NULL, due_ms = ?, updated_ms = ?",
        "state IN ('queued', 'running')",
        args![CANCELLED.0, CANCELLED.1, now, now],
    )
    .await?;
    if let Some(job) = &job {
        if job.fence > 0 {
            ending::leftovers(tx, job, patience, now).await?;
        }
        tracks::follow_job(tx, &job.track, Status::Failed, Some(CANCELLED), now).await?;
    }
    Ok(job)
}

/// Sets how urgent a queued job is. `None`: there is no such job in the queue.
pub(crate) async fn set_priority(
    tx: &mut Write,
    id: &str,
    priority: i64,
    now: i64,
) -> Result<Option<JobRow>, StoreError> {
    change(tx, id, "priority = ?, updated_ms = ?", "state = 'queued'", args![priority, now]).await
}

/// Forgets when publishers were served whom nobody remembers any more, at most `limit`.
pub(crate) async fn prune(tx: &mut Write, served_before: i64, limit: u32) -> Result<(), StoreError> {
    dialect::delete_some(tx, "queue_turns", "publisher", "served_ms < ?", args![served_before], limit).await?;
    Ok(())
}

/// Puts a failed or cancelled job back, with nothing counted against it. `None`: there is no such job.
pub(crate) async fn retry(tx: &mut Write, id: &str, now: i64) -> Result<Option<JobRow>, StoreError> {
    let job = change(
        tx,
        id,
        "state = 'queued', stage = 'queued', attempts = 0, losses = 0, progress = 0, reason = NULL, message = NULL, \
         due_ms = ?, updated_ms = ?",
        "state IN ('failed', 'cancelled')",
        args![now, now],
    )
    .await?;
    if let Some(job) = &job {
        tracks::follow_job(tx, &job.track, Status::Queued, None, now).await?;
    }
    Ok(job)
}

#[cfg(test)]
mod tests;
