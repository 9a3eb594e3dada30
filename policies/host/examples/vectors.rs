//! Runs the vectors that travel in a policy, or those of a file, and says which fail.
//!
//!     cargo run --release -p segue-policy-host --example vectors -- POLICY.wasm [VECTORS.json]

use std::process::ExitCode;

use segue_policy_host::vectors::Vectors;
use segue_policy_host::{HostConfig, PolicyHost};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let bytes = std::fs::read(arguments.next().ok_or("usage: vectors POLICY.wasm [VECTORS.json]")?)?;
    let policy = PolicyHost::new(HostConfig::default())?.compile(&bytes)?;
    let vectors = match arguments.next() {
        Some(file) => Vectors::parse(&std::fs::read(file)?)?,
        None => Vectors::inside(&bytes)?.ok_or("no vectors travel in this file; name a file of them")?,
    };
    let outcomes = vectors.run(&policy)?;
    for outcome in &outcomes {
        println!("{} {}", if outcome.passed { "passed" } else { "FAILED" }, outcome.name);
        if !outcome.passed {
            println!("  expected {}\n  came     {}", outcome.expected, outcome.came);
        }
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    println!("{} passed, {failed} failed", outcomes.len() - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
