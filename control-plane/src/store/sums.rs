//! Sums per track and hour, and denials per reason and hour.

use std::collections::BTreeMap;

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, FromRow, Row};

use super::bulk::{self, There};
use super::dialect::Dialect;
use super::{Store, StoreError, Write};
use crate::plays::sums::{COLUMNS, Sums};

/// `hour_ms` of the row that holds a track's total.
pub(crate) const TOTAL: i64 = -1;

/// `track` of the rows that hold the whole house.
pub(crate) const HOUSE: &str = "";

/// The row of a track and hour.
pub(crate) type Key = (String, i64);

/// Adds to rows.
pub(crate) async fn add(tx: &mut Write, more: &[(Key, Sums)]) -> Result<(), StoreError> {
    for piece in bulk::sizes(more) {
        let sql = bulk::insert(Dialect::of(tx), "sums", &["track", "hour_ms"], &COLUMNS, piece.len(), There::Added);
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for ((track, hour_ms), sums) in piece {
            query = query.bind(track).bind(hour_ms);
            for number in sums.clone().numbers() {
                query = query.bind(*number);
            }
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// A row, with its hour.
struct Row1(i64, Sums);

impl FromRow<'_, AnyRow> for Row1 {
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        let mut sums = Sums::default();
        for (n, number) in sums.numbers().enumerate() {
            *number = row.try_get(n)?;
        }
        Ok(Self(row.try_get(COLUMNS.len())?, sums))
    }
}

fn select() -> String {
    format!("SELECT {}, hour_ms FROM sums", COLUMNS.join(", "))
}

/// A track's total.
pub(crate) async fn total(store: &Store, track: &str) -> Result<Option<Sums>, StoreError> {
    let sql = AssertSqlSafe(format!("{} WHERE track = ? AND hour_ms = ?", select()));
    let row: Option<Row1> = sqlx::query_as(sql).bind(track).bind(TOTAL).fetch_optional(store.read()).await?;
    Ok(row.map(|row| row.1))
}

/// A track's hours that begin in `from..to`, oldest first.
pub(crate) async fn hours(store: &Store, track: &str, from: i64, to: i64) -> Result<Vec<(i64, Sums)>, StoreError> {
    let sql = AssertSqlSafe(format!("{} WHERE track = ? AND hour_ms >= ? AND hour_ms < ? ORDER BY hour_ms", select()));
    let rows: Vec<Row1> = sqlx::query_as(sql).bind(track).bind(from.max(0)).bind(to).fetch_all(store.read()).await?;
    Ok(rows.into_iter().map(|row| (row.0, row.1)).collect())
}

/// The tracks with the most counted plays in `from..to`: track, counted, started, bytes.
pub(crate) async fn busiest(
    store: &Store,
    from: i64,
    to: i64,
    limit: u32,
) -> Result<Vec<(String, i64, i64, i64)>, StoreError> {
    Ok(sqlx::query_as(
        "SELECT track, CAST(SUM(qualified) AS SIGNED) AS counted, CAST(SUM(plays) AS SIGNED) AS started, \
         CAST(SUM(bytes) AS SIGNED) FROM sums \
         WHERE hour_ms >= ? AND hour_ms < ? AND track <> ? GROUP BY track ORDER BY counted DESC, started DESC, track LIMIT ?",
    )
    .bind(from.max(0))
    .bind(to)
    .bind(HOUSE)
    .bind(i64::from(limit))
    .fetch_all(store.read())
    .await?)
}

/// Listeners and sessions told apart over `from..to`, from the hours of which it is still known who listened.
pub(crate) async fn heard(store: &Store, track: &str, from: i64, to: i64) -> Result<(i64, i64), StoreError> {
    Ok(sqlx::query_as(
        "SELECT COUNT(DISTINCT CASE WHEN listener LIKE 'ses:%' THEN NULL ELSE listener END), \
         COUNT(DISTINCT CASE WHEN listener LIKE 'sub:%' THEN NULL ELSE listener END) \
         FROM listeners WHERE track = ? AND hour_ms >= ? AND hour_ms < ?",
    )
    .bind(track)
    .bind(from.max(0))
    .bind(to)
    .fetch_one(store.read())
    .await?)
}

/// Adds to the count of denials.
pub(crate) async fn add_denials(tx: &mut Write, counts: &BTreeMap<(i64, String), i64>) -> Result<(), StoreError> {
    let keys = ["hour_ms", "reason"];
    let rows: Vec<_> = counts.iter().collect();
    for piece in bulk::sizes(&rows) {
        let sql = bulk::insert(Dialect::of(tx), "denials", &keys, &["count"], piece.len(), There::Added);
        let query = piece.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, ((hour_ms, reason), count)| {
            query.bind(*hour_ms).bind(reason).bind(**count)
        });
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// Denials by hour and reason, newest first, from behind `after` (hour and reason).
pub(crate) async fn denials(
    store: &Store,
    after: Option<(i64, &str)>,
    limit: u32,
) -> Result<Vec<(i64, String, i64)>, StoreError> {
    let (hour, reason) = after.unwrap_or((i64::MAX, ""));
    Ok(sqlx::query_as(
        "SELECT hour_ms, reason, count FROM denials WHERE hour_ms < ? OR (hour_ms = ? AND reason > ?) \
         ORDER BY hour_ms DESC, reason LIMIT ?",
    )
    .bind(hour)
    .bind(hour)
    .bind(reason)
    .bind(i64::from(limit))
    .fetch_all(store.read())
    .await?)
}

/// The same of the hours in `from..to`, oldest first.
pub(crate) async fn denials_between(store: &Store, from: i64, to: i64) -> Result<Vec<(i64, String, i64)>, StoreError> {
    Ok(sqlx::query_as(
        "SELECT hour_ms, reason, count FROM denials WHERE hour_ms >= ? AND hour_ms < ? ORDER BY hour_ms, reason",
    )
    .bind(from)
    .bind(to)
    .fetch_all(store.read())
    .await?)
}

/// Takes away what was counted in the hours from `from` on: sums, who listened, and the plays that began there.
pub(crate) async fn wipe(tx: &mut Write, from: i64) -> Result<(), StoreError> {
    // With all hours go the totals' listeners as well; else they stay: whoever was heard then was heard before.
    let from = if from == i64::MIN { TOTAL } else { from };
    for sql in [
        "DELETE FROM sums WHERE hour_ms >= ?",
        "DELETE FROM listeners WHERE hour_ms >= ?",
        "DELETE FROM plays WHERE first_ms >= ?",
    ] {
        sqlx::query(sql).bind(from).execute(&mut **tx).await?;
    }
    Ok(())
}

/// Makes the totals anew: of the hours, and of who listened in all.
pub(crate) async fn total_up(tx: &mut Write) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM sums WHERE hour_ms = ?").bind(TOTAL).execute(&mut **tx).await?;
    let all = COLUMNS.join(", ");
    let summed: Vec<String> = COLUMNS
        .iter()
        .map(|column| match column.as_str() {
            // Somebody who listened in two hours is one listener.
            "listeners" => "(SELECT COUNT(*) FROM listeners l WHERE l.track = s.track AND l.hour_ms = -1 AND l.listener NOT LIKE 'ses:%')".to_owned(),
            "sessions" => "(SELECT COUNT(*) FROM listeners l WHERE l.track = s.track AND l.hour_ms = -1 AND l.listener NOT LIKE 'sub:%')".to_owned(),
            column => format!("SUM({column})"),
        })
        .collect();
    let sql = format!(
        "INSERT INTO sums (track, hour_ms, {all}) SELECT track, -1, {} FROM sums s WHERE hour_ms >= 0 GROUP BY track",
        summed.join(", ")
    );
    sqlx::query(AssertSqlSafe(sql)).execute(&mut **tx).await?;
    Ok(())
}
