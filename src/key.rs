//! `segue key`: the keys that sign tickets, added, rotated and retired while everything runs.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::{ControlArgs, say};
use crate::client::Control;
use crate::when::When;

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// List the keys: their times, and when edges met them last
    List,
    /// Add a key; its secret is made by the control plane, told to edges, and shown to nobody
    Add {
        /// The key's name; made up where it is left out
        kid: Option<String>,
        /// From when on it is good: a time, or a span from now such as 24h [default: in 10 s]
        #[arg(long, value_name = "WHEN")]
        not_before: Option<When>,
        /// Until when it is good
        #[arg(long, value_name = "WHEN")]
        retire_at: Option<When>,
    },
    /// Add a key that signs from now on, and let those before it end
    Rotate {
        /// How long the keys before it go on verifying [default: 30d, the longest life of a ticket]
        #[arg(long, value_name = "SPAN")]
        overlap: Option<When>,
    },
    /// Retire a key: no ticket that it signed is accepted from then on
    Retire {
        /// The key's name
        kid: String,
        /// When: a time, or a span from now [default: now]
        #[arg(long, value_name = "WHEN")]
        at: Option<When>,
        /// Also where no key is left that could sign
        #[arg(long)]
        force: bool,
    },
}

pub(crate) async fn run(args: KeyArgs) -> anyhow::Result<ExitCode> {
    let control = Control::find(&args.control)?;
    let json = args.control.json;
    match args.command {
        KeyCommand::List => {
            let all: Value = control.get("/v1/keys").await?;
            let keys = all.get("keys").and_then(Value::as_array).cloned().unwrap_or_default();
            if !json {
                say(format_args!(
                    "{:<24}  {:<8}  {:<8}  {:>12}  {:>12}  {:>10}  {}",
                    "KEY", "SOURCE", "STATE", "NOT BEFORE", "RETIRES", "ACCEPTED", "LAST USED (MS)"
                ))?;
            }
            for key in &keys {
                say(if json { key.to_string() } else { row(key) })?;
            }
        }
        KeyCommand::Add { kid, not_before, retire_at } => {
            let (not_before, retire_at) = (not_before.map(When::at).transpose()?, retire_at.map(When::at).transpose()?);
            let wish = json!({ "kid": kid, "not_before": not_before, "retire_at": retire_at });
            let key: Value = control.post("/v1/keys", &wish).await?;
            say(if json { key.to_string() } else { row(&key) })?;
        }
        KeyCommand::Rotate { overlap } => {
            let overlap = overlap.map(When::span).transpose()?;
            let rotated: Value = control.post("/v1/keys/rotate", &json!({ "overlap_s": overlap })).await?;
            if json {
                say(rotated)?;
            } else {
                let none = Vec::new();
                say(row(rotated.get("key").unwrap_or(&Value::Null)))?;
                for kid in rotated.get("retiring").and_then(Value::as_array).unwrap_or(&none) {
                    say(format_args!("{} goes on verifying until the overlap is over", kid.as_str().unwrap_or("-")))?;
                }
            }
        }
        KeyCommand::Retire { kid, at, force } => {
            let at = at.map(When::at).transpose()?.map(|at| format!("at={at}&")).unwrap_or_default();
            let key: Value = control.delete_for(&format!("/v1/keys/{kid}?{at}force={force}")).await?;
            say(if json { key.to_string() } else { row(&key) })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(key: &Value) -> String {
    let text = |name: &str| match key.get(name) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let signs = if key.get("signs").and_then(Value::as_bool) == Some(true) { "  signs" } else { "" };
    format!(
        "{:<24}  {:<8}  {:<8}  {:>12}  {:>12}  {:>10}  {}{signs}",
        text("kid"),
        text("source"),
        text("state"),
        text("not_before"),
        text("retire_at"),
        text("accepted"),
        text("last_used_ms"),
    )
}
