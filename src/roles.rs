//! `segue edge`, `segue control`, `segue transcode`: one role in a process of its own, from a configuration file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use segue_config::Document;
use segue_control_plane::{Control, ControlConfig, ControlInputs, Recount};
use segue_events::EventLog;
use segue_proxy::{Edge, EdgeConfig, EdgeInputs, EventsSink};
use segue_signing::SnapshotDoc;
use segue_transcoder::{TranscodeConfig, Worker};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::say;

#[derive(Debug, Args)]
pub(crate) struct RoleArgs {
    /// The configuration file (TOML); SEGUE_… variables override it
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and end
    #[arg(long)]
    check: bool,
}

/// Reads a configuration and reports every problem with it at once.
pub(crate) fn read<T>(path: &Path, read: impl FnOnce(&Document<'_>) -> T) -> anyhow::Result<T> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the configuration {}", path.display()))?;
    let variable = |name: &str| std::env::var(name).ok();
    let document = Document::parse(&text, &path.display().to_string(), &variable)?;
    let config = read(&document);
    document.finish()?;
    Ok(config)
}

/// The longest that a role may take to finish what it has in hand.
const ENDS_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

pub(crate) async fn edge(args: RoleArgs) -> anyhow::Result<ExitCode> {
    let config = read(&args.config, EdgeConfig::read)?;
    if args.check {
        return checked(&args.config);
    }
    let events = match config.events.dir() {
        Some(dir) => Some(EventLog::open(dir, &config.name, config.events.options())?),
        None => None,
    };
    // The empty one, over which the file's own keys lie. With [control] the edge follows by itself.
    let (_keep, snapshots) = watch::channel(Arc::new(SnapshotDoc::default()));
    if events.is_some() && config.events.sink == EventsSink::None {
        tracing::warn!(
            "facts are kept in the local log up to its bound; with [events] kind = \"control\" or \"fluvio\" they are counted"
        );
    }
    let edge = Edge::start(config, EdgeInputs { listener: None, admin_listener: None, snapshots, events }).await?;
    edge.watch(args.config, EdgeConfig::read);
    tracing::info!(addr = %edge.addr(), "the edge is ready");
    let mut hangup = signal(SignalKind::hangup())?;
    let mut told = std::pin::pin!(until_told_to_end());
    loop {
        tokio::select! {
            ended = &mut told => break ended?,
            _ = hangup.recv() => {
                // What it came to is in the log and in the metrics.
                let _replaced = edge.reload_certificates();
            }
        }
    }
    end(edge.shutdown()).await
}

#[derive(Debug, Args)]
pub(crate) struct ControlRoleArgs {
    #[command(flatten)]
    role: RoleArgs,
    /// Count plays and sums again from the facts that are kept, and end; while no control plane runs on this database
    #[arg(long)]
    recount: bool,
}

pub(crate) async fn control(ControlRoleArgs { role: args, recount }: ControlRoleArgs) -> anyhow::Result<ExitCode> {
    let config = read(&args.config, ControlConfig::read)?;
    if args.check {
        return checked(&args.config);
    }
    if recount {
        let Recount { facts, denials, from_ms } = segue_control_plane::recount(&config).await?;
        say(serde_json::json!({ "facts": facts, "denials": denials, "from_ms": from_ms }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let control = Control::start(config, ControlInputs { listener: None, events: None }).await?;
    tracing::info!(addr = %control.addr(), "the control plane is ready");
    until_told_to_end().await?;
    end(control.shutdown()).await
}

pub(crate) async fn transcode(args: RoleArgs) -> anyhow::Result<ExitCode> {
    let config = read(&args.config, TranscodeConfig::read)?;
    if args.check {
        return checked(&args.config);
    }
    let worker = Worker::start(config).await?;
    tracing::info!("the transcode worker is ready");
    until_told_to_end().await?;
    end(worker.shutdown()).await
}

fn checked(path: &Path) -> anyhow::Result<ExitCode> {
    say(format_args!("{}: no problem found", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

async fn until_told_to_end() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

async fn end(shutdown: impl Future<Output = ()>) -> anyhow::Result<ExitCode> {
    tracing::info!("ending; what is in hand is finished first");
    if tokio::time::timeout(ENDS_WITHIN, shutdown).await.is_err() {
        tracing::warn!("did not end in time and was cut");
    }
    Ok(ExitCode::SUCCESS)
}
