//! What a shadow would have said beside what was said, and verdicts over time.

use axum::Json;
use axum::extract::{Path, State};
use segue_signing::{PolicyExample, PolicyTrial};
use serde::{Deserialize, Serialize};

use super::super::request::Asked;
use crate::clock;
use crate::error::ApiError;
use crate::state::Shared;
use crate::store::policies;
use crate::store::policies::counts::{self, BUCKET_MS, DifferenceRow};

/// How long verdicts over time are kept.
pub(crate) const VERDICTS_KEPT_MS: i64 = 24 * 3_600_000;

/// Steps of one look at verdicts over time.
const STEPS_MAX: i64 = 720;

/// The look where the request says nothing: an hour, by minutes.
const LOOK_MS: i64 = 3_600_000;
const STEP_MS: i64 = 60_000;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// The shadow; the one that is tried, or was last, where it is left out.
    #[serde(default)]
    shadow: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = PolicyDiff)]
pub(crate) struct Diff {
    policy: String,
    shadow: String,
    active: Option<String>,
    /// Whether the shadow is being tried at this time.
    running: bool,
    /// When this trial began.
    since_ms: Option<i64>,
    /// Requests about which both were asked.
    requests: i64,
    agree: i64,
    differ: i64,
    /// Let in so far, and would be refused.
    newly_denied: i64,
    /// Refused so far, and would be let in.
    newly_allowed: i64,
    /// The shadow gave no verdict (a trap, a timeout …); its fail mode would decide.
    would_fail: i64,
    /// Those that differ, and for each that agrees its count; the most frequent first.
    pairs: Vec<Pair>,
    latency: Latency,
}

/// Mean time of a call, in nanoseconds; `None`: there were none.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = PolicyDiffLatency)]
pub(crate) struct Latency {
    active_ns: Option<i64>,
    shadow_ns: Option<i64>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = PolicyDiffPair)]
pub(crate) struct Pair {
    /// `allow`, `abstain`, `none`, `deny:<reason>`, or the word of a failure.
    said: String,
    would: String,
    effect: Effect,
    count: i64,
    /// Of all requests, 0 to 1.
    share: f64,
    mean_ns: Option<i64>,
    #[schema(value_type = Vec<Object>)]
    examples: Vec<PolicyExample>,
}

/// What a difference would mean for the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = PolicyDiffEffect)]
pub(crate) enum Effect {
    Same,
    NewlyDenied,
    NewlyAllowed,
    WouldFail,
    /// Refused for another reason, or let in under other words.
    Otherwise,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    LetIn,
    Denied,
    Failed,
}

fn kind(word: &str) -> Kind {
    match word.split(':').next() {
        Some("allow" | "abstain" | "none") => Kind::LetIn,
        Some("deny") => Kind::Denied,
        _ => Kind::Failed,
    }
}

impl Effect {
    fn of(said: &str, would: &str) -> Self {
        if said == would {
            return Self::Same;
        }
        match (kind(said), kind(would)) {
            (_, Kind::Failed) => Self::WouldFail,
            (Kind::LetIn, Kind::Denied) => Self::NewlyDenied,
            (Kind::Denied, Kind::LetIn) => Self::NewlyAllowed,
            _ => Self::Otherwise,
        }
    }
}

/// The difference between a shadow and what was active beside it, over all edges.
#[utoipa::path(get, path = "/v1/policies/{policy}/diff", params(Which), responses((status = 200, body = Diff), (status = 409, description = "`no-shadow`")))]
pub(crate) async fn diff(
    State(parts): State<Shared>,
    Path(name): Path<String>,
    Asked(which): Asked<Which>,
) -> Result<Json<Diff>, ApiError> {
    let (policy, _) = policies::one(&parts.store, &name).await?.ok_or(ApiError::NotFound("policy"))?;
    let tried = policy.candidate.as_ref().filter(|candidate| candidate.trial == PolicyTrial::Shadow);
    let tried = tried.map(|candidate| candidate.version.clone());
    let shadow = match which.shadow.or_else(|| tried.clone()) {
        Some(shadow) => shadow,
        None => counts::last_shadow(&parts.store, &name).await?.ok_or_else(|| {
            ApiError::conflict(
                "no-shadow",
                format!("no version of {name:?} is or was a shadow; start one with POST …/shadow"),
            )
        })?,
    };
    let rows = counts::differences(&parts.store, &name, &shadow).await?;
    let running = tried.as_ref() == Some(&shadow);
    let since_ms = running.then_some(policy.trial_since_ms);
    let active =
        policy.active.or_else(|| rows.first().map(|row| row.active.clone()).filter(|active| !active.is_empty()));
    let spent = match &active {
        // To the length of a bucket.
        Some(active) => counts::spent(&parts.store, &name, active, since_ms.unwrap_or(0) - BUCKET_MS).await?,
        None => (0, 0),
    };
    Ok(Json(Diff::new(name, shadow, active, (running, since_ms), rows, mean(spent))))
}

