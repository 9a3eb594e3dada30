//! `segue webhook`: receivers of events, and what was delivered to them.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use segue_config::Moment;
use serde_json::{Value, json};

use crate::cli::{ControlArgs, say};
use crate::client::Control;

#[derive(Debug, Args)]
#[command(after_long_help = "\
Events:
  track.ready     a track can be played
  track.failed    an upload or a transcode failed
  play.qualified  a play counted

Examples:
  segue webhook new https://shop.example/hook --event track.ready --event track.failed
  segue webhook deliveries x7m2k4jw3nbt5dqv --state dead
  segue webhook redeliver x7m2k4jw3nbt5dqv msg_k3w5r2mzqj7a")]
pub(crate) struct WebhookArgs {
    #[command(subcommand)]
    command: WebhookCommand,
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Debug, Subcommand)]
enum WebhookCommand {
    /// Add a receiver; the secret of its signatures is printed this once
    New {
        /// Where deliveries are sent: https://…
        url: String,
        /// What it is told; can be given several times
        #[arg(long = "event", value_name = "EVENT", required = true, value_delimiter = ',')]
        events: Vec<String>,
    },
    /// List the receivers
    List,
    /// Take a receiver away, and what waits for it
    Remove {
        /// Its id
        id: String,
    },
    /// List what is or was to be delivered to a receiver, newest first
    Deliveries {
        /// The receiver's id
        id: String,
        /// Only those in this state
        #[arg(long, value_parser = ["waiting", "delivered", "dead"])]
        state: Option<String>,
    },
    /// Send a delivery anew that ended
    Redeliver {
        /// The receiver's id
        id: String,
        /// The delivery's id
        delivery: String,
    },
}

pub(crate) async fn run(args: WebhookArgs) -> anyhow::Result<ExitCode> {
    let control = Control::find(&args.control)?;
    let json = args.control.json;
    match args.command {
        WebhookCommand::New { url, events } => {
            let made: Value = control.post("/v1/webhooks", &json!({ "url": url, "events": events })).await?;
            if json {
                say(&made)?;
            } else {
                eprintln!("{}", receiver(made.get("webhook").unwrap_or(&Value::Null)));
                eprintln!("This is shown once; keep it where secrets are kept:");
                say(made.get("secret").and_then(Value::as_str).unwrap_or("-"))?;
            }
        }
        WebhookCommand::List => {
            for one in control.pages("/v1/webhooks", "webhooks").await? {
                say(if json { one.to_string() } else { receiver(&one) })?;
            }
        }
        WebhookCommand::Remove { id } => {
            control.delete(&format!("/v1/webhooks/{id}")).await?;
            say(if json { json!({ "id": id, "removed": true }).to_string() } else { format!("removed {id}") })?;
        }
        WebhookCommand::Deliveries { id, state } => {
            let only = state.map(|state| format!("?state={state}")).unwrap_or_default();
            for one in control.pages(&format!("/v1/webhooks/{id}/deliveries{only}"), "deliveries").await? {
                say(if json { one.to_string() } else { delivery(&one) })?;
            }
        }
        WebhookCommand::Redeliver { id, delivery: of } => {
            let path = format!("/v1/webhooks/{id}/deliveries/{of}/redeliver");
            let one: Value = control.post(&path, &json!({})).await?;
            say(if json { one.to_string() } else { delivery(&one) })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn text(row: &Value, name: &str) -> String {
    match row.get(name) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        Some(other) => other.to_string(),
    }
}

fn receiver(row: &Value) -> String {
    format!(
        "{:<16}  {:<40}  missed {:>6}  {}",
        text(row, "id"),
        text(row, "events"),
        text(row, "missed"),
        text(row, "url")
    )
}

fn delivery(row: &Value) -> String {
    let made = row.get("made_ms").and_then(Value::as_i64).map(|ms| Moment(ms.div_euclid(1000)).to_string());
    format!(
        "{:<30}  {:<20}  {:<14}  {:<9}  tries {:>2}  {:>3}  {}",
        text(row, "id"),
        made.unwrap_or_default(),
        text(row, "event"),
        text(row, "state"),
        text(row, "tries"),
        text(row, "status"),
        text(row, "reason"),
    )
}
