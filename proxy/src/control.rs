//! The edge's side of a control plane in another process: what it follows, what it reports, what it hands over.
//!
//! | file          | what it does |
//! |---------------|--------------|
//! | `follow.rs`   | long-polls the snapshot and publishes it |
//! | `kept.rs`     | keeps the last good one on disk |
//! | `standing.rs` | how old the snapshot is, and whether requests may be judged by it |
//! | `report.rs`   | says every few seconds what this edge is and how its keys are used |
//! | `ship.rs`     | takes facts and denials, as one of the sinks of the local log |
//!
//! Invariants: nothing here is on a request's way but one atomic load ([`Standing::check`]); every answer that is read
//! has a bound, every call a time limit, every retry a pause that grows, with jitter.
//!
//! On failure: the control plane being away changes nothing for listeners. The snapshot ages and says so; facts stay in
//! the local log, within its bound.

pub(crate) mod client;
mod follow;
mod kept;
mod report;
mod ship;
mod standing;

use std::sync::Arc;

use segue_signing::{Followed, PolicyDoc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::EdgeConfig;
use crate::edge::Shared;
pub(crate) use client::{Client, ControlError, send};
use kept::{Keeper, Kept};
pub(crate) use ship::ControlSink;
pub(crate) use standing::Standing;

/// What an edge that follows starts from.
pub(crate) struct Start {
    client: Arc<Client>,
    kept: Option<Kept>,
    followed: Followed,
    confirmed_ms: u64,
}

impl Start {
    /// Reads what is on disk. `None`: no control plane is configured.
    ///
    /// # Errors
    /// A sentence about the address.
    pub(crate) fn read(config: &EdgeConfig) -> Result<Option<Self>, String> {
        let Some(endpoint) = &config.control else { return Ok(None) };
        let client = Arc::new(Client::new(endpoint)?);
        let kept = config.snapshot.dir.as_deref().map(|dir| Kept::new(dir, &config.name, &endpoint.url));
        if kept.is_none() {
            tracing::warn!("no [snapshot] dir: this edge cannot start while the control plane is away");
        }
        let found = kept.as_ref().and_then(Kept::load);
        let (followed, confirmed_ms) = found.unwrap_or_default();
        Ok(Some(Self { client, kept, followed, confirmed_ms }))
    }

    pub(crate) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    /// The policies of the snapshot on disk. `None`: there is none.
    pub(crate) fn policies(&self) -> Option<Vec<PolicyDoc>> {
        (self.followed.cursor() > 0).then(|| self.followed.document().policies)
    }

    /// Takes over what was on disk, and begins to follow and to report.
    pub(crate) fn begin(mut self, shared: &Arc<Shared>, keepers: &TaskTracker, stop: &CancellationToken) {
        shared.standing.begin(&shared.config.snapshot);
        if self.followed.cursor() > 0 {
            match shared.snapshots.publish(Arc::new(self.followed.document())) {
                Ok(()) => {
                    shared.standing.confirmed_at(self.confirmed_ms);
                    tracing::info!(revision = self.followed.cursor(), "the snapshot on disk is in force");
                }
                Err(error) => {
                    tracing::error!(%error, "the snapshot on disk cannot be used; waiting for the control plane's");
                    self.followed = Followed::default();
                }
            }
        }
        let (client, stop_) = (self.client(), stop.clone());
        let shared_ = Arc::clone(shared);
        keepers.spawn(async move { stop_.run_until_cancelled(report::run(&shared_, &client)).await });
        let shared_ = Arc::clone(shared);
        let failed = move |error| {
            shared_.standing.keep_failures.add(1);
            tracing::error!(%error, "the snapshot is in force, but cannot be kept for the next start");
        };
        let (keeper, keeping) = self.kept.take().map(|kept| Keeper::new(kept, failed)).unzip();
        if let Some(keeping) = keeping {
            // Not cut short at the end: it ends by itself, with the newest state on the disk.
            keepers.spawn(keeping);
        }
        let (shared, stop) = (Arc::clone(shared), stop.clone());
        keepers.spawn(async move {
            let following = follow::run(&shared, &self.client, keeper.as_ref(), Arc::new(self.followed));
            let _ = stop.run_until_cancelled(async { tokio::join!(following, shared.standing.keep()) }).await;
        });
    }
}
