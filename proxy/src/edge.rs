//! The edge as a whole: what its parts share, how it starts, how it ends.
//!
//! Invariants: nothing binds before the configuration is proven usable; every task is tracked and awaited at
//! shutdown; an edge lives in its caller's runtime, beside others.
//!
//! On failure: [`StartError`] names what could not be had and what to do. A running edge has no fatal errors.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
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
use crate::cache::{Disk, Key, Memory};
use crate::config::EdgeConfig;
use crate::control::{self, Standing};
use crate::exchange::Exchange;
use crate::fact::Addresses;
use crate::fact::shipping::{Shipping, Way};
use crate::fill::{Fill, RESERVATION_UNIT};
use crate::limit::{Limiter, LimitsConfig};
use crate::listener::{Clients, Entrance};
use crate::lock::Mutex;
use crate::metrics::{Metrics, Readings};
use crate::origin::Origin;
use crate::policy::Desk;
use crate::prefetch::Prefetch;
use crate::reload::{self, ReadConfig};
use crate::route::Route;
use crate::service::Service;
use crate::snapshot::Snapshots;
use crate::timeline::Timelines;
use crate::tls::Tls;
use crate::upstream;

/// What is left of a fill at shutdown is cut after this time; nobody waits for it any more.
const FILLS_DRAIN: Duration = Duration::from_secs(2);

/// For so long facts of the last requests are handed over at shutdown, where the sink takes them.
const FACTS_FLUSH: Duration = Duration::from_secs(5);

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
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) memory: Memory,
    /// What does not fit into memory, where `[cache] disk` gives it room.
    pub(crate) disk: Option<Arc<Disk>>,
    /// The fills that run. Held for a look-up and an insert, never over an await.
    pub(crate) fills: Mutex<HashMap<Key, Arc<Fill>>>,
    /// Bytes that fills may hold, in units of [`RESERVATION_UNIT`].
    pub(crate) in_flight: Semaphore,
    pub(crate) timelines: Timelines,
    pub(crate) prefetch: Prefetch,
    pub(crate) events: Option<Arc<EventLog>>,
    pub(crate) addresses: Addresses,
    pub(crate) metrics: Arc<Metrics>,
    /// Fills and refreshes, which outlive the request that began them.
    pub(crate) tasks: TaskTracker,
    pub(crate) ready: AtomicBool,
    /// What became of the records in `events`.
    pub(crate) shipping: Arc<Shipping>,
    /// How this edge stands with its control plane.
    pub(crate) standing: Standing,
    /// Where policies are made, counted and put into force.
    pub(crate) desk: Desk,
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

    /// Whether the policies are those of the snapshots that this process is given: else a folder or a control plane elsewhere says which.
    fn heeds_policies(&self) -> bool {
        self.config.policies.dir.is_none() && self.config.control.is_none()
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
            families: [self.disk.as_ref().map(|disk| disk.families()).unwrap_or_default(), self.desk.families()]
                .concat(),
            keys: snapshot.keyring.uses().map(|(kid, used)| (kid.to_owned(), used.accepted)).collect(),
        };
        let events = self.events.as_deref();
        self.metrics.render(&readings, events)
            + &self.shipping.metrics(events)
            + &self.limiter.metrics_text()
            + &self.standing.metrics()
    }
}

