//! `segue audit`: who changed what.

use std::process::ExitCode;

use clap::Args;
use segue_config::Moment;
use serde_json::{Map, Value};

use crate::cli::{ControlArgs, say};
use crate::client::Control;
use crate::when::When;

/// Records that are shown where nobody says how many.
const SHOWN: usize = 50;

/// Most that one answer of the control plane holds.
const PAGE_MAX: usize = 1000;

#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  segue audit                                  # the last changes, newest first
  segue audit --actor 'shop backend' --from -1d
  segue audit --operation keys.rotate
  segue audit --resource tracks/k3w5r2mzqj7a   # and what lies under it
  segue audit --count 100000 --json            # everything, for machines

Tickets and refusals are in it too; a refusal's COUNT says how often it came within its minute.
A change without a STATUS was cut off, or its control plane died under it: look whether it was done.")]
pub(crate) struct AuditArgs {
    /// A token's id or name
    #[arg(long, value_name = "TOKEN")]
    actor: Option<String>,
    /// An operation, as in /v1/openapi.json
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
    /// What was changed, and what lies under it, such as tracks/k3w5r2mzqj7a
    #[arg(long, value_name = "PATH")]
    resource: Option<String>,
    /// From when on: a time, or a span from now such as -1d
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    from: Option<When>,
    /// Until when
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    to: Option<When>,
    /// How many records
    #[arg(long, value_name = "N", default_value_t = SHOWN)]
    count: usize,
    #[command(flatten)]
    control: ControlArgs,
}

pub(crate) async fn run(args: AuditArgs) -> anyhow::Result<ExitCode> {
    let control = Control::find(&args.control)?;
    let json = args.control.json;
    let ms = |when: Option<When>| when.map(|when| Ok::<_, anyhow::Error>((when.at()? * 1000).to_string())).transpose();
    let filters = [
        ("actor", args.actor),
        ("operation", args.operation),
        ("resource", args.resource),
        ("from", ms(args.from)?),
        ("to", ms(args.to)?),
    ];
    let given = filters.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish();
    if !json {
        say(heading())?;
    }
    let (mut left, mut after) = (args.count, String::new());
    while left > 0 {
        let path = format!("/v1/audit?{query}&limit={}{after}", left.min(PAGE_MAX));
        let page: Value = control.get(&path).await?;
        let records = page.get("records").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for record in records {
            say(if json { record.to_string() } else { row(record) })?;
        }
        left = left.saturating_sub(records.len());
        match page.get("next").and_then(Value::as_str) {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn heading() -> String {
    columns(["WHEN", "WHO", "FROM", "STATUS", "COUNT", "OPERATION", "RESOURCE", "WHAT"])
}

fn columns([when, who, from, status, count, operation, resource, what]: [&str; 8]) -> String {
    let line =
        format!("{when:<20}  {who:<20}  {from:<15}  {status:>6}  {count:>5}  {operation:<22}  {resource:<28}  {what}");
    line.trim_end().to_owned()
}

fn row(record: &Value) -> String {
    let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or("-");
    let number = |name: &str| record.get(name).and_then(Value::as_i64);
    let when = number("at_ms").map_or_else(|| "-".to_owned(), |ms| Moment(ms.div_euclid(1000)).to_string());
    let status = number("status").map_or_else(|| "-".to_owned(), |status| status.to_string());
    let count = number("times").unwrap_or(1).to_string();
    let who = text("actor_name");
    let mut what: Vec<String> =
        record.get("summary").and_then(Value::as_object).into_iter().flat_map(Map::iter).map(said).collect();
    if let Some(error) = record.get("error").and_then(Value::as_str) {
        what.insert(0, error.to_owned());
    }
    columns([&when, who, text("address"), &status, &count, text("operation"), text("resource"), &what.join(" ")])
}

/// One field of a summary. Words of others are quoted, so that none can paint on the terminal.
fn said((name, value): (&String, &Value)) -> String {
    match value {
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte)) => {
            format!("{name}={text}")
        }
        Value::String(text) => format!("{name}={text:?}"),
        other => format!("{name}={other}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_a_line_that_people_can_read() {
        let record = json!({
            "at_ms": 1_709_210_096_000_i64, "actor": "qv7j", "actor_name": "shop backend", "address": "192.0.2.7",
            "status": 201, "times": 1, "operation": "tokens.create", "resource": "tokens/abc", "error": null,
            "summary": { "name": "a\u{1b}[2J", "scopes": ["read"], "sid": "x-1" },
        });
        assert_eq!(
            row(&record),
            "2024-02-29T12:34:56Z  shop backend          192.0.2.7           201      1  tokens.create           \
             tokens/abc                    name=\"a\\u{1b}[2J\" scopes=[\"read\"] sid=x-1"
        );
        let unknown = row(&json!({ "at_ms": 0, "status": null, "error": "unauthorized", "times": 7 }));
        assert!(unknown.contains("     -      7") && unknown.ends_with("unauthorized"), "{unknown}");
    }
}
