//! What edges are told: signing keys, purge generations, revocations, policies, and the revision that they belong to.
//!
//! Invariants: whoever changes one of them raises the revision in the same transaction, before anything else that it
//! changes of them: the revision's row is their lock, so that of two changes at once the one with the higher revision is
//! committed last, and an edge that has a revision has all that came before it. A purge's generation is above every
//! revision that was told before it, so that "what is new since a revision" is a comparison.

use std::collections::BTreeMap;

use segue_signing::limits::LimitsConfig;
use segue_signing::{NamedRevocation, PolicyDoc};
use sqlx::FromRow;

use super::dialect::{args, delete_some, locked, upsert};
use super::{Read, Store, StoreError, Write, limits, policies, revocations};

/// How far a part of the snapshot reaches back behind its cursor: purges that a process of an older version made beside
/// this one know nothing of the rule above.
const PURGE_OVERLAP: i64 = 3_600_000;

/// A key as it is stored. Times of its life are seconds since the epoch.
#[derive(Clone, PartialEq, Eq, FromRow)]
pub(crate) struct KeyRow {
    pub(crate) kid: String,
    /// `None`: the configuration has it.
    pub(crate) secret: Option<String>,
    pub(crate) not_before: Option<i64>,
    pub(crate) retire_at: Option<i64>,
    pub(crate) created_ms: i64,
}

impl std::fmt::Debug for KeyRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRow").field("kid", &self.kid).field("retire_at", &self.retire_at).finish_non_exhaustive()
    }
}

/// How often a key was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyUses {
    pub(crate) accepted: i64,
    pub(crate) out_of_time: i64,
    pub(crate) last_used_ms: Option<i64>,
}

/// Everything that edges are told, but for the configuration's secrets.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) revision: u64,
    pub(crate) keys: Vec<KeyRow>,
    pub(crate) purges: BTreeMap<String, u64>,
    pub(crate) revocations: Vec<NamedRevocation>,
    pub(crate) lifted: Vec<String>,
    pub(crate) limits: LimitsConfig,
    pub(crate) policies: Vec<PolicyDoc>,
    /// Only what is new since the cursor that was asked with.
    pub(crate) partial: bool,
}

/// Raises a track's purge generation. It follows the clock and never falls or repeats, so that a database restored
/// from a backup cannot bring purged bytes back; and it is above the revision that is told until now.
pub(crate) async fn raise_generation(tx: &mut Write, track: &str, now: i64) -> Result<u64, StoreError> {
    let told = lock(tx).await?;
    let last: Option<i64> = sqlx::query_scalar("SELECT generation FROM purges WHERE track = ?")
        .bind(track)
        .fetch_optional(&mut **tx)
        .await?;
    let generation = now.max(last.unwrap_or(0) + 1).max(told + 1);
    let row = "purges (track, generation) VALUES (?, ?)";
    upsert(tx, row, "track", "generation = new(generation)", args![track, generation]).await?;
    Ok(u64::try_from(generation).unwrap_or(0))
}

/// The next revision of the snapshot; follows the clock for the same reason.
pub(crate) async fn raise_revision(tx: &mut Write, now: i64) -> Result<u64, StoreError> {
    let revision = now.max(lock(tx).await? + 1);
    sqlx::query("UPDATE snapshot_revision SET revision = ? WHERE one = 1").bind(revision).execute(&mut **tx).await?;
    sqlx::query("INSERT INTO snapshot_changes (revision) VALUES (?)").bind(revision).execute(&mut **tx).await?;
    Ok(u64::try_from(revision).unwrap_or(0))
}

/// The revision that is told until now, which nobody else raises until this transaction ends.
pub(crate) async fn lock(tx: &mut Write) -> Result<i64, StoreError> {
    let row: Option<(i64,)> = locked(tx, "SELECT revision FROM snapshot_revision WHERE one = 1", args![]).await?;
    Ok(row.ok_or(sqlx::Error::RowNotFound)?.0)
}

/// The revision that is committed.
pub(crate) async fn revision(store: &Store) -> Result<u64, StoreError> {
    let revision: i64 =
        sqlx::query_scalar("SELECT revision FROM snapshot_revision WHERE one = 1").fetch_one(store.read()).await?;
    Ok(u64::try_from(revision).unwrap_or(0))
}

