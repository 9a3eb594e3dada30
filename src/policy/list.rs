//! `segue policy list`.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::remote::{Policy, table};
use crate::cli::{ControlArgs, say};
use crate::client::Control;

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    control: ControlArgs,
}

pub(super) async fn run(args: ListArgs) -> anyhow::Result<ExitCode> {
    let control = Control::find(&args.control)?;
    let all: Value = control.get("/v1/policies").await?;
    if args.control.json {
        say(all)?;
        return Ok(ExitCode::SUCCESS);
    }
    let policies: Vec<Policy> = serde_json::from_value(all.get("policies").cloned().unwrap_or_default())?;
    if policies.is_empty() {
        say("no policies; `segue policy push NAME FILE` brings the first")?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = policies.iter().map(row).collect();
    for line in table(&["POLICY", "WORLD", "ACTIVE", "TRIED", "EDGES", " VERSIONS", "ON FAILURE"], &rows) {
        say(line)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(policy: &Policy) -> Vec<String> {
    let all = policy.alive().count();
    let on = policy.alive().filter(|edge| edge.deciding == policy.active && !edge.is_kept).count();
    vec![
        policy.policy.clone(),
        policy.world.clone(),
        policy.active.clone().unwrap_or_else(|| "-".to_owned()),
        policy.candidate.as_ref().map_or_else(|| "-".to_owned(), |candidate| candidate.words()),
        format!("{on} of {all}"),
        policy.versions.len().to_string(),
        policy.on_failure.clone(),
    ]
}
