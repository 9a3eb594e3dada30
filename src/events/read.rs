//! `segue events read`: facts and denials where they lie, in the local log of an edge that does not run, or in Fluvio.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use segue_events::{EventLog, FluvioConfig, FluvioReader, LogOptions};
use serde_json::Value;

use super::Filter;
use crate::cli::say;

/// Between two looks at a topic that had nothing new.
const LOOK: Duration = Duration::from_millis(200);
/// Records of one look at a local log.
const BATCH: usize = 1000;

#[derive(Debug, Args)]
pub(crate) struct Read {
    /// The folder of the facts of an edge that does not run ([events] dir)
    #[arg(long = "log", value_name = "DIR", conflicts_with_all = ["fluvio", "from", "follow"])]
    log: Option<PathBuf>,
    /// The controller of a Fluvio cluster
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "log")]
    fluvio: Option<String>,
    /// What the topics' names begin with
    #[arg(long, value_name = "PREFIX", default_value = "segue-", requires = "fluvio")]
    prefix: String,
    /// What to read
    #[arg(long, value_enum, default_value_t = What::Facts)]
    what: What,
    /// Where to begin
    #[arg(long, value_enum, default_value_t = Place::Start)]
    from: Place,
    /// Go on with what comes, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// Only where a field has this value (repeat for several): track=…, sid=…, edge=…, cache=…, reason=…
    #[arg(long = "filter", value_name = "FIELD=VALUE")]
    filters: Vec<Filter>,
}

/// Whether a record passes all filters. What is no JSON has no field that one could name.
fn passes(filters: &[Filter], record: &str) -> bool {
    filters.is_empty()
        || serde_json::from_str::<Value>(record).is_ok_and(|event| filters.iter().all(|filter| filter.lets(&event)))
}

/// Prints a record that passes.
fn print(filters: &[Filter], record: &str) -> anyhow::Result<()> {
    if passes(filters, record) { say(record) } else { Ok(()) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// One per served segment
    Facts,
    /// One per refusal
    Denials,
    /// What the tally published of plays; in Fluvio alone
    Plays,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Place {
    /// With the oldest record that is there
    Start,
    /// After the newest
    End,
}

pub(crate) async fn run(args: Read) -> anyhow::Result<ExitCode> {
    match (&args.log, &args.fluvio) {
        (Some(dir), _) => log(dir, &args)?,
        (None, Some(address)) => fluvio(address, &args).await?,
        (None, None) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Opening a log appends what its edge had noted and not settled when it died, as the edge itself would.
fn log(dir: &std::path::Path, args: &Read) -> anyhow::Result<()> {
    ensure!(dir.join("facts").is_dir(), "{} is no folder of facts", dir.display());
    let events = EventLog::open(dir, "reader", LogOptions::default())?;
    let log = match args.what {
        What::Facts => events.facts(),
        What::Denials => events.denials(),
        What::Plays => anyhow::bail!("plays are in no edge's log; the tally makes them"),
    };
    let mut at = log.start();
    loop {
        let batch = log.read(at, BATCH)?;
        if batch.next == at {
            return Ok(());
        }
        for (_, record) in batch.records {
            print(&args.filters, &record)?;
        }
        at = batch.next;
    }
}

async fn fluvio(address: &str, args: &Read) -> anyhow::Result<()> {
    let config = FluvioConfig { prefix: args.prefix.clone(), ..FluvioConfig::new(address) };
    let topic = match args.what {
        What::Facts => "segments",
        What::Denials => "denials",
        What::Plays => "plays",
    };
    let mut reader = FluvioReader::connect(&config, topic).await?;
    let mut partitions = Vec::new();
    for number in 0..reader.partitions() {
        let (start, end) = reader.span(number).await?;
        partitions.push((number, if args.from == Place::Start { start } else { end }, end));
    }
    loop {
        let mut idle = true;
        for (number, at, end) in &mut partitions {
            if !args.follow && *at >= *end {
                continue;
            }
            let fetched = reader.fetch(*number, *at).await.with_context(|| format!("partition {number}"))?;
            idle &= fetched.next == *at;
            *at = fetched.next;
            for (_, record) in fetched.records {
                print(&args.filters, &record)?;
            }
        }
        if !args.follow && partitions.iter().all(|(_, at, end)| at >= end) {
            return Ok(());
        }
        if idle {
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn records_pass_where_every_filter_does() {
        let filters = |texts: &[&str]| -> Vec<Filter> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let record = r#"{"track":"abc","edge":"e1","status":206}"#;
        assert!(passes(&[], record) && passes(&[], "no JSON"));
        assert!(passes(&filters(&["track=abc", "status=206"]), record));
        assert!(!passes(&filters(&["track=abc", "edge=e2"]), record));
        assert!(!passes(&filters(&["track=abc"]), "no JSON"));
    }
}
