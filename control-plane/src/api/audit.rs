//! `GET /v1/audit`: who changed what, newest first.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::request::{Asked, Page};
use crate::error::ApiError;
use crate::state::Shared;
use crate::store::audit::{self, AuditRow, Wanted};

/// Bytes of a filter.
const FILTER_MAX: usize = 191;

/// Which records; each that is given narrows them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// A token's id or name.
    #[serde(default)]
    #[param(min_length = 1, max_length = 191)]
    actor: Option<String>,
    /// The operation's id in this document, such as `keys.rotate`.
    #[serde(default)]
    #[param(min_length = 1, max_length = 191)]
    operation: Option<String>,
    /// What was changed, such as `tracks/k3w5…`, and what lies under it.
    #[serde(default)]
    #[param(min_length = 1, max_length = 191)]
    resource: Option<String>,
    /// Begun at this time or later, ms since the epoch.
    #[serde(default)]
    from: Option<i64>,
    /// Begun before this time, ms since the epoch.
    #[serde(default)]
    to: Option<i64>,
}

/// A record. Times are ms since the epoch.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct AuditRecord {
    id: String,
    /// When it began; of refusals the minute in which they came.
    at_ms: i64,
    /// `null`: its control plane died, or goes on with it.
    ended_ms: Option<i64>,
    /// `admin`, `change`, `ticket` or `refused`.
    sort: String,
    operation: String,
    method: String,
    /// What it names: the path without `/v1/` as far as it names something, and what was made.
    resource: String,
    /// The token's id; `null`: it was not known.
    actor: Option<String>,
    actor_name: Option<String>,
    address: String,
    request_id: Option<String>,
    /// The answer's status; `null`: there was none.
    status: Option<i64>,
    /// The word of the error.
    error: Option<String>,
    /// How often, where many refusals are one record.
    times: i64,
    /// Some of what was asked for; never secrets, tickets or URLs.
    summary: Value,
}

impl From<AuditRow> for AuditRecord {
    fn from(row: AuditRow) -> Self {
        Self {
            summary: row.summary.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
            id: row.id,
            at_ms: row.at_ms,
            ended_ms: row.ended_ms,
            sort: row.sort,
            operation: row.operation,
            method: row.method,
            resource: row.resource,
            actor: row.actor,
            actor_name: row.actor_name,
            address: row.address,
            request_id: row.request_id,
            status: row.status,
            error: row.error,
            times: row.times,
        }
    }
}

/// A page of records.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct AuditRecords {
    records: Vec<AuditRecord>,
    /// The `after` of the next page; `null`: this was the last one.
    next: Option<String>,
}

/// Who changed what, newest first, page by page.
#[utoipa::path(get, path = "/v1/audit", params(Filter, Page), responses((status = 200, body = AuditRecords)))]
pub(crate) async fn list(
    State(parts): State<Shared>,
    Asked(filter): Asked<Filter>,
    Asked(page): Asked<Page>,
) -> Result<Json<AuditRecords>, ApiError> {
    for (name, text) in [("actor", &filter.actor), ("operation", &filter.operation), ("resource", &filter.resource)] {
        if text.as_ref().is_some_and(|text| text.is_empty() || text.len() > FILTER_MAX) {
            return Err(ApiError::invalid(format!("`{name}` must be 1 to {FILTER_MAX} bytes")));
        }
    }
    let wanted = Wanted {
        actor: filter.actor,
        operation: filter.operation,
        resource: filter.resource.map(|text| text.trim_matches('/').to_owned()),
        from_ms: filter.from,
        to_ms: filter.to,
    };
    let rows = audit::list(&parts.store, &wanted, page.cursor()?, page.limit()).await?;
    let next = page.next(rows.len(), rows.last().map(|row| (row.at_ms, row.id.as_str())));
    Ok(Json(AuditRecords { records: rows.into_iter().map(AuditRecord::from).collect(), next }))
}
