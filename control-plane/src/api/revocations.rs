//! `/v1/revocations`: tickets that are void before they expire.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::request::{Asked, Body, Page};
use crate::error::ApiError;
use crate::state::{Parts, Shared};
use crate::store::revocations::{self, RevocationRow};
use crate::store::{keys, transaction};
use crate::{clock, ids};

/// In force at once: every edge holds all of them in memory, some 300 bytes each.
const IN_FORCE_MAX: i64 = 50_000;

/// Longest end, in seconds from now: longer than any ticket lives.
const UNTIL_MAX_S: i64 = 400 * 86_400;

/// Bytes of a name, as tickets and facts bound them, and of a note.
const NAME_MAX: usize = 256;
const NOTE_MAX: usize = 1024;

/// Conditions, all of which must hold, and an end.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRevocation {
    #[serde(default)]
    sid: Option<String>,
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    track: Option<String>,
    /// Seconds since the epoch.
    #[serde(default)]
    issued_before: Option<i64>,
    /// Seconds since the epoch; where it is left out, when the longest-lived ticket of today has expired.
    #[serde(default)]
    until: Option<i64>,
    #[serde(default)]
    note: Option<String>,
}

/// A revocation as the API shows it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RevocationView {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    track: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_before: Option<i64>,
    until: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    created_ms: i64,
}

impl From<RevocationRow> for RevocationView {
    fn from(row: RevocationRow) -> Self {
        let RevocationRow { id, sid, sub, track, issued_before, until, note, created_ms } = row;
        Self { id, sid, sub, track, issued_before, until, note, created_ms }
    }
}

/// A page of revocations.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Revocations {
    revocations: Vec<RevocationView>,
    /// The `after` of the next page; `null`: this was the last one.
    next: Option<String>,
}

/// Those in force, newest first, page by page.
#[utoipa::path(get, path = "/v1/revocations", params(Page), responses((status = 200, body = Revocations)))]
pub(crate) async fn list(State(parts): State<Shared>, Asked(page): Asked<Page>) -> Result<Json<Revocations>, ApiError> {
    let rows = revocations::list(&parts.store, clock::now_s(), page.cursor()?, page.limit()).await?;
    let next = page.next(rows.len(), rows.last().map(|row| (row.created_ms, row.id.as_str())));
    Ok(Json(Revocations { revocations: rows.into_iter().map(RevocationView::from).collect(), next }))
}

/// Revokes. When this answers, it is committed and on its way to every edge.
#[utoipa::path(post, path = "/v1/revocations", request_body = NewRevocation, responses((status = 201, body = RevocationView), (status = 409, description = "`too-many-revocations`")))]
pub(crate) async fn add(
    State(parts): State<Shared>,
    Body(wish): Body<NewRevocation>,
) -> Result<(StatusCode, Json<RevocationView>), ApiError> {
    let now = clock::now_s();
    let row = checked(&parts, wish, now)?;
    transaction!(parts.store, |tx| {
        let revision = keys::raise_revision(tx, clock::now_ms()).await?;
        if revocations::count(tx, now).await? >= IN_FORCE_MAX {
            return Err(ApiError::conflict(
                "too-many-revocations",
                format!(
                    "{IN_FORCE_MAX} are in force; revoke by `sub` or `issued_before` what many of them name one by one"
                ),
            ));
        }
        Ok(revocations::insert(tx, &row, revision).await?)
    })?;
    parts.keys.publish(&parts.store).await?;
    Ok((StatusCode::CREATED, Json(row.into())))
}

/// Takes a revocation back.
#[utoipa::path(delete, path = "/v1/revocations/{id}", responses((status = 204)))]
pub(crate) async fn lift(State(parts): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    transaction!(parts.store, |tx| {
        let revision = keys::raise_revision(tx, clock::now_ms()).await?;
        let lifted = revocations::lift(tx, &id, clock::now_s(), revision).await?;
        if lifted { Ok(()) } else { Err(ApiError::NotFound("revocation")) }
    })?;
    parts.keys.publish(&parts.store).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn checked(parts: &Parts, wish: NewRevocation, now: i64) -> Result<RevocationRow, ApiError> {
    let NewRevocation { sid, sub, track, issued_before, until, note } = wish;
    if sid.is_none() && sub.is_none() && track.is_none() && issued_before.is_none() {
        return Err(ApiError::invalid("name at least one of `sid`, `sub`, `track` and `issued_before`"));
    }
    for (what, text) in [("sid", &sid), ("sub", &sub), ("track", &track)] {
        if text.as_ref().is_some_and(|text| text.is_empty() || text.len() > NAME_MAX) {
            return Err(ApiError::invalid(format!("`{what}` must be 1 to {NAME_MAX} bytes")));
        }
    }
    if note.as_ref().is_some_and(|note| note.len() > NOTE_MAX) {
        return Err(ApiError::invalid(format!("`note` must be at most {NOTE_MAX} bytes")));
    }
    let longest = i64::try_from(parts.tickets.max_ttl.as_secs()).unwrap_or(UNTIL_MAX_S).min(UNTIL_MAX_S);
    let until = until.unwrap_or(now + longest);
    if until <= now || until > now + UNTIL_MAX_S {
        return Err(ApiError::invalid("`until` must lie in the next 400 days (seconds since the epoch)"));
    }
    Ok(RevocationRow { id: ids::other()?, sid, sub, track, issued_before, until, note, created_ms: clock::now_ms() })
}
