//! Webhooks, and what is to be delivered to them: stored in the transaction of the change that it tells of.

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, FromRow};

use super::dialect::{args, delete_some, insert_new};
use super::leases::Held;
use super::{Store, StoreError, Write, transaction};
use crate::{clock, ids};

/// What can be told.
pub(crate) const EVENTS: [&str; 3] = ["track.ready", "track.failed", "play.qualified"];

/// Characters of a reason.
const REASON_MAX: usize = 180;

/// A webhook. Times are ms since the epoch.
#[derive(Clone, FromRow)]
pub(crate) struct WebhookRow {
    pub(crate) id: String,
    pub(crate) url: String,
    /// Words, separated by spaces.
    pub(crate) events: String,
    pub(crate) secret: String,
    pub(crate) created_ms: i64,
    pub(crate) is_full: i64,
    pub(crate) missed: i64,
}

impl std::fmt::Debug for WebhookRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookRow").field("id", &self.id).field("events", &self.events).finish_non_exhaustive()
    }
}

/// Something to be delivered, or that was.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct DeliveryRow {
    pub(crate) id: String,
    pub(crate) event: String,
    /// JSON, as it is sent.
    pub(crate) body: String,
    pub(crate) made_ms: i64,
    pub(crate) state: String,
    pub(crate) tries: i64,
    pub(crate) due_ms: i64,
    pub(crate) ended_ms: Option<i64>,
    pub(crate) status: Option<i64>,
    pub(crate) reason: Option<String>,
}

const WEBHOOK: &str = "id, url, events, secret, created_ms, is_full, missed";
const DELIVERY: &str = "id, event, body, made_ms, state, tries, due_ms, ended_ms, status, reason";

/// Stores a new one, unless there are `most`. `false`: there are.
pub(crate) async fn insert(tx: &mut Write, row: &WebhookRow, most: i64) -> Result<bool, StoreError> {
    let there: i64 = sqlx::query_scalar("SELECT count(*) FROM webhooks").fetch_one(&mut **tx).await?;
    if there >= most {
        return Ok(false);
    }
    sqlx::query("INSERT INTO webhooks (id, url, events, secret, created_ms) VALUES (?, ?, ?, ?, ?)")
        .bind(&row.id)
        .bind(&row.url)
        .bind(&row.events)
        .bind(&row.secret)
        .bind(row.created_ms)
        .execute(&mut **tx)
        .await?;
    Ok(true)
}

/// Takes one away with all that waits for it. `false`: there is none of that id.
pub(crate) async fn remove(tx: &mut Write, id: &str) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM webhooks WHERE id = ?").bind(id).execute(&mut **tx).await?;
    Ok(done.rows_affected() == 1)
}

/// All of them: there are few.
pub(crate) async fn all(store: &Store) -> Result<Vec<WebhookRow>, StoreError> {
    let sql = AssertSqlSafe(format!("SELECT {WEBHOOK} FROM webhooks ORDER BY created_ms DESC, id"));
    Ok(sqlx::query_as(sql).fetch_all(store.read()).await?)
}

/// Newest first, from behind `after` (creation time and id).
pub(crate) async fn list(store: &Store, after: Option<(i64, &str)>, limit: u32) -> Result<Vec<WebhookRow>, StoreError> {
    let (at, id) = after.unwrap_or((i64::MAX, ""));
    let sql = AssertSqlSafe(format!(
        "SELECT {WEBHOOK} FROM webhooks WHERE created_ms < ? OR (created_ms = ? AND id > ?) \
         ORDER BY created_ms DESC, id LIMIT ?"
    ));
    Ok(sqlx::query_as(sql).bind(at).bind(at).bind(id).bind(i64::from(limit)).fetch_all(store.read()).await?)
}

pub(crate) async fn get(store: &Store, id: &str) -> Result<Option<WebhookRow>, StoreError> {
    let sql = AssertSqlSafe(format!("SELECT {WEBHOOK} FROM webhooks WHERE id = ?"));
    Ok(sqlx::query_as(sql).bind(id).fetch_optional(store.read()).await?)
}

/// Tells `subjects` (a name that is this event's alone, and its data as JSON) to all who want the event, in the transaction of the change.
pub(crate) async fn tell(
    tx: &mut Write,
    event: &str,
    subjects: &[(String, serde_json::Value)],
) -> Result<(), StoreError> {
    if subjects.is_empty() {
        return Ok(());
    }
    let all: Vec<(String, String, i64)> =
        sqlx::query_as("SELECT id, events, is_full FROM webhooks ORDER BY id").fetch_all(&mut **tx).await?;
    let now = clock::now_ms();
    for (webhook, _, is_full) in all.iter().filter(|(_, events, _)| events.split(' ').any(|word| word == event)) {
        if *is_full == 1 {
            sqlx::query("UPDATE webhooks SET missed = missed + ? WHERE id = ?")
                .bind(i64::try_from(subjects.len()).unwrap_or(i64::MAX))
                .bind(webhook)
                .execute(&mut **tx)
                .await?;
            continue;
        }
        for (subject, data) in subjects {
            let timestamp = segue_config::Moment(now / 1000).to_string();
            let body = serde_json::json!({ "type": event, "timestamp": timestamp, "data": data }).to_string();
            let text = format!("{webhook}\n{event}\n{subject}\n{now}");
            let id = format!("msg_{}", ids::spell(&Sha256::digest(text.as_bytes())[..26]));
            let row = "webhook_deliveries (id, webhook, event, body, made_ms, state, due_ms) VALUES (?, ?, ?, ?, ?, 'waiting', ?)";
            insert_new(tx, row, args![id, webhook, event, body, now, now]).await?;
        }
    }
    Ok(())
}