fn mean((calls, took_ns): (i64, i64)) -> Option<i64> {
    (calls > 0).then(|| took_ns / calls)
}

impl Diff {
    fn new(
        policy: String,
        shadow: String,
        active: Option<String>,
        (running, since_ms): (bool, Option<i64>),
        rows: Vec<DifferenceRow>,
        active_ns: Option<i64>,
    ) -> Self {
        let requests: i64 = rows.iter().map(|row| row.calls).sum();
        let took: i64 = rows.iter().map(|row| row.took_ns).sum();
        let pair = |row: DifferenceRow| Pair {
            effect: Effect::of(&row.said, &row.would),
            share: if requests > 0 { row.calls as f64 / requests as f64 } else { 0.0 },
            mean_ns: mean((row.calls, row.took_ns)),
            said: row.said,
            would: row.would,
            count: row.calls,
            examples: row.examples,
        };
        let pairs: Vec<Pair> = rows.into_iter().map(pair).collect();
        let sum =
            |effect: Effect| -> i64 { pairs.iter().filter(|pair| pair.effect == effect).map(|pair| pair.count).sum() };
        let agree = sum(Effect::Same);
        Self {
            policy,
            shadow,
            active,
            running,
            since_ms,
            requests,
            agree,
            differ: requests - agree,
            newly_denied: sum(Effect::NewlyDenied),
            newly_allowed: sum(Effect::NewlyAllowed),
            would_fail: sum(Effect::WouldFail),
            latency: Latency { active_ns, shadow_ns: mean((requests, took)) },
            pairs,
        }
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Span {
    /// Milliseconds since the epoch; an hour ago where it is left out.
    #[serde(default)]
    since_ms: Option<i64>,
    /// A minute where it is left out; steps of ten seconds.
    #[serde(default)]
    #[param(minimum = 10_000, maximum = 86_400_000, multiple_of = 10_000)]
    step_ms: Option<i64>,
}

/// What a version said in one step.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = PolicyVerdictsPoint)]
pub(crate) struct Point {
    at_ms: i64,
    version: String,
    verdict: String,
    reason: String,
    calls: i64,
    took_ns: i64,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = PolicyVerdicts)]
pub(crate) struct Verdicts {
    policy: String,
    from_ms: i64,
    step_ms: i64,
    points: Vec<Point>,
}

/// Verdicts over time: for each step what each version said how often. Steps in which nothing was said are left out.
#[utoipa::path(get, path = "/v1/policies/{policy}/verdicts", params(Span), responses((status = 200, body = Verdicts)))]
pub(crate) async fn verdicts(
    State(parts): State<Shared>,
    Path(name): Path<String>,
    Asked(span): Asked<Span>,
) -> Result<Json<Verdicts>, ApiError> {
    if policies::one(&parts.store, &name).await?.is_none() {
        return Err(ApiError::NotFound("policy"));
    }
    let now = clock::now_ms();
    let step = span.step_ms.unwrap_or(STEP_MS);
    if step < BUCKET_MS || step % BUCKET_MS != 0 || step > VERDICTS_KEPT_MS {
        return Err(ApiError::invalid(format!(
            "`step_ms` must be a multiple of {BUCKET_MS}, at most {VERDICTS_KEPT_MS}"
        )));
    }
    let since = span.since_ms.unwrap_or(now - LOOK_MS).clamp(now - VERDICTS_KEPT_MS, now);
    let from = since - since.rem_euclid(step);
    if (now - from) / step >= STEPS_MAX {
        return Err(ApiError::invalid(format!(
            "that is more than {STEPS_MAX} steps; name a longer `step_ms` or a later `since_ms`"
        )));
    }
    let rows = counts::verdicts(&parts.store, &name, from, step).await?;
    let points = rows.into_iter().map(|row| Point {
        at_ms: row.at_ms,
        version: row.version,
        verdict: row.verdict,
        reason: row.reason,
        calls: row.calls,
        took_ns: row.took_ns,
    });
    Ok(Json(Verdicts { policy: name, from_ms: from, step_ms: step, points: points.collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_difference_means() {
        for (said, would, effect) in [
            ("allow", "allow", Effect::Same),
            ("allow", "abstain", Effect::Otherwise),
            ("abstain", "deny:too-early", Effect::NewlyDenied),
            ("none", "deny:country", Effect::NewlyDenied),
            ("deny:country", "allow", Effect::NewlyAllowed),
            ("deny:country", "deny:too-early", Effect::Otherwise),
            ("allow", "timeout", Effect::WouldFail),
            ("trap", "allow", Effect::Otherwise),
        ] {
            assert_eq!(Effect::of(said, would), effect, "{said} → {would}");
        }
    }
}
