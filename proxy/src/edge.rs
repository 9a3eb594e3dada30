//! The edge as a whole: what its parts share, how it starts, how it ends.
//!
//! Invariants: nothing binds before the configuration is proven usable; every task is tracked and awaited at
//! shutdown; an edge lives in its caller's runtime, beside others.
//!
//! On failure: [`StartError`] names what could not be had and what to do. A running edge has no fatal errors.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pingora_core::server::configuration::ServerConf;
use segue_events::EventLog;
use segue_signing::{SnapshotDoc, SnapshotError, TicketCache};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::Admin;
use crate::cache::{Key, Memory};
use crate::config::EdgeConfig;
use crate::exchange::Exchange;
use crate::fact::Addresses;
use crate::fill::{Fill, RESERVATION_UNIT};
use crate::listener::Clients;
use crate::lock::Mutex;
use crate::metrics::{Metrics, Readings};
use crate::origin::Origin;
use crate::route::Route;
use crate::service::Service;
use crate::snapshot::Snapshots;
use crate::timeline::Timelines;
use crate::upstream;

/// What is left of a fill at shutdown is cut after this time; nobody waits for it any more.
const FILLS_DRAIN: Duration = Duration::from_secs(2);

/// What an edge is given beside its configuration.
#[derive(Debug)]
pub struct EdgeInputs {
    /// A bound listener, in place of binding `listen`.
    pub listener: Option<std::net::TcpListener>,
    /// A bound listener, in place of binding `admin_listen`.
    pub admin_listener: Option<std::net::TcpListener>,
    /// Keys, purges and revocations, as they change. A closed channel leaves the last value standing.
    pub snapshots: watch::Receiver<Arc<SnapshotDoc>>,
    /// Where facts and denials go; nowhere if `None`.
    pub events: Option<Arc<EventLog>>,
}

/// Why an edge did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}; choose another address, or stop what holds it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// Ticket keys or revocations cannot be used.
    #[error("the first snapshot cannot be used: {0}")]
    Snapshot(#[from] SnapshotError),
    /// A part of the configuration contradicts itself.
    #[error("{what}: {problem}")]
    Config {
        /// Which part.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl StartError {
    /// The reason word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "listen",
            Self::Snapshot(error) => error.kind(),
            Self::Config { .. } => "config",
        }
    }
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) config: EdgeConfig,
    pub(crate) routes: Vec<Route>,
    pub(crate) origins: Vec<Arc<Origin>>,
    pub(crate) snapshots: Snapshots,
    pub(crate) tickets: TicketCache,
    pub(crate) memory: Memory,
    /// The fills that run. Held for a look-up and an insert, never over an await.
    pub(crate) fills: Mutex<HashMap<Key, Arc<Fill>>>,
    /// Bytes that fills may hold, in units of [`RESERVATION_UNIT`].
    pub(crate) in_flight: Semaphore,
    pub(crate) timelines: Timelines,
    pub(crate) events: Option<Arc<EventLog>>,
    pub(crate) addresses: Addresses,
    pub(crate) metrics: Arc<Metrics>,
    /// Fills and refreshes, which outlive the request that began them.
    pub(crate) tasks: TaskTracker,
    pub(crate) ready: AtomicBool,
}

impl Shared {
    /// The value of `Allow` for the request's origin, or for the first one where it has none.
    pub(crate) fn allowed_methods(&self, exchange: &Exchange) -> String {
        let origin = upstream::origin(self, exchange).ok().or_else(|| self.origins.first());
        let configured = origin.map(|origin| origin.config.methods.as_slice()).unwrap_or_default();
        let mut methods = vec!["GET", "HEAD", "OPTIONS"];
        for method in configured {
            let known = if method == "*" { &["POST", "PUT", "PATCH", "DELETE"][..] } else { &[method.as_str()][..] };
            methods.extend(known.iter().filter(|known| !methods.contains(known)).copied().collect::<Vec<_>>());
        }
        methods.join(", ")
    }

    /// The Prometheus text.
    pub(crate) fn metrics_text(&self) -> String {
        let (cache_bytes, cache_objects) = self.memory.usage();
        let snapshot = self.snapshots.current();
        let readings = Readings {
            cache_bytes,
            cache_objects,
            files: self.memory.files(),
            tickets: self.tickets.len(),
            ticket_misses: self.tickets.misses(),
            revision: snapshot.revision,
            keys: snapshot.keyring.uses().map(|(kid, used)| (kid.to_owned(), used.accepted)).collect(),
        };
        self.metrics.render(&readings, self.events.as_deref())
    }
}

/// A running edge.
pub struct Edge {
    shared: Arc<Shared>,
    clients: Clients,
    admin: Option<Admin>,
    stop: CancellationToken,
    follower: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edge").field("addr", &self.addr()).finish_non_exhaustive()
    }
}

