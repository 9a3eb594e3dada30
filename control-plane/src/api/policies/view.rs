//! A policy as the API shows it, and how edges stand to it.

use segue_signing::{EdgeReport, PolicyCandidate, PolicyFailMode, PolicyStanding, PolicyTrial, PolicyWorld};
use serde::Serialize;
use serde_json::Value;

use super::super::edge::is_alive;
use super::rollout;
use crate::policies::rollout::Rollout;
use crate::store::policies::{HistoryRow, PolicyRow, VersionRow};

/// The last report of an edge, and when it came.
pub(super) type Reported = (EdgeReport, i64);

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Policy {
    policy: String,
    #[schema(value_type = String)]
    world: PolicyWorld,
    /// Those of the version that decides.
    order: i32,
    #[schema(value_type = String)]
    on_failure: PolicyFailMode,
    active: Option<String>,
    candidate: Option<Candidate>,
    /// What one rollback would do; `None`: nothing.
    rollback: Option<Rollback>,
    /// Newest first.
    versions: Vec<Version>,
    edges: Vec<Edge>,
    created_ms: i64,
    updated_ms: i64,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = PolicyCandidate)]
pub(crate) struct Candidate {
    version: String,
    /// `shadow` or `canary`.
    trial: &'static str,
    /// Of sessions, for a canary.
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<f64>,
    since_ms: i64,
}

/// What a rollback takes back, and what decides after it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = PolicyRollback)]
pub(crate) struct Rollback {
    from: Option<String>,
    to: Option<String>,
    ends_canary: bool,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = PolicyVersion)]
pub(crate) struct Version {
    policy: String,
    version: String,
    /// `checked`, `pushed`, `shadow`, `canary` or `active`.
    state: &'static str,
    digest: String,
    bytes: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    config: Option<Value>,
    order: i32,
    #[schema(value_type = String)]
    on_failure: PolicyFailMode,
    imports: Vec<String>,
    /// Self-test vectors that it passed.
    vectors: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
    uploaded_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    created_ms: i64,
    pushed_ms: Option<i64>,
    /// Edges that are alive and have it ready.
    ready: usize,
}

/// How one edge stands to one policy.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = PolicyOnEdge)]
pub(crate) struct Edge {
    edge: String,
    alive: bool,
    seen_ms: i64,
    /// The version that decides there.
    deciding: Option<String>,
    /// It should be another one.
    is_kept: bool,
    ready: Vec<String>,
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = PolicyProblem)]
pub(crate) struct Problem {
    version: String,
    problem: String,
}

pub(super) fn policy(
    row: &PolicyRow,
    versions: &[VersionRow],
    reported: &[Reported],
    now: i64,
    with_config: bool,
) -> Policy {
    let state = rollout::state(row, versions);
    let settings = |name: &String| versions.iter().find(|version| version.version == *name);
    let tried = row.candidate.as_ref().map(|candidate| &candidate.version);
    let leading = row.active.as_ref().or(tried).and_then(settings).or(versions.last());
    let (order, on_failure) = leading.map(|version| (version.order, version.on_failure)).unwrap_or_default();
    Policy {
        policy: row.name.clone(),
        world: row.world,
        order,
        on_failure,
        active: row.active.clone(),
        candidate: row.candidate.as_ref().map(|candidate| Candidate::new(candidate, row.trial_since_ms)),
        rollback: Rollback::of(&state),
        versions: versions.iter().rev().map(|one| version(one, &state, reported, now, with_config)).collect(),
        edges: reported.iter().map(|one| Edge::new(&row.name, one, now)).collect(),
        created_ms: row.created_ms,
        updated_ms: row.updated_ms,
    }
}

pub(super) fn version(
    row: &VersionRow,
    state: &Rollout,
    reported: &[Reported],
    now: i64,
    with_config: bool,
) -> Version {
    let alive = reported.iter().filter(|(_, seen)| is_alive(*seen, now));
    let is_ready =
        |report: &EdgeReport| standing(report, &row.policy, &row.version).is_some_and(|standing| standing.is_ready);
    Version {
        policy: row.policy.clone(),
        version: row.version.clone(),
        state: state_word(row, state),
        digest: row.digest.clone(),
        bytes: row.bytes,
        config: with_config.then(|| serde_json::from_str(&row.config).unwrap_or_default()),
        order: row.order,
        on_failure: row.on_failure,
        imports: row.imports.clone(),
        vectors: row.vectors,
        signer: row.signer.clone(),
        uploaded_by: row.uploaded_by.clone(),
        note: row.note.clone(),
        created_ms: row.created_ms,
        pushed_ms: row.pushed_ms,
        ready: alive.filter(|(report, _)| is_ready(report)).count(),
    }
}

fn state_word(row: &VersionRow, state: &Rollout) -> &'static str {
    let tried = state.candidate.as_ref().filter(|candidate| candidate.version == row.version);
    match (state.active.as_ref() == Some(&row.version), tried.map(|candidate| candidate.trial)) {
        (true, _) => "active",
        (false, Some(PolicyTrial::Shadow)) => "shadow",
        (false, Some(PolicyTrial::Canary(_))) => "canary",
        (false, None) if state.pushed.contains(&row.version) => "pushed",
        (false, None) => "checked",
    }
}

