//! Edges: what each said last, and how far its logs were counted.

use segue_signing::EdgeReport;

use super::{Store, StoreError, Write};

/// A log of an edge: which folder of facts, and which of its two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogName<'a> {
    pub(crate) edge: &'a str,
    pub(crate) log: &'a str,
    /// `facts` or `denials`.
    pub(crate) stream: &'a str,
}

/// The last report of an edge, and when it came.
pub(crate) async fn report(tx: &mut Write, name: &str) -> Result<Option<EdgeReport>, StoreError> {
    let text: Option<String> =
        sqlx::query_scalar("SELECT report FROM edges WHERE name = ?").bind(name).fetch_optional(&mut **tx).await?;
    // One that this version cannot read is as good as none.
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// How many edges are known.
pub(crate) async fn count(tx: &mut Write) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM edges").fetch_one(&mut **tx).await?)
}

/// Keeps a report in place of the edge's last.
pub(crate) async fn put_report(tx: &mut Write, report: &EdgeReport, now: i64) -> Result<(), StoreError> {
    let text = serde_json::to_string(report)?;
    sqlx::query("DELETE FROM edges WHERE name = ?").bind(&report.edge).execute(&mut **tx).await?;
    sqlx::query("INSERT INTO edges (name, report, seen_ms) VALUES (?, ?, ?)")
        .bind(&report.edge)
        .bind(text)
        .bind(now)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// All edges by name: the last report, and when it came.
pub(crate) async fn list(store: &Store) -> Result<Vec<(EdgeReport, i64)>, StoreError> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT report, seen_ms FROM edges ORDER BY name").fetch_all(store.read()).await?;
    Ok(rows.into_iter().filter_map(|(text, seen)| Some((serde_json::from_str(&text).ok()?, seen))).collect())
}

/// How far a log was counted; `None`: never heard of.
pub(crate) async fn position(tx: &mut Write, log: LogName<'_>) -> Result<Option<u64>, StoreError> {
    let position: Option<i64> =
        sqlx::query_scalar("SELECT position FROM edge_logs WHERE edge = ? AND log = ? AND stream = ?")
            .bind(log.edge)
            .bind(log.log)
            .bind(log.stream)
            .fetch_optional(&mut **tx)
            .await?;
    Ok(position.and_then(|at| u64::try_from(at).ok()))
}

/// Moves a log's position; to be called in the transaction that counts.
pub(crate) async fn set_position(tx: &mut Write, log: LogName<'_>, at: u64, now: i64) -> Result<(), StoreError> {
    let done = sqlx::query("UPDATE edge_logs SET position = ?, seen_ms = ? WHERE edge = ? AND log = ? AND stream = ?")
        .bind(super::tracks::signed(at))
        .bind(now)
        .bind(log.edge)
        .bind(log.log)
        .bind(log.stream)
        .execute(&mut **tx)
        .await?;
    if done.rows_affected() == 0 {
        sqlx::query("INSERT INTO edge_logs (edge, log, stream, position, seen_ms) VALUES (?, ?, ?, ?, ?)")
            .bind(log.edge)
            .bind(log.log)
            .bind(log.stream)
            .bind(super::tracks::signed(at))
            .bind(now)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Forgets edges and logs that fell silent before these times, at most `limit` of each.
pub(crate) async fn prune(tx: &mut Write, edges_before: i64, logs_before: i64, limit: u32) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM edges WHERE name IN (SELECT name FROM edges WHERE seen_ms < ? LIMIT ?)")
        .bind(edges_before)
        .bind(i64::from(limit))
        .execute(&mut **tx)
        .await?;
    sqlx::query(
        "DELETE FROM edge_logs WHERE (edge, log, stream) IN \
         (SELECT edge, log, stream FROM edge_logs WHERE seen_ms < ? LIMIT ?)",
    )
    .bind(logs_before)
    .bind(i64::from(limit))
    .execute(&mut **tx)
    .await?;
    Ok(())
}
