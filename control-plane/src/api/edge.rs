//! `/v1/edge`: what edges in other processes follow.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use segue_signing::SnapshotDoc;
use serde::Deserialize;

use super::request::Asked;
use crate::error::ApiError;
use crate::state::Shared;

/// Longest wait for a change, in milliseconds.
const WAIT_MAX_MS: u64 = 30_000;

#[derive(Debug, Deserialize)]
pub(crate) struct Follow {
    /// How long to wait for something newer than `If-None-Match` names.
    #[serde(default)]
    wait_ms: u64,
}

/// The snapshot, or 304 where the edge has it already (RFC 9110, section 13.1.2).
pub(crate) async fn snapshot(
    State(parts): State<Shared>,
    Asked(follow): Asked<Follow>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut snapshots = parts.keys.subscribe();
    let held = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or("");
    let wait = Duration::from_millis(follow.wait_ms.min(WAIT_MAX_MS));
    let newer = |doc: &Arc<SnapshotDoc>| !names(held, &tag(doc));
    let doc = tokio::select! {
        changed = tokio::time::timeout(wait, snapshots.wait_for(newer)) => match changed {
            Ok(Ok(doc)) => Some(Arc::clone(&doc)),
            _ => None,
        },
        () = parts.shutdown.cancelled() => None,
    };
    let current = doc.clone().unwrap_or_else(|| Arc::clone(&snapshots.borrow()));
    let etag = HeaderValue::from_str(&tag(&current)).map_err(|error| ApiError::Internal(error.to_string()))?;
    let head = [(header::ETAG, etag), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    match doc {
        Some(doc) => Ok((head, axum::Json(doc)).into_response()),
        None => Ok((StatusCode::NOT_MODIFIED, head).into_response()),
    }
}

fn tag(doc: &SnapshotDoc) -> String {
    format!("\"{}\"", doc.revision)
}

/// Whether an `If-None-Match` names this tag; weak comparison, as that header wants.
fn names(header: &str, tag: &str) -> bool {
    header.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn if_none_match_is_read_as_a_list_of_weak_tags() {
        assert!(names("\"7\"", "\"7\""));
        assert!(names("\"6\", W/\"7\"", "\"7\""));
        assert!(!names("", "\"7\""));
        assert!(!names("\"70\"", "\"7\""));
        assert!(!names("7", "\"7\""));
    }
}
