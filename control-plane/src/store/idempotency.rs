//! Requests that came with a key of their own, and what was answered to them.

use sqlx::FromRow;

use super::dialect::{args, delete_some, insert_new, locked};
use super::{Store, StoreError, Write, transaction};

/// A request. Times are ms since the epoch.
#[derive(Clone, FromRow)]
pub(crate) struct Known {
    pub(crate) fingerprint: String,
    pub(crate) holder: String,
    pub(crate) created_ms: i64,
    /// It is over by then, whatever became of it.
    pub(crate) until_ms: i64,
    /// `None`: it has no answer yet.
    pub(crate) status: Option<i64>,
    /// Sealed.
    pub(crate) answer: Option<Vec<u8>>,
}

/// Who carries a request out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) id: &'a str,
    pub(crate) holder: &'a str,
}

/// Takes a request to be carried out, or gives what is known of it. What is older than `fresh_from` is not known any more.
pub(crate) async fn claim(
    store: &Store,
    claim: Claim<'_>,
    fingerprint: &str,
    (now, until_ms, fresh_from): (i64, i64, i64),
) -> Result<Option<Known>, StoreError> {
    transaction!(store, |tx| {
        let row = "idempotency (id, fingerprint, holder, created_ms, until_ms) VALUES (?, ?, ?, ?, ?)";
        let (id, holder) = (claim.id, claim.holder);
        if insert_new(tx, row, args![id, fingerprint, holder, now, until_ms]).await? {
            return Ok(None);
        }
        let sql = "SELECT fingerprint, holder, created_ms, until_ms, status, answer FROM idempotency WHERE id = ?";
        let known: Option<Known> = locked(tx, sql, args![id]).await?;
        let old = known.as_ref().is_none_or(|known| known.created_ms < fresh_from);
        if !old {
            return Ok(known);
        }
        // It was swept in between, or is about to be.
        sqlx::query("DELETE FROM idempotency WHERE id = ?").bind(id).execute(&mut **tx).await?;
        insert_new(tx, row, args![id, fingerprint, holder, now, until_ms]).await?;
        Ok::<_, StoreError>(None)
    })
}

/// Stores the answer.
pub(crate) async fn answered(
    store: &Store,
    claim: Claim<'_>,
    status: u16,
    answer: Option<&[u8]>,
) -> Result<(), StoreError> {
    transaction!(store, |tx| {
        sqlx::query("UPDATE idempotency SET status = ?, answer = ? WHERE id = ? AND holder = ?")
            .bind(i64::from(status))
            .bind(answer)
            .bind(claim.id)
            .bind(claim.holder)
            .execute(&mut **tx)
            .await?;
        Ok(())
    })
}

/// Forgets a request of which nothing came.
pub(crate) async fn release(store: &Store, claim: Claim<'_>) -> Result<(), StoreError> {
    transaction!(store, |tx| {
        sqlx::query("DELETE FROM idempotency WHERE id = ? AND holder = ?")
            .bind(claim.id)
            .bind(claim.holder)
            .execute(&mut **tx)
            .await?;
        Ok(())
    })
}

/// The age of the newest one that is one too many.
pub(crate) async fn beyond(store: &Store, rows: u32) -> Result<Option<i64>, StoreError> {
    Ok(sqlx::query_scalar("SELECT created_ms FROM idempotency ORDER BY created_ms DESC LIMIT 1 OFFSET ?")
        .bind(i64::from(rows))
        .fetch_optional(store.read())
        .await?)
}

/// Forgets those from up to this time, at most `limit`. How many they were.
pub(crate) async fn prune(tx: &mut Write, until_ms: i64, limit: u32) -> Result<u64, StoreError> {
    delete_some(tx, "idempotency", "id", "created_ms <= ?", args![until_ms], limit).await
}
