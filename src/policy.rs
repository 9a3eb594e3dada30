//! `segue policy`: rules and foreign tickets as WebAssembly, from the first line to the edges. One file per verb.

mod build;
mod check;
mod new;
mod project;
mod test;

use std::process::ExitCode;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Make a folder with a policy that builds, and all that it needs
    New(new::NewArgs),
    /// Build the policy in a folder
    Build(build::BuildArgs),
    /// Look at a policy as an upload is looked at: world, imports, size, configuration, vectors
    Check(check::CheckArgs),
    /// Run a policy's vectors and show what differs; status 1 where something does
    Test(test::TestArgs),
}

pub(crate) async fn run(args: PolicyArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        PolicyCommand::New(args) => new::run(&args),
        PolicyCommand::Build(args) => build::run(&args),
        PolicyCommand::Check(args) => check::run(&args),
        PolicyCommand::Test(args) => test::run(&args),
    }
}
