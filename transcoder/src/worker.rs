//! The worker: claims jobs and works them off, one after the other in each of its slots.
//!
//! Invariants: at most `slots` jobs at once; every task is owned by the worker and joined at its end; a panic in one
//! job ends that job alone.
//!
//! On failure: what is missing at the start is a [`StartError`] of one sentence; a control plane that is away is waited
//! for with growing, jittered pauses.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::TranscodeConfig;
use crate::ffmpeg::Tools;
use crate::job::{Bench, work};
use crate::queue::{Backoff, Queue};
use crate::store::Store;
use crate::workspace::Workspace;

/// How long a stopping worker waits for its jobs to be dropped: killing ffmpeg takes milliseconds, reporting 2 s.
const STOPPING: Duration = Duration::from_secs(6);

/// Why a worker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// ffmpeg or ffprobe is missing or does not run.
    #[error("{0}; install it with `apt-get install ffmpeg`")]
    Ffmpeg(String),
    /// The working folder cannot be made or written.
    #[error("the working folder {} cannot be used: {cause}; make it writable or set [transcode] work_dir", folder.display())]
    WorkDir {
        /// The folder of the configuration.
        folder: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The control plane's address is no address.
    #[error("[control] url: {0}")]
    Control(String),
}

impl StartError {
    /// The reason word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Ffmpeg(_) => "ffmpeg-missing",
            Self::WorkDir { .. } => "work-dir",
            Self::Control(_) => "control-url",
        }
    }
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    stop: CancellationToken,
    slots: JoinSet<()>,
}

impl Worker {
    /// Starts a worker on the current tokio runtime. It need not reach the control plane yet.
    ///
    /// # Errors
    /// [`StartError`]: ffmpeg is missing, the working folder is not usable, or the control plane's address is wrong.
    pub async fn start(config: TranscodeConfig) -> Result<Self, StartError> {
        let folder = config.work_dir.clone();
        // Starting a process and sweeping folders block.
        let ready = tokio::task::spawn_blocking(move || {
            let tools = Tools::find(std::env::var_os("PATH").as_deref()).map_err(StartError::Ffmpeg)?;
            let workspace = Workspace::open(&folder).map_err(|cause| StartError::WorkDir { folder, cause })?;
            Ok((tools, workspace))
        });
        let (tools, workspace) =
            ready.await.map_err(|error| StartError::Ffmpeg(format!("looking for ffmpeg failed: {error}")))??;
        let queue = Queue::new(&config.control, &config.name).map_err(StartError::Control)?;
        let store = Store::new(&config.objects);
        let count = config.slots.max(1);
        let (no_network, own_session) = (tools.cage.is_without_network(), tools.cage.is_session());
        tracing::info!(worker = %config.name, slots = count, cores = config.cores, ffmpeg = %tools.version, no_network, own_session, "worker started");
        let bench = Arc::new(Bench { config, queue, store, tools, workspace });
        let stop = CancellationToken::new();
        let mut slots = JoinSet::new();
        for _ in 0..count {
            slots.spawn(serve(Arc::clone(&bench), stop.clone()));
        }
        Ok(Self { stop, slots })
    }

    /// Stops claiming, kills every ffmpeg, gives the jobs back, and waits for all of it (6 s at most).
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let joined = tokio::time::timeout(STOPPING, async { while self.slots.join_next().await.is_some() {} }).await;
        if joined.is_err() {
            tracing::warn!("jobs did not end in time; their leases are left to their ends");
            self.slots.shutdown().await;
        }
    }
}

/// One slot: claim, work, again.
async fn serve(bench: Arc<Bench>, stop: CancellationToken) {
    let fresh = || Backoff::new(Duration::from_millis(250), Duration::from_secs(15));
    let mut backoff = fresh();
    loop {
        let asked = tokio::time::Instant::now();
        let claimed = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            claimed = bench.queue.claim() => claimed,
        };
        match claimed {
            // An empty answer that did not wait would make this a busy loop: it counts as being turned away.
            Ok(None) if asked.elapsed() >= Duration::from_secs(1) => backoff = fresh(),
            Ok(None) => pause(backoff.wait(), &stop).await,
            Ok(Some(claim)) => {
                backoff = fresh();
                let (bench, token, name) = (Arc::clone(&bench), stop.clone(), claim.job.clone());
                let mut job = JoinSet::new();
                job.spawn(async move { work(&bench, claim, &token).await });
                if let Some(Err(error)) = job.join_next().await {
                    tracing::error!(job = %name, %error, "the job panicked; its lease is left to its end");
                }
            }
            Err(error) => {
                let wait = backoff.wait();
                tracing::warn!(%error, wait_ms = wait.as_millis(), "no claim; trying again");
                pause(wait, &stop).await;
            }
        }
    }
}

/// Waits, but not beyond the worker's end.
async fn pause(wait: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(wait) => {}
    }
}