impl Edge {
    /// Starts an edge in the current runtime. When it returns, clients are served.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(config: EdgeConfig, inputs: EdgeInputs) -> Result<Self, StartError> {
        let EdgeInputs { listener, admin_listener, mut snapshots, events } = inputs;
        let first = Arc::clone(&snapshots.borrow_and_update());
        let listener = bind(listener, config.listen).await?;
        let admin_listener = match (admin_listener, config.admin_listen) {
            (None, None) => None,
            (given, address) => Some(bind(given, address.unwrap_or(config.listen)).await?),
        };
        let address = listener.1;
        let shared = Arc::new(build(config, first, events)?);
        let conf = Arc::new(ServerConf::default());
        let service = Service::new(Arc::clone(&shared));
        let proxy = Arc::new(pingora_proxy::http_proxy(&conf, service.clone()));
        let clients = Clients::start(listener.0, address, proxy, service);
        let admin = admin_listener.map(|(listener, address)| Admin::start(listener, address, Arc::clone(&shared)));
        let stop = CancellationToken::new();
        let follower = tokio::spawn(follow(Arc::clone(&shared), snapshots, stop.clone()));
        shared.ready.store(true, Ordering::Release);
        tracing::info!(edge = shared.config.name, %address, "the edge serves");
        Ok(Self { shared, clients, admin, stop, follower })
    }

    /// Where clients are served.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.clients.address()
    }

    /// Where operators are served.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// Stops accepting, lets requests in flight end (for `[connections] drain` at most), and ends every task.
    pub async fn shutdown(self) {
        self.shared.ready.store(false, Ordering::Release);
        self.stop.cancel();
        self.clients.stop().await;
        self.shared.tasks.close();
        if tokio::time::timeout(FILLS_DRAIN, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!(
                fills = self.shared.tasks.len(),
                "fills are still running at shutdown; they end by their time-outs"
            );
        }
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
        if self.follower.await.is_err() {
            tracing::error!("the task that follows snapshots panicked");
        }
    }
}

/// Takes over every new snapshot.
async fn follow(shared: Arc<Shared>, mut snapshots: watch::Receiver<Arc<SnapshotDoc>>, stop: CancellationToken) {
    loop {
        match stop.run_until_cancelled(snapshots.changed()).await {
            Some(Ok(())) => {}
            // Whoever published is gone: the last good snapshot goes on serving.
            Some(Err(_)) | None => return,
        }
        let document = Arc::clone(&snapshots.borrow_and_update());
        let revision = document.revision;
        match shared.snapshots.publish(document) {
            Ok(()) => shared.metrics.snapshots.add(1),
            Err(error) => {
                shared.metrics.snapshots_refused.add(1);
                tracing::error!(revision, %error, "a snapshot cannot be used; the last good one goes on serving");
            }
        }
    }
}

async fn bind(
    given: Option<std::net::TcpListener>,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error| StartError::Listen { address, error };
    let listener = match given {
        Some(listener) => {
            listener.set_nonblocking(true).map_err(failed)?;
            TcpListener::from_std(listener).map_err(failed)?
        }
        None => TcpListener::bind(address).await.map_err(failed)?,
    };
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn build(config: EdgeConfig, document: Arc<SnapshotDoc>, events: Option<Arc<EventLog>>) -> Result<Shared, StartError> {
    let wrong = |what: &str| {
        let what = what.to_owned();
        move |problem: String| StartError::Config { what, problem }
    };
    let metrics = Arc::new(Metrics::default());
    let tasks = TaskTracker::new();
    let mut origins = Vec::new();
    let mut places = HashMap::new();
    for (name, origin) in &config.origins {
        places.insert(name.clone(), origins.len());
        let origin = Origin::new(name, origin.clone(), tasks.clone(), Arc::clone(&metrics));
        origins.push(Arc::new(origin.map_err(wrong(&format!("[origins.{name}]")))?));
    }
    let mut routes = Vec::new();
    for (index, route) in (0_u16..).zip(&config.routes) {
        let what = format!("[[route]] {}", route.path);
        let place = places.get(&route.origin).copied();
        let place = place.ok_or_else(|| wrong(&what)(format!("there is no origin {:?}", route.origin)))?;
        routes.push(Route::new(index, place, route).map_err(wrong(&what))?);
    }
    let permits = usize::try_from(config.cache.in_flight / RESERVATION_UNIT).unwrap_or(usize::MAX);
    Ok(Shared {
        routes,
        origins,
        snapshots: Snapshots::new(config.keys.clone(), document)?,
        tickets: TicketCache::new(config.tickets.remembered),
        memory: Memory::new(&config.cache).map_err(wrong("[cache]"))?,
        fills: Mutex::default(),
        in_flight: Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS)),
        timelines: Timelines::new(),
        events,
        addresses: Addresses::new().map_err(wrong("address hashes"))?,
        metrics,
        tasks,
        ready: AtomicBool::new(false),
        config,
    })
}
