//! What edges are told beside the key secrets (those stay in the configuration): purge generations and the revision.

use std::collections::BTreeMap;

use super::{Store, StoreError, Write};

/// Raises a track's purge generation. It follows the clock and never falls or repeats, so that a database restored
/// from a backup cannot bring purged bytes back.
pub(crate) async fn raise_generation(tx: &mut Write, track: &str, now: i64) -> Result<u64, StoreError> {
    let last: Option<i64> = sqlx::query_scalar("SELECT generation FROM purges WHERE track = ?")
        .bind(track)
        .fetch_optional(&mut **tx)
        .await?;
    let generation = now.max(last.unwrap_or(0) + 1);
    let query = match last {
        Some(_) => sqlx::query("UPDATE purges SET generation = ? WHERE track = ?").bind(generation).bind(track),
        None => sqlx::query("INSERT INTO purges (track, generation) VALUES (?, ?)").bind(track).bind(generation),
    };
    query.execute(&mut **tx).await?;
    Ok(u64::try_from(generation).unwrap_or(0))
}

/// The next revision of the snapshot; follows the clock for the same reason.
pub(crate) async fn raise_revision(tx: &mut Write, now: i64) -> Result<u64, StoreError> {
    let last: i64 =
        sqlx::query_scalar("SELECT revision FROM snapshot_revision WHERE one = 1").fetch_one(&mut **tx).await?;
    let revision = now.max(last + 1);
    sqlx::query("UPDATE snapshot_revision SET revision = ? WHERE one = 1").bind(revision).execute(&mut **tx).await?;
    Ok(u64::try_from(revision).unwrap_or(0))
}

/// The revision that is committed.
pub(crate) async fn revision(store: &Store) -> Result<u64, StoreError> {
    let revision: i64 =
        sqlx::query_scalar("SELECT revision FROM snapshot_revision WHERE one = 1").fetch_one(store.read()).await?;
    Ok(u64::try_from(revision).unwrap_or(0))
}

/// All purge generations, and the revision that they belong to: one read transaction, so that they agree.
pub(crate) async fn state(store: &Store) -> Result<(u64, BTreeMap<String, u64>), StoreError> {
    let mut tx = store.read().begin().await?;
    let revision: i64 =
        sqlx::query_scalar("SELECT revision FROM snapshot_revision WHERE one = 1").fetch_one(&mut *tx).await?;
    let purges: Vec<(String, i64)> = sqlx::query_as("SELECT track, generation FROM purges").fetch_all(&mut *tx).await?;
    tx.rollback().await?;
    let purges = purges.into_iter().map(|(track, at)| (track, u64::try_from(at).unwrap_or(0))).collect();
    Ok((u64::try_from(revision).unwrap_or(0), purges))
}
