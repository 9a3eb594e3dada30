//! `GET /v1/tracks/{track}/stats`: what the tally counted.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::request::track_id;
use crate::error::ApiError;
use crate::state::Shared;
use crate::store::{plays, tracks};

/// Hours that are shown: a month.
const HOURS_MAX: u32 = 31 * 24;

pub(crate) async fn of_track(State(parts): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let id = track_id(id)?;
    if tracks::get(&parts.store, &id).await?.is_none() {
        return Err(ApiError::NotFound("track"));
    }
    let total = plays::total(&parts.store, &id).await?.unwrap_or_default();
    let hours = plays::hours(&parts.store, &id, HOURS_MAX).await?;
    let hourly: Vec<Value> = hours
        .iter()
        .map(|hour| {
            json!({
                "hour_ms": hour.hour_ms,
                "plays": hour.plays,
                "qualified": hour.qualified,
                "listeners": hour.listeners,
                "seconds": seconds(hour.media_ms),
                "bytes": hour.bytes,
            })
        })
        .collect();
    Ok(Json(json!({
        "track": id,
        "plays": total.plays,
        "qualified": total.qualified,
        "ended": total.ended,
        "listeners": total.listeners,
        "seconds": seconds(total.media_ms),
        "bytes": total.bytes,
        "quartiles": [total.quartile_1, total.quartile_2, total.quartile_3, total.quartile_4],
        "hourly": hourly,
    })))
}

/// Distinct media that listeners were given, in seconds with three decimals.
fn seconds(media_ms: i64) -> f64 {
    // A play's media fits an f64 exactly for 285,000 years.
    #[allow(clippy::cast_precision_loss)]
    let ms = media_ms as f64;
    ms / 1000.0
}
