//! `/v1/policies`: the registry of policies, and who of their versions decides.
//!
//! | file         | routes |
//! |--------------|--------|
//! | `upload.rs`  | a new version |
//! | `rollout.rs` | push, shadow, canary, active, rollback, and their ends |
//! | `diff.rs`    | what a shadow would have said; verdicts over time |
//! | `view.rs`    | a policy as the API shows it |

pub(crate) mod diff;
pub(crate) mod rollout;
pub(crate) mod upload;
pub(crate) mod view;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use segue_signing::MAX_POLICY_NAME_BYTES;
use serde::{Deserialize, Serialize};

use super::request::Asked;
use crate::auth::Caller;
use crate::clock;
use crate::error::ApiError;
use crate::state::{Parts, Shared};
use crate::store::policies::{self, HistoryRow, PolicyRow, VersionRow, bytes};
use crate::store::{Write, edges, keys, transaction};

/// Bytes of a note.
const NOTE_MAX: usize = 1024;

/// Lines of a history in one answer.
const HISTORY_DEFAULT: u32 = 100;
const HISTORY_MAX: u32 = 1000;

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Policies {
    policies: Vec<view::Policy>,
    /// Whether only files that a known signer signed are taken.
    signed_only: bool,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = PolicyHistory)]
pub(crate) struct History {
    /// Newest first.
    history: Vec<view::Line>,
    /// The `before` of the next page.
    next: Option<i64>,
}

/// All policies: their versions, who decides, and how edges stand.
#[utoipa::path(get, path = "/v1/policies", responses((status = 200, body = Policies)))]
pub(crate) async fn list(State(parts): State<Shared>) -> Result<Json<Policies>, ApiError> {
    let (all, edges) = (policies::all(&parts.store).await?, edges::list(&parts.store).await?);
    let now = clock::now_ms();
    let views = all.iter().map(|(policy, versions)| view::policy(policy, versions, &edges, now, false));
    Ok(Json(Policies { policies: views.collect(), signed_only: !parts.policies.signers().is_empty() }))
}

