//! `segue-policy-fuzz`: uploads of policies that are none, to a control plane that runs. Status 0 where nothing was wrong.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use segue_testkit::hostile::{Settings, run};

/// Uploads what is no policy, and looks that the control plane stands it
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The command under test
    #[arg(long, value_name = "FILE", default_value = "target/release/segue")]
    segue: PathBuf,
    /// How long, in seconds
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(5..))]
    seconds: u64,
    /// What all choices follow from [default: the clock]
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let given = Arguments::parse();
    let seed = segue_testkit::seed(given.seed);
    eprintln!("uploads of policies: seed {seed}, {} s", given.seconds);
    let settings = Settings { segue: given.segue, length: Duration::from_secs(given.seconds), seed };
    let report = run(&settings).await?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
