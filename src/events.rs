//! `segue events`: what the edges deliver, as it happens.

mod read;

use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use crate::cli::{ControlArgs, say};
use crate::client::Control;
use crate::sse;

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
    /// Print facts, plays and denials as they arrive, until Ctrl-C
    Tail {
        /// What to print (repeat for several)
        #[arg(long = "topic", value_enum, default_values_t = [Topic::Facts, Topic::Plays, Topic::Denials])]
        topics: Vec<Topic>,
        /// End after this many events
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
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

pub(crate) async fn run(args: EventsArgs) -> anyhow::Result<ExitCode> {
    let (topics, limit) = match args.command {
        EventsCommand::Read(read) => return read::run(read).await,
        EventsCommand::Tail { topics, limit } => (topics, limit),
    };
    let control = Control::find(&args.control)?;
    let names: Vec<_> = topics.iter().map(|topic| topic.name()).collect();
    let response = control.stream(&format!("/v1/events?topics={}", names.join(","))).await?;
    let json = args.control.json;
    let mut left = limit;
    sse::read(response, |event| {
        let value: Value = serde_json::from_str(&event.data)?;
        say(if json {
            serde_json::json!({ "topic": event.name, "event": value }).to_string()
        } else {
            line(&event.name, &value)
        })?;
        // What was missed is told, and is no event.
        if event.name != "lagged" {
            left = left.map(|left| left - 1);
        }
        Ok(if left == Some(0) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
    .await?;
    if left != Some(0) {
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
