//! Push, shadow, canary, active, rollback and their ends: `POST /v1/policies/{name}/…`.
//!
//! Each answers once it is committed and on its way to the edges; with `?wait_ms=` once every edge that is alive stands on it, or that
//! time is over. The answer names the edges that do and those that do not, as they reported.
//!
//! Where nobody decided before there is no last good version that could go on while edges get the first one ready. So that one is pushed first,
//! decides when the edges have it, or do not get it in time, and the answer comes when they stand on it, or do not in that time: whoever reads "active" may
//! rely on every edge that is not named.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use segue_signing::{PolicyTrial, PolicyVersion};
use serde::{Deserialize, Serialize};

use super::super::request::{Asked, Body};
use super::view::{self, Standings, Wanted};
use crate::auth::Caller;
use crate::clock;
use crate::error::ApiError;
use crate::policies::rollout::{Act, Done, Rollout};
use crate::state::{Parts, Shared};
use crate::store::policies::{self, HistoryRow, PolicyRow, VersionRow, counts};
use crate::store::{Write, edges, keys, transaction};

/// Longest wait for edges, in milliseconds.
const WAIT_MAX_MS: u64 = 60_000;

/// How long a rule's first version may take to be ready, where the caller waits for less: a policy that brings an interpreter is compiled in six seconds.
const FIRST_WITHIN: Duration = Duration::from_secs(15);

/// How long it may then take to be in force where it is ready: a flip, and the report of it.
const FLIP_WITHIN: Duration = Duration::from_secs(5);

/// Reports that came to another process over the same database wake nobody here.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Between two looks while reports come in: with a thousand edges that is two hundred a second.
const LOOK_AT_MOST: Duration = Duration::from_millis(25);

/// Bytes of all configurations that edges are told: a snapshot is sent whole to each edge that starts.
const TOLD_MAX: usize = 16 << 20;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wait {
    #[serde(default)]
    wait_ms: u64,
}

/// What a version is to be used for.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RolloutWhich)]
pub(crate) struct Which {
    version: String,
    /// Only where every edge that is alive has it ready.
    #[serde(default)]
    only_if_ready: bool,
    #[serde(default)]
    note: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RolloutShare)]
pub(crate) struct Share {
    version: String,
    /// Of sessions, 0.01 to 100.
    #[schema(minimum = 0.01, maximum = 100)]
    percent: f64,
    #[serde(default)]
    only_if_ready: bool,
    #[serde(default)]
    note: Option<String>,
}

