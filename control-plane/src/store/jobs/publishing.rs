//! A job's publication: the result is taken over, the alias is written by the caller in between, the job is done.

use super::ending::leftovers;
use super::{JobRow, LeaseLost, Patience, change};
use crate::store::dialect::args;
use crate::store::tracks::{self, Published};
use crate::store::{Store, StoreError, Write};

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
    let job = change(
        tx,
        id,
        "state = 'publishing', stage = 'publish', progress = 1, completion = ?, due_ms = ?, publish_tries = 0, \
         updated_ms = ?",
        "state = 'running' AND fence = ?",
        args![serde_json::to_string(published)?, retry_at, now, fence],
    )
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

/// Second half of publication, after the alias is written: the job is done, the track is ready.
pub(crate) async fn finish_publishing(
    tx: &mut Write,
    (id, fence): (&str, i64),
    patience: Patience,
    now: i64,
) -> Result<Option<JobRow>, StoreError> {
    let done = "state = 'done', reason = NULL, message = NULL, updated_ms = ?";
    let job = change(tx, id, done, "state = 'publishing' AND fence = ?", args![now, fence]).await?;
    let Some(job) = job else { return Ok(None) };
    if let Some(published) = completion(tx, id).await? {
        tracks::publish(tx, &job.track, &published, now).await?;
        if job.fence > 1 {
            leftovers(tx, &job, patience, now).await?;
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
