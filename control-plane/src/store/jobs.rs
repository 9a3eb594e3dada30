//! Jobs: a table of our own, since a worker that comes back late must never publish.
//!
//! ```text
//!            claim (fence+1, attempt+1)      complete            alias written
//!   queued ───────────────────────────► running ────► publishing ─────────────► done
//!     ▲ ▲  back-off, attempts left         │               │ given up
//!     │ └──────────────────────────────────┤ lease over    ▼
//!     │  retry (attempts = 0)              └──────────► failed
//!     └──────────────────────────────────────────────────┘        delete of the track ends any state
//! ```
//!
//! Invariants: a job is `running` for exactly the worker that holds its newest `fence`; every statement of a worker
//! names its fence, and one with an older fence changes nothing; `due_ms` says when the job needs attention next, in
//! every state; a job never leaves `publishing` before its alias is written or given up. Each function is one step
//! in the caller's transaction, takes the time as an argument and reads no clock.

use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

use super::tracks::{self, Published, Status};
use super::{Store, StoreError, Write, removals};
use crate::objects;

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
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
    pub(crate) state: State,
    pub(crate) priority: i64,
    pub(crate) attempts: u32,
    pub(crate) max_attempts: u32,
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
    fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.try_get("id")?,
            track: row.try_get("track")?,
            state: State::parse(row.try_get("state")?)?,
            priority: row.try_get("priority")?,
            attempts: row.try_get("attempts")?,
            max_attempts: row.try_get("max_attempts")?,
            fence: row.try_get("fence")?,
            progress: row.try_get("progress")?,
            stage: row.try_get("stage")?,
            reason: row.try_get("reason")?,
            message: row.try_get("message")?,
            publish_tries: row.try_get("publish_tries")?,
            created_ms: row.try_get("created_ms")?,
            updated_ms: row.try_get("updated_ms")?,
        })
    }
}

impl FromRow<'_, SqliteRow> for JobRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Self::read(row).map_err(|error| match error {
            StoreError::Sql(error) => error,
            other => sqlx::Error::Decode(Box::new(other)),
        })
    }
}

/// What a worker needs for a claimed job.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub(crate) job: JobRow,
    pub(crate) source_key: String,
    pub(crate) source_bytes: u64,
    pub(crate) filename: String,
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
    /// Wait after `attempts` failed attempts.
    pub(crate) fn backoff(&self, attempts: u32) -> i64 {
        let doubled = self.backoff_ms.saturating_mul(1i64 << attempts.saturating_sub(1).min(20));
        doubled.min(self.backoff_max_ms)
    }
}

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
        "INSERT INTO jobs (id, track, state, max_attempts, due_ms, stage, created_ms, updated_ms) \
         VALUES (?, ?, 'queued', ?, ?, 'queued', ?, ?)",
    )
    .bind(id)
    .bind(track)
    .bind(max_attempts)
    .bind(now)
    .bind(now)
    .bind(now)
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
pub(crate) async fn list(store: &Store, before: Option<(i64, &str)>, limit: u32) -> Result<Vec<JobRow>, StoreError> {
    let (created, id) = before.unwrap_or((i64::MAX, ""));
    Ok(sqlx::query_as(
        "SELECT * FROM jobs WHERE created_ms < ? OR (created_ms = ? AND id < ?) \
         ORDER BY created_ms DESC, id DESC LIMIT ?",
    )
    .bind(created)
    .bind(created)
    .bind(id)
    .bind(i64::from(limit))
    .fetch_all(store.read())
    .await?)
}

/// Hands the most urgent due job to a worker: one statement, so that no two claims can take the same one.
pub(crate) async fn claim(
    tx: &mut Write,
    worker: &str,
    patience: Patience,
    now: i64,
) -> Result<Option<Claimed>, StoreError> {
    let job: Option<JobRow> = sqlx::query_as(
        "UPDATE jobs SET state = 'running', fence = fence + 1, attempts = attempts + 1, worker = ?, due_ms = ?, \
         progress = 0, stage = 'fetch', reason = NULL, message = NULL, completion = NULL, updated_ms = ? \
         WHERE state = 'queued' AND id = (SELECT id FROM jobs WHERE state = 'queued' AND due_ms <= ? \
         ORDER BY priority DESC, created_ms, id LIMIT 1) RETURNING *",
    )
    .bind(worker)
    .bind(now + patience.lease_ms)
    .bind(now)
    .bind(now)
    .fetch_optional(&mut **tx)
    .await?;
    let Some(job) = job else { return Ok(None) };
    tracks::follow_job(tx, &job.track, Status::Transcoding, None, now).await?;
    let (source_key, bytes, filename): (String, i64, String) =
        sqlx::query_as("SELECT upload_key, bytes, filename FROM tracks WHERE id = ?")
            .bind(&job.track)
            .fetch_one(&mut **tx)
            .await?;
    Ok(Some(Claimed { job, source_key, source_bytes: u64::try_from(bytes).unwrap_or(0), filename }))
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
    let job: Option<JobRow> = sqlx::query_as(
        "UPDATE jobs SET stage = ?, progress = ?, due_ms = ?, updated_ms = ? \
         WHERE id = ? AND fence = ? AND state = 'running' RETURNING *",
    )
    .bind(stage)
    .bind(progress)
    .bind(now + patience.lease_ms)
    .bind(now)
    .bind(id)
    .bind(fence)
    .fetch_optional(&mut **tx)
    .await?;
    Ok(job.ok_or(LeaseLost))
}

