//! One request and its answer, as the steps see it: Pingora's per-request context.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use segue_signing::Verified;
use tokio::sync::OwnedSemaphorePermit;

use crate::route::Target;
use crate::snapshot::Snapshot;

/// What the steps have found out so far.
pub(crate) struct Exchange {
    pub(crate) started: Instant,
    /// Taken once, at the start; every step decides by it.
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) client: Option<IpAddr>,
    /// Set by the route step.
    pub(crate) target: Option<Target>,
    /// Set by the ticket step; `None` where no ticket is required and none was shown.
    pub(crate) grant: Option<Arc<Verified>>,
    /// The query without ticket carriers, for HTTP origins.
    pub(crate) query: Option<String>,
    /// The origin's turn, while a request goes through Pingora's own upstream path.
    pub(crate) turn: Option<OwnedSemaphorePermit>,
}

impl Exchange {
    pub(crate) fn new(snapshot: Arc<Snapshot>) -> Self {
        Self { started: Instant::now(), snapshot, client: None, target: None, grant: None, query: None, turn: None }
    }

    /// Milliseconds since the request's head was read.
    pub(crate) fn elapsed_ms(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_millis()).unwrap_or(u32::MAX)
    }
}
