//! `GET /v1/tracks/{track}/stats` and `GET /v1/stats`: what the tally counted, of a track and of the house.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::request::{Asked, track_id};
use crate::clock;
use crate::error::ApiError;
use crate::plays::sums::{CACHE, Sums};
use crate::state::{Parts, Shared};
use crate::store::sums::HOUSE;
use crate::store::{StoreError, plays, sums, tracks};
use crate::tally;

const HOUR_MS: i64 = 3_600_000;

/// Hours that are shown of a track where none are asked for: a month.
const TRACK_HOURS: i64 = 31 * 24;

/// And of the house: a day.
const HOUSE_HOURS: i64 = 24;

/// Hours of one answer: a quarter of a year.
const HOURS_MAX: i64 = 92 * 24;

/// Tracks that are named as the busiest.
const BUSIEST: u32 = 10;

/// Which hours: those that begin in `from..to`, ms since the epoch. To now, if `to` is left out.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Range {
    from: Option<i64>,
    to: Option<i64>,
}

/// The same in whole hours.
#[derive(Clone, Copy)]
struct Hours {
    from: i64,
    to: i64,
}

impl Range {
    fn hours(&self, otherwise: i64) -> Result<Hours, ApiError> {
        let next = tally::hour(clock::now_ms()) + HOUR_MS;
        let to = self.to.map_or(next, |to| tally::hour(to.saturating_sub(1).max(0)) + HOUR_MS);
        let from = self.from.map_or(to - otherwise * HOUR_MS, tally::hour);
        if from >= to {
            return Err(ApiError::invalid("`from` does not lie before `to`"));
        }
        if (to - from) / HOUR_MS > HOURS_MAX {
            return Err(ApiError::invalid(format!("at most {HOURS_MAX} hours in one answer")));
        }
        Ok(Hours { from: from.max(0), to })
    }
}

#[utoipa::path(get, path = "/v1/tracks/{track}/stats", params(Range), responses((status = 200, description = "Sums of the track, and by hour", body = Object)))]
pub(crate) async fn of_track(
    State(parts): State<Shared>,
    Path(id): Path<String>,
    Asked(range): Asked<Range>,
) -> Result<Json<Value>, ApiError> {
    let id = track_id(id)?;
    if tracks::get(&parts.store, &id).await?.is_none() {
        return Err(ApiError::NotFound("track"));
    }
    let hours = range.hours(TRACK_HOURS)?;
    let total = sums::total(&parts.store, &id).await?.unwrap_or_default();
    let counted = sums::hours(&parts.store, &id, hours.from, hours.to).await?;
    let mut answer = shown(&total);
    answer.insert("track".to_owned(), json!(id));
    answer.insert("now".to_owned(), now(&parts, Some(&id)).await?);
    answer.insert("hourly".to_owned(), counted.iter().map(|(hour, sums)| hourly(*hour, sums)).collect());
    Ok(Json(Value::Object(answer)))
}

#[utoipa::path(get, path = "/v1/stats", params(Range), responses((status = 200, description = "Sums of the house, and by hour", body = Object)))]
pub(crate) async fn of_house(State(parts): State<Shared>, Asked(range): Asked<Range>) -> Result<Json<Value>, ApiError> {
    let hours = range.hours(HOUSE_HOURS)?;
    let counted = sums::hours(&parts.store, HOUSE, hours.from, hours.to).await?;
    let mut total = Sums::default();
    for (_, sums) in &counted {
        total += sums;
    }
    let mut answer = shown(&total);
    // Hours cannot be added up to listeners: somebody who listens for two hours is one. Who listened is known for a while.
    let known = hours.from >= tally::hour(clock::now_ms() - tally::SEEN_MS) + HOUR_MS;
    let heard = if known { Some(sums::heard(&parts.store, HOUSE, hours.from, hours.to).await?) } else { None };
    answer.insert("listeners".to_owned(), json!(heard.map(|heard| heard.0)));
    answer.insert("sessions".to_owned(), json!(heard.map(|heard| heard.1)));
    answer.insert("from_ms".to_owned(), json!(hours.from));
    answer.insert("to_ms".to_owned(), json!(hours.to));
    answer.insert("now".to_owned(), now(&parts, None).await?);
    let denied = sums::denials_between(&parts.store, hours.from, hours.to).await?;
    let mut by_reason: BTreeMap<&str, i64> = BTreeMap::new();
    let mut by_hour: BTreeMap<i64, i64> = BTreeMap::new();
    for (hour, reason, count) in &denied {
        *by_reason.entry(reason).or_default() += count;
        *by_hour.entry(*hour).or_default() += count;
    }
    answer.insert("denials".to_owned(), json!({ "total": by_reason.values().sum::<i64>(), "by_reason": by_reason }));
    let mut by_time: BTreeMap<i64, Sums> = counted.into_iter().collect();
    for hour in by_hour.keys() {
        by_time.entry(*hour).or_default();
    }
    let shown_hours = by_time.iter().map(|(hour, sums)| {
        let mut shown = hourly(*hour, sums);
        shown["denials"] = json!(by_hour.get(hour).copied().unwrap_or(0));
        shown
    });
    answer.insert("hourly".to_owned(), shown_hours.collect());
    let busiest = sums::busiest(&parts.store, hours.from, hours.to, BUSIEST).await?;
    let tracks = busiest
        .iter()
        .map(|(track, qualified, plays, bytes)| json!({ "track": track, "qualified": qualified, "plays": plays, "bytes": bytes }));
    answer.insert("tracks".to_owned(), tracks.collect());
    Ok(Json(Value::Object(answer)))
}

