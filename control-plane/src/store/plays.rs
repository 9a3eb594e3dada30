//! What the tally keeps: offsets, ids that were counted, plays, sums.
//!
//! Every writing function takes the tally's transaction: a sum that moved without its offset, or an offset without
//! its sum, cannot be. One such transaction is under way at a time ([`begin`]), since a play is read, changed and written
//! back.

use std::collections::BTreeMap;

use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::dialect::{args, delete_some, insert_new, turn, upsert};
use super::{Store, StoreError, Write};
use crate::plays::cover::Cover;
use crate::plays::rule::Play;

/// `hour_ms` of the row that holds a track's total.
pub(crate) const TOTAL: i64 = -1;

/// Plays of one listener and track that a late fact can still find.
const PLAYS_LOOKED_AT: i64 = 16;

/// Begins counting: what others count meanwhile waits until this transaction ends.
pub(crate) async fn begin(tx: &mut Write) -> Result<(), StoreError> {
    turn(tx, "tally").await
}

/// Where reading of a log goes on; `None`: never read.
pub(crate) async fn offset(store: &Store, log: &str) -> Result<Option<u64>, StoreError> {
    let position: Option<i64> =
        sqlx::query_scalar("SELECT position FROM offsets WHERE log = ?").bind(log).fetch_optional(store.read()).await?;
    Ok(position.and_then(|at| u64::try_from(at).ok()))
}

/// The same inside of the transaction that is going to move it.
pub(crate) async fn offset_now(tx: &mut Write, log: &str) -> Result<Option<u64>, StoreError> {
    let position: Option<i64> =
        sqlx::query_scalar("SELECT position FROM offsets WHERE log = ?").bind(log).fetch_optional(&mut **tx).await?;
    Ok(position.and_then(|at| u64::try_from(at).ok()))
}

pub(crate) async fn set_offset(tx: &mut Write, log: &str, position: u64) -> Result<(), StoreError> {
    let row = "offsets (log, position) VALUES (?, ?)";
    upsert(tx, row, "log", "position = new(position)", args![log, super::tracks::signed(position)]).await
}

/// Notes that a fact is being counted. `false`: it was counted before.
pub(crate) async fn first_seen(tx: &mut Write, id: &str, now: i64) -> Result<bool, StoreError> {
    insert_new(tx, "seen (id, seen_ms) VALUES (?, ?)", args![id, now]).await
}

/// Forgets ids and hourly listeners from before these times, at most `limit` of each.
pub(crate) async fn prune(tx: &mut Write, seen_before: i64, hours_before: i64, limit: u32) -> Result<(), StoreError> {
    delete_some(tx, "seen", "id", "seen_ms < ?", args![seen_before], limit).await?;
    let old = "hour_ms >= 0 AND hour_ms < ?";
    delete_some(tx, "listeners", "track, hour_ms, listener", old, args![hours_before], limit).await?;
    Ok(())
}

struct PlayRow(Play);

impl FromRow<'_, AnyRow> for PlayRow {
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        let covered: &str = row.try_get("covered")?;
        let covered = Cover::from_text(covered).ok_or_else(|| {
            let error = StoreError::Unknown { column: "plays.covered", value: covered.to_owned() };
            sqlx::Error::Decode(Box::new(error))
        })?;
        Ok(Self(Play {
            id: row.try_get("id")?,
            track: row.try_get("track")?,
            sid: row.try_get("sid")?,
            sub: row.try_get("sub")?,
            started_ms: row.try_get("started_ms")?,
            first_ms: row.try_get("first_ms")?,
            last_ms: row.try_get("last_ms")?,
            ends_ms: row.try_get("ends_ms")?,
            ended_ms: row.try_get("ended_ms")?,
            covered,
            qualified: row.try_get::<i64, _>("qualified")? != 0,
            quartile: u8::try_from(row.try_get::<i64, _>("quartile")?).unwrap_or(u8::MAX),
        }))
    }
}

