//! `segue-facts-soak`: players over three edges under `kill -9`, and every fact held against their records. Status 0 where
//! nothing was wrong. With `SEGUE_TEST_FLUVIO`, the address of a cluster's controller, facts go through Fluvio.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use segue_testkit::facts::{Settings, run};

/// Kills edges and tally while players play, and checks every fact
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The command under test
    #[arg(long, value_name = "FILE", default_value = "target/release/segue")]
    segue: PathBuf,
    /// How long, in seconds
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(10..))]
    seconds: u64,
    /// How long the sink is away, in seconds [default: three tenths of the run]
    #[arg(long)]
    away: Option<u64>,
    /// Players at once
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
    players: u64,
    /// What all choices follow from [default: the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// A Fluvio cluster's controller
    #[arg(long, env = "SEGUE_TEST_FLUVIO", value_name = "HOST:PORT")]
    fluvio: Option<String>,
    /// Answer with one line of JSON
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let given = Arguments::parse();
    let seed = segue_testkit::seed(given.seed);
    let through = given.fluvio.as_deref().unwrap_or("the control plane");
    eprintln!("facts soak: seed {seed}, {} s, {} players, facts through {through}", given.seconds, given.players);
    let settings = Settings {
        segue: given.segue,
        length: Duration::from_secs(given.seconds),
        players: given.players,
        away: Duration::from_secs(given.away.unwrap_or(given.seconds * 3 / 10)),
        seed,
        fluvio: given.fluvio,
    };
    let report = run(&settings).await?;
    if given.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