async fn now(parts: &Parts, track: Option<&str>) -> Result<Value, StoreError> {
    let (plays, listeners) = plays::now(&parts.store, track, clock::now_ms()).await?;
    Ok(json!({ "plays": plays, "listeners": listeners }))
}

/// Sums as the API shows them.
fn shown(sums: &Sums) -> Map<String, Value> {
    let by_word = CACHE.iter().zip(sums.cache_facts.iter().zip(&sums.cache_bytes));
    let by_word: Map<String, Value> = by_word
        .map(|(word, (facts, bytes))| (word.as_str().to_owned(), json!({ "facts": facts, "bytes": bytes })))
        .collect();
    let cmcd = &sums.cmcd;
    let shown = json!({
        "plays": sums.plays,
        "qualified": sums.qualified,
        "ended": sums.ended,
        "listeners": sums.listeners,
        "sessions": sums.sessions,
        "seconds": seconds(sums.media_ms),
        "bytes": sums.bytes,
        "facts": sums.facts,
        "quartiles": sums.quartiles,
        "deciles": sums.deciles,
        "cache": {
            "ratio": share(from_cache(&sums.cache_facts), sums.facts),
            "bytes_ratio": share(from_cache(&sums.cache_bytes), sums.bytes),
            "by": by_word,
        },
        "ttfb_ms": percentiles(sums),
        "cmcd": {
            "facts": cmcd.facts,
            "starved": cmcd.starved,
            "startup": cmcd.startup,
            "starved_ratio": share(cmcd.starved, cmcd.facts),
            "mtp_kbps": share(cmcd.mtp_kbps, cmcd.mtp).map(f64::round),
            "rtp_kbps": share(cmcd.rtp_kbps, cmcd.rtp).map(f64::round),
        },
    });
    match shown {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn hourly(hour: i64, sums: &Sums) -> Value {
    json!({
        "hour_ms": hour,
        "plays": sums.plays,
        "qualified": sums.qualified,
        "listeners": sums.listeners,
        "sessions": sums.sessions,
        "seconds": seconds(sums.media_ms),
        "bytes": sums.bytes,
        "facts": sums.facts,
        "cache_ratio": share(from_cache(&sums.cache_facts), sums.facts),
        "cached_bytes": from_cache(&sums.cache_bytes),
        "ttfb_ms": percentiles(sums),
        "starved": sums.cmcd.starved,
    })
}

fn percentiles(sums: &Sums) -> Value {
    json!({ "p50": sums.ttfb.quantile(0.5), "p95": sums.ttfb.quantile(0.95), "p99": sums.ttfb.quantile(0.99) })
}

/// What came from the edges without a request of theirs to the origin: hits, what waited for another's fill, and what was stale.
fn from_cache(by_word: &[i64; 6]) -> i64 {
    let [memory, disk, _miss, coalesced, stale, _bypass] = by_word;
    memory + disk + coalesced + stale
}

/// `None`: of nothing.
fn share(part: i64, whole: i64) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "a ratio needs four digits, not nineteen")]
    let share = part as f64 / whole as f64;
    (whole > 0).then(|| (share * 10_000.0).round() / 10_000.0)
}

/// Distinct media that listeners were given, in seconds with three decimals.
fn seconds(media_ms: i64) -> f64 {
    // A play's media fits an f64 exactly for 285,000 years.
    #[allow(clippy::cast_precision_loss)]
    let ms = media_ms as f64;
    ms / 1000.0
}
