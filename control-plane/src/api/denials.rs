//! `GET /v1/denials`: how often edges refused, by reason and hour.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::state::Shared;
use crate::store::sums;

/// Rows that are shown: a week of twenty reasons.
const ROWS_MAX: u32 = 7 * 24 * 20;

/// Newest hour first.
pub(crate) async fn list(State(parts): State<Shared>) -> Result<Json<Value>, ApiError> {
    let rows = sums::denials(&parts.store, ROWS_MAX).await?;
    let hourly: Vec<Value> = rows
        .iter()
        .map(|(hour_ms, reason, count)| json!({ "hour_ms": hour_ms, "reason": reason, "count": count }))
        .collect();
    Ok(Json(json!({ "hourly": hourly })))
}
