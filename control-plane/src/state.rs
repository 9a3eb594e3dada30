//! What every route and task of one control plane shares.

use std::sync::Arc;

use segue_events::FluvioConfig;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;
use crate::auth::access::Access;
use crate::bus::{Bus, Topic};
use crate::config::{HttpConfig, JobsConfig, TicketsConfig, UploadsConfig, WebhooksConfig};
use crate::hints::Hints;
use crate::kept::Kept;
use crate::keys::Keys;
use crate::objects::Objects;
use crate::policies::Registry;
use crate::store::jobs::{JobRow, Patience};
use crate::store::{Store, StoreError, early, jobs, tracks};
use crate::views;

/// Shared by reference; cheap to clone.
pub(crate) type Shared = Arc<Parts>;

/// The parts.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    /// Tokens that are known.
    pub(crate) access: Access,
    /// What of the audit is yet to be written.
    pub(crate) audit: Audit,
    /// Facts and denials that were counted.
    pub(crate) kept: Kept,
    /// The Fluvio that facts come from, and plays go to.
    pub(crate) fluvio: Option<FluvioConfig>,
    pub(crate) objects: Objects,
    pub(crate) keys: Keys,
    pub(crate) policies: Registry,
    pub(crate) bus: Bus,
    pub(crate) hints: Hints,
    /// Random, made at start: tells this control plane from every other.
    pub(crate) instance: String,
    /// Base of playback and artwork URLs, without a trailing slash.
    pub(crate) edge_base: String,
    /// `Content-Security-Policy` of the page.
    pub(crate) page_policy: String,
    pub(crate) webhooks: WebhooksConfig,
    pub(crate) uploads: UploadsConfig,
    pub(crate) tickets: TicketsConfig,
    pub(crate) jobs: JobsConfig,
    pub(crate) http: HttpConfig,
    /// Wakes workers that wait for a job: one count for every time that the queue gained one.
    pub(crate) queued: watch::Sender<u64>,
    /// Event streams that may still be opened.
    pub(crate) streams: Arc<Semaphore>,
    /// Ends streams, long polls and tasks.
    pub(crate) shutdown: CancellationToken,
    /// Held from the reading of a state to its telling. Under it waits only one read of the database.
    pub(crate) telling: Mutex<()>,
    /// Every task that outlives the request or step that began it; joined at the end.
    pub(crate) tasks: TaskTracker,
}

impl Parts {
    /// The jobs' patience, in the store's units.
    pub(crate) fn patience(&self) -> Patience {
        let ms = |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 4);
        Patience {
            lease_ms: ms(self.jobs.lease),
            backoff_ms: ms(self.jobs.backoff),
            backoff_max_ms: ms(self.jobs.backoff_max),
        }
    }

    /// Wakes every worker that waits; the claim decides who gets the job.
    pub(crate) fn wake_workers(&self) {
        self.wake_own_workers();
        self.hints.queued();
    }

    /// Wakes those that wait here.
    pub(crate) fn wake_own_workers(&self) {
        self.queued.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Tells followers a job's state, and its track's with it. It is what the database holds now that is told, under a
    /// lock: of two changes that are told at the same time, the older must not be heard last.
    pub(crate) async fn tell_job(&self, job: &JobRow) {
        if !self.bus.is_followed() {
            return;
        }
        let _order = self.telling.lock().await;
        match jobs::get(&self.store, &job.id).await {
            Ok(Some(now)) => self.bus.tell(Topic::Jobs, &views::Job::from(&now)),
            Ok(None) => {}
            Err(error) => tracing::warn!(job.id, %error, "a change could not be told to followers"),
        }
        self.tell_track_in_order(&job.track).await;
    }

    /// The same beside the caller, who has an answer to give first: as many tasks as there are such callers.
    pub(crate) fn tell_jobs_later(self: &Arc<Self>, jobs: Vec<JobRow>) {
        if jobs.is_empty() || !self.bus.is_followed() {
            return;
        }
        let parts = Arc::clone(self);
        self.tasks.spawn(async move {
            for job in &jobs {
                parts.tell_job(job).await;
            }
        });
    }

    /// Tells followers a track's state. A track that is gone is not told; an error is logged, since the change itself
    /// is committed.
    pub(crate) async fn tell_track(&self, id: &str) {
        if self.bus.is_followed() {
            let _order = self.telling.lock().await;
            self.tell_track_in_order(id).await;
        }
    }

    async fn tell_track_in_order(&self, id: &str) {
        match self.track_view(id).await {
            Ok(Some(track)) => self.bus.tell(Topic::Tracks, &track),
            Ok(None) => {}
            Err(error) => tracing::warn!(track.id = id, %error, "a change could not be told to followers"),
        }
    }

    /// A track as the API shows it.
    pub(crate) async fn track_view(&self, id: &str) -> Result<Option<views::Track>, StoreError> {
        let row = tracks::get(&self.store, id).await?;
        let Some(row) = row else { return Ok(None) };
        let early = row.status == tracks::Status::Transcoding && early::of_track(&self.store, id).await?.is_some();
        Ok(Some(views::Track::new(row, early, &self.keys, &self.edge_base)))
    }
}