/// First half of publication: the worker's result is ours from here on, whatever happens to the worker.
///
/// A repeated call with the same fence and version (its first answer was lost) is answered as the first one.
pub(crate) async fn begin_publishing(
    tx: &mut Write,
    id: &str,
    fence: i64,
    published: &Published,
    retry_at: i64,
    now: i64,
) -> Result<Result<JobRow, LeaseLost>, StoreError> {
    let job: Option<JobRow> = sqlx::query_as(
        "UPDATE jobs SET state = 'publishing', stage = 'publish', progress = 1, completion = ?, due_ms = ?, \
         publish_tries = 0, updated_ms = ? WHERE id = ? AND fence = ? AND state = 'running' RETURNING *",
    )
    .bind(serde_json::to_string(published)?)
    .bind(retry_at)
    .bind(now)
    .bind(id)
    .bind(fence)
    .fetch_optional(&mut **tx)
    .await?;
    if let Some(job) = job {
        return Ok(Ok(job));
    }
    let before: Option<JobRow> =
        sqlx::query_as("SELECT * FROM jobs WHERE id = ? AND fence = ? AND state IN ('publishing', 'done')")
            .bind(id)
            .bind(fence)
            .fetch_optional(&mut **tx)
            .await?;
    let Some(before) = before else { return Ok(Err(LeaseLost)) };
    let same = completion(tx, id).await?.is_some_and(|completion| completion.version == published.version);
    Ok(if same { Ok(before) } else { Err(LeaseLost) })
}

/// The result that a worker handed over with its completion.
pub(crate) async fn completion(tx: &mut Write, id: &str) -> Result<Option<Published>, StoreError> {
    let text: Option<Option<String>> =
        sqlx::query_scalar("SELECT completion FROM jobs WHERE id = ?").bind(id).fetch_optional(&mut **tx).await?;
    Ok(text.flatten().as_deref().map(serde_json::from_str).transpose()?)
}

/// The same, outside of a transaction, while the job is `publishing`.
pub(crate) async fn pending_completion(store: &Store, id: &str, fence: i64) -> Result<Option<Published>, StoreError> {
    let text: Option<Option<String>> =
        sqlx::query_scalar("SELECT completion FROM jobs WHERE id = ? AND fence = ? AND state = 'publishing'")
            .bind(id)
            .bind(fence)
            .fetch_optional(store.read())
            .await?;
    Ok(text.flatten().as_deref().map(serde_json::from_str).transpose()?)
}

/// Whether a job of this track is queued, running or publishing.
pub(crate) async fn is_live(store: &Store, track: &str) -> Result<bool, StoreError> {
    let live: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM jobs WHERE track = ? AND state IN ('queued', 'running', 'publishing')",
    )
    .bind(track)
    .fetch_one(store.read())
    .await?;
    Ok(live > 0)
}

/// Second half of publication, after the alias is written: the job is done, the track is ready.
pub(crate) async fn finish_publishing(
    tx: &mut Write,
    (id, fence): (&str, i64),
    patience: Patience,
    now: i64,
) -> Result<Option<JobRow>, StoreError> {
    let job: Option<JobRow> = sqlx::query_as(
        "UPDATE jobs SET state = 'done', reason = NULL, message = NULL, updated_ms = ? \
         WHERE id = ? AND fence = ? AND state = 'publishing' RETURNING *",
    )
    .bind(now)
    .bind(id)
    .bind(fence)
    .fetch_optional(&mut **tx)
    .await?;
    let Some(job) = job else { return Ok(None) };
    if let Some(published) = completion(tx, id).await? {
        tracks::publish(tx, &job.track, &published, now).await?;
        if job.fence > 1 {
            // Folders of earlier attempts; their workers may still write for a while.
            let folder = objects::media_prefix(&job.track);
            let keep = format!("{folder}{}/\n{}", published.version, objects::alias_key(&job.track));
            let due = now + 2 * patience.lease_ms;
            removals::note(tx, &folder, Some(&keep), due, due).await?;
        }
    }
    Ok(Some(job))
}

