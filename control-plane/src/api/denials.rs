//! `GET /v1/denials`: how often edges refused, by reason and hour.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::error::ApiError;
use crate::state::Shared;
use crate::store::sums;

/// Rows that are shown: a week of twenty reasons.
const ROWS_MAX: u32 = 7 * 24 * 20;

/// How often edges refused for one reason in one hour.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct DenialHour {
    hour_ms: i64,
    reason: String,
    count: i64,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Denials {
    hourly: Vec<DenialHour>,
}

/// Newest hour first.
#[utoipa::path(get, path = "/v1/denials", responses((status = 200, body = Denials)))]
pub(crate) async fn list(State(parts): State<Shared>) -> Result<Json<Denials>, ApiError> {
    let rows = sums::denials(&parts.store, ROWS_MAX).await?;
    let hourly = rows.into_iter().map(|(hour_ms, reason, count)| DenialHour { hour_ms, reason, count });
    Ok(Json(Denials { hourly: hourly.collect() }))
}
