//! `segue-swaps`: a policy swapped hundreds of times on three edges under load, and every answer held against what was active.
//! One line of JSON; status 0 where nothing was wrong.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use segue_testkit::swaps::{Settings, run};

/// Swaps a policy on three edges under load, and explains every answer
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The command under test
    #[arg(long, value_name = "FILE", default_value = "target/release/segue")]
    segue: PathBuf,
    /// Requests a second, over all edges
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u64).range(60..))]
    rate: u64,
    /// Activations among five versions
    #[arg(long, default_value_t = 200)]
    activations: usize,
    /// Pairs of stretches with and without swaps
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// How long each stretch is, in seconds
    #[arg(long, default_value_t = 12)]
    half: u64,
    /// How often CPU time is taken at each of four numbers of swaps a second
    #[arg(long, default_value_t = 3)]
    slopes: usize,
    /// How long edges get all the load that they answer, in seconds
    #[arg(long, default_value_t = 30)]
    full: u64,
    /// What all choices follow from [default: the clock]
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let given = Arguments::parse();
    let seed = segue_testkit::seed(given.seed);
    eprintln!("swaps: seed {seed}, {} activations at {}/s over three edges", given.activations, given.rate);
    let settings = Settings {
        segue: given.segue,
        rate: given.rate,
        activations: given.activations,
        pairs: given.pairs,
        half: Duration::from_secs(given.half),
        slopes: given.slopes,
        full: Duration::from_secs(given.full),
        seed,
    };
    let report = run(&settings).await?;
    println!("{}", serde_json::to_string(&report)?);
    for violation in &report.violations {
        eprintln!("{violation}");
    }
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
