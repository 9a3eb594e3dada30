//! Policies as the control plane shows them, and the wait for edges.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::Control;

/// Between two looks at the edges: they report within a tenth of a second.
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// A policy.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Policy {
    pub(super) policy: String,
    pub(super) world: String,
    pub(super) order: i32,
    pub(super) on_failure: String,
    pub(super) active: Option<String>,
    pub(super) candidate: Option<Candidate>,
    pub(super) rollback: Option<Rollback>,
    /// Newest first.
    pub(super) versions: Vec<Version>,
    pub(super) edges: Vec<Edge>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Candidate {
    pub(super) version: String,
    /// `shadow` or `canary`.
    pub(super) trial: String,
    pub(super) percent: Option<f64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Rollback {
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) ends_canary: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Version {
    pub(super) version: String,
    pub(super) state: String,
    pub(super) bytes: u64,
    pub(super) vectors: u64,
    pub(super) signer: Option<String>,
    pub(super) uploaded_by: String,
    pub(super) created_ms: u64,
    pub(super) ready: usize,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Edge {
    pub(super) edge: String,
    pub(super) alive: bool,
    pub(super) deciding: Option<String>,
    pub(super) is_kept: bool,
    pub(super) ready: Vec<String>,
    pub(super) problems: Vec<Problem>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Problem {
    pub(super) version: String,
    pub(super) problem: String,
}

impl Candidate {
    /// `7 as shadow`, `7 for 10 %`.
    pub(super) fn words(&self) -> String {
        match self.percent {
            Some(percent) => format!("{} for {percent} %", self.version),
            None => format!("{} as {}", self.version, self.trial),
        }
    }
}

impl Policy {
    pub(super) async fn get(control: &Control, name: &str) -> anyhow::Result<Self> {
        control.get(&format!("/v1/policies/{name}")).await
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(|edge| edge.alive)
    }
}

/// A name as the control plane takes it; anything else would be another path.
pub(super) fn name(text: &str) -> Result<String, String> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let dots = text.bytes().all(|byte| byte == b'.');
    if text.len() > 64 || dots || !text.bytes().all(fine) {
        return Err("use 1 to 64 letters, digits, '-', '_' or '.'".to_owned());
    }
    Ok(text.to_owned())
}

/// What edges are waited for.
#[derive(Debug, Clone)]
pub(super) enum Until {
    /// They have the version ready.
    Ready(String),
    /// This version decides; `None`: none does.
    Decides(Option<String>),
}

impl Until {
    fn holds(&self, edge: &Edge) -> bool {
        match self {
            Self::Ready(version) => edge.ready.contains(version),
            Self::Decides(version) => edge.deciding == *version && !edge.is_kept,
        }
    }

    fn version(&self) -> Option<&str> {
        match self {
            Self::Ready(version) => Some(version),
            Self::Decides(version) => version.as_deref(),
        }
    }
}

/// How the edges that are alive stand, after a wait.
#[derive(Debug)]
pub(super) struct Waited {
    pub(super) on: Vec<String>,
    /// With what they say about it.
    pub(super) not_on: Vec<(String, Option<String>)>,
    pub(super) took: Duration,
}

impl Waited {
    pub(super) fn all(&self) -> usize {
        self.on.len() + self.not_on.len()
    }

    pub(super) fn json(&self) -> Value {
        let missing = |(edge, problem): &(String, Option<String>)| json!({ "edge": edge, "problem": problem });
        json!({
            "on": self.on,
            "not_on": self.not_on.iter().map(missing).collect::<Vec<_>>(),
            "waited_ms": self.took.as_millis() as u64,
        })
    }

    /// Lines for people; `what` says what the edges do that are on.
    pub(super) fn lines(&self, what: &str) -> Vec<String> {
        if self.all() == 0 {
            return vec!["  no edge has reported of late; those that come will follow".to_owned()];
        }
        let mut lines =
            vec![format!("  {} of {} edges {what}, after {:.1} s", self.on.len(), self.all(), self.took.as_secs_f64())];
        for (edge, problem) in &self.not_on {
            lines.push(format!("  {edge}: {}", problem.as_deref().unwrap_or("has not said so yet")));
        }
        lines
    }
}

/// Looks until all edges that are alive stand as wanted, or the time is over. Shows meanwhile how many do.
pub(super) async fn wait(control: &Control, name: &str, until: &Until, within: Duration) -> anyhow::Result<Waited> {
    let began = Instant::now();
    let mut meter = None;
    loop {
        let policy = Policy::get(control, name).await?;
        let (on, not_on): (Vec<&Edge>, Vec<&Edge>) = policy.alive().partition(|edge| until.holds(edge));
        let took = began.elapsed();
        if not_on.is_empty() || took >= within {
            let problem = |edge: &Edge| {
                edge.problems
                    .iter()
                    .find(|one| Some(one.version.as_str()) == until.version())
                    .map(|one| one.problem.clone())
            };
            return Ok(Waited {
                on: on.iter().map(|edge| edge.edge.clone()).collect(),
                not_on: not_on.iter().map(|edge| (edge.edge.clone(), problem(edge))).collect(),
                took,
            });
        }
        meter.get_or_insert_with(Meter::new).show(on.len(), on.len() + not_on.len(), &not_on);
        tokio::time::sleep(LOOK_EVERY.min(within - took)).await;
    }
}

/// A line that moves on a terminal; elsewhere nothing, since the answer says it all.
struct Meter(Option<ProgressBar>);

impl Meter {
    fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(Some(bar))
    }

    fn show(&self, on: usize, all: usize, missing: &[&Edge]) {
        if let (Self(Some(bar)), Some(first)) = (self, missing.first()) {
            bar.set_message(format!("{on} of {all} edges; waiting for {}", first.edge));
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Columns as wide as what stands in them; numbers to the right where the heading begins with a space.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heads.get(column).map(|head| head.trim().chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().zip(heads).zip(&widths).map(|((cell, head), &width)| match head.starts_with(' ') {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head = line(heads.iter().map(|head| head.trim()).collect());
    std::iter::once(head).chain(rows.iter().map(|row| line(row.iter().map(String::as_str).collect()))).collect()
}

/// `13.2 kB`.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// `3 min ago`.
pub(super) fn ago(ms: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seconds = now.saturating_sub(Duration::from_millis(ms)).as_secs();
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// `10,400`.
pub(super) fn count(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if number < 0 { format!("-{out}") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_groups() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (10_400, "10,400"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let rows = [vec!["country".to_owned(), "7".to_owned()], vec!["a".to_owned(), "1200".to_owned()]];
        assert_eq!(table(&["NAME", " CALLS"], &rows), ["NAME     CALLS", "country      7", "a         1200"]);
    }

    #[test]
    fn a_name_is_no_path() {
        assert!(name("country-2.1").is_ok());
        for wrong in ["", ".", "..", "a/b", "a b", "ä"] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
