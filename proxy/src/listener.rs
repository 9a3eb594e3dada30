//! Accepting clients, and letting them go.
//!
//! Purpose: Pingora's own server owns the process (it exits it, and sleeps on the way); an edge lives beside other
//! parts and in tests, so the accept loop is here and hands each connection to Pingora's HTTP machinery.
//!
//! Invariants: every connection is a task that is tracked; at most `max` of them live at once, further clients wait
//! in the kernel's queue; a panic in a request ends its connection alone and is counted.
//!
//! On failure: an accept error is logged, counted and waited out (too many open files do not become a busy loop).
//! At shutdown idle connections end at once, requests in flight have `drain` to end, what is left then is cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use pingora_core::apps::HttpServerApp;
use pingora_proxy::HttpProxy;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

use crate::config::ConnectionConfig;
use crate::connection::Connection;
use crate::downstream::Downstream;
use crate::metrics::Metrics;
use crate::service::Service;
use crate::transport::Transport;

/// How long the accept loop rests after an error, so that a lack of file descriptors is not a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The sign that the edge closes: idle connections end, and answers under way close theirs.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    /// Asked for every answer; the token would take a lock.
    begun: AtomicBool,
    token: CancellationToken,
    /// The same for Pingora.
    watch: watch::Sender<bool>,
}

impl Closing {
    fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.watch.send_replace(true);
        self.token.cancel();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Resolves when it begins.
    pub(crate) fn begun(&self) -> WaitForCancellationFutureOwned {
        self.token.clone().cancelled_owned()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.watch.subscribe()
    }
}

/// The client side of a running edge.
pub(crate) struct Clients {
    address: SocketAddr,
    proxy: Arc<HttpProxy<Service>>,
    closing: Arc<Closing>,
    stop_accepting: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
    drain: Duration,
}

impl Clients {
    pub(crate) fn start(
        listener: TcpListener,
        address: SocketAddr,
        proxy: Arc<HttpProxy<Service>>,
        service: Service,
    ) -> Self {
        let config = service.shared().config.connections.clone();
        let metrics = Arc::clone(&service.shared().metrics);
        let clients = Self {
            address,
            proxy,
            closing: Arc::default(),
            stop_accepting: CancellationToken::new(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
            drain: config.drain,
        };
        let accept = Accept {
            listener,
            proxy: Arc::clone(&clients.proxy),
            service,
            closing: Arc::clone(&clients.closing),
            stop: clients.stop_accepting.clone(),
            cut: clients.cut.clone(),
            tasks: clients.tasks.clone(),
            room: Arc::new(Semaphore::new(config.max)),
            config,
            metrics,
        };
        clients.tasks.spawn(accept.run());
        clients
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets requests in flight end, cuts what is left after `drain`.
    pub(crate) async fn stop(self) {
        self.stop_accepting.cancel();
        self.closing.begin();
        self.proxy.http_cleanup().await;
        self.tasks.close();
        if tokio::time::timeout(self.drain, self.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "cutting connections that did not end in time");
            self.cut.cancel();
            self.tasks.wait().await;
        }
    }
}

struct Accept {
    listener: TcpListener,
    proxy: Arc<HttpProxy<Service>>,
    service: Service,
    closing: Arc<Closing>,
    stop: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
    room: Arc<Semaphore>,
    config: ConnectionConfig,
    metrics: Arc<Metrics>,
}

impl Accept {
    async fn run(self) {
        let stop = self.stop.clone();
        // Dropping the loop closes the listener: the kernel refuses whoever comes now.
        stop.run_until_cancelled(self.accept_for_ever()).await;
    }

    async fn accept_for_ever(self) {
        loop {
            let Ok(room) = Arc::clone(&self.room).acquire_owned().await else { return };
            let tcp = match self.listener.accept().await {
                Ok((tcp, _)) => tcp,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.metrics.accept_errors.add(1);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let stream = Downstream::new(Transport::Plain(tcp), &self.config, Arc::clone(&self.metrics));
            let proxy = Arc::clone(&self.proxy);
            let connection = Connection { proxy, service: self.service.clone(), closing: Arc::clone(&self.closing) };
            let cut = self.cut.clone();
            let metrics = Arc::clone(&self.metrics);
            self.tasks.spawn(async move {
                metrics.connections.add(1);
                let served = std::panic::AssertUnwindSafe(connection.serve(stream)).catch_unwind();
                if let Some(Err(_)) = cut.run_until_cancelled(served).await {
                    metrics.panics.add(1);
                    tracing::error!("a request panicked; its connection is closed");
                }
                metrics.connections.sub(1);
                drop(room);
            });
        }
    }
}
