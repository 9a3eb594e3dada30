//! `segue-soak`: loads a real edge and holds every answer against the truth. Status 0 where nothing was wrong.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use segue_testkit::soak::{Settings, run};

/// Loads an edge with a mix of requests in front of an origin that misbehaves, and checks every byte
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The command under test
    #[arg(long, value_name = "FILE", default_value = "target/release/segue")]
    segue: PathBuf,
    /// How long, in seconds
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Clients at once
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=1000))]
    clients: u64,
    /// What all choices follow from [default: the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Answer with one line of JSON
    #[arg(long)]
    json: bool,
    /// Change one byte of the truth, so that the run must fail
    #[arg(long)]
    planted: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let given = Arguments::parse();
    let seed = segue_testkit::seed(given.seed);
    eprintln!("soak: seed {seed}, {} s, {} clients", given.seconds, given.clients);
    let settings = Settings {
        segue: given.segue,
        length: Duration::from_secs(given.seconds),
        clients: given.clients,
        seed,
        planted: given.planted,
    };
    let report = run(&settings).await?;
    if given.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
