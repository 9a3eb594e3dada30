//! `/v1/edge`: what edges in other processes follow, and what they report.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use segue_signing::EdgeReport;
use serde::{Deserialize, Serialize};

use super::request::{Asked, Body, NamePage};
use crate::clock;
use crate::error::ApiError;
use crate::keys::Told;
use crate::policies::counts;
use crate::state::Shared;
use crate::store::edges::{self, LogName};
use crate::store::{Write, keys, transaction};
use crate::tally::{self, Received};

/// Longest wait for a change, in milliseconds.
const WAIT_MAX_MS: u64 = 30_000;

/// Bytes of an edge's name, as its facts bound it.
const NAME_MAX: usize = segue_events::bounds::EDGE;

/// Edges that are remembered at once: more is a loop that makes up names, not a house.
const EDGES_MAX: i64 = 10_000;

/// Keys of one report, and counters: a keyring holds 64, and an edge counts some dozen things.
const REPORT_KEYS_MAX: usize = 128;
const REPORT_COUNTERS_MAX: usize = 128;

/// Bytes of a key's name in a report.
const KID_MAX: usize = 128;

/// Records of one post: a transaction of some hundred milliseconds.
const RECORDS_MAX: usize = 1000;

/// Bytes of one post.
pub(crate) const FACTS_MAX: usize = 4 << 20;

/// An edge that has not reported for so long is shown as not alive: three of its reports are missing.
const ALIVE_MS: i64 = 20_000;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Follow {
    /// How long to wait for something newer than `If-None-Match` names.
    #[serde(default)]
    wait_ms: u64,
    /// The revision that the edge has: it is told what changed since.
    #[serde(default)]
    cursor: Option<u64>,
    /// The tag of the keys that it has.
    #[serde(default)]
    keys: String,
    /// The tag of the limit classes that it has.
    #[serde(default)]
    limits: String,
    /// The tag of the policies that it has.
    #[serde(default)]
    policies: String,
}

/// The snapshot, or 304 where the edge has it already (RFC 9110, section 13.1.2).
#[utoipa::path(get, path = "/v1/edge/snapshot", params(Follow), responses((status = 200, description = "What changed since the cursor, or the whole", body = Object), (status = 304, description = "Nothing newer came in time")))]
pub(crate) async fn snapshot(
    State(parts): State<Shared>,
    Asked(follow): Asked<Follow>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut snapshots = parts.keys.subscribe();
    let held = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or("");
    let wait = Duration::from_millis(follow.wait_ms.min(WAIT_MAX_MS));
    let changed = tokio::select! {
        changed = tokio::time::timeout(wait, snapshots.wait_for(|doc| !names(held, &tag(doc.revision)))) => {
            matches!(changed, Ok(Ok(_)))
        }
        () = parts.shutdown.cancelled() => false,
    };
    if !changed {
        let revision = snapshots.borrow().revision;
        return Ok((StatusCode::NOT_MODIFIED, head(revision)?).into_response());
    }
    let told = Told { keys: &follow.keys, limits: &follow.limits, policies: &follow.policies };
    let delta = parts.keys.since(&parts.store, follow.cursor, told).await?;
    Ok((head(delta.revision)?, Json(delta)).into_response())
}

fn head(revision: u64) -> Result<[(header::HeaderName, HeaderValue); 2], ApiError> {
    let etag = HeaderValue::from_str(&tag(revision)).map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok([(header::ETAG, etag), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))])
}

fn tag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// Whether an `If-None-Match` names this tag; weak comparison, as that header wants.
fn names(header: &str, tag: &str) -> bool {
    header.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

/// Keeps an edge's report, and adds what its keys were used and its policies said since the last one.
#[utoipa::path(post, path = "/v1/edge/report", request_body(content = Object, description = "The edge, its process, and what it counted"), responses((status = 204)))]
pub(crate) async fn report(
    State(parts): State<Shared>,
    Body(report): Body<EdgeReport>,
) -> Result<StatusCode, ApiError> {
    name("edge", &report.edge)?;
    if report.keys.len() > REPORT_KEYS_MAX || report.counters.len() > REPORT_COUNTERS_MAX {
        return Err(ApiError::invalid("more keys or counters than an edge has"));
    }
    if report.keys.iter().any(|key| key.kid.len() > KID_MAX) {
        return Err(ApiError::invalid(format!("a key's name has at most {KID_MAX} bytes")));
    }
    counts::bounded(&report)?;
    let now = clock::now_ms();
    transaction!(parts.store, |tx| keep(tx, &report, now).await)?;
    // Those who wait for edges look again.
    parts.policies.reports.send_modify(|count| *count = count.wrapping_add(1));
    Ok(StatusCode::NO_CONTENT)
}

async fn keep(tx: &mut Write, report: &EdgeReport, now: i64) -> Result<(), ApiError> {
    let last = edges::report(tx, &report.edge).await?;
    if last.is_none() && edges::count(tx).await? >= EDGES_MAX {
        return Err(ApiError::Busy {
            word: "edges-too-many",
            message: format!("{EDGES_MAX} edges have reported within the last hour; give edges names that stay"),
        });
    }
    let before = last.filter(|last| last.boot == report.boot);
    for key in &report.keys {
        let counted = before.as_ref().and_then(|last| last.keys.iter().find(|known| known.kid == key.kid));
        // A key that got another secret starts again from zero.
        let since =
            |now: u64, then: Option<u64>| i64::try_from(now.checked_sub(then.unwrap_or(0)).unwrap_or(now)).unwrap_or(0);
        let accepted = since(key.accepted, counted.map(|known| known.accepted));
        let out_of_time = since(key.out_of_time, counted.map(|known| known.out_of_time));
        if accepted > 0 || out_of_time > 0 {
            keys::add_uses(tx, &key.kid, accepted, out_of_time, now).await?;
        }
    }
    counts::add(tx, before.as_ref(), report, now).await?;
    Ok(edges::put_report(tx, report, now).await?)
}

/// Whether an edge that reported at `seen_ms` counts as alive.
pub(crate) fn is_alive(seen_ms: i64, now: i64) -> bool {
    now - seen_ms < ALIVE_MS
}

/// An edge as the API shows it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Edge {
    #[serde(flatten)]
    #[schema(value_type = Object)]
    report: EdgeReport,
    /// When it reported last, ms since the epoch.
    seen_ms: i64,
    /// Whether it has reported of late.
    alive: bool,
    /// Whether it has what was told last.
    current: bool,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Edges {
    edges: Vec<Edge>,
    /// The `after` of the next page; `null`: this was the last one.
    next: Option<String>,
}

/// Where to go on in the edge's log.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Position {
    position: u64,
}

