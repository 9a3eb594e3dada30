//! Revocations: tickets that are void before they expire.

use segue_signing::{NamedRevocation, Revocation};
use sqlx::FromRow;

use super::dialect::{args, delete_some};
use super::{Read, Store, StoreError, Write};

/// A revocation as it is stored. Its times are seconds since the epoch, but for `created_ms`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub(crate) struct RevocationRow {
    pub(crate) id: String,
    pub(crate) sid: Option<String>,
    pub(crate) sub: Option<String>,
    pub(crate) track: Option<String>,
    pub(crate) issued_before: Option<i64>,
    pub(crate) until: i64,
    pub(crate) note: Option<String>,
    pub(crate) created_ms: i64,
}

const COLUMNS: &str = "id, sid, sub, track, issued_before, until, note, created_ms";

impl RevocationRow {
    fn named(self) -> NamedRevocation {
        let Self { id, sid, sub, track, issued_before, until, .. } = self;
        NamedRevocation { id, revocation: Revocation { sid, sub, track, issued_before, until } }
    }
}

/// Those in force at `now`, and the ids of those taken back; only what is new since `cursor` where there is one.
pub(super) async fn told(
    tx: &mut Read,
    cursor: Option<i64>,
    now: i64,
) -> Result<(Vec<NamedRevocation>, Vec<String>), StoreError> {
    let since = cursor.unwrap_or(i64::MIN);
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM revocations WHERE revision > ? AND until > ? AND lifted = 0 ORDER BY revision, id"
    ));
    let rows: Vec<RevocationRow> = sqlx::query_as(sql).bind(since).bind(now).fetch_all(&mut **tx).await?;
    let mut lifted = Vec::new();
    if cursor.is_some() {
        lifted = sqlx::query_scalar("SELECT id FROM revocations WHERE revision > ? AND lifted = 1")
            .bind(since)
            .fetch_all(&mut **tx)
            .await?;
    }
    Ok((rows.into_iter().map(RevocationRow::named).collect(), lifted))
}

/// How many are in force.
pub(crate) async fn count(tx: &mut Write, now: i64) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM revocations WHERE lifted = 0 AND until > ?")
        .bind(now)
        .fetch_one(&mut **tx)
        .await?)
}

/// Stores a new one, told with `revision`.
pub(crate) async fn insert(tx: &mut Write, row: &RevocationRow, revision: u64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO revocations (id, sid, sub, track, issued_before, until, note, created_ms, revision) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&row.id)
    .bind(&row.sid)
    .bind(&row.sub)
    .bind(&row.track)
    .bind(row.issued_before)
    .bind(row.until)
    .bind(&row.note)
    .bind(row.created_ms)
    .bind(super::tracks::signed(revision))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Takes one back. `false`: there is none of that id in force.
pub(crate) async fn lift(tx: &mut Write, id: &str, now: i64, revision: u64) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE revocations SET lifted = 1, revision = ? WHERE id = ? AND lifted = 0 AND until > ?")
        .bind(super::tracks::signed(revision))
        .bind(id)
        .bind(now)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Those in force, newest first, from behind `after` (creation time and id).
pub(crate) async fn list(
    store: &Store,
    now: i64,
    after: Option<(i64, &str)>,
    limit: u32,
) -> Result<Vec<RevocationRow>, StoreError> {
    let (at, id) = after.unwrap_or((i64::MAX, ""));
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM revocations WHERE lifted = 0 AND until > ? AND (created_ms < ? OR (created_ms = ? AND id > ?)) \
         ORDER BY created_ms DESC, id LIMIT ?"
    ));
    Ok(sqlx::query_as(sql).bind(now).bind(at).bind(at).bind(id).bind(i64::from(limit)).fetch_all(store.read()).await?)
}

/// Forgets those that are over, at most `limit`: edges end them by themselves.
pub(crate) async fn prune(tx: &mut Write, over_before: i64, limit: u32) -> Result<(), StoreError> {
    delete_some(tx, "revocations", "id", "until < ?", args![over_before], limit).await?;
    Ok(())
}
