//! How far the files of kept records are committed.

use sqlx::FromRow;

use super::dialect::{args, upsert};
use super::{Store, StoreError, Write};

/// One file: its records are those from number `first` on.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub(crate) struct File {
    pub(crate) first: i64,
    pub(crate) records: i64,
    /// Bytes that are committed; what lies beyond in the file was never counted.
    pub(crate) bytes: i64,
    /// Earliest and latest time of its records.
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    /// When its first record was kept; 0: nothing more goes into it.
    pub(crate) begun_ms: i64,
}

/// Whose files: the folder's number, and what is in them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shelf<'a> {
    pub(crate) folder: &'a str,
    pub(crate) kind: &'a str,
}

const FILES: &str =
    "SELECT first, records, bytes, from_ms, to_ms, begun_ms FROM kept_files WHERE folder = ? AND kind = ? ";

/// All files, oldest first.
pub(crate) async fn files(store: &Store, shelf: Shelf<'_>) -> Result<Vec<File>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("{FILES} ORDER BY first"));
    Ok(sqlx::query_as(sql).bind(shelf.folder).bind(shelf.kind).fetch_all(store.read()).await?)
}

/// The file that is written to.
pub(crate) async fn last(tx: &mut Write, shelf: Shelf<'_>) -> Result<Option<File>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("{FILES} ORDER BY first DESC LIMIT 1"));
    Ok(sqlx::query_as(sql).bind(shelf.folder).bind(shelf.kind).fetch_optional(&mut **tx).await?)
}

/// The number of the next record where there is no file: the one after the last that was let go.
pub(crate) async fn next_after_gone(tx: &mut Write, shelf: Shelf<'_>) -> Result<i64, StoreError> {
    let next: Option<i64> = sqlx::query_scalar("SELECT next FROM kept_gone WHERE folder = ? AND kind = ?")
        .bind(shelf.folder)
        .bind(shelf.kind)
        .fetch_optional(&mut **tx)
        .await?;
    Ok(next.unwrap_or(0))
}

/// Notes a file as it now is.
pub(crate) async fn put(tx: &mut Write, shelf: Shelf<'_>, file: &File) -> Result<(), StoreError> {
    upsert(
        tx,
        "kept_files (folder, kind, first, records, bytes, from_ms, to_ms, begun_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        "folder, kind, first",
        "records = new(records), bytes = new(bytes), from_ms = new(from_ms), to_ms = new(to_ms), begun_ms = new(begun_ms)",
        args![
            shelf.folder,
            shelf.kind,
            file.first,
            file.records,
            file.bytes,
            file.from_ms,
            file.to_ms,
            file.begun_ms,
        ],
    )
    .await
}

/// Lets a file go, which must be the oldest.
pub(crate) async fn forget(tx: &mut Write, shelf: Shelf<'_>, file: &File) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM kept_files WHERE folder = ? AND kind = ? AND first = ?")
        .bind(shelf.folder)
        .bind(shelf.kind)
        .bind(file.first)
        .execute(&mut **tx)
        .await?;
    upsert(
        tx,
        "kept_gone (folder, kind, next) VALUES (?, ?, ?)",
        "folder, kind",
        "next = new(next)",
        args![shelf.folder, shelf.kind, file.first + file.records],
    )
    .await
}
