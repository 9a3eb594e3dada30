//! `segue policy`: rules and foreign tickets as WebAssembly, from the first line to the edges. One file per verb.

mod build;
mod check;
mod delete;
mod diff;
mod list;
mod new;
mod project;
mod push;
mod remote;
mod rollout;
mod show;
mod test;

use std::process::ExitCode;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(
    after_help = "Status of what changes edges: 0, done, and every edge that is alive stands on it; 3, done, and some do not yet; 1, not done."
)]
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
    /// Upload a version and have every edge make it ready; nothing is decided by it yet
    Push(push::PushArgs),
    /// Ask a version beside the active one, and heed it not: see `diff`
    Shadow(rollout::ShadowArgs),
    /// Let a version decide for a share of the sessions
    Canary(rollout::CanaryArgs),
    /// Let a version decide
    Activate(rollout::ActivateArgs),
    /// Take back: end the canary, or let decide what was active before
    Rollback(rollout::RollbackArgs),
    /// List the policies: who decides, who is tried, how edges stand
    List(list::ListArgs),
    /// Show one policy: its versions, its edges, who did what
    Show(show::ShowArgs),
    /// Say what a shadow would have said otherwise
    Diff(diff::DiffArgs),
    /// Delete a version, or a policy with all of them
    Delete(delete::DeleteArgs),
}

pub(crate) async fn run(args: PolicyArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        PolicyCommand::Push(args) => push::run(args).await,
        PolicyCommand::Shadow(args) => rollout::shadow(args).await,
        PolicyCommand::Canary(args) => rollout::canary(args).await,
        PolicyCommand::Activate(args) => rollout::activate(args).await,
        PolicyCommand::Rollback(args) => rollout::roll_back(args).await,
        PolicyCommand::List(args) => list::run(args).await,
        PolicyCommand::Show(args) => show::run(args).await,
        PolicyCommand::Diff(args) => diff::run(args).await,
        PolicyCommand::Delete(args) => delete::run(args).await,
        PolicyCommand::New(args) => new::run(&args),
        PolicyCommand::Build(args) => build::run(&args),
        PolicyCommand::Check(args) => check::run(&args),
        PolicyCommand::Test(args) => test::run(&args),
    }
}