/// One policy, with its versions' configurations.
#[utoipa::path(get, path = "/v1/policies/{policy}", responses((status = 200, body = view::Policy)))]
pub(crate) async fn show(
    State(parts): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<view::Policy>, ApiError> {
    Ok(Json(shown(&parts, &name).await?))
}

async fn shown(parts: &Parts, name: &str) -> Result<view::Policy, ApiError> {
    let (policy, versions) = policies::one(&parts.store, name).await?.ok_or(ApiError::NotFound("policy"))?;
    let edges = edges::list(&parts.store).await?;
    Ok(view::policy(&policy, &versions, &edges, clock::now_ms(), true))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryPage {
    #[serde(default)]
    limit: Option<u32>,
    /// The `seq` of the last line of the page before.
    #[serde(default)]
    before: Option<i64>,
}

/// Who did what, newest first. It outlives the policy.
#[utoipa::path(get, path = "/v1/policies/{policy}/history", params(HistoryPage), responses((status = 200, body = History)))]
pub(crate) async fn history(
    State(parts): State<Shared>,
    Path(name): Path<String>,
    Asked(page): Asked<HistoryPage>,
) -> Result<Json<History>, ApiError> {
    let limit = page.limit.unwrap_or(HISTORY_DEFAULT).clamp(1, HISTORY_MAX);
    let lines = policies::history(&parts.store, &name, page.before.unwrap_or(i64::MAX), limit).await?;
    if lines.is_empty() && page.before.is_none() && policies::one(&parts.store, &name).await?.is_none() {
        return Err(ApiError::NotFound("policy"));
    }
    let next = lines.last().filter(|_| lines.len() == limit as usize).map(|line| line.seq);
    Ok(Json(History { history: lines.into_iter().map(view::Line::from).collect(), next }))
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Deletion {
    /// Also where it is active or tried: its rule is enforced by nobody from then on.
    #[serde(default)]
    force: bool,
    #[serde(default)]
    note: Option<String>,
}

/// Takes a policy away with all its versions.
#[utoipa::path(delete, path = "/v1/policies/{policy}", params(Deletion), responses((status = 204), (status = 409, description = "`policy-in-use`")))]
pub(crate) async fn delete(
    State(parts): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Asked(wish): Asked<Deletion>,
) -> Result<StatusCode, ApiError> {
    let note = note(wish.note)?;
    transaction!(parts.store, |tx| {
        keys::raise_revision(tx, clock::now_ms()).await?;
        let policy = policies::get(tx, &name).await?.ok_or(ApiError::NotFound("policy"))?;
        if !wish.force && (policy.active.is_some() || policy.candidate.is_some()) {
            return Err(ApiError::conflict(
                "policy-in-use",
                format!("a version of {name:?} decides or is tried; disable it first, or say force=true"),
            ));
        }
        policies::delete(tx, &name).await?;
        bytes::forget(tx).await?;
        let line = HistoryRow { from_version: policy.active, ..line(&name, &caller, "delete-policy", note.clone()) };
        Ok(policies::note(tx, line).await?)
    })?;
    parts.keys.publish(&parts.store).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes one version away; not one that decides, is tried, or is what a rollback goes back to.
#[utoipa::path(delete, path = "/v1/policies/{policy}/versions/{version}", responses((status = 204), (status = 409, description = "`version-in-use`")))]
pub(crate) async fn delete_version(
    State(parts): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path((name, version)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    transaction!(parts.store, |tx| {
        keys::raise_revision(tx, clock::now_ms()).await?;
        let (policy, versions) = found(tx, &name).await?;
        if !versions.iter().any(|row| row.version == version) {
            return Err(ApiError::NotFound("version"));
        }
        let mut state = rollout::state(&policy, &versions);
        if state.needs(&version) {
            return Err(ApiError::conflict(
                "version-in-use",
                format!("version {version:?} decides, is tried, or is what a rollback goes back to"),
            ));
        }
        state.forget(&version);
        policies::delete_version(tx, &name, &version).await?;
        policies::put(tx, &PolicyRow { stack: state.stack, updated_ms: clock::now_ms(), ..policy }).await?;
        bytes::forget(tx).await?;
        let line = HistoryRow { version: Some(version.clone()), ..line(&name, &caller, "delete", None) };
        Ok(policies::note(tx, line).await?)
    })?;
    parts.keys.publish(&parts.store).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The bytes of a component, for edges: they never change under a digest.
#[utoipa::path(get, path = "/v1/edge/policies/{digest}", responses((status = 200, description = "The component", body = Vec<u8>, content_type = "application/wasm"), (status = 304, description = "The edge has it")))]
pub(crate) async fn component(
    State(parts): State<Shared>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    let etag = format!("\"{digest}\"");
    let found = if is_digest { bytes::get(&parts.store, &digest).await? } else { None };
    let body = found.ok_or(ApiError::NotFound("component"))?;
    let held = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or("");
    let head = [
        (header::ETAG, HeaderValue::from_str(&etag).map_err(|error| ApiError::Internal(error.to_string()))?),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable")),
        (header::CONTENT_TYPE, HeaderValue::from_static("application/wasm")),
    ];
    if held == etag {
        return Ok((StatusCode::NOT_MODIFIED, head).into_response());
    }
    Ok((head, body).into_response())
}

/// A policy and its versions, within the transaction that changes them.
async fn found(tx: &mut Write, name: &str) -> Result<(PolicyRow, Vec<VersionRow>), ApiError> {
    let policy = policies::get(tx, name).await?.ok_or(ApiError::NotFound("policy"))?;
    let versions = policies::versions(tx, name).await?;
    Ok((policy, versions))
}

fn line(policy: &str, caller: &Caller, act: &str, note: Option<String>) -> HistoryRow {
    HistoryRow {
        seq: clock::now_ms(),
        policy: policy.to_owned(),
        done_by: caller.name.clone(),
        act: act.to_owned(),
        version: None,
        from_version: None,
        share: None,
        note,
    }
}

fn note(text: Option<String>) -> Result<Option<String>, ApiError> {
    match text {
        Some(text) if text.len() > NOTE_MAX => {
            Err(ApiError::invalid(format!("`note` must be at most {NOTE_MAX} bytes")))
        }
        text => Ok(text.filter(|text| !text.trim().is_empty())),
    }
}

/// A policy's or a version's name.
fn checked_name(what: &str, text: &str) -> Result<(), ApiError> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let dots = text.bytes().all(|byte| byte == b'.');
    if text.is_empty() || text.len() > MAX_POLICY_NAME_BYTES || dots || !text.bytes().all(fine) {
        return Err(ApiError::invalid(format!(
            "{what} {text:?} must be 1 to {MAX_POLICY_NAME_BYTES} letters, digits, '-', '_' or '.'"
        )));
    }
    Ok(())
}
