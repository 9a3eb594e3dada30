//! `segue events`: what the edges deliver, as it happens, as it was kept, and as files.

mod export;
mod kept;
mod read;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use crate::cli::{ControlArgs, say};
use crate::client::Control;
use crate::sse;
use crate::when::When;

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    #[command(subcommand)]
    command: EventsCommand,
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Debug, Subcommand)]
enum EventsCommand {
    /// Print facts and denials from where they lie: the log of an edge that does not run, or Fluvio
    Read(read::Read),
    /// Print facts, plays and denials as they arrive, until Ctrl-C; with --from, those that are kept
    Tail(Tail),
    /// Write the facts, denials or plays of a day to a file
    Export(Export),
}

#[derive(Debug, Args)]
struct Tail {
    /// What to print (repeat for several); facts, plays and denials unless told, with --from facts
    #[arg(long = "topic", value_enum)]
    topics: Vec<Topic>,
    /// Begin with what is kept: a span ago (2h), a time (2026-07-01T12:00:00Z), or the number that an earlier call ended with
    #[arg(long, value_name = "WHEN")]
    from: Option<Begin>,
    /// With --from: go on with what comes, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// Only where a field has this value (repeat for several): track=…, sid=…, edge=…, cache=…, reason=…
    #[arg(long = "filter", value_name = "FIELD=VALUE")]
    filters: Vec<Filter>,
    /// End after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

#[derive(Debug, Args)]
struct Export {
    /// The day, in UTC: 2026-11-25
    #[arg(long)]
    day: Day,
    /// The file's format
    #[arg(long, value_enum, default_value_t = Format::Parquet)]
    format: Format,
    /// The file; one that is there is replaced once the new one is whole
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What to export
    #[arg(long, value_enum, default_value_t = Kind::Facts)]
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Topic {
    /// One per served segment
    Facts,
    /// A play started, qualified, passed a quartile, ended
    Plays,
    /// One per refusal
    Denials,
    /// A track changed
    Tracks,
    /// A job changed
    Jobs,
}

impl Topic {
    fn name(self) -> &'static str {
        match self {
            Self::Facts => "facts",
            Self::Plays => "plays",
            Self::Denials => "denials",
            Self::Tracks => "tracks",
            Self::Jobs => "jobs",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// One row per served segment
    Facts,
    /// One row per refusal
    Denials,
    /// One row per play that began on that day
    Plays,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns, for DuckDB, ClickHouse, Spark, pandas
    Parquet,
    /// One JSON object a line
    Ndjson,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// The number of a record.
    Position(u64),
    /// Seconds since the epoch.
    Time(i64),
}

impl FromStr for Begin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(position) = text.parse() {
            return Ok(Self::Position(position));
        }
        // A span lies before now: nothing is kept of the future.
        let ago = match text.parse::<When>()? {
            When::In(span) => When::In(-span.abs()),
            at @ When::At(_) => at,
        };
        ago.at().map(Self::Time).map_err(|error| error.to_string())
    }
}

/// A field and the value that it must have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Filter {
    field: String,
    value: String,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, value) =
            text.split_once('=').ok_or_else(|| format!("{text:?} is not FIELD=VALUE, as in track=…"))?;
        Ok(Self { field: field.to_owned(), value: value.to_owned() })
    }
}

impl Filter {
    fn lets(&self, event: &Value) -> bool {
        match event.get(&self.field) {
            Some(Value::String(text)) => *text == self.value,
            Some(Value::Null) | None => false,
            Some(other) => {
                let text = other.to_string();
                text == self.value
            }
        }
    }
}

/// A day in UTC, as the ms since the epoch at which it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Day(i64);

const DAY_MS: i64 = 24 * 3_600_000;

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text.len(), format!("{text}T00:00:00Z").parse::<When>()) {
            (10, Ok(When::At(at))) if at % 86_400 == 0 => Ok(Self(at * 1000)),
            _ => Err(format!("{text:?} is no day such as 2026-11-25")),
        }
    }
}