fn standing<'r>(report: &'r EdgeReport, policy: &str, version: &str) -> Option<&'r PolicyStanding> {
    report.policies.iter().find(|standing| standing.policy == policy && standing.version == version)
}

impl Candidate {
    fn new(candidate: &PolicyCandidate, since_ms: i64) -> Self {
        let (trial, percent) = match candidate.trial {
            PolicyTrial::Shadow => ("shadow", None),
            PolicyTrial::Canary(share) => ("canary", Some(f64::from(share) / 100.0)),
        };
        Self { version: candidate.version.clone(), trial, percent, since_ms }
    }
}

impl Rollback {
    fn of(state: &Rollout) -> Option<Self> {
        let mut after = state.clone();
        let done = after.apply(crate::policies::rollout::Act::Rollback).ok()??;
        Some(Self { from: done.from, to: done.version, ends_canary: done.act == "end-canary" })
    }
}

impl Edge {
    fn new(policy: &str, (report, seen_ms): &Reported, now: i64) -> Self {
        let own = || report.policies.iter().filter(|standing| standing.policy == policy);
        let deciding = own().find(|standing| standing.is_deciding);
        let problem = |standing: &PolicyStanding| {
            let problem = standing.problem.clone()?;
            Some(Problem { version: standing.version.clone(), problem })
        };
        Self {
            edge: report.edge.clone(),
            alive: is_alive(*seen_ms, now),
            seen_ms: *seen_ms,
            deciding: deciding.map(|standing| standing.version.clone()),
            is_kept: deciding.is_some_and(|standing| standing.is_kept),
            ready: own().filter(|standing| standing.is_ready).map(|standing| standing.version.clone()).collect(),
            problems: own().filter_map(problem).collect(),
        }
    }
}

/// How edges are to stand.
#[derive(Debug)]
pub(super) struct Wanted {
    policy: String,
    pub(super) version: Option<String>,
    /// It decides; else it is ready, which is all that there is to see of a version that is pushed or tried.
    decides: bool,
}

impl Wanted {
    pub(super) fn ready(policy: &str, version: &str) -> Self {
        Self { policy: policy.to_owned(), version: Some(version.to_owned()), decides: false }
    }

    pub(super) fn decides(policy: &str, version: Option<String>) -> Self {
        Self { policy: policy.to_owned(), version, decides: true }
    }

    fn is_ready(&self, report: &EdgeReport) -> bool {
        let Some(version) = &self.version else { return true };
        standing(report, &self.policy, version).is_some_and(|standing| standing.is_ready)
    }

    fn is_on(&self, report: &EdgeReport, revision: u64) -> bool {
        let own = report.policies.iter().filter(|standing| standing.policy == self.policy);
        let decides = match &self.version {
            Some(version) => own.clone().any(|standing| standing.version == *version && standing.is_deciding),
            None => !own.clone().any(|standing| standing.is_deciding),
        };
        report.revision >= revision && self.is_ready(report) && (decides || !self.decides)
    }
}

/// Which edges stand as wanted, by what they reported last.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Standings {
    /// Edges that reported of late; only these are waited for.
    pub(super) alive: usize,
    /// Have the version compiled and configured.
    ready: Vec<String>,
    pub(super) not_ready: Vec<Missing>,
    /// Have taken over what was done.
    on: Vec<String>,
    pub(super) not_on: Vec<Missing>,
    /// Have not reported of late.
    silent: Vec<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Missing {
    pub(super) edge: String,
    /// What the edge says.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Standings {
    pub(super) fn new(reported: &[Reported], wanted: &Wanted, revision: u64, now: i64) -> Self {
        let (alive, silent): (Vec<_>, Vec<_>) = reported.iter().partition(|(_, seen)| is_alive(*seen, now));
        let name = |(report, _): &&Reported| report.edge.clone();
        let missing = |(report, _): &&Reported| {
            let version = wanted.version.as_deref().unwrap_or_default();
            let problem = standing(report, &wanted.policy, version).and_then(|standing| standing.problem.clone());
            Missing { edge: report.edge.clone(), problem }
        };
        let (ready, not_ready): (Vec<_>, Vec<_>) = alive.iter().partition(|(report, _)| wanted.is_ready(report));
        let (on, not_on): (Vec<_>, Vec<_>) = alive.iter().partition(|(report, _)| wanted.is_on(report, revision));
        Self {
            alive: alive.len(),
            ready: ready.into_iter().map(name).collect(),
            not_ready: not_ready.into_iter().map(missing).collect(),
            on: on.into_iter().map(name).collect(),
            not_on: not_on.into_iter().map(missing).collect(),
            silent: silent.iter().map(name).collect(),
        }
    }
}

/// One line of the history.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = PolicyHistoryLine)]
pub(crate) struct Line {
    seq: i64,
    at_ms: i64,
    by: String,
    act: String,
    version: Option<String>,
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl From<HistoryRow> for Line {
    fn from(row: HistoryRow) -> Self {
        let percent = row.share.map(|share| share as f64 / 100.0);
        let HistoryRow { seq, done_by: by, act, version, from_version: from, note, .. } = row;
        Self { seq, at_ms: seq, by, act, version, from, percent, note }
    }
}
