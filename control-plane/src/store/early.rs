//! Attempts that can be played while they are still encoded.
//!
//! Invariants: only the attempt that holds a job's newest fence is given to new listeners, and only while it runs or is
//! being published; one that died stays noted until its job has ended, so that the next attempt carries its listeners
//! on. Nothing here moves the alias: a late word of a dead attempt changes a row that nobody is given.

use std::collections::HashMap;

use super::dialect::{args, locked};
use super::jobs::LeaseLost;
use super::{Store, StoreError, Write};

/// Notes that a running attempt can be played; answers its track. Said twice, it is noted once.
pub(crate) async fn note(
    tx: &mut Write,
    (job, fence): (&str, i64),
    version: &str,
    now: i64,
) -> Result<Result<String, LeaseLost>, StoreError> {
    // Locked, so that it is not taken back before its row is written.
    let select = "SELECT track FROM jobs WHERE id = ? AND fence = ? AND state = 'running'";
    let track: Option<(String,)> = locked(tx, select, args![job, fence]).await?;
    let Some((track,)) = track else { return Ok(Err(LeaseLost)) };
    sqlx::query("DELETE FROM early WHERE job = ? AND fence = ?").bind(job).bind(fence).execute(&mut **tx).await?;
    sqlx::query("INSERT INTO early (job, fence, version, created_ms) VALUES (?, ?, ?, ?)")
        .bind(job)
        .bind(fence)
        .bind(version)
        .bind(now)
        .execute(&mut **tx)
        .await?;
    Ok(Ok(track))
}

/// Versions of attempts before `fence`, oldest first.
pub(crate) async fn dead(tx: &mut Write, job: &str, fence: i64) -> Result<Vec<String>, StoreError> {
    Ok(sqlx::query_scalar("SELECT version FROM early WHERE job = ? AND fence < ? ORDER BY fence")
        .bind(job)
        .bind(fence)
        .fetch_all(&mut **tx)
        .await?)
}

/// The version of a track that can be played now, though the track is not ready.
pub(crate) async fn of_track(store: &Store, track: &str) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar(
        "SELECT e.version FROM early e JOIN jobs j ON j.id = e.job AND j.fence = e.fence \
         WHERE j.track = ? AND j.state IN ('running', 'publishing')",
    )
    .bind(track)
    .fetch_optional(store.read())
    .await?)
}

/// The same for all tracks: as many rows as there are workers' slots.
pub(crate) async fn all(store: &Store) -> Result<HashMap<String, String>, StoreError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT j.track, e.version FROM early e JOIN jobs j ON j.id = e.job AND j.fence = e.fence \
         WHERE j.state IN ('running', 'publishing')",
    )
    .fetch_all(store.read())
    .await?;
    Ok(rows.into_iter().collect())
}

/// Forgets the attempts of jobs that have ended.
pub(crate) async fn prune(tx: &mut Write) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM early WHERE job IN (SELECT id FROM jobs WHERE state IN ('done', 'failed', 'cancelled'))")
        .execute(&mut **tx)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fixture;
    use crate::state::Parts;
    use crate::store::jobs::{self, Ending, State};

    const TRACK: &str = "aaaaaaaaaaaa";

    async fn claimed(parts: &Parts, now: i64) -> (i64, Vec<String>) {
        let mut tx = parts.store.begin().await.unwrap();
        let job = jobs::claim(&mut tx, fixture::CLAIMANT, parts.patience(), now).await.unwrap().unwrap().job;
        let dead = dead(&mut tx, "j", job.fence).await.unwrap();
        tx.commit().await.unwrap();
        (job.fence, dead)
    }

    async fn noted(parts: &Parts, fence: i64) -> bool {
        let mut tx = parts.store.begin().await.unwrap();
        let noted = note(&mut tx, ("j", fence), &format!("v-{fence}"), 1).await.unwrap();
        tx.commit().await.unwrap();
        noted.is_ok()
    }

    #[tokio::test]
    async fn only_the_attempt_that_lives_is_given_and_the_dead_ones_are_told_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let parts = fixture::parts(folder.path(), None).await;
        fixture::queued(&parts.store, TRACK, "j", 3, 0).await;
        let playable = async || of_track(&parts.store, TRACK).await.unwrap();
        let (first, dead) = claimed(&parts, 0).await;
        assert!(dead.is_empty() && playable().await.is_none());
        assert!(noted(&parts, first).await && noted(&parts, first).await, "a lost answer is asked for again");
        assert_eq!(playable().await.as_deref(), Some("v-1"));
        assert_eq!(all(&parts.store).await.unwrap().get(TRACK).map(String::as_str), Some("v-1"));

        let mut tx = parts.store.begin().await.unwrap();
        jobs::end(&mut tx, ("j", first), State::Running, Ending::Silent, parts.patience(), 10).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        assert_eq!(playable().await, None, "nobody is sent to a dead attempt");
        assert!(!noted(&parts, first).await, "its late word is not taken");

        let (second, dead) = claimed(&parts, i64::MAX / 4).await;
        assert_eq!(dead, ["v-1"]);
        assert!(noted(&parts, second).await);
        assert_eq!(playable().await.as_deref(), Some("v-2"));

        let mut tx = parts.store.begin().await.unwrap();
        let over = Ending::Failed { reason: "x", message: "x", retryable: false };
        jobs::end(&mut tx, ("j", second), State::Running, over, parts.patience(), 20).await.unwrap().unwrap();
        prune(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(playable().await, None);
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM early").fetch_one(parts.store.read()).await.unwrap();
        assert_eq!(left, 0);
    }
}
