//! What the tally keeps of single things: offsets, ids that were counted, plays, who listened. Sums stand in `sums.rs`.
//!
//! Every writing function takes the tally's transaction: a sum that moved without its offset, or an offset without
//! its sum, cannot be. One such transaction is under way at a time ([`begin`]), since a play is read, changed and written
//! back.

use std::collections::{HashMap, HashSet};

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, FromRow, Row};

use super::bulk::{self, There};
use super::dialect::{Dialect, args, delete_some, turn, upsert};
use super::{Store, StoreError, Write};
use crate::plays::cover::Cover;
use crate::plays::rule::Play;

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

/// A block of ids that were counted: what they have in common, and its number.
pub(crate) type Block = (String, i64);

/// The blocks of these that are there, with their bits.
pub(crate) async fn seen(tx: &mut Write, blocks: &[Block]) -> Result<HashMap<Block, Vec<u8>>, StoreError> {
    let mut found = HashMap::new();
    for piece in bulk::sizes(blocks) {
        let known = bulk::one_of(Dialect::of(tx), &["stem", "block"], piece.len());
        let sql = AssertSqlSafe(format!("SELECT stem, block, bits FROM seen_blocks WHERE {known}"));
        let query = piece.iter().fold(sqlx::query_as(sql), |query, (stem, block)| query.bind(stem).bind(block));
        let rows: Vec<(String, i64, Vec<u8>)> = query.fetch_all(&mut **tx).await?;
        found.extend(rows.into_iter().map(|(stem, block, bits)| ((stem, block), bits)));
    }
    Ok(found)
}

/// Stores blocks as they now are.
pub(crate) async fn put_seen(tx: &mut Write, blocks: &[(Block, Vec<u8>)], now: i64) -> Result<(), StoreError> {
    const OTHERS: [&str; 2] = ["bits", "seen_ms"];
    for piece in bulk::sizes(blocks) {
        let keys = ["stem", "block"];
        let sql = bulk::insert(Dialect::of(tx), "seen_blocks", &keys, &OTHERS, piece.len(), There::Replaced);
        let query = piece.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, ((stem, block), bits)| {
            query.bind(stem).bind(block).bind(bits).bind(now)
        });
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// Forgets ids and hourly listeners from before these times, and plays that ended before a third; at most `limit` of each.
pub(crate) async fn prune(
    tx: &mut Write,
    seen_before: i64,
    hours_before: i64,
    plays_before: i64,
    limit: u32,
) -> Result<(), StoreError> {
    delete_some(tx, "seen_blocks", "stem, block", "seen_ms < ?", args![seen_before], limit).await?;
    let old = "hour_ms >= 0 AND hour_ms < ?";
    delete_some(tx, "listeners", "track, hour_ms, listener", old, args![hours_before], limit).await?;
    delete_some(tx, "plays", "id", "ended_ms < ?", args![plays_before], limit).await?;
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
            first_ms: row.try_get("first_ms")?,
            last_ms: row.try_get("last_ms")?,
            ends_ms: row.try_get("ends_ms")?,
            ended_ms: row.try_get("ended_ms")?,
            covered,
            qualified: row.try_get::<i64, _>("qualified")? != 0,
            quartile: few(row, "quartile")?,
            decile: few(row, "decile")?,
        }))
    }
}

fn few(row: &AnyRow, column: &str) -> Result<u8, sqlx::Error> {
    Ok(u8::try_from(row.try_get::<i64, _>(column)?).unwrap_or(u8::MAX))
}

fn plays_of(rows: Vec<PlayRow>) -> Vec<Play> {
    rows.into_iter().map(|row| row.0).collect()
}

/// A listener's session on a track: track, sid.
pub(crate) type Session = (String, String);

/// The plays of these sessions whose span touches `from..=to`.
pub(crate) async fn of_sessions(
    tx: &mut Write,
    sessions: &[Session],
    from: i64,
    to: i64,
) -> Result<Vec<Play>, StoreError> {
    let mut found = Vec::new();
    for piece in bulk::sizes(sessions) {
        let theirs = bulk::one_of(Dialect::of(tx), &["track", "sid"], piece.len());
        let sql = AssertSqlSafe(format!("SELECT * FROM plays WHERE {theirs} AND last_ms >= ? AND first_ms <= ?"));
        let query = piece.iter().fold(sqlx::query_as(sql), |query, (track, sid)| query.bind(track).bind(sid));
        found.extend(plays_of(query.bind(from).bind(to).fetch_all(&mut **tx).await?));
    }
    Ok(found)
}

/// Plays that are open and were over before `now`, the longest over first.
pub(crate) async fn over(tx: &mut Write, now: i64, limit: u32) -> Result<Vec<Play>, StoreError> {
    let rows: Vec<PlayRow> =
        sqlx::query_as("SELECT * FROM plays WHERE ended_ms IS NULL AND ends_ms < ? ORDER BY ends_ms LIMIT ?")
            .bind(now)
            .bind(i64::from(limit))
            .fetch_all(&mut **tx)
            .await?;
    Ok(plays_of(rows))
}

