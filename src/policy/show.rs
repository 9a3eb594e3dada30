//! `segue policy show`: versions, edges, history.

use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::remote::{Edge, Policy, Version, ago, name, size, table};
use crate::cli::{ControlArgs, say};
use crate::client::Control;

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The policy's name
    #[arg(value_parser = name)]
    name: String,
    /// Lines of history
    #[arg(long, default_value_t = 10)]
    history: u32,
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Debug, Deserialize)]
struct Line {
    at_ms: u64,
    by: String,
    act: String,
    version: Option<String>,
    from: Option<String>,
    percent: Option<f64>,
    note: Option<String>,
}

pub(super) async fn run(args: ShowArgs) -> anyhow::Result<ExitCode> {
    let control = Control::find(&args.control)?;
    let mut shown: Value = control.get(&format!("/v1/policies/{}", args.name)).await?;
    let path = format!("/v1/policies/{}/history?limit={}", args.name, args.history.max(1));
    let history: Value = control.get(&path).await?;
    let history = history.get("history").cloned().unwrap_or_default();
    if args.control.json {
        shown["history"] = history;
        say(shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    let policy: Policy = serde_json::from_value(shown)?;
    let lines: Vec<Line> = serde_json::from_value(history)?;
    say(head(&policy))?;
    say("")?;
    let rows: Vec<_> = policy.versions.iter().map(|version| row(version, policy.alive().count())).collect();
    for line in table(&["VERSION", "STATE", "READY", " SIZE", " VECTORS", "BY", "SIGNED BY", "WHEN"], &rows) {
        say(line)?;
    }
    if !policy.edges.is_empty() {
        say("")?;
        let rows: Vec<_> = policy.edges.iter().map(edge).collect();
        for line in table(&["EDGE", "ALIVE", "DECIDES", "NOTE"], &rows) {
            say(line)?;
        }
    }
    if args.history > 0 {
        say("")?;
        let rows: Vec<_> = lines.iter().map(Line::row).collect();
        for line in table(&["WHEN", "WHO", "WHAT", "NOTE"], &rows) {
            say(line)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn head(policy: &Policy) -> String {
    let decides = match &policy.active {
        Some(active) => format!("{active} decides"),
        None => "no version decides".to_owned(),
    };
    let tried =
        policy.candidate.as_ref().map(|candidate| format!(", {} is tried", candidate.words())).unwrap_or_default();
    let back = match &policy.rollback {
        Some(back) if back.ends_canary => "a rollback ends the canary".to_owned(),
        Some(back) => format!("a rollback goes to {}", back.to.as_deref().unwrap_or("none")),
        None => "there is nothing to roll back to".to_owned(),
    };
    format!(
        "{} ({}, order {}, fails {}): {decides}{tried}; {back}",
        policy.policy, policy.world, policy.order, policy.on_failure
    )
}

fn row(version: &Version, alive: usize) -> Vec<String> {
    vec![
        version.version.clone(),
        version.state.clone(),
        if version.state == "checked" { "-".to_owned() } else { format!("{} of {alive}", version.ready) },
        size(version.bytes),
        version.vectors.to_string(),
        version.uploaded_by.clone(),
        version.signer.clone().unwrap_or_else(|| "-".to_owned()),
        ago(version.created_ms),
    ]
}

fn edge(edge: &Edge) -> Vec<String> {
    let kept = edge.is_kept.then(|| "keeps the version that it last had".to_owned());
    let problems = edge.problems.iter().map(|one| format!("{}: {}", one.version, one.problem));
    let notes: Vec<String> = kept.into_iter().chain(problems).collect();
    vec![
        edge.edge.clone(),
        if edge.alive { "yes" } else { "no" }.to_owned(),
        edge.deciding.clone().unwrap_or_else(|| "-".to_owned()),
        notes.join("; "),
    ]
}

impl Line {
    fn row(&self) -> Vec<String> {
        let mut what = self.act.clone();
        if let Some(version) = &self.version {
            what += &format!(" {version}");
        }
        if let Some(percent) = self.percent {
            what += &format!(" at {percent} %");
        }
        if let Some(from) = &self.from {
            what += &format!(" (from {from})");
        }
        vec![ago(self.at_ms), self.by.clone(), what, self.note.clone().unwrap_or_default()]
    }
}