/// Every edge that reported within the last hour, by name, page by page.
#[utoipa::path(get, path = "/v1/edges", params(NamePage), responses((status = 200, body = Edges)))]
pub(crate) async fn list(State(parts): State<Shared>, Asked(page): Asked<NamePage>) -> Result<Json<Edges>, ApiError> {
    let (now, revision) = (clock::now_ms(), parts.keys.subscribe().borrow().revision);
    let (rows, found, last) = edges::page(&parts.store, page.after(), page.limit()).await?;
    let edges = rows.into_iter().map(|(report, seen_ms)| Edge {
        alive: is_alive(seen_ms, now),
        current: report.revision >= revision,
        report,
        seen_ms,
    });
    Ok(Json(Edges { edges: edges.collect(), next: page.next(found, last) }))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Shipment {
    #[param(pattern = "^[A-Za-z0-9._-]+$")]
    edge: String,
    /// Names the folder of facts, anew when that is made anew.
    #[param(pattern = "^[A-Za-z0-9._-]+$")]
    log: String,
    /// `facts` or `denials`.
    #[param(pattern = "^(facts|denials)$")]
    stream: String,
    /// Where the records begin, in the edge's log.
    from: u64,
    /// Where they end.
    next: u64,
    /// The edge has nothing from before `from` any more.
    #[serde(default)]
    first: bool,
}

/// Counts a batch of an edge's log: JSON records, one a line. The answer, `{"position": …}`, comes after the commit and
/// says where to go on: at `next`, or somewhere else where the log was counted to another place before, and then nothing
/// of the batch was counted.
#[utoipa::path(post, path = "/v1/edge/facts", params(Shipment), request_body(content = Option<String>, description = "One JSON record a line; none where it is left out", content_type = "application/x-ndjson"), responses((status = 200, body = Position)))]
pub(crate) async fn facts(
    State(parts): State<Shared>,
    Asked(shipment): Asked<Shipment>,
    body: Bytes,
) -> Result<Json<Position>, ApiError> {
    name("edge", &shipment.edge)?;
    name("log", &shipment.log)?;
    if shipment.next < shipment.from {
        return Err(ApiError::invalid("`next` lies before `from`"));
    }
    let text = std::str::from_utf8(&body).map_err(|_| ApiError::invalid("the records are not UTF-8"))?;
    let records: Vec<String> = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if records.len() > RECORDS_MAX || records.iter().any(|record| record.len() > segue_events::bounds::RECORD) {
        return Err(ApiError::invalid(format!(
            "at most {RECORDS_MAX} records of at most {} bytes in one post",
            segue_events::bounds::RECORD
        )));
    }
    let log = LogName { edge: &shipment.edge, log: &shipment.log, stream: &shipment.stream };
    let received = Received { log, from: shipment.from, next: shipment.next, first: shipment.first };
    let position = match shipment.stream.as_str() {
        "facts" => tally::receive_facts(&parts, received, &records).await?,
        "denials" => tally::receive_denials(&parts, received, &records).await?,
        other => return Err(ApiError::invalid(format!("{other:?} is no stream; `facts` and `denials` are"))),
    };
    Ok(Json(Position { position }))
}

fn name(what: &str, text: &str) -> Result<(), ApiError> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.is_empty() || text.len() > NAME_MAX || !text.bytes().all(fine) {
        return Err(ApiError::invalid(format!("`{what}` must be 1 to {NAME_MAX} letters, digits, '.', '_' or '-'")));
    }
    Ok(())
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