/// A running edge.
pub struct Edge {
    shared: Arc<Shared>,
    clients: Clients,
    tls: Option<Arc<Tls>>,
    admin: Option<Admin>,
    stop: CancellationToken,
    follower: tokio::task::JoinHandle<()>,
    /// Whoever watches and talks beside the requests; they end at `stop_keepers`, which comes after the last request.
    keepers: TaskTracker,
    stop_keepers: CancellationToken,
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
        let policies = first.policies.clone();
        let listener = bind(listener, config.listen).await?;
        let admin_listener = match (admin_listener, config.admin_listen) {
            (None, None) => None,
            (given, address) => Some(bind(given, address.unwrap_or(config.listen)).await?),
        };
        let address = listener.1;
        let link = control::Start::read(&config)
            .map_err(|problem| StartError::Config { what: "[control]".to_owned(), problem })?;
        let tasks = TaskTracker::new();
        let disk = Disk::open(&config.cache, config.route_marks(), tasks.clone()).await;
        let disk = disk.map_err(|problem| StartError::Config { what: "[cache] disk".to_owned(), problem })?;
        let shared = Arc::new(build(config, first, events, tasks, disk)?);
        let (entrances, tls) = entrances(&shared, listener).await?;
        let (keepers, stop_keepers) = (TaskTracker::new(), CancellationToken::new());
        let client = link.as_ref().map(control::Start::client);
        let kept = link.as_ref().and_then(control::Start::policies);
        if let Err(problem) = Desk::begin(&shared, client.clone(), kept, &keepers, &stop_keepers).await {
            stop_keepers.cancel();
            shared.desk.close().await;
            shared.limiter.close().await;
            return Err(StartError::Config { what: "[policies] dir".to_owned(), problem });
        }
        if shared.heeds_policies() {
            shared.desk.tell(&shared.snapshots, policies);
        }
        if let Some(link) = link {
            link.begin(&shared, &keepers, &stop_keepers);
        }
        let way = |dir| Way::of(&shared.config.events.sink, client.as_ref(), &shared.config.name, dir);
        if let (Some(events), Some(way)) = (&shared.events, shared.config.events.dir().and_then(way)) {
            shared.shipping.begin(events, way, &keepers, &stop_keepers);
        }
        let conf = Arc::new(ServerConf::default());
        let service = Service::new(Arc::clone(&shared));
        let proxy = Arc::new(pingora_proxy::http_proxy(&conf, service.clone()));
        let clients = Clients::start(entrances, proxy, &service);
        let admin = admin_listener.map(|(listener, address)| Admin::start(listener, address, Arc::clone(&shared)));
        let stop = CancellationToken::new();
        let follower = tokio::spawn(follow(Arc::clone(&shared), snapshots, stop.clone()));
        if let Some(tls) = &tls {
            let (tls, stop) = (Arc::clone(tls), stop.clone());
            shared.tasks.spawn(tls.watch(stop));
        }
        shared.ready.store(true, Ordering::Release);
        tracing::info!(edge = shared.config.name, %address, "the edge serves");
        Ok(Self { shared, clients, tls, admin, stop, follower, keepers, stop_keepers })
    }

    /// Watches the configuration file that this edge was started from: what may change hot changes with it.
    pub fn watch(&self, path: PathBuf, read: ReadConfig) {
        let (shared, stop) = (Arc::clone(&self.shared), self.stop_keepers.clone());
        self.keepers.spawn(async move { stop.run_until_cancelled(reload::watch(shared, path, read)).await });
    }

    /// Where clients are served.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.clients.addresses().first().copied().unwrap_or(self.shared.config.listen)
    }

    /// Where TLS is served, where that is another address than [`Edge::addr`].
    #[must_use]
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.clients.addresses().get(1).copied()
    }

    /// Loads the certificates anew, now; they are also followed as their files change. `false` where they cannot be
    /// used, which is logged: the last good ones stay.
    #[must_use]
    pub fn reload_certificates(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.reload())
    }

    /// Where operators are served.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// The limits, whose classes may be replaced while the edge runs.
    #[must_use]
    pub fn limiter(&self) -> &Arc<Limiter> {
        &self.shared.limiter
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
        self.shared.limiter.close().await;
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
        if let Some(disk) = &self.shared.disk {
            disk.close().await;
        }
        self.stop_keepers.cancel();
        self.keepers.close();
        if tokio::time::timeout(FACTS_FLUSH, self.keepers.wait()).await.is_err() {
            tracing::warn!("not all facts were handed over at shutdown; the next start goes on with them");
        }
        self.shared.desk.close().await;
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
        let (revision, policies) = (document.revision, document.policies.clone());
        match shared.snapshots.publish(document) {
            Ok(()) => {
                if shared.heeds_policies() {
                    shared.desk.tell(&shared.snapshots, policies);
                }
                shared.metrics.snapshots.add(1);
            }
            Err(error) => {
                shared.metrics.snapshots_refused.add(1);
                tracing::error!(revision, %error, "a snapshot cannot be used; the last good one goes on serving");
            }
        }
    }
}