/// Stores plays as they now are.
pub(crate) async fn put(tx: &mut Write, plays: &[&Play]) -> Result<(), StoreError> {
    const OTHERS: [&str; 12] = [
        "track",
        "sid",
        "sub",
        "first_ms",
        "last_ms",
        "ends_ms",
        "ended_ms",
        "until_ms",
        "covered",
        "qualified",
        "quartile",
        "decile",
    ];
    for piece in bulk::sizes(plays) {
        let sql = bulk::insert(Dialect::of(tx), "plays", &["id"], &OTHERS, piece.len(), There::Replaced);
        let query = piece.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, play| {
            query
                .bind(&play.id)
                .bind(&play.track)
                .bind(&play.sid)
                .bind(&play.sub)
                .bind(play.first_ms)
                .bind(play.last_ms)
                .bind(play.ends_ms)
                .bind(play.ended_ms)
                .bind(play.until_ms())
                .bind(play.covered.to_text())
                .bind(i64::from(play.qualified))
                .bind(i64::from(play.quartile))
                .bind(i64::from(play.decile))
        });
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// Forgets plays: they are part of another now, or old.
pub(crate) async fn delete(tx: &mut Write, ids: &[String]) -> Result<(), StoreError> {
    for piece in bulk::sizes(ids) {
        let sql = format!("DELETE FROM plays WHERE {}", bulk::one_of(Dialect::of(tx), &["id"], piece.len()));
        piece.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, id| query.bind(id)).execute(&mut **tx).await?;
    }
    Ok(())
}

/// Lengths of tracks, ms; what is not there is unknown, or its track is gone.
pub(crate) async fn durations(tx: &mut Write, tracks: &[String]) -> Result<HashMap<String, u64>, StoreError> {
    let mut found = HashMap::new();
    for piece in bulk::sizes(tracks) {
        let sql =
            format!("SELECT id, duration_ms FROM tracks WHERE {}", bulk::one_of(Dialect::of(tx), &["id"], piece.len()));
        let query = piece.iter().fold(sqlx::query_as(AssertSqlSafe(sql)), |query, id| query.bind(id));
        let rows: Vec<(String, Option<i64>)> = query.fetch_all(&mut **tx).await?;
        found.extend(rows.into_iter().filter_map(|(id, ms)| Some((id, u64::try_from(ms?).ok()?))));
    }
    Ok(found)
}

/// Somebody who was heard: track (or '' for the house), hour (or the total's), and who.
pub(crate) type Heard = (String, i64, String);

/// Notes who was heard; gives those who were not known before.
pub(crate) async fn first_heard(tx: &mut Write, heard: &HashSet<Heard>) -> Result<Vec<Heard>, StoreError> {
    let all: Vec<&Heard> = heard.iter().collect();
    let mut known = HashSet::new();
    for piece in bulk::sizes(&all) {
        let theirs = bulk::one_of(Dialect::of(tx), &["track", "hour_ms", "listener"], piece.len());
        let sql = AssertSqlSafe(format!("SELECT track, hour_ms, listener FROM listeners WHERE {theirs}"));
        let query = piece.iter().fold(sqlx::query_as::<_, Heard>(sql), |query, (track, hour_ms, listener)| {
            query.bind(track).bind(hour_ms).bind(listener)
        });
        known.extend(query.fetch_all(&mut **tx).await?);
    }
    let new: Vec<Heard> = all.into_iter().filter(|one| !known.contains(*one)).cloned().collect();
    for piece in bulk::sizes(&new) {
        let keys = ["track", "hour_ms", "listener"];
        let sql = bulk::insert::<&str>(Dialect::of(tx), "listeners", &keys, &[], piece.len(), There::Never);
        let query = piece.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, (track, hour_ms, listener)| {
            query.bind(track).bind(hour_ms).bind(listener)
        });
        query.execute(&mut **tx).await?;
    }
    Ok(new)
}

/// Plays and listeners of the moment, of a track or of all.
pub(crate) async fn now(store: &Store, track: Option<&str>, now: i64) -> Result<(i64, i64), StoreError> {
    let mut sql = "SELECT COUNT(*), COUNT(DISTINCT COALESCE(sub, sid)) FROM plays \
                   WHERE ended_ms IS NULL AND ends_ms > ? AND until_ms > ?"
        .to_owned();
    if track.is_some() {
        sql.push_str(" AND track = ?");
    }
    let query = sqlx::query_as(AssertSqlSafe(sql)).bind(now).bind(now);
    let query = track.into_iter().fold(query, |query, track| query.bind(track));
    Ok(query.fetch_one(store.read()).await?)
}

/// Plays that began in `from..to`, in that order, after the one named; at most `limit`.
pub(crate) async fn between(
    store: &Store,
    (from, after): (i64, &str),
    to: i64,
    limit: u32,
) -> Result<Vec<Play>, StoreError> {
    let rows: Vec<PlayRow> = sqlx::query_as(
        "SELECT * FROM plays WHERE first_ms < ? AND (first_ms > ? OR (first_ms = ? AND id > ?)) \
         ORDER BY first_ms, id LIMIT ?",
    )
    .bind(to)
    .bind(from)
    .bind(from)
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(store.read())
    .await?;
    Ok(plays_of(rows))
}
