//! Uploads in parts that are not finished, what is known of their parts, and the digests that publishers declared.
//!
//! Invariants: a row of `uploads` goes in the transaction that ends its upload, or after the store was told to forget it; whoever
//! completes an upload holds its row (`held_ms`), so that of two calls one speaks to the store.

use sqlx::FromRow;

use super::dialect::{args, insert_new, upsert};
use super::tracks::signed;
use super::{Store, StoreError, Write};

/// Parts that one upload can have (S3 API reference, UploadPart).
pub(crate) const PARTS_MAX: u64 = 10_000;

/// A row of `uploads`.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct UploadRow {
    pub(crate) track: String,
    pub(crate) object_key: String,
    /// The store's own name for it.
    pub(crate) upload_id: String,
    /// Declared size of the whole.
    bytes: i64,
    /// Size of every part but the last.
    part_bytes: i64,
    pub(crate) fingerprint: Option<String>,
    pub(crate) created_ms: i64,
    pub(crate) tries: i64,
    due_ms: i64,
}

const COLUMNS: &str =
    "u.track, u.object_key, u.upload_id, u.bytes, u.part_bytes, u.fingerprint, u.created_ms, u.tries, u.due_ms";

/// `due_ms` of an upload that the store was told once to forget.
const GIVEN_UP: i64 = -1;

impl UploadRow {
    pub(crate) fn new(
        track: &str,
        object_key: &str,
        (bytes, part_bytes): (u64, u64),
        fingerprint: Option<&str>,
        now: i64,
    ) -> Self {
        Self {
            track: track.to_owned(),
            object_key: object_key.to_owned(),
            upload_id: String::new(),
            bytes: signed(bytes),
            part_bytes: signed(part_bytes),
            fingerprint: fingerprint.map(str::to_owned),
            created_ms: now,
            tries: 0,
            due_ms: 0,
        }
    }

    /// Whether the store was told already to forget it.
    pub(crate) fn is_given_up(&self) -> bool {
        self.due_ms == GIVEN_UP
    }

    pub(crate) fn bytes(&self) -> u64 {
        u64::try_from(self.bytes).unwrap_or(0)
    }

    pub(crate) fn part_bytes(&self) -> u64 {
        u64::try_from(self.part_bytes).unwrap_or(1).max(1)
    }

    /// How many parts it has.
    pub(crate) fn parts(&self) -> u32 {
        u32::try_from(self.bytes().div_ceil(self.part_bytes())).unwrap_or(u32::MAX)
    }

    /// How many bytes a part must have; `None`: there is no such part.
    pub(crate) fn bytes_of(&self, number: u32) -> Option<u64> {
        if number == 0 || number > self.parts() {
            return None;
        }
        let before = u64::from(number - 1) * self.part_bytes();
        Some(self.part_bytes().min(self.bytes() - before))
    }
}

/// What is known of one part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) number: u32,
    /// As the store lists it; `None`: it did not when it was asked last.
    pub(crate) bytes: Option<u64>,
    pub(crate) etag: Option<String>,
    /// The tag that the publisher says it was given.
    pub(crate) said: Option<String>,
}

pub(crate) async fn insert(tx: &mut Write, row: &UploadRow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO uploads (track, object_key, upload_id, bytes, part_bytes, fingerprint, created_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&row.track)
    .bind(&row.object_key)
    .bind(&row.upload_id)
    .bind(row.bytes)
    .bind(row.part_bytes)
    .bind(row.fingerprint.as_deref())
    .bind(row.created_ms)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Notes the digest of a track's file.
pub(crate) async fn declare(tx: &mut Write, track: &str, sha256: &str) -> Result<(), StoreError> {
    insert_new(tx, "sources (track, sha256) VALUES (?, ?)", args![track, sha256]).await?;
    Ok(())
}

/// The digest that was declared of a track's file.
pub(crate) async fn declared(tx: &mut Write, track: &str) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar("SELECT sha256 FROM sources WHERE track = ?").bind(track).fetch_optional(&mut **tx).await?)
}

