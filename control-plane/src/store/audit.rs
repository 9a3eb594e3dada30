//! Who changed what.

use sqlx::{AssertSqlSafe, FromRow};

use super::bulk::{self, There};
use super::dialect::{Dialect, args, delete_some, upsert};
use super::{Store, StoreError, Write, transaction};

/// Bytes of a resource's name and of a token's: what the database's keys hold.
pub(crate) const TEXT_MAX: usize = 190;

/// What a record tells of; each sort is bounded by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// A change by a route that needs the scope `admin`.
    Admin,
    /// Another one.
    Change,
    /// A ticket that was issued.
    Ticket,
    /// A change that the token did not allow.
    Refused,
}

impl Sort {
    pub(crate) const ALL: [Self; 4] = [Self::Admin, Self::Change, Self::Ticket, Self::Refused];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Change => "change",
            Self::Ticket => "ticket",
            Self::Refused => "refused",
        }
    }
}

/// A record. Times are ms since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub(crate) struct AuditRow {
    pub(crate) id: String,
    pub(crate) at_ms: i64,
    pub(crate) ended_ms: Option<i64>,
    pub(crate) sort: String,
    pub(crate) operation: String,
    pub(crate) method: String,
    pub(crate) resource: String,
    pub(crate) actor: Option<String>,
    pub(crate) actor_name: Option<String>,
    pub(crate) address: String,
    pub(crate) request_id: Option<String>,
    pub(crate) status: Option<i64>,
    pub(crate) error: Option<String>,
    pub(crate) times: i64,
    /// JSON.
    pub(crate) summary: Option<String>,
}

const OTHERS: [&str; 14] = [
    "at_ms",
    "ended_ms",
    "sort",
    "operation",
    "method",
    "resource",
    "actor",
    "actor_name",
    "address",
    "request_id",
    "status",
    "error",
    "times",
    "summary",
];

/// Stores records, new or again.
pub(crate) async fn put(tx: &mut Write, rows: &[AuditRow]) -> Result<(), StoreError> {
    for piece in bulk::sizes(rows) {
        let sql = bulk::insert(Dialect::of(tx), "audit", &["id"], &OTHERS, piece.len(), There::Replaced);
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for row in piece {
            query = query
                .bind(&row.id)
                .bind(row.at_ms)
                .bind(row.ended_ms)
                .bind(&row.sort)
                .bind(&row.operation)
                .bind(&row.method)
                .bind(&row.resource)
                .bind(&row.actor)
                .bind(&row.actor_name)
                .bind(&row.address)
                .bind(&row.request_id)
                .bind(row.status)
                .bind(&row.error)
                .bind(row.times)
                .bind(&row.summary);
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// Stores the beginning of a change.
pub(crate) async fn begin(store: &Store, row: &AuditRow) -> Result<(), StoreError> {
    transaction!(store, |tx| put(tx, std::slice::from_ref(row)).await)
}

/// What became of a change.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) ended_ms: i64,
    /// `None`: the request was cut off before it had an answer.
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
    pub(crate) resource: String,
    pub(crate) summary: Option<String>,
}

/// Stores what became of it.
pub(crate) async fn end(store: &Store, id: &str, outcome: &Outcome) -> Result<(), StoreError> {
    let sql = "UPDATE audit SET ended_ms = ?, status = ?, error = ?, resource = ?, summary = ? WHERE id = ?";
    transaction!(store, |tx| {
        sqlx::query(sql)
            .bind(outcome.ended_ms)
            .bind(outcome.status.map(i64::from))
            .bind(&outcome.error)
            .bind(&outcome.resource)
            .bind(&outcome.summary)
            .bind(id)
            .execute(&mut **tx)
            .await?;
        Ok(())
    })
}

/// Adds refusals to those of the same kind, address and minute, whose record has the same id.
pub(crate) async fn refused(tx: &mut Write, row: &AuditRow) -> Result<(), StoreError> {
    let AuditRow { id, at_ms, ended_ms, sort, operation, method, resource, actor, actor_name, address, .. } = row;
    upsert(
        tx,
        "audit (id, at_ms, ended_ms, sort, operation, method, resource, actor, actor_name, address, request_id, status, \
         error, times) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "id",
        "times = audit.times + new(times), ended_ms = new(ended_ms)",
        args![
            id,
            at_ms,
            *ended_ms,
            sort,
            operation,
            method,
            resource,
            actor.as_ref(),
            actor_name.as_ref(),
            address,
            row.request_id.as_ref(),
            row.status,
            row.error.as_ref(),
            row.times
        ],
    )
    .await
}

/// Which records are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// A token's id or name.
    pub(crate) actor: Option<String>,
    pub(crate) operation: Option<String>,
    /// A resource, and what lies under it.
    pub(crate) resource: Option<String>,
    pub(crate) from_ms: Option<i64>,
    pub(crate) to_ms: Option<i64>,
}

/// Newest first, from behind `after` (time and id).
pub(crate) async fn list(
    store: &Store,
    wanted: &Wanted,
    after: Option<(i64, &str)>,
    limit: u32,
) -> Result<Vec<AuditRow>, StoreError> {
    let (at, id) = after.unwrap_or((i64::MAX, ""));
    let mut sql = format!(
        "SELECT id, {} FROM audit WHERE (at_ms < ? OR (at_ms = ? AND id > ?)) AND at_ms >= ? AND at_ms < ?",
        OTHERS.join(", ")
    );
    let mut given = args![at, at, id, wanted.from_ms.unwrap_or(i64::MIN), wanted.to_ms.unwrap_or(i64::MAX)];
    let mut add = |sql_part: &str, values: &[&str]| -> Result<(), StoreError> {
        sql.push_str(sql_part);
        for value in values {
            sqlx::Arguments::add(&mut given, (*value).to_owned()).map_err(sqlx::Error::Encode)?;
        }
        Ok(())
    };
    if let Some(actor) = wanted.actor.as_deref() {
        add(" AND (actor = ? OR actor_name = ?)", &[actor, actor])?;
    }
    if let Some(operation) = wanted.operation.as_deref() {
        add(" AND operation = ?", &[operation])?;
    }
    if let Some(resource) = wanted.resource.as_deref() {
        // From `tracks/a/` to before `tracks/a0`: `0` is what comes after `/`. No pattern, so that no name is one.
        let (from, to) = (format!("{resource}/"), format!("{resource}0"));
        add(" AND (resource = ? OR (resource >= ? AND resource < ?))", &[resource, &from, &to])?;
    }
    sql.push_str(" ORDER BY at_ms DESC, id LIMIT ?");
    sqlx::Arguments::add(&mut given, i64::from(limit)).map_err(sqlx::Error::Encode)?;
    Ok(sqlx::query_as_with(AssertSqlSafe(sql), given).fetch_all(store.read()).await?)
}

/// The time of the newest record of a sort that is one too many; `None`: there are not so many.
pub(crate) async fn beyond(store: &Store, sort: Sort, rows: u32) -> Result<Option<i64>, StoreError> {
    Ok(sqlx::query_scalar("SELECT at_ms FROM audit WHERE sort = ? ORDER BY at_ms DESC LIMIT 1 OFFSET ?")
        .bind(sort.word())
        .bind(i64::from(rows))
        .fetch_optional(store.read())
        .await?)
}

/// Forgets records of a sort up to this time, at most `limit`. How many they were.
pub(crate) async fn prune(tx: &mut Write, sort: Sort, until_ms: i64, limit: u32) -> Result<u64, StoreError> {
    delete_some(tx, "audit", "id", "sort = ? AND at_ms <= ?", args![sort.word(), until_ms], limit).await
}
