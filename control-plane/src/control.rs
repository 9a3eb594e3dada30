//! Starting and ending a control plane.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use segue_events::EventLog;
use segue_signing::SnapshotDoc;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;
use crate::auth::access::{self, Access};
use crate::bus::Bus;
use crate::config::ControlConfig;
use crate::hints::{self, Hints};
use crate::kept::{self, Kept};
use crate::keys::Keys;
use crate::objects::Objects;
use crate::policies::Registry;
use crate::state::{Parts, Shared};
use crate::store::Store;
use crate::{api, audit, auth, ids, router, server, sweeper, tally, webhooks};

/// How long requests and tasks may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// What the embedding program hands over.
#[derive(Debug, Default)]
pub struct ControlInputs {
    /// A bound listener; else `listen` of the configuration is bound.
    pub listener: Option<TcpListener>,
    /// The log of an edge in this process: the tally reads it.
    pub events: Option<Arc<EventLog>>,
}

/// The control plane could not start. Each text is one sentence for an operator.
#[derive(Debug, thiserror::Error)]
#[error("control plane: {message}")]
pub struct StartError {
    kind: &'static str,
    message: String,
}

impl StartError {
    fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A stable word: `listen`, `database`, `redis`, `keys`, `tokens` or `objects`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }
}

/// A running control plane. Dropping it without [`Control::shutdown`] leaves its tasks to the runtime.
#[derive(Debug)]
pub struct Control {
    addr: SocketAddr,
    parts: Shared,
}

impl Control {
    /// Opens the database, the bucket and the port, and serves.
    ///
    /// # Errors
    /// One sentence on the first part that cannot be had; nothing is left running then.
    pub async fn start(config: ControlConfig, inputs: ControlInputs) -> Result<Self, StartError> {
        let listener = listen(config.listen, inputs.listener)?;
        let addr = listener
            .local_addr()
            .map_err(|error| StartError::new("listen", format!("the listener has no address: {error}")))?;
        distinct_tokens(&config)?;
        let store =
            Store::open(&config.database).await.map_err(|error| StartError::new("database", error.to_string()))?;
        let hints = config.redis.as_ref().map(Hints::new).transpose();
        let (hints, postman) = match hints {
            Ok(hints) => hints.unzip(),
            Err(error) => {
                store.close().await;
                return Err(StartError::new("redis", error));
            }
        };
        let parts = match assemble(config, store.clone(), hints.unwrap_or_default()).await {
            Ok(parts) => Arc::new(parts),
            Err(error) => {
                store.close().await;
                return Err(error);
            }
        };
        let tasks = &parts.tasks;
        let service = router::router(Shared::clone(&parts));
        let (seats, ending) = (parts.http.connections, parts.shutdown.clone());
        tasks.spawn(server::run(listener, service, seats, ending, GRACE));
        tasks.spawn(sweeper::run(Shared::clone(&parts)));
        tasks.spawn(hints::look(Shared::clone(&parts)));
        if let Some(postman) = postman {
            tasks.spawn(postman.run(Shared::clone(&parts)));
        }
        tasks.spawn(tally::sweep(Shared::clone(&parts)));
        tasks.spawn(kept::tend(Shared::clone(&parts)));
        tasks.spawn(access::note_uses(Shared::clone(&parts)));
        tasks.spawn(audit::write_down(Shared::clone(&parts)));
        tasks.spawn(audit::retention(Shared::clone(&parts)));
        tasks.spawn(webhooks::run(Shared::clone(&parts)));
        if let Some(events) = inputs.events {
            tasks.spawn(tally::facts(Shared::clone(&parts), Arc::clone(&events)));
            tasks.spawn(tally::denials(Shared::clone(&parts), events));
        }
        if parts.fluvio.is_some() {
            tasks.spawn(tally::publish::run(Shared::clone(&parts)));
            tasks.spawn(tally::fluvio::run(Shared::clone(&parts)));
        }
        parts.tasks.close();
        tracing::info!(%addr, "the control plane listens");
        Ok(Self { addr, parts })
    }

    /// Where the API and the page are.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What edges follow.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<SnapshotDoc>> {
        self.parts.keys.subscribe()
    }

    /// Ends: no new connection, event streams and long polls at once, other requests when they are answered, tasks
    /// after their step; ten seconds at most. Then the database is closed.
    pub async fn shutdown(self) {
        self.parts.shutdown.cancel();
        if tokio::time::timeout(GRACE + Duration::from_secs(1), self.parts.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.parts.tasks.len(), "the control plane's tasks did not end in time");
        }
        // Whoever still holds a connection (a request that was cut) gives it back or is rolled back by the file's journal.
        if tokio::time::timeout(GRACE, self.parts.store.close()).await.is_err() {
            tracing::warn!("the database did not close in time; its journal makes it whole at the next start");
        }
    }
}

