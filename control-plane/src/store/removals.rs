//! Prefixes whose objects must go, and until when they are looked at again.
//!
//! A removal is written in the transaction that makes the objects needless, so that a crash cannot forget them. It is
//! repeated until its end, because a presigned upload or a worker that has not heard yet may write once more.

use sqlx::FromRow;

use super::{Store, StoreError, Write};

/// One prefix to empty.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Removal {
    /// Keys that start with this go.
    pub(crate) prefix: String,
    /// Keys that start with one of these lines stay: the folder of the published version, the alias. `None`: the
    /// track is gone, and nothing stays; else the removal waits while a job of the track is live.
    pub(crate) keep: Option<String>,
    pub(crate) until_ms: i64,
}

impl Removal {
    /// Whether an object is to stay.
    pub(crate) fn keeps(&self, key: &str) -> bool {
        self.keep.as_deref().is_some_and(|keep| keep.lines().any(|kept| !kept.is_empty() && key.starts_with(kept)))
    }
}

/// Notes a removal; a later one for the same prefix replaces what is kept and never ends earlier.
pub(crate) async fn note(
    tx: &mut Write,
    prefix: &str,
    keep: Option<&str>,
    due_ms: i64,
    until_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE removals SET keep = ?, due_ms = ?, until_ms = MAX(until_ms, ?) WHERE prefix = ?")
        .bind(keep)
        .bind(due_ms)
        .bind(until_ms)
        .bind(prefix)
        .execute(&mut **tx)
        .await?;
    sqlx::query(
        "INSERT INTO removals (prefix, keep, due_ms, until_ms) SELECT ?, ?, ?, ? \
         WHERE NOT EXISTS (SELECT 1 FROM removals WHERE prefix = ?)",
    )
    .bind(prefix)
    .bind(keep)
    .bind(due_ms)
    .bind(until_ms)
    .bind(prefix)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Removals that are due, the longest waiting first.
pub(crate) async fn due(store: &Store, now: i64, limit: u32) -> Result<Vec<Removal>, StoreError> {
    Ok(sqlx::query_as("SELECT prefix, keep, until_ms FROM removals WHERE due_ms <= ? ORDER BY due_ms LIMIT ?")
        .bind(now)
        .bind(i64::from(limit))
        .fetch_all(store.read())
        .await?)
}

/// After a removal ran: over at its end, else looked at again at `again_ms`.
pub(crate) async fn done(tx: &mut Write, removal: &Removal, again_ms: i64, now: i64) -> Result<(), StoreError> {
    if now >= removal.until_ms {
        sqlx::query("DELETE FROM removals WHERE prefix = ? AND until_ms = ?")
            .bind(&removal.prefix)
            .bind(removal.until_ms)
            .execute(&mut **tx)
            .await?;
        return Ok(());
    }
    sqlx::query("UPDATE removals SET due_ms = ? WHERE prefix = ?")
        .bind(again_ms.min(removal.until_ms))
        .bind(&removal.prefix)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Looks at it later, however late that is.
pub(crate) async fn postpone(tx: &mut Write, prefix: &str, due_ms: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE removals SET due_ms = ? WHERE prefix = ?").bind(due_ms).bind(prefix).execute(&mut **tx).await?;
    Ok(())
}
