//! What a soak saw, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::client::{Asking, Condition};
use super::edge::{CACHE_DIR_MAX, EVENTS_DIR_MAX, RSS_MAX};
use super::judge::Verdict;
use super::origin::{Asked, Fault};
use super::truth::lock;
use super::wire::Answer;
use super::{Run, Settings};

/// So many violations are told; one is enough to fail.
const VIOLATIONS_TOLD: usize = 20;
/// Answers from memory or disk, of all: a soak without hits proves nothing about them.
const HITS_AT_LEAST: f64 = 0.2;

/// What happened in a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// What all choices followed from.
    pub seed: u64,
    /// How long it ran, in seconds.
    pub seconds: f64,
    /// Whether the edge had a disk tier.
    pub disk: bool,
    /// Requests that were answered and judged.
    pub requests: u64,
    /// Bytes of bodies, every one compared.
    pub bytes: u64,
    /// Requests whose client left in the middle.
    pub left: u64,
    /// By status; 0 where there was no answer.
    pub statuses: BTreeMap<u16, u64>,
    /// By what was asked for.
    pub kinds: BTreeMap<&'static str, u64>,
    /// By `Cache-Status`.
    pub caches: BTreeMap<String, u64>,
    /// Failures that said so and had a cause.
    pub honest_failures: u64,
    /// New versions of objects that change.
    pub changes: u64,
    /// Purges.
    pub purges: u64,
    /// `kill -9` and a new start.
    pub kills: u64,
    /// Requests at the origin.
    pub origin_requests: u64,
    /// Its faults, by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// The edge's anonymous memory at its highest, and its bound, in bytes.
    pub memory: (u64, u64),
    /// The folder of its cache at its largest, and its bound.
    pub cache_dir: (u64, u64),
    /// The folder of its facts at its largest, and its bound.
    pub events_dir: (u64, u64),
    /// How many wrongs there were.
    pub wrong: u64,
    /// The first of them.
    pub violations: Vec<String>,
    /// Where the edge's log was left, if something was wrong.
    pub dir: Option<PathBuf>,
}

/// The report as it grows.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Report>);

impl Tally {
    pub(super) fn count(&self, asking: &Asking, got: &anyhow::Result<Answer>, verdict: &Verdict) {
        let mut report = lock(&self.0);
        report.requests += 1;
        *report.kinds.entry(kind(asking)).or_default() += 1;
        let status = got.as_ref().map_or(0, |answer| answer.status);
        *report.statuses.entry(status).or_default() += 1;
        if let Ok(answer) = got {
            report.bytes += answer.body.len() as u64;
            if let Some(cache) = answer.header("cache-status") {
                *report.caches.entry(cache.trim_start_matches("segue; ").to_owned()).or_default() += 1;
            }
        }
        report.honest_failures += u64::from(*verdict == Verdict::HonestFailure);
    }

    pub(super) fn violation(&self, what: String) {
        let mut report = lock(&self.0);
        report.wrong += 1;
        if report.violations.len() < VIOLATIONS_TOLD {
            report.violations.push(what);
        }
    }

    pub(super) fn left(&self) {
        lock(&self.0).left += 1;
    }

    pub(super) fn changed(&self) {
        lock(&self.0).changes += 1;
    }

    pub(super) fn purged(&self) {
        lock(&self.0).purges += 1;
    }

    pub(super) fn killed(&self) {
        lock(&self.0).kills += 1;
    }

    pub(super) fn memory(&self, bytes: u64) {
        {
            let mut report = lock(&self.0);
            report.memory.0 = report.memory.0.max(bytes);
        }
        if bytes > RSS_MAX {
            self.violation(format!("the edge holds {} of memory, {} is its bound", mib(bytes), mib(RSS_MAX)));
        }
    }

    pub(super) fn disk(&self, cache: u64, events: u64) {
        {
            let mut report = lock(&self.0);
            report.cache_dir.0 = report.cache_dir.0.max(cache);
            report.events_dir.0 = report.events_dir.0.max(events);
        }
        for (what, bytes, bound) in [("cache", cache, CACHE_DIR_MAX), ("facts", events, EVENTS_DIR_MAX)] {
            if bytes > bound {
                self.violation(format!("the folder of the {what} holds {}, {} is its bound", mib(bytes), mib(bound)));
            }
        }
    }

