//! `segue`: the one command. Each subcommand is a file; the work itself is in the crates below.

mod audit;
mod cli;
mod client;
mod demo;
mod doctor;
mod events;
mod explain;
mod key;
mod limit;
mod policy;
mod revoke;
mod roles;
mod sse;
mod ticket;
mod token;
mod track;
mod webhook;
mod when;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    cli.start_logging();
    // Two providers are linked (the SDK prefers one, the edge the other): the process names its choice.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was already installed");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return cli::fail(&anyhow::anyhow!("cannot start the runtime: {error}")),
    };
    match runtime.block_on(cli.run()) {
        Ok(code) => code,
        Err(error) => cli::fail(&error),
    }
}
