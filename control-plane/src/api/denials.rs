//! `GET /v1/denials`: how often edges refused, by reason and hour.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::request::{Asked, Page};
use crate::error::ApiError;
use crate::state::Shared;
use crate::store::sums;

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
    /// The `after` of the next page; `null`: this was the last one.
    next: Option<String>,
}

/// Newest hour first, page by page.
#[utoipa::path(get, path = "/v1/denials", params(Page), responses((status = 200, body = Denials)))]
pub(crate) async fn list(State(parts): State<Shared>, Asked(page): Asked<Page>) -> Result<Json<Denials>, ApiError> {
    let rows = sums::denials(&parts.store, page.cursor()?, page.limit()).await?;
    let next = page.next(rows.len(), rows.last().map(|(hour, reason, _)| (*hour, reason.as_str())));
    let hourly = rows.into_iter().map(|(hour_ms, reason, count)| DenialHour { hour_ms, reason, count });
    Ok(Json(Denials { hourly: hourly.collect(), next }))
}