/// How many uploads a publisher has begun and not finished, in parts or not.
pub(crate) async fn unfinished(tx: &mut Write, publisher: &str) -> Result<u64, StoreError> {
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM tracks WHERE status = 'uploading' AND publisher = ?")
        .bind(publisher)
        .fetch_one(&mut **tx)
        .await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

pub(crate) async fn get(store: &Store, track: &str) -> Result<Option<UploadRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM uploads u WHERE u.track = ?");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(track).fetch_optional(store.read()).await?)
}

/// A publisher's unfinished uploads in parts with the names of their files, newest first; those of one fingerprint where one is named.
pub(crate) async fn of_publisher(
    store: &Store,
    publisher: &str,
    fingerprint: Option<&str>,
    after: Option<(i64, &str)>,
    limit: u32,
) -> Result<Vec<(UploadRow, String)>, StoreError> {
    let (at, track) = after.unwrap_or((i64::MAX, ""));
    let sql = format!(
        "SELECT {COLUMNS}, t.filename FROM uploads u JOIN tracks t ON t.id = u.track \
         WHERE t.status = 'uploading' AND t.publisher = ? AND (? IS NULL OR u.fingerprint = ?) \
         AND (u.created_ms < ? OR (u.created_ms = ? AND u.track > ?)) \
         ORDER BY u.created_ms DESC, u.track LIMIT ?"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(publisher)
        .bind(fingerprint)
        .bind(fingerprint)
        .bind(at)
        .bind(at)
        .bind(track)
        .bind(i64::from(limit))
        .fetch_all(store.read())
        .await?;
    let read = |row| Ok((UploadRow::from_row(row)?, sqlx::Row::try_get(row, "filename")?));
    rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(StoreError::from)
}

/// What is known of an upload's parts, by number.
pub(crate) async fn parts(store: &Store, track: &str) -> Result<Vec<Part>, StoreError> {
    type Row = (i64, Option<i64>, Option<String>, Option<String>);
    let rows: Vec<Row> =
        sqlx::query_as("SELECT number, bytes, etag, said FROM upload_parts WHERE track = ? ORDER BY number")
            .bind(track)
            .fetch_all(store.read())
            .await?;
    let part = |(number, bytes, etag, said): Row| Part {
        number: u32::try_from(number).unwrap_or(0),
        bytes: bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        etag,
        said,
    };
    Ok(rows.into_iter().map(part).collect())
}

/// Keeps how the store lists a part.
pub(crate) async fn listed(tx: &mut Write, track: &str, part: &Part) -> Result<(), StoreError> {
    let row = "upload_parts (track, number, bytes, etag) VALUES (?, ?, ?, ?)";
    let args = args![track, i64::from(part.number), part.bytes.map(signed), part.etag.as_deref()];
    upsert(tx, row, "track, number", "bytes = new(bytes), etag = new(etag)", args).await
}

/// Keeps the tag that the publisher says it was given for a part.
pub(crate) async fn said(tx: &mut Write, track: &str, number: u32, etag: &str) -> Result<(), StoreError> {
    let row = "upload_parts (track, number, said) VALUES (?, ?, ?)";
    upsert(tx, row, "track, number", "said = new(said)", args![track, i64::from(number), etag]).await
}

/// A part is about to be sent, perhaps anew: what was said of it before is void.
pub(crate) async fn asked_for(tx: &mut Write, track: &str, number: u32, md5: Option<&str>) -> Result<(), StoreError> {
    let row = "upload_parts (track, number, md5) VALUES (?, ?, ?)";
    upsert(tx, row, "track, number", "said = NULL, md5 = new(md5)", args![track, i64::from(number), md5]).await
}

/// Takes an upload in hand to complete it, until `until_ms`. `false`: somebody else has it, or it is over.
pub(crate) async fn hold(tx: &mut Write, track: &str, until_ms: i64, now: i64) -> Result<bool, StoreError> {
    let sql =
        "UPDATE uploads SET asked_ms = COALESCE(asked_ms, ?), held_ms = ?, due_ms = ? WHERE track = ? AND held_ms <= ?";
    Ok(run(tx, sql, args![now, until_ms, until_ms, track, now]).await? == 1)
}

/// Lets go of an upload that could not be completed: tried again at `again_ms`, or not before the publisher asks once more.
pub(crate) async fn let_go(tx: &mut Write, track: &str, again_ms: Option<i64>) -> Result<(), StoreError> {
    match again_ms {
        Some(at) => {
            let sql = "UPDATE uploads SET held_ms = 0, due_ms = ?, tries = tries + 1 WHERE track = ?";
            run(tx, sql, args![at, track]).await?;
        }
        None => {
            let sql = "UPDATE uploads SET held_ms = 0, asked_ms = NULL, due_ms = 0, tries = 0 WHERE track = ?";
            run(tx, sql, args![track]).await?;
        }
    }
    Ok(())
}

/// Forgets an upload and its parts.
pub(crate) async fn remove(tx: &mut Write, track: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM upload_parts WHERE track = ?").bind(track).execute(&mut **tx).await?;
    sqlx::query("DELETE FROM uploads WHERE track = ?").bind(track).execute(&mut **tx).await?;
    Ok(())
}

/// Uploads whose completion was asked for, oldest first. Those in hand are among them: their object may be there already.
pub(crate) async fn asked(store: &Store, limit: u32) -> Result<Vec<UploadRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM uploads u JOIN tracks t ON t.id = u.track WHERE t.status = 'uploading' \
         AND u.asked_ms IS NOT NULL ORDER BY u.asked_ms LIMIT ?"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(i64::from(limit)).fetch_all(store.read()).await?)
}

