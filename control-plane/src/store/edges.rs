//! Edges: what each said last, and how far its logs were counted.

use segue_signing::EdgeReport;

use super::dialect::{args, delete_some, locked, upsert};
use super::{Store, StoreError, Write};

/// A log of an edge: which folder of facts, and which of its two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogName<'a> {
    pub(crate) edge: &'a str,
    pub(crate) log: &'a str,
    /// `facts` or `denials`.
    pub(crate) stream: &'a str,
}

/// The last report of an edge.
pub(crate) async fn report(tx: &mut Write, name: &str) -> Result<Option<EdgeReport>, StoreError> {
    let text: Option<(String,)> = locked(tx, "SELECT report FROM edges WHERE name = ?", args![name]).await?;
    // One that this version cannot read is as good as none.
    Ok(text.and_then(|(text,)| serde_json::from_str(&text).ok()))
}

/// How many edges are known.
pub(crate) async fn count(tx: &mut Write) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM edges").fetch_one(&mut **tx).await?)
}

/// Keeps a report in place of the edge's last.
pub(crate) async fn put_report(tx: &mut Write, report: &EdgeReport, now: i64) -> Result<(), StoreError> {
    let text = serde_json::to_string(report)?;
    upsert(
        tx,
        "edges (name, report, seen_ms) VALUES (?, ?, ?)",
        "name",
        "report = new(report), seen_ms = new(seen_ms)",
        args![&report.edge, text, now],
    )
    .await
}

/// All edges by name: the last report, and when it came.
pub(crate) async fn list(store: &Store) -> Result<Vec<(EdgeReport, i64)>, StoreError> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT report, seen_ms FROM edges ORDER BY name").fetch_all(store.read()).await?;
    Ok(rows.into_iter().filter_map(|(text, seen)| Some((serde_json::from_str(&text).ok()?, seen))).collect())
}

/// The same by name, from behind `after`: the rows that were found, and the name of the last one.
pub(crate) async fn page(
    store: &Store,
    after: &str,
    limit: u32,
) -> Result<(Vec<(EdgeReport, i64)>, usize, Option<String>), StoreError> {
    let rows: Vec<(String, String, i64)> =
        sqlx::query_as("SELECT name, report, seen_ms FROM edges WHERE name > ? ORDER BY name LIMIT ?")
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(store.read())
            .await?;
    // A report that this version cannot read is passed over, and is a row of the page all the same.
    let (found, last) = (rows.len(), rows.last().map(|(name, ..)| name.clone()));
    let read = rows.into_iter().filter_map(|(_, text, seen)| Some((serde_json::from_str(&text).ok()?, seen)));
    Ok((read.collect(), found, last))
}

/// How far a log was counted; `None`: never heard of.
pub(crate) async fn position(tx: &mut Write, log: LogName<'_>) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT position FROM edge_logs WHERE edge = ? AND log = ? AND stream = ?";
    let position: Option<(i64,)> = locked(tx, sql, args![log.edge, log.log, log.stream]).await?;
    Ok(position.and_then(|(at,)| u64::try_from(at).ok()))
}

/// Moves a log's position; to be called in the transaction that counts.
pub(crate) async fn set_position(tx: &mut Write, log: LogName<'_>, at: u64, now: i64) -> Result<(), StoreError> {
    upsert(
        tx,
        "edge_logs (edge, log, stream, position, seen_ms) VALUES (?, ?, ?, ?, ?)",
        "edge, log, stream",
        "position = new(position), seen_ms = new(seen_ms)",
        args![log.edge, log.log, log.stream, super::tracks::signed(at), now],
    )
    .await
}

/// Forgets edges and logs that fell silent before these times, at most `limit` of each.
pub(crate) async fn prune(tx: &mut Write, edges_before: i64, logs_before: i64, limit: u32) -> Result<(), StoreError> {
    delete_some(tx, "edges", "name", "seen_ms < ?", args![edges_before], limit).await?;
    delete_some(tx, "edge_logs", "edge, log, stream", "seen_ms < ?", args![logs_before], limit).await?;
    Ok(())
}