/// The latest plays of a listener and track.
pub(crate) async fn of_listener(tx: &mut Write, track: &str, sid: &str) -> Result<Vec<Play>, StoreError> {
    let rows: Vec<PlayRow> =
        sqlx::query_as("SELECT * FROM plays WHERE track = ? AND sid = ? ORDER BY last_ms DESC LIMIT ?")
            .bind(track)
            .bind(sid)
            .bind(PLAYS_LOOKED_AT)
            .fetch_all(&mut **tx)
            .await?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// Plays that are open and were over before `now`, the longest over first.
pub(crate) async fn over(tx: &mut Write, now: i64, limit: u32) -> Result<Vec<Play>, StoreError> {
    let rows: Vec<PlayRow> =
        sqlx::query_as("SELECT * FROM plays WHERE ended_ms IS NULL AND ends_ms < ? ORDER BY ends_ms LIMIT ?")
            .bind(now)
            .bind(i64::from(limit))
            .fetch_all(&mut **tx)
            .await?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// Stores a play as it now is.
pub(crate) async fn put(tx: &mut Write, play: &Play) -> Result<(), StoreError> {
    upsert(
        tx,
        "plays (id, track, sid, sub, started_ms, first_ms, last_ms, ends_ms, ended_ms, covered, qualified, quartile) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "id",
        "sub = new(sub), first_ms = new(first_ms), last_ms = new(last_ms), ends_ms = new(ends_ms), \
         ended_ms = new(ended_ms), covered = new(covered), qualified = new(qualified), quartile = new(quartile)",
        args![
            &play.id,
            &play.track,
            &play.sid,
            &play.sub,
            play.started_ms,
            play.first_ms,
            play.last_ms,
            play.ends_ms,
            play.ended_ms,
            play.covered.to_text(),
            i64::from(play.qualified),
            i64::from(play.quartile),
        ],
    )
    .await
}

/// Length of a track; `None`: unknown, or the track is gone.
pub(crate) async fn duration_ms(tx: &mut Write, track: &str) -> Result<Option<u64>, StoreError> {
    let duration: Option<Option<i64>> =
        sqlx::query_scalar("SELECT duration_ms FROM tracks WHERE id = ?").bind(track).fetch_optional(&mut **tx).await?;
    Ok(duration.flatten().and_then(|ms| u64::try_from(ms).ok()))
}

/// A row of `sums`, or what is to be added to one.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromRow)]
pub(crate) struct Sums {
    pub(crate) hour_ms: i64,
    pub(crate) plays: i64,
    pub(crate) qualified: i64,
    pub(crate) ended: i64,
    pub(crate) listeners: i64,
    /// Distinct media per play, added up.
    pub(crate) media_ms: i64,
    /// Bytes delivered, repeats included.
    pub(crate) bytes: i64,
    pub(crate) quartile_1: i64,
    pub(crate) quartile_2: i64,
    pub(crate) quartile_3: i64,
    pub(crate) quartile_4: i64,
}

impl Sums {
    /// Counts one passed quartile (1 to 4).
    pub(crate) fn count_quartile(&mut self, quartile: u8) {
        match quartile {
            1 => self.quartile_1 += 1,
            2 => self.quartile_2 += 1,
            3 => self.quartile_3 += 1,
            _ => self.quartile_4 += 1,
        }
    }
}

/// Adds to the row of a track and hour.
pub(crate) async fn add(tx: &mut Write, track: &str, hour_ms: i64, more: &Sums) -> Result<(), StoreError> {
    upsert(
        tx,
        "sums (track, hour_ms, plays, qualified, ended, listeners, media_ms, bytes, quartile_1, quartile_2, quartile_3, \
         quartile_4) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "track, hour_ms",
        "plays = plays + new(plays), qualified = qualified + new(qualified), ended = ended + new(ended), \
         listeners = listeners + new(listeners), media_ms = media_ms + new(media_ms), bytes = bytes + new(bytes), \
         quartile_1 = quartile_1 + new(quartile_1), quartile_2 = quartile_2 + new(quartile_2), \
         quartile_3 = quartile_3 + new(quartile_3), quartile_4 = quartile_4 + new(quartile_4)",
        args![
            track,
            hour_ms,
            more.plays,
            more.qualified,
            more.ended,
            more.listeners,
            more.media_ms,
            more.bytes,
            more.quartile_1,
            more.quartile_2,
            more.quartile_3,
            more.quartile_4,
        ],
    )
    .await
}

/// Notes a listener of a track in an hour (or in all, [`TOTAL`]). `false`: was there before.
pub(crate) async fn first_heard(tx: &mut Write, track: &str, hour_ms: i64, listener: &str) -> Result<bool, StoreError> {
    insert_new(tx, "listeners (track, hour_ms, listener) VALUES (?, ?, ?)", args![track, hour_ms, listener]).await
}

/// Adds to the count of denials.
pub(crate) async fn add_denials(tx: &mut Write, counts: &BTreeMap<(i64, String), i64>) -> Result<(), StoreError> {
    for ((hour_ms, reason), count) in counts {
        let row = "denials (hour_ms, reason, count) VALUES (?, ?, ?)";
        upsert(tx, row, "hour_ms, reason", "count = count + new(count)", args![*hour_ms, reason, *count]).await?;
    }
    Ok(())
}

const SUMS: &str = "SELECT hour_ms, plays, qualified, ended, listeners, media_ms, bytes, quartile_1, quartile_2, \
                    quartile_3, quartile_4 FROM sums WHERE track = ? AND hour_ms ";

/// A track's total.
pub(crate) async fn total(store: &Store, track: &str) -> Result<Option<Sums>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("{SUMS} = ?"));
    Ok(sqlx::query_as(sql).bind(track).bind(TOTAL).fetch_optional(store.read()).await?)
}

/// A track's hours, oldest first, the latest `limit` of them.
pub(crate) async fn hours(store: &Store, track: &str, limit: u32) -> Result<Vec<Sums>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("{SUMS} > ? ORDER BY hour_ms DESC LIMIT ?"));
    let mut hours: Vec<Sums> =
        sqlx::query_as(sql).bind(track).bind(TOTAL).bind(i64::from(limit)).fetch_all(store.read()).await?;
    hours.reverse();
    Ok(hours)
}

/// Denials by hour and reason, newest first.
pub(crate) async fn denials(store: &Store, limit: u32) -> Result<Vec<(i64, String, i64)>, StoreError> {
    Ok(sqlx::query_as("SELECT hour_ms, reason, count FROM denials ORDER BY hour_ms DESC, reason LIMIT ?")
        .bind(i64::from(limit))
        .fetch_all(store.read())
        .await?)
}
