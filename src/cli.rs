//! The command line: what can be said, and who answers.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::{audit, demo, doctor, events, explain, key, limit, policy, revoke, roles, ticket, token, track, webhook};

/// An HLS edge in front of S3: signed tickets, one fill for all, and a fact for every segment.
#[derive(Debug, Parser)]
#[command(name = "segue", version, propagate_version = true)]
#[command(after_help = "Start here: `segue demo` runs everything in one process; then `segue track add song.mp3`.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole Segue in one process, with nothing to install but ffmpeg
    Demo(demo::DemoArgs),
    /// Run an edge: check tickets, cache and serve segments
    Edge(roles::RoleArgs),
    /// Run a control plane: uploads, jobs, tickets, plays
    Control(roles::ControlRoleArgs),
    /// Run a transcode worker
    Transcode(roles::RoleArgs),
    /// Add, list, show, play and purge tracks
    Track(track::TrackArgs),
    /// Mint and verify tickets, offline
    Ticket(ticket::TicketArgs),
    /// List, add, rotate and retire the keys that sign tickets
    Key(key::KeyArgs),
    /// List, set and remove limit classes
    Limit(limit::LimitArgs),
    /// Write, build, check and test policies; push them to edges, try them, and let them decide
    Policy(policy::PolicyArgs),
    /// Make tickets void before they expire
    Revoke(revoke::RevokeArgs),
    /// Make, list, rotate and revoke the API tokens of the control plane
    Token(token::TokenArgs),
    /// Add, list and remove receivers of events; see what was delivered to them
    Webhook(webhook::WebhookArgs),
    /// Show who changed what
    Audit(audit::AuditArgs),
    /// Say which step would refuse or serve a URL, and why
    Explain(explain::ExplainArgs),
    /// Look at every part that a configuration names; say what is wrong and what to do
    Doctor(doctor::DoctorArgs),
    /// Watch and export what the edges deliver
    Events(events::EventsArgs),
}

/// How the control plane is found.
#[derive(Debug, Clone, Args)]
pub(crate) struct ControlArgs {
    /// The control plane's URL, for example http://127.0.0.1:7700
    #[arg(long, env = "SEGUE_CONTROL", value_name = "URL", global = true)]
    pub(crate) control: Option<String>,
    /// An API token with the scopes that the call needs
    #[arg(long, env = "SEGUE_TOKEN", value_name = "TOKEN", hide_env_values = true, global = true)]
    pub(crate) token: Option<String>,
    /// The folder of a running `segue demo`, which knows both
    #[arg(long, env = "SEGUE_DIR", value_name = "DIR", default_value = demo::DEFAULT_DIR, global = true)]
    pub(crate) dir: PathBuf,
    /// Answer with one JSON value a line, for machines
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Cli {
    /// Logs go to standard error, so that standard output stays for answers. `SEGUE_LOG` sets the filter.
    pub(crate) fn start_logging(&self) {
        let quiet = match self.command {
            // Left out: what a client, not a fault, makes libraries call an error (counted in metrics), and Pingora's
            // pool saying so when two requests reach for one idle connection.
            Command::Demo(_) | Command::Edge(_) | Command::Control(_) | Command::Transcode(_) => {
                "info,s3s=off,pingora_proxy=off,pingora_core::connectors=off,fluvio=warn,fluvio_socket=warn"
            }
            Command::Doctor(_) => "error,pingora_core=off",
            Command::Explain(_)
            | Command::Track(_)
            | Command::Ticket(_)
            | Command::Key(_)
            | Command::Limit(_)
            | Command::Policy(_)
            | Command::Revoke(_)
            | Command::Token(_)
            | Command::Webhook(_)
            | Command::Audit(_)
            | Command::Events(_) => "warn",
        };
        let filter = EnvFilter::try_from_env("SEGUE_LOG").unwrap_or_else(|_| EnvFilter::new(quiet));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .init();
    }

    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Demo(args) => demo::run(args).await,
            Command::Edge(args) => roles::edge(args).await,
            Command::Control(args) => roles::control(args).await,
            Command::Transcode(args) => roles::transcode(args).await,
            Command::Track(args) => track::run(args).await,
            Command::Ticket(args) => ticket::run(args),
            Command::Doctor(args) => doctor::run(args).await,
            Command::Explain(args) => explain::run(args).await,
            Command::Key(args) => key::run(args).await,
            Command::Limit(args) => limit::run(args).await,
            Command::Policy(args) => policy::run(args).await,
            Command::Revoke(args) => revoke::run(args).await,
            Command::Token(args) => token::run(args).await,
            Command::Webhook(args) => webhook::run(args).await,
            Command::Audit(args) => audit::run(args).await,
            Command::Events(args) => events::run(args).await,
        }
    }
}

/// Prints one line of an answer. A reader that has gone away (`segue … | head`) is an error that [`fail`] knows.
pub(crate) fn say(line: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// Ends the command with one clear message; quietly where nobody reads its answer any more.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    let gone = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::BrokenPipe;
    if error.downcast_ref::<std::io::Error>().is_some_and(gone) {
        return ExitCode::SUCCESS;
    }
    eprintln!("segue: {error:#}");
    ExitCode::FAILURE
}