    /// A run proves something only about what happened in it.
    pub(super) fn demand_everything(&self, asked: &Asked) {
        let report = lock(&self.0).clone();
        let hits: u64 = report.caches.iter().filter(|(name, _)| name.starts_with("hit")).map(|(_, count)| count).sum();
        let share = hits as f64 / report.requests.max(1) as f64;
        let mut missing = Vec::new();
        for (what, count) in
            [("purge", report.purges), ("kill", report.kills), ("honest failure", report.honest_failures)]
        {
            if count == 0 {
                missing.push(what.to_owned());
            }
        }
        for (fault, count) in Fault::ALL.iter().zip(&asked.faults) {
            if count.load(Ordering::Relaxed) == 0 {
                missing.push(format!("fault {}", fault.name()));
            }
        }
        for kind in KINDS.iter().filter(|kind| !report.kinds.contains_key(*kind)) {
            missing.push((*kind).to_owned());
        }
        if share < HITS_AT_LEAST {
            missing.push(format!("{:.0} % of hits (there were {:.0} %)", HITS_AT_LEAST * 100.0, share * 100.0));
        }
        if !missing.is_empty() {
            self.violation(format!("the run did not meet: {}", missing.join(", ")));
        }
    }

    /// A line of progress.
    pub(super) fn line(&self) -> String {
        let report = lock(&self.0);
        format!(
            "{} answers, {} compared, {} honest failures, {} kills, {} wrong, {} of memory",
            report.requests,
            mib(report.bytes),
            report.honest_failures,
            report.kills,
            report.wrong,
            mib(report.memory.0)
        )
    }
}

impl Report {
    pub(super) fn of(run: &Run, asked: &Asked, settings: &Settings, took: Duration) -> Self {
        let counts = asked.faults.iter().map(|count| count.load(Ordering::Relaxed));
        let seen = lock(&run.tally.0).clone();
        Self {
            seed: settings.seed,
            seconds: took.as_secs_f64(),
            disk: run.edge.disk,
            origin_requests: asked.requests.load(Ordering::Relaxed),
            faults: Fault::ALL.iter().map(|fault| fault.name()).zip(counts).collect(),
            memory: (seen.memory.0, RSS_MAX),
            cache_dir: (seen.cache_dir.0, CACHE_DIR_MAX),
            events_dir: (seen.events_dir.0, EVENTS_DIR_MAX),
            ..seen
        }
    }

    /// Nothing was wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.wrong == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: String| if counts.is_empty() { "none".to_owned() } else { counts };
        writeln!(f, "seed {}, {:.0} s, disk tier {}", self.seed, self.seconds, if self.disk { "on" } else { "off" })?;
        writeln!(
            f,
            "  {} answers judged, {} of bodies compared, {} clients left",
            self.requests,
            mib(self.bytes),
            self.left
        )?;
        writeln!(f, "  asked:    {}", list(counts(&self.kinds)))?;
        writeln!(f, "  statuses: {}", list(counts(&self.statuses)))?;
        writeln!(f, "  cache:    {}", list(counts(&self.caches)))?;
        writeln!(f, "  origin:   {} requests, faults: {}", self.origin_requests, counts(&self.faults))?;
        writeln!(
            f,
            "  {} changes, {} purges, {} kills, {} honest failures",
            self.changes, self.purges, self.kills, self.honest_failures
        )?;
        for (what, (most, bound)) in
            [("memory", self.memory), ("cache on disk", self.cache_dir), ("facts on disk", self.events_dir)]
        {
            writeln!(f, "  {what}: {} at most, bound {}", mib(most), mib(bound))?;
        }
        for violation in &self.violations {
            writeln!(f, "WRONG: {violation}")?;
        }
        if let Some(dir) = &self.dir {
            writeln!(f, "the edge's log: {}", dir.join("edge.log").display())?;
        }
        write!(f, "{}", if self.is_clean() { "nothing was wrong".to_owned() } else { format!("{} WRONG", self.wrong) })
    }
}

const KINDS: [&str; 7] = ["whole", "head", "range", "ranges", "if-none-match", "if-range", "refused"];

fn kind(asking: &Asking) -> &'static str {
    use super::client::Carrier;
    match (asking.carrier, asking.method, &asking.condition, asking.ranges.len()) {
        (Carrier::None | Carrier::Forged, ..) => "refused",
        (_, "HEAD", ..) => "head",
        (_, _, Condition::IfNoneMatch(_), _) => "if-none-match",
        (_, _, Condition::IfRange(_), _) => "if-range",
        (_, _, _, 0) => "whole",
        (_, _, _, 1) => "range",
        _ => "ranges",
    }
}

fn counts<K: fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    let each: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    each.join(", ")
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