/// The alias could not be written: says so on the job, and when it is tried again.
pub(crate) async fn postpone_publishing(
    tx: &mut Write,
    id: &str,
    fence: i64,
    message: &str,
    due_ms: i64,
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE jobs SET reason = 'publish-failed', message = ?, publish_tries = publish_tries + 1, due_ms = ?, \
         updated_ms = ? WHERE id = ? AND fence = ? AND state = 'publishing'",
    )
    .bind(message)
    .bind(due_ms)
    .bind(now)
    .bind(id)
    .bind(fence)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Publications that were interrupted or postponed and are due, oldest first.
pub(crate) async fn due_publications(store: &Store, now: i64, limit: u32) -> Result<Vec<JobRow>, StoreError> {
    Ok(sqlx::query_as("SELECT * FROM jobs WHERE state = 'publishing' AND due_ms <= ? ORDER BY due_ms LIMIT ?")
        .bind(now)
        .bind(i64::from(limit))
        .fetch_all(store.read())
        .await?)
}

/// A worker gives up an attempt, or a publication is given up. Retryable failures go back to the queue after a
/// pause while attempts are left; the others fail job and track.
///
/// `from` is the state that the caller speaks for: a worker can fail a running job, not a publication that is ours.
pub(crate) async fn fail(
    tx: &mut Write,
    (id, fence): (&str, i64),
    from: State,
    why: (&str, &str),
    retryable: bool,
    patience: Patience,
    now: i64,
) -> Result<Result<JobRow, LeaseLost>, StoreError> {
    let held: Option<JobRow> = sqlx::query_as("SELECT * FROM jobs WHERE id = ? AND fence = ? AND state = ?")
        .bind(id)
        .bind(fence)
        .bind(from.word())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(job) = held else { return Ok(Err(LeaseLost)) };
    let again = retryable && job.attempts < job.max_attempts;
    let (state, status, due) = if again {
        ("queued", Status::Queued, now + patience.backoff(job.attempts))
    } else {
        ("failed", Status::Failed, now)
    };
    let job: JobRow = sqlx::query_as(
        "UPDATE jobs SET state = ?, stage = CASE WHEN ? = 'queued' THEN 'queued' ELSE stage END, \
         progress = 0, reason = ?, message = ?, worker = NULL, due_ms = ?, updated_ms = ? WHERE id = ? RETURNING *",
    )
    .bind(state)
    .bind(state)
    .bind(why.0)
    .bind(why.1)
    .bind(due)
    .bind(now)
    .bind(id)
    .fetch_one(&mut **tx)
    .await?;
    if !again {
        // What its attempts left behind. Looked at once they are surely over, and only if nobody tries again.
        let due = now + 2 * patience.lease_ms;
        removals::note(tx, &objects::media_prefix(&job.track), Some(""), due, due).await?;
    }
    let shown = (!again).then_some(why);
    tracks::follow_job(tx, &job.track, status, shown, now).await?;
    Ok(Ok(job))
}

/// Takes back jobs whose worker fell silent. At most `limit`, so that a sweep stays short.
pub(crate) async fn expire_leases(
    tx: &mut Write,
    patience: Patience,
    now: i64,
    limit: u32,
) -> Result<Vec<JobRow>, StoreError> {
    let silent: Vec<(String, i64)> =
        sqlx::query_as("SELECT id, fence FROM jobs WHERE state = 'running' AND due_ms < ? ORDER BY due_ms LIMIT ?")
            .bind(now)
            .bind(i64::from(limit))
            .fetch_all(&mut **tx)
            .await?;
    let why = ("worker-lost", "The worker stopped answering while it transcoded this file.");
    let mut taken = Vec::with_capacity(silent.len());
    for (id, fence) in silent {
        if let Ok(job) = fail(tx, (&id, fence), State::Running, why, true, patience, now).await? {
            taken.push(job);
        }
    }
    Ok(taken)
}

/// Puts a failed job back, with all its attempts. `None`: there is no such job in `failed`.
pub(crate) async fn retry(tx: &mut Write, id: &str, now: i64) -> Result<Option<JobRow>, StoreError> {
    let job: Option<JobRow> = sqlx::query_as(
        "UPDATE jobs SET state = 'queued', stage = 'queued', attempts = 0, progress = 0, reason = NULL, \
         message = NULL, due_ms = ?, updated_ms = ? WHERE id = ? AND state = 'failed' RETURNING *",
    )
    .bind(now)
    .bind(now)
    .bind(id)
    .fetch_optional(&mut **tx)
    .await?;
    if let Some(job) = &job {
        tracks::follow_job(tx, &job.track, Status::Queued, None, now).await?;
    }
    Ok(job)
}

#[cfg(test)]
mod tests;
