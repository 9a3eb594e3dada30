//! One request and its answer, as the steps see it: what was asked, and Pingora's per-request context.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method};
use pingora_http::RequestHeader;
use segue_policy_host::Allowance;
use segue_signing::Verified;
use tokio::sync::OwnedSemaphorePermit;

use crate::cache::{How, Stored};
use crate::limit::{Pending, Playing};
use crate::playlist::Presentation;
use crate::refusal::Refusal;
use crate::route::Target;
use crate::service::{Course, Looked};
use crate::snapshot::{Snapshot, unix_ms};
use crate::timeline::Media;

/// A request's head, whoever parsed it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'h> {
    pub(crate) method: &'h Method,
    /// As it stands in the request line, without the query.
    pub(crate) path: &'h str,
    pub(crate) query: Option<&'h str>,
    /// The authority of an absolute target, which counts where there is no `Host`.
    pub(crate) authority: Option<&'h str>,
    pub(crate) headers: &'h HeaderMap,
}

impl<'h> From<&'h RequestHeader> for Asked<'h> {
    fn from(header: &'h RequestHeader) -> Self {
        Self {
            method: &header.method,
            path: header.uri.path(),
            query: header.uri.query(),
            authority: header.uri.authority().map(http::uri::Authority::as_str),
            headers: &header.headers,
        }
    }
}

/// What the steps have found out so far.
pub(crate) struct Exchange {
    pub(crate) started: Instant,
    /// The same moment, in milliseconds since the epoch. Clocks are asked once for all steps.
    pub(crate) started_ms: u64,
    /// Taken once, at the start; every step decides by it.
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) client: Option<IpAddr>,
    /// Set by the route step.
    pub(crate) target: Option<Target>,
    /// Set by the ticket step; `None` where no ticket is required and none was shown.
    pub(crate) grant: Option<Arc<Verified>>,
    /// Query parameters of the ticket, where that is somebody else's; set by the ticket step.
    pub(crate) foreign: Option<Vec<String>>,
    /// Where the object plays, for the policy step. `None`: not asked, or not known yet; `Some(None)`: nowhere that is known.
    pub(crate) placed: Option<Option<Media>>,
    /// What the memory had, where the policy step looked; the cache step goes on with it.
    pub(crate) stored: Option<Stored>,
    /// Set by the policy step: `name@version` of the policy that decided.
    pub(crate) policy: Option<Arc<str>>,
    /// Set by the policy step: conditions of its yes.
    pub(crate) allowance: Option<Box<Allowance>>,
    /// Set by the limit step: the place that its session holds among the listener's streams.
    pub(crate) playing: Option<Playing>,
    /// Limits that only Redis can decide; no byte leaves before they are settled.
    pub(crate) pending: Vec<Pending>,
    /// How a playlist is changed for this listener; `None` for everything that goes out as it is.
    pub(crate) presentation: Option<Box<Presentation>>,
    /// The query without ticket carriers, for HTTP origins.
    pub(crate) query: Option<String>,
    /// What the connection decided before it left the request to Pingora; taken once.
    pub(crate) admitted: Option<Result<Course, Refusal>>,
    /// What the connection found in memory before it left the request to Pingora; taken once.
    pub(crate) looked: Option<Looked>,
    /// How what was found came about, where the cache had to do more than look.
    pub(crate) how: Option<How>,
    /// The origin's turn, while a request goes through Pingora's own upstream path.
    pub(crate) turn: Option<OwnedSemaphorePermit>,
}

impl Exchange {
    pub(crate) fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            started: Instant::now(),
            started_ms: unix_ms(),
            snapshot,
            client: None,
            target: None,
            grant: None,
            foreign: None,
            placed: None,
            stored: None,
            policy: None,
            allowance: None,
            playing: None,
            pending: Vec::new(),
            presentation: None,
            query: None,
            admitted: None,
            looked: None,
            how: None,
            turn: None,
        }
    }

    /// When the request's head was read, in seconds since the epoch, as tickets count.
    pub(crate) fn started_s(&self) -> i64 {
        i64::try_from(self.started_ms / 1000).unwrap_or(i64::MAX)
    }

    /// Milliseconds since the request's head was read.
    pub(crate) fn elapsed_ms(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_millis()).unwrap_or(u32::MAX)
    }
}