pub(crate) async fn run(args: EventsArgs) -> anyhow::Result<ExitCode> {
    let EventsArgs { command, control } = args;
    let (find, json) = (|| Control::find(&control), control.json);
    match command {
        // Where facts lie there may be no control plane.
        EventsCommand::Read(read) => read::run(read).await,
        EventsCommand::Tail(tail) if tail.from.is_some() => kept::tail(&find()?, tail, json).await,
        EventsCommand::Tail(tail) => follow(&find()?, tail, json).await,
        EventsCommand::Export(wanted) => export::run(&find()?, wanted, json).await,
    }
}

/// Prints what passes the filters, up to the limit.
struct Printer {
    filters: Vec<Filter>,
    json: bool,
    left: Option<u64>,
}

impl Printer {
    fn new(tail: &Tail, json: bool) -> Self {
        Self { filters: tail.filters.clone(), json, left: tail.limit }
    }

    /// Prints one event. Breaks when it was the last one.
    fn print(&mut self, name: &str, event: &Value) -> anyhow::Result<ControlFlow<()>> {
        // What was missed is told, and is no event.
        let missed = name == "lagged";
        if !missed && !self.filters.iter().all(|filter| filter.lets(event)) {
            return Ok(ControlFlow::Continue(()));
        }
        say(if self.json {
            serde_json::json!({ "topic": name, "event": event }).to_string()
        } else {
            line(name, event)
        })?;
        if !missed {
            self.left = self.left.map(|left| left - 1);
        }
        Ok(if self.left == Some(0) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

async fn follow(control: &Control, tail: Tail, json: bool) -> anyhow::Result<ExitCode> {
    let mut printer = Printer::new(&tail, json);
    let topics = if tail.topics.is_empty() { vec![Topic::Facts, Topic::Plays, Topic::Denials] } else { tail.topics };
    let names: Vec<_> = topics.iter().map(|topic| topic.name()).collect();
    let response = control.stream(&format!("/v1/events?topics={}", names.join(","))).await?;
    sse::read(response, |event| printer.print(&event.name, &serde_json::from_str(&event.data)?)).await?;
    if printer.left != Some(0) {
        bail!("the control plane ended the stream");
    }
    Ok(ExitCode::SUCCESS)
}

fn line(topic: &str, value: &Value) -> String {
    let text = |key: &str| match value.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    match topic {
        "fact" => format!(
            "fact    {} {:<14} {:>7} ms {:>8} B {:<10} {} {}",
            text("track"),
            text("file").rsplit('/').next().unwrap_or_default(),
            text("pos_ms"),
            text("bytes"),
            text("cache"),
            text("status"),
            text("sid"),
        ),
        "play" => format!("play    {} {:<10} {}", text("track"), text("type"), text("play")),
        "denial" => format!("denial  {} {} {} {}", text("status"), text("reason"), text("track"), text("path")),
        "track" => format!("track   {} {} {}", text("track"), text("status"), text("title")),
        "job" => format!("job     {} {} {} {}", text("job"), text("state"), text("stage"), text("progress")),
        other => format!("{other:<7} {value}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn days_spans_and_numbers_are_told_apart() {
        assert_eq!("2026-11-25".parse(), Ok(Day(1_795_564_800_000)));
        for wrong in ["2026-13-01", "25.11.2026", "2026-11-25T01", "1795564800", "1h"] {
            assert!(wrong.parse::<Day>().is_err(), "{wrong}");
        }
        assert_eq!("12345".parse(), Ok(Begin::Position(12_345)));
        let (Begin::Time(ago), now) = ("2h".parse().unwrap(), When::In(0).at().unwrap()) else {
            panic!("2h is a time")
        };
        assert!((now - 7200 - ago).abs() <= 1);
        assert!("soon".parse::<Begin>().is_err());
    }

    #[test]
    fn filters_look_at_fields() {
        let event = serde_json::json!({ "track": "abc", "status": 206, "sub": null });
        let lets = |text: &str| text.parse::<Filter>().unwrap().lets(&event);
        assert!(lets("track=abc") && lets("status=206"));
        assert!(!lets("track=ab") && !lets("sub=null") && !lets("nothing="));
        assert!("track".parse::<Filter>().is_err());
    }
}