/// Turns what was handed over, or a new socket, into tokio's listener.
fn listen(at: SocketAddr, given: Option<TcpListener>) -> Result<tokio::net::TcpListener, StartError> {
    let bound = match given {
        Some(listener) => listener,
        None => TcpListener::bind(at).map_err(|error| StartError::new("listen", cannot_listen(at, &error)))?,
    };
    bound
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(bound))
        .map_err(|error| StartError::new("listen", cannot_listen(at, &error)))
}

fn cannot_listen(at: SocketAddr, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!(
                "port {} on {} is taken; stop the program that holds it or set another `listen`",
                at.port(),
                at.ip()
            )
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("port {} may not be opened by this user; choose one above 1023", at.port())
        }
        std::io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no address {}; set another `listen`", at.ip())
        }
        _ => format!("cannot listen on {at}: {error}"),
    }
}

/// Two roles with one secret would be one token with the scopes of the last.
fn distinct_tokens(config: &ControlConfig) -> Result<(), StartError> {
    let tokens = &config.tokens;
    if tokens.admin.expose().is_empty() {
        return Err(StartError::new("tokens", "the admin token is empty; set [tokens] admin"));
    }
    let all = [Some(&tokens.admin), tokens.worker.as_ref(), tokens.edge.as_ref()];
    let secrets: Vec<&str> = all.into_iter().flatten().map(segue_config::Secret::expose).collect();
    let repeated = secrets.iter().enumerate().any(|(n, secret)| secrets.iter().take(n).any(|before| before == secret));
    if repeated {
        Err(StartError::new("tokens", "two of the [tokens] are the same; give each role its own"))
    } else {
        Ok(())
    }
}

pub(crate) async fn assemble(config: ControlConfig, store: Store, hints: Hints) -> Result<Parts, StartError> {
    let database = |error: crate::store::StoreError| StartError::new("database", error.to_string());
    auth::seed(&store, &config.tokens).await.map_err(database)?;
    let keys = Keys::start(&store, &config.keys, hints.clone())
        .await
        .map_err(|error| StartError::new("keys", error.to_string()))?;
    let kept = open_kept(&config, &store).await?;
    let objects = Objects::new(&config.objects);
    if config.objects.create_bucket {
        objects
            .create_bucket()
            .await
            .map_err(|error| StartError::new("objects", format!("{error}; check [objects] endpoint and its keys")))?;
    }
    let instance = ids::other().map_err(|error| StartError::new("keys", error.to_string()))?;
    let reached = config.objects.public_endpoint.as_deref().unwrap_or(&config.objects.endpoint);
    let edge_base = config.edge_base_url.trim_end_matches('/').to_owned();
    Ok(Parts {
        store,
        access: Access::new(&config.access),
        audit: Audit::new(config.audit),
        kept,
        fluvio: config.fluvio.clone(),
        objects,
        keys,
        policies: Registry::new(config.policies),
        bus: Bus::new(hints.clone()),
        hints,
        instance,
        page_policy: api::page::policy(&edge_base, reached),
        edge_base,
        webhooks: config.webhooks,
        uploads: config.uploads,
        tickets: config.tickets,
        jobs: config.jobs,
        http: config.http,
        queued: watch::Sender::new(0),
        streams: Arc::new(Semaphore::new(config.http.streams)),
        shutdown: CancellationToken::new(),
        telling: tokio::sync::Mutex::new(()),
        tasks: TaskTracker::new(),
    })
}

async fn open_kept(config: &ControlConfig, store: &Store) -> Result<Kept, StartError> {
    let folder = config.facts.folder(&config.database);
    Kept::open(folder, config.facts.clone(), store).await.map_err(|error| {
        StartError::new("facts", format!("{error}; check that the folder can be written by this user"))
    })
}

/// What [`recount`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recount {
    /// Facts that were counted again.
    pub facts: u64,
    /// Denials that were.
    pub denials: u64,
    /// The hour, in ms since the epoch, from which on everything was counted again; `None`: from the beginning.
    pub from_ms: Option<i64>,
}

/// Counts plays and sums again from the facts that are kept, in one transaction. To be done while no control plane runs on this database.
///
/// # Errors
/// One sentence on what cannot be opened or read; nothing has changed then.
pub async fn recount(config: &ControlConfig) -> Result<Recount, StartError> {
    let store = Store::open(&config.database).await.map_err(|error| StartError::new("database", error.to_string()))?;
    let counted = async {
        let kept = open_kept(config, &store).await?;
        tally::recount(&store, &kept).await.map_err(|error| StartError::new("facts", error.to_string()))
    }
    .await;
    store.close().await;
    let tally::Recounted { facts, denials, from_ms } = counted?;
    Ok(Recount { facts, denials, from_ms })
}