#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RolloutBack)]
pub(crate) struct Back {
    /// The version that the caller believes to be active, or a canary: where another is, nothing happens.
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    note: Option<String>,
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct End {
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    wait_ms: u64,
}

/// What was done, and how edges stand to it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = RolloutAnswer)]
pub(crate) struct Answer {
    policy: view::Policy,
    /// The word of the history; `none` where it stood so already.
    done: &'static str,
    version: Option<String>,
    from: Option<String>,
    /// The revision that edges must have.
    revision: u64,
    waited_ms: u64,
    edges: Standings,
}

#[utoipa::path(post, path = "/v1/policies/{policy}/push", params(Wait), request_body = Which, responses((status = 200, body = Answer), (status = 409, description = "The state of the policy or of its edges does not allow it; the word says why")))]
pub(crate) async fn push(
    State(parts): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Asked(wait): Asked<Wait>,
    Body(wish): Body<Which>,
) -> Result<Json<Answer>, ApiError> {
    let wish = Wish { note: wish.note, ..Wish::of(Act::Push(wish.version)) };
    carry_out(&parts, &caller, &name, wish, wait.wait_ms).await
}

#[utoipa::path(post, path = "/v1/policies/{policy}/shadow", params(Wait), request_body = Which, responses((status = 200, body = Answer), (status = 409, description = "The state of the policy or of its edges does not allow it; the word says why")))]
pub(crate) async fn shadow(
    State(parts): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Asked(wait): Asked<Wait>,
    Body(wish): Body<Which>,
) -> Result<Json<Answer>, ApiError> {
    let wish = Wish { only_if_ready: wish.only_if_ready, note: wish.note, ..Wish::of(Act::Shadow(wish.version)) };
    carry_out(&parts, &caller, &name, wish, wait.wait_ms).await
}

#[utoipa::path(post, path = "/v1/policies/{policy}/canary", params(Wait), request_body = Share, responses((status = 200, body = Answer), (status = 409, description = "The state of the policy or of its edges does not allow it; the word says why")))]
pub(crate) async fn canary(
    State(parts): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Asked(wait): Asked<Wait>,
    Body(wish): Body<Share>,
) -> Result<Json<Answer>, ApiError> {
    if !(0.01..=100.0).contains(&wish.percent) {
        return Err(ApiError::invalid("`percent` must be 0.01 to 100"));
    }
    // Within 1 to 10,000 by what was just said.
    let share = (wish.percent * 100.0).round() as u16;
    let act = Act::Canary(wish.version, share);
    let wish = Wish { only_if_ready: wish.only_if_ready, note: wish.note, ..Wish::of(act) };
    carry_out(&parts, &caller, &name, wish, wait.wait_ms).await
}

#[utoipa::path(post, path = "/v1/policies/{policy}/active", params(Wait), request_body = Which, responses((status = 200, body = Answer), (status = 409, description = "The state of the policy or of its edges does not allow it; the word says why")))]
pub(crate) async fn activate(
    State(parts): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Asked(wait): Asked<Wait>,
    Body(wish): Body<Which>,
) -> Result<Json<Answer>, ApiError> {
    let wish = Wish { only_if_ready: wish.only_if_ready, note: wish.note, ..Wish::of(Act::Activate(wish.version)) };
    carry_out(&parts, &caller, &name, wish, wait.wait_ms).await
}

#[utoipa::path(post, path = "/v1/policies/{policy}/rollback", params(Wait), request_body = Option<Back>, responses((status = 200, body = Answer), (status = 409, description = "The state of the policy or of its edges does not allow it; the word says why")))]
pub(crate) async fn roll_back(
    State(parts): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Asked(wait): Asked<Wait>,
    Body(wish): Body<Back>,
) -> Result<Json<Answer>, ApiError> {
    let wish = Wish { from: wish.from, note: wish.note, ..Wish::of(Act::Rollback) };
    carry_out(&parts, &caller, &name, wish, wait.wait_ms).await
}

#[utoipa::path(delete, path = "/v1/policies/{policy}/candidate", params(End), responses((status = 200, body = Answer), (status = 409, description = "The state of the policy does not allow it; the word says why")))]
pub(crate) async fn end_trial(
    State(parts): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Asked(end): Asked<End>,
) -> Result<Json<Answer>, ApiError> {
    carry_out(&parts, &caller, &name, Wish { note: end.note, ..Wish::of(Act::EndTrial) }, end.wait_ms).await
}

#[utoipa::path(delete, path = "/v1/policies/{policy}/active", params(End), responses((status = 200, body = Answer), (status = 409, description = "The state of the policy does not allow it; the word says why")))]
pub(crate) async fn disable(
    State(parts): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Asked(end): Asked<End>,
) -> Result<Json<Answer>, ApiError> {
    carry_out(&parts, &caller, &name, Wish { note: end.note, ..Wish::of(Act::Disable) }, end.wait_ms).await
}

struct Wish {
    act: Act,
    only_if_ready: bool,
    from: Option<String>,
    note: Option<String>,
}

impl Wish {
    fn of(act: Act) -> Self {
        Self { act, only_if_ready: false, from: None, note: None }
    }
}

/// How a policy stands, for the rules of `policies/rollout.rs`.
pub(super) fn state(policy: &PolicyRow, versions: &[VersionRow]) -> Rollout {
    let mut pushed: Vec<(i64, &str)> =
        versions.iter().filter_map(|row| Some((row.pushed_ms?, row.version.as_str()))).collect();
    pushed.sort_unstable();
    Rollout {
        world: policy.world,
        active: policy.active.clone(),
        stack: policy.stack.clone(),
        candidate: policy.candidate.clone(),
        pushed: pushed.into_iter().map(|(_, version)| version.to_owned()).collect(),
    }
}

async fn carry_out(
    parts: &Parts,
    caller: &Caller,
    name: &str,
    wish: Wish,
    wait_ms: u64,
) -> Result<Json<Answer>, ApiError> {
    let began = tokio::time::Instant::now();
    let wait = Duration::from_millis(wait_ms.min(WAIT_MAX_MS));
    let is_first = match &wish.act {
        Act::Activate(version) => {
            ready_first(parts, caller, name, version, &wish, began + wait.max(FIRST_WITHIN)).await?
        }
        _ => false,
    };
    let (done, revision, wanted) = change(parts, caller, name, wish).await?;
    let (end, whom) = if is_first {
        ((began + wait).max(tokio::time::Instant::now() + FLIP_WITHIN), Whom::Ready)
    } else {
        (began + wait, Whom::Alive)
    };
    let edges = settled(parts, &wanted, revision, whom, end).await?;
    let waited_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let policy = super::shown(parts, name).await?;
    let (word, version, from) = match done {
        Some(done) => (done.act, done.version, done.from),
        None => ("none", wanted.version.clone(), None),
    };
    Ok(Json(Answer { policy, done: word, version, from, revision, waited_ms, edges }))
}

/// Has edges get a version ready that is to decide where nobody does. Whether they did is said by the answer to what comes next. `false`: somebody decides.
async fn ready_first(
    parts: &Parts,
    caller: &Caller,
    name: &str,
    version: &str,
    wish: &Wish,
    end: tokio::time::Instant,
) -> Result<bool, ApiError> {
    if policies::one(&parts.store, name).await?.is_none_or(|(policy, _)| policy.active.is_some()) {
        return Ok(false);
    }
    let reported = edges::list(&parts.store).await?;
    let standings = Standings::new(&reported, &Wanted::ready(name, version), 0, clock::now_ms());
    if !wish.only_if_ready && !standings.not_ready.is_empty() {
        let push = Wish::of(Act::Push(version.to_owned()));
        let (_, revision, wanted) = change(parts, caller, name, push).await?;
        settled(parts, &wanted, revision, Whom::Alive, end).await?;
    }
    Ok(true)
}

/// Changes it in one transaction, and tells it. Answers the revision with which it is told.
async fn change(
    parts: &Parts,
    caller: &Caller,
    name: &str,
    wish: Wish,
) -> Result<(Option<Done>, u64, Wanted), ApiError> {
    let note = super::note(wish.note.clone())?;
    let reported = edges::list(&parts.store).await?;
    let (done, revision, wanted) =
        transaction!(parts.store, |tx| changed(tx, (caller, note.as_deref()), name, &wish, &reported).await)?;
    if let Some(done) = &done {
        parts.keys.publish(&parts.store).await?;
        tracing::info!(
            policy = name,
            act = done.act,
            version = done.version,
            from = done.from,
            by = caller.name,
            "a policy was changed"
        );
        return Ok((Some(done.clone()), revision, wanted));
    }
    // Nothing was changed, so nothing is told: the snapshot that edges have is the one to wait for.
    Ok((None, parts.keys.subscribe().borrow().revision, wanted))
}

async fn changed(
    tx: &mut Write,
    (caller, note): (&Caller, Option<&str>),
    name: &str,
    wish: &Wish,
    reported: &[view::Reported],
) -> Result<(Option<Done>, u64, Wanted), ApiError> {
    let now = clock::now_ms();
    // Held until the end: of two who change the same policy the second sees what the first did.
    keys::lock(tx).await?;
    let (policy, versions) = super::found(tx, name).await?;
    let readied = match &wish.act {
        Act::Push(version) | Act::Shadow(version) | Act::Canary(version, _) => Some(version),
        Act::Activate(_) | Act::EndTrial | Act::Disable | Act::Rollback => None,
    };
    let named = match &wish.act {
        Act::Activate(version) => Some(version),
        _ => readied,
    };
    if let Some(version) = named.filter(|version| !versions.iter().any(|row| row.version == **version)) {
        return Err(ApiError::Invalid {
            status: http::StatusCode::NOT_FOUND,
            word: "no-such-version",
            message: format!("{name:?} has no version {version:?}"),
        });
    }
    if let Some(from) = &wish.from {
        let canary = policy.candidate.as_ref().filter(|one| matches!(one.trial, PolicyTrial::Canary(_)));
        let stands = canary.map(|canary| &canary.version).or(policy.active.as_ref());
        if stands != Some(from) {
            return Err(ApiError::conflict(
                "changed-meanwhile",
                format!(
                    "not {from:?} would be taken back, but {:?}; look again",
                    stands.map_or("none", String::as_str)
                ),
            ));
        }
    }
    if let Some(version) = named.filter(|_| wish.only_if_ready) {
        only_if_ready(reported, name, version, now)?;
    }
    let mut state = state(&policy, &versions);
    let done =
        state.apply(wish.act.clone()).map_err(|refused| ApiError::conflict(refused.kind(), refused.to_string()))?;
    let wanted = match readied {
        Some(version) => Wanted::ready(name, version),
        None => Wanted::decides(name, state.active.clone()),
    };
    let Some(done) = done else { return Ok((None, 0, wanted)) };
    let revision = keys::raise_revision(tx, now).await?;
    write(tx, &policy, &versions, &state, now).await?;
    let size: usize = policies::told(tx).await?.iter().flat_map(|doc| &doc.versions).map(size).sum();
    if size > TOLD_MAX {
        return Err(ApiError::conflict(
            "snapshot-too-large",
            format!(
                "the configurations of all pushed versions have more than {TOLD_MAX} bytes together; delete versions that are not in use"
            ),
        ));
    }
    let line = HistoryRow {
        version: done.version.clone(),
        from_version: done.from.clone(),
        share: done.share.map(i64::from),
        ..super::line(name, caller, done.act, note.map(str::to_owned))
    };
    policies::note(tx, line).await?;
    Ok((Some(done), revision, wanted))
}

fn size(version: &PolicyVersion) -> usize {
    version.config.to_string().len()
}

/// Stores the new state: the policy, and which versions are pushed.
async fn write(
    tx: &mut Write,
    policy: &PolicyRow,
    versions: &[VersionRow],
    state: &Rollout,
    now: i64,
) -> Result<(), ApiError> {
    let fresh = state.candidate != policy.candidate;
    let row = PolicyRow {
        active: state.active.clone(),
        stack: state.stack.clone(),
        candidate: state.candidate.clone(),
        trial_since_ms: if fresh { now } else { policy.trial_since_ms },
        updated_ms: now,
        ..policy.clone()
    };
    policies::put(tx, &row).await?;
    if let Some(candidate) = state.candidate.as_ref().filter(|one| fresh && one.trial == PolicyTrial::Shadow) {
        counts::clear_differences(tx, &policy.name, &candidate.version).await?;
    }
    for version in versions {
        match (version.pushed_ms.is_some(), state.pushed.contains(&version.version)) {
            (false, true) => policies::set_pushed(tx, &policy.name, &version.version, Some(now)).await?,
            (true, false) => policies::set_pushed(tx, &policy.name, &version.version, None).await?,
            _ => {}
        }
    }
    Ok(())
}

fn only_if_ready(reported: &[view::Reported], policy: &str, version: &str, now: i64) -> Result<(), ApiError> {
    let standings = Standings::new(reported, &Wanted::ready(policy, version), 0, now);
    if standings.not_ready.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = standings.not_ready.iter().map(|edge| edge.edge.as_str()).collect();
    Err(ApiError::conflict(
        "edges-not-ready",
        format!("{} of {} edges do not have {version:?} ready: {}", names.len(), standings.alive, names.join(", ")),
    ))
}

/// Which edges are waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// Those that are alive.
    Alive,
    /// Of these, those that have the version ready: the others had their time.
    Ready,
}

/// Looks until every edge that is waited for stands as wanted, or until `end`.
async fn settled(
    parts: &Parts,
    wanted: &Wanted,
    revision: u64,
    whom: Whom,
    end: tokio::time::Instant,
) -> Result<Standings, ApiError> {
    let mut reports = parts.policies.reports.subscribe();
    loop {
        let standings = Standings::new(&edges::list(&parts.store).await?, wanted, revision, clock::now_ms());
        let lacks = |edge: &view::Missing| standings.not_ready.iter().any(|missing| missing.edge == edge.edge);
        let is_settled = standings.not_on.iter().all(|edge| whom == Whom::Ready && lacks(edge));
        if is_settled || tokio::time::Instant::now() >= end {
            return Ok(standings);
        }
        tokio::select! {
            () = parts.shutdown.cancelled() => return Ok(standings),
            _ = tokio::time::timeout(LOOK_EVERY, reports.changed()) => {}
            () = tokio::time::sleep_until(end) => {}
        }
        tokio::time::sleep_until((tokio::time::Instant::now() + LOOK_AT_MOST).min(end)).await;
    }
}
