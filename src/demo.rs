//! `segue demo`: a whole Segue in one process, from parts that need nothing installed but ffmpeg.
//!
//! Everything that it knows lives under one folder: objects, database, facts, secrets, the configurations of the roles
//! and the ports of the last run (tried first at the next one, so that URLs handed out outlive a restart).
//! The parts speak to one another as they would in production: the edge and the worker reach S3 over HTTP, the worker its
//! jobs over the worker protocol, and the edge follows the control plane as any edge does; only the facts take the in-process way.

mod folder;
mod objects;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use segue_control_plane::{Control, ControlConfig, ControlInputs};
use segue_events::{EventLog, LogOptions};
use segue_proxy::{Edge, EdgeConfig, EdgeInputs};
use segue_signing::SnapshotDoc;
use segue_transcoder::{TranscodeConfig, Worker};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub(crate) use folder::{DEFAULT_DIR, DemoState};
use folder::{Folder, NAME, Ports};
use objects::Objects;

use crate::cli::say;
use crate::roles;

/// The longest that each part may take to finish what it has in hand.
const PART_ENDS_WITHIN: Duration = Duration::from_secs(8);

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The folder for everything that the demo keeps
    #[arg(long, env = "SEGUE_DIR", value_name = "DIR", default_value = DEFAULT_DIR)]
    dir: PathBuf,
    /// The page's port; the edge, S3 and the edge's admin take the next three. 0 finds free ones
    #[arg(long, default_value_t = 7700)]
    port: u16,
    /// Once ready, print one line of JSON on standard output
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let folder = Folder::open(&args.dir)?;
    let demo = tokio::select! {
        started = Demo::start(&folder, args.port) => started?,
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
    };
    if args.json {
        say(serde_json::to_string(&demo.state)?)?;
    } else {
        say(demo.announcement())?;
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("segue: ending; what is in hand is finished first (Ctrl-C again ends it at once)");
    tokio::select! {
        () = demo.stop() => Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(130)),
    }
}

struct Demo {
    state: DemoState,
    worker: Worker,
    edge: Edge,
    control: Control,
    objects: Objects,
}

impl Demo {
    async fn start(folder: &Folder, port: u16) -> anyhow::Result<Self> {
        let ports = Ports::bind(port, folder.last_ports())?;
        let state = folder.write(&ports)?;
        let objects = Objects::start(ports.objects, &folder.objects(), folder.s3_credentials()?)?;
        let events = EventLog::open(&folder.events(), NAME, LogOptions::default())?;

        let config = roles::read(&folder.config("control"), ControlConfig::read)?;
        let inputs = ControlInputs { listener: Some(ports.page), events: Some(events.clone()) };
        let control = Control::start(config, inputs).await.context("the control plane did not start")?;

        let config = roles::read(&folder.config("edge"), EdgeConfig::read)?;
        // The empty one, over which the file's own key lies until the edge has followed for the first time.
        let (_, snapshots) = watch::channel(Arc::new(SnapshotDoc::default()));
        let inputs = EdgeInputs {
            listener: Some(ports.edge),
            admin_listener: Some(ports.admin),
            snapshots,
            events: Some(events),
        };
        let edge = Edge::start(config, inputs).await.context("the edge did not start")?;

        let config = roles::read(&folder.config("transcode"), TranscodeConfig::read)?;
        let worker = Worker::start(config).await.context("the transcode worker did not start")?;
        folder.publish(&state)?;
        Ok(Self { state, worker, edge, control, objects })
    }

    fn announcement(&self) -> String {
        let DemoState { page, edge, control, token, dir, .. } = &self.state;
        let command = std::env::current_exe().map_or_else(|_| "segue".to_owned(), |path| path.display().to_string());
        let here = std::env::current_dir().is_ok_and(|here| here.join(DEFAULT_DIR) == *dir);
        let at = if here { String::new() } else { format!(" --dir {}", dir.display()) };
        let objects = self.objects.url();
        let dir = dir.display();
        format!(
            "Segue is running.\n\n  page       {page}\n  edge       {edge}\n  control    {control}\n  objects    {objects} (S3)\n  \
             API token  {token}\n  folder     {dir}\n\nOpen the page and drop a song on it, or in another terminal:\n  \
             {command} track add SONG{at}\n\nCtrl-C ends it."
        )
    }

    /// Ends the parts, those that make work before those that hold it. Each has its bound; the next start mends what a cut left.
    async fn stop(self) {
        let bounded = async |name: &str, part: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
            if tokio::time::timeout(PART_ENDS_WITHIN, part).await.is_err() {
                tracing::warn!(part = name, "did not end in time and was cut");
            }
        };
        bounded("worker", Box::pin(self.worker.shutdown())).await;
        bounded("edge", Box::pin(self.edge.shutdown())).await;
        bounded("control plane", Box::pin(self.control.shutdown())).await;
        bounded("objects", Box::pin(self.objects.stop())).await;
    }
}