/// Uploads whose track is gone or no longer waits for them, and which are due to be given up in the bucket.
pub(crate) async fn over(store: &Store, now: i64, limit: u32) -> Result<Vec<UploadRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM uploads u LEFT JOIN tracks t ON t.id = u.track \
         WHERE (t.id IS NULL OR t.status <> 'uploading') AND u.held_ms <= ? ORDER BY u.held_ms LIMIT ?"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(now).bind(i64::from(limit)).fetch_all(store.read()).await?)
}

/// Whether a completion is due again.
pub(crate) async fn is_due(store: &Store, track: &str, now: i64) -> Result<bool, StoreError> {
    let sql = "SELECT track FROM uploads WHERE track = ? AND due_ms <= ? AND held_ms <= ?";
    let row: Option<String> =
        sqlx::query_scalar(sql).bind(track).bind(now).bind(now).fetch_optional(store.read()).await?;
    Ok(row.is_some())
}

/// Whether an upload of the bucket is one of ours.
pub(crate) async fn is_known(store: &Store, track: &str, upload_id: &str) -> Result<bool, StoreError> {
    let row: Option<String> = sqlx::query_scalar("SELECT track FROM uploads WHERE track = ? AND upload_id = ?")
        .bind(track)
        .bind(upload_id)
        .fetch_optional(store.read())
        .await?;
    Ok(row.is_some())
}

/// After the store was told to forget an upload, or could not be: told again at `at_ms`, since a part that was under way then
/// may have arrived afterwards.
pub(crate) async fn give_up_again(tx: &mut Write, track: &str, was_told: bool, at_ms: i64) -> Result<(), StoreError> {
    let sql = "UPDATE uploads SET due_ms = CASE WHEN ? = 1 THEN ? ELSE due_ms END, held_ms = ?, tries = tries + 1 WHERE track = ?";
    run(tx, sql, args![i64::from(was_told), GIVEN_UP, at_ms, track]).await?;
    Ok(())
}

async fn run(tx: &mut Write, sql: &'static str, args: sqlx::any::AnyArguments) -> Result<u64, StoreError> {
    Ok(sqlx::query_with(sql, args).execute(&mut **tx).await?.rows_affected())
}