/// What is due of a webhook, the longest due first.
pub(crate) async fn due(store: &Store, webhook: &str, now: i64, limit: u32) -> Result<Vec<DeliveryRow>, StoreError> {
    let sql = AssertSqlSafe(format!(
        "SELECT {DELIVERY} FROM webhook_deliveries WHERE webhook = ? AND state = 'waiting' AND due_ms <= ? \
         ORDER BY due_ms, made_ms, id LIMIT ?"
    ));
    Ok(sqlx::query_as(sql).bind(webhook).bind(now).bind(i64::from(limit)).fetch_all(store.read()).await?)
}

/// What came of a try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried<'a> {
    /// `waiting`, `delivered` or `dead`.
    pub(crate) state: &'static str,
    /// When the next one is due.
    pub(crate) due_ms: i64,
    pub(crate) status: Option<u16>,
    pub(crate) reason: Option<&'a str>,
}

/// Notes what came of a try, while the duty is held. One that was sent anew or taken away in between stays as it is.
pub(crate) async fn tried(
    store: &Store,
    held: &Held,
    row: &DeliveryRow,
    tried: Tried<'_>,
    now: i64,
) -> Result<(), StoreError> {
    let reason = tried.reason.map(|reason| reason.chars().take(REASON_MAX).collect::<String>());
    transaction!(store, |tx| {
        held.check(tx).await?;
        sqlx::query(
            "UPDATE webhook_deliveries SET state = ?, tries = tries + 1, due_ms = ?, ended_ms = ?, status = ?, reason = ? \
             WHERE id = ? AND state = 'waiting' AND tries = ?",
        )
        .bind(tried.state)
        .bind(tried.due_ms)
        .bind((tried.state != "waiting").then_some(now))
        .bind(tried.status.map(i64::from))
        .bind(&reason)
        .bind(&row.id)
        .bind(row.tries)
        .execute(&mut **tx)
        .await?;
        Ok(())
    })
}

/// Sends one anew that ended. `false`: there is none of that id that did.
pub(crate) async fn again(tx: &mut Write, webhook: &str, id: &str, now: i64) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE webhook_deliveries SET state = 'waiting', tries = 0, due_ms = ?, ended_ms = NULL \
         WHERE id = ? AND webhook = ? AND state <> 'waiting'",
    )
    .bind(now)
    .bind(id)
    .bind(webhook)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(crate) async fn delivery(store: &Store, webhook: &str, id: &str) -> Result<Option<DeliveryRow>, StoreError> {
    let sql = AssertSqlSafe(format!("SELECT {DELIVERY} FROM webhook_deliveries WHERE webhook = ? AND id = ?"));
    Ok(sqlx::query_as(sql).bind(webhook).bind(id).fetch_optional(store.read()).await?)
}

/// Of a webhook, newest first, from behind `after`; those in one state where it is named.
pub(crate) async fn deliveries(
    store: &Store,
    webhook: &str,
    state: Option<&str>,
    after: Option<(i64, &str)>,
    limit: u32,
) -> Result<Vec<DeliveryRow>, StoreError> {
    let (at, id) = after.unwrap_or((i64::MAX, ""));
    let only = if state.is_some() { " AND state = ?" } else { "" };
    let sql = AssertSqlSafe(format!(
        "SELECT {DELIVERY} FROM webhook_deliveries WHERE webhook = ? AND (made_ms < ? OR (made_ms = ? AND id > ?)){only} \
         ORDER BY made_ms DESC, id LIMIT ?"
    ));
    let mut query = sqlx::query_as(sql).bind(webhook).bind(at).bind(at).bind(id);
    if let Some(state) = state {
        query = query.bind(state);
    }
    Ok(query.bind(i64::from(limit)).fetch_all(store.read()).await?)
}

/// Closes a webhook for which more than `most` wait, and opens one again for which at most half of it do.
pub(crate) async fn bound(store: &Store, held: &Held, most: i64) -> Result<(), StoreError> {
    let waiting: Vec<(String, i64)> =
        sqlx::query_as("SELECT webhook, count(*) FROM webhook_deliveries WHERE state = 'waiting' GROUP BY webhook")
            .fetch_all(store.read())
            .await?;
    for row in all(store).await? {
        let waits = waiting.iter().find(|(id, _)| *id == row.id).map_or(0, |(_, count)| *count);
        let is_full = if row.is_full == 1 { waits > most / 2 } else { waits > most };
        if is_full != (row.is_full == 1) {
            tracing::warn!(
                webhook = row.id,
                waits,
                is_full,
                "what waits for a webhook is at its bound, or below it again"
            );
            transaction!(store, |tx| {
                held.check(tx).await?;
                sqlx::query("UPDATE webhooks SET is_full = ? WHERE id = ?")
                    .bind(i64::from(is_full))
                    .bind(&row.id)
                    .execute(&mut **tx)
                    .await?;
                Ok::<(), StoreError>(())
            })?;
        }
    }
    Ok(())
}

/// Forgets deliveries that ended before this time, and those of webhooks that are no more, at most `limit` of each. How many they were.
pub(crate) async fn prune(tx: &mut Write, ended_before: i64, limit: u32) -> Result<u64, StoreError> {
    let old = delete_some(tx, "webhook_deliveries", "id", "ended_ms < ?", args![ended_before], limit).await?;
    let gone = "webhook NOT IN (SELECT id FROM webhooks)";
    Ok(old.max(delete_some(tx, "webhook_deliveries", "id", gone, args![], limit).await?))
}