/// The addresses of clients: one, or a plain one and one for TLS beside it.
async fn entrances(
    shared: &Shared,
    (listener, address): (TcpListener, SocketAddr),
) -> Result<(Vec<Entrance>, Option<Arc<Tls>>), StartError> {
    let Some(config) = &shared.config.tls else { return Ok((vec![Entrance { listener, address, tls: None }], None)) };
    let wrong = |problem: String| StartError::Config { what: "[tls]".to_owned(), problem };
    let tls = Tls::new(config, Arc::clone(&shared.metrics)).map_err(|error| wrong(error.to_string()))?;
    let tls = Some(Arc::new(tls));
    let entrances = match config.listen {
        None => vec![Entrance { listener, address, tls: tls.clone() }],
        Some(beside) => {
            let beside = bind(None, beside).await?;
            let beside = Entrance { listener: beside.0, address: beside.1, tls: tls.clone() };
            vec![Entrance { listener, address, tls: None }, beside]
        }
    };
    Ok((entrances, tls))
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

fn build(
    config: EdgeConfig,
    document: Arc<SnapshotDoc>,
    events: Option<Arc<EventLog>>,
    tasks: TaskTracker,
    disk: Option<Arc<Disk>>,
) -> Result<Shared, StartError> {
    let wrong = |what: &str| {
        let what = what.to_owned();
        move |problem: String| StartError::Config { what, problem }
    };
    let metrics = Arc::new(Metrics::default());
    let mut origins = Vec::new();
    let mut places = HashMap::new();
    for (name, origin) in &config.origins {
        places.insert(name.clone(), origins.len());
        let origin = Origin::new(name, origin.clone(), tasks.clone(), Arc::clone(&metrics));
        origins.push(Arc::new(origin.map_err(wrong(&format!("[origins.{name}]")))?));
    }
    for (name, origin) in &config.origins {
        let found = |name: &String| places.get(name).and_then(|place| origins.get(*place));
        if let (Some(origin), Some(fallback)) = (found(name), origin.fallback.as_ref().and_then(found)) {
            origin.fall_back_to(fallback);
        }
    }
    let mut routes = Vec::new();
    for (index, route) in (0_u16..).zip(&config.routes) {
        let what = format!("[[route]] {}", route.path);
        let place = places.get(&route.origin).copied();
        let place = place.ok_or_else(|| wrong(&what)(format!("there is no origin {:?}", route.origin)))?;
        routes.push(Route::new(index, place, route, config.tickets.playlist).map_err(wrong(&what))?);
    }
    let permits = usize::try_from(config.cache.in_flight / RESERVATION_UNIT).unwrap_or(usize::MAX);
    // The snapshot brings the classes.
    let none = LimitsConfig::default();
    let limiter = match &config.redis {
        Some(redis) => Limiter::shared(&none, redis, &config.name).map_err(wrong("[redis]"))?,
        None => Limiter::embedded(&none),
    };
    let snapshots = Snapshots::new(config.reloadable(), document, Arc::clone(&limiter))?;
    if let Some(disk) = &disk {
        snapshots.restore(disk.purged())?;
    }
    Ok(Shared {
        routes,
        origins,
        snapshots,
        disk,
        tickets: TicketCache::new(config.tickets.remembered),
        limiter,
        memory: Memory::new(&config.cache).map_err(wrong("[cache]"))?,
        fills: Mutex::default(),
        in_flight: Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS)),
        timelines: Timelines::new(),
        prefetch: Prefetch::new(&config.prefetch),
        events,
        addresses: Addresses::new().map_err(wrong("address hashes"))?,
        metrics,
        tasks,
        ready: AtomicBool::new(false),
        shipping: Arc::default(),
        standing: Standing::default(),
        desk: Desk::new(&config).map_err(wrong("[policies]"))?,
        config,
    })
}