/// What edges are told at `now` (seconds): what changed since `cursor` where that is a revision that this database told,
/// else all of it. One read transaction, so that the parts agree.
pub(crate) async fn state(store: &Store, cursor: Option<u64>, now: i64) -> Result<State, StoreError> {
    let mut tx = store.reading().await?;
    let revision: i64 =
        sqlx::query_scalar("SELECT revision FROM snapshot_revision WHERE one = 1").fetch_one(&mut *tx).await?;
    let cursor = match cursor.and_then(|cursor| i64::try_from(cursor).ok()) {
        Some(cursor) => {
            sqlx::query_scalar::<_, i64>("SELECT revision FROM snapshot_changes WHERE revision = ?")
                .bind(cursor)
                .fetch_optional(&mut *tx)
                .await?
        }
        None => None,
    };
    let keys = keys(&mut tx).await?;
    let purges: Vec<(String, i64)> = sqlx::query_as("SELECT track, generation FROM purges WHERE generation > ?")
        .bind(cursor.map_or(i64::MIN, |cursor| cursor - PURGE_OVERLAP))
        .fetch_all(&mut *tx)
        .await?;
    let (revocations, lifted) = revocations::told(&mut tx, cursor, now).await?;
    let limits = limits::all(&mut tx).await?;
    let policies = policies::told(&mut tx).await?;
    tx.rollback().await?;
    let purges = purges.into_iter().map(|(track, at)| (track, u64::try_from(at).unwrap_or(0))).collect();
    let revision = u64::try_from(revision).unwrap_or(0);
    Ok(State { revision, keys, purges, revocations, lifted, limits, policies, partial: cursor.is_some() })
}

/// All stored keys, oldest first.
pub(crate) async fn keys(tx: &mut Read) -> Result<Vec<KeyRow>, StoreError> {
    let sql = "SELECT kid, secret, not_before, retire_at, created_ms FROM signing_keys ORDER BY created_ms, kid";
    Ok(sqlx::query_as(sql).fetch_all(&mut **tx).await?)
}

/// Stores a key; what was stored under its name is replaced.
pub(crate) async fn put_key(tx: &mut Write, key: &KeyRow) -> Result<(), StoreError> {
    upsert(
        tx,
        "signing_keys (kid, secret, not_before, retire_at, created_ms) VALUES (?, ?, ?, ?, ?)",
        "kid",
        "secret = new(secret), not_before = new(not_before), retire_at = new(retire_at), created_ms = new(created_ms)",
        args![&key.kid, &key.secret, key.not_before, key.retire_at, key.created_ms],
    )
    .await
}

/// How often each key was used, as edges reported.
pub(crate) async fn uses(store: &Store) -> Result<BTreeMap<String, KeyUses>, StoreError> {
    let rows: Vec<(String, i64, i64, i64)> =
        sqlx::query_as("SELECT kid, accepted, out_of_time, last_used_ms FROM key_uses").fetch_all(store.read()).await?;
    let uses = |(kid, accepted, out_of_time, last): (String, i64, i64, i64)| {
        (kid, KeyUses { accepted, out_of_time, last_used_ms: Some(last) })
    };
    Ok(rows.into_iter().map(uses).collect())
}

/// Adds to a key's uses.
pub(crate) async fn add_uses(
    tx: &mut Write,
    kid: &str,
    accepted: i64,
    out_of_time: i64,
    now: i64,
) -> Result<(), StoreError> {
    upsert(
        tx,
        "key_uses (kid, accepted, out_of_time, last_used_ms) VALUES (?, ?, ?, ?)",
        "kid",
        "accepted = accepted + new(accepted), out_of_time = out_of_time + new(out_of_time), last_used_ms = new(last_used_ms)",
        args![kid, accepted, out_of_time, now],
    )
    .await
}

/// Forgets purges, revisions and keys that are of no use any more, at most `limit` of each.
pub(crate) async fn prune(
    tx: &mut Write,
    purges_before: i64,
    changes_before: i64,
    retired_before_s: i64,
    limit: u32,
) -> Result<(), StoreError> {
    delete_some(tx, "purges", "track", "generation < ?", args![purges_before], limit).await?;
    let old = "revision < ? AND revision < (SELECT revision FROM snapshot_revision WHERE one = 1)";
    delete_some(tx, "snapshot_changes", "revision", old, args![changes_before], limit).await?;
    // The times of a key of the configuration stay: without them it would be good again.
    sqlx::query("DELETE FROM signing_keys WHERE secret IS NOT NULL AND retire_at < ?")
        .bind(retired_before_s)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
