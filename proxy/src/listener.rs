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
use std::time::Duration;

use futures::FutureExt;
use pingora_core::apps::{HttpServerApp, ServerApp};
use pingora_core::protocols::Stream;
use pingora_proxy::HttpProxy;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::ConnectionConfig;
use crate::downstream::Downstream;
use crate::metrics::Metrics;
use crate::service::Service;

/// How long the accept loop rests after an error, so that a lack of file descriptors is not a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The client side of a running edge.
pub(crate) struct Clients {
    address: SocketAddr,
    proxy: Arc<HttpProxy<Service>>,
    /// Pingora's own sign of shutdown: responses under way close their connection.
    closing: watch::Sender<bool>,
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
        config: &ConnectionConfig,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (closing, _) = watch::channel(false);
        let clients = Self {
            address,
            proxy,
            closing,
            stop_accepting: CancellationToken::new(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
            drain: config.drain,
        };
        let accept = Accept {
            listener,
            proxy: Arc::clone(&clients.proxy),
            closing: clients.closing.clone(),
            stop: clients.stop_accepting.clone(),
            cut: clients.cut.clone(),
            tasks: clients.tasks.clone(),
            room: Arc::new(Semaphore::new(config.max)),
            config: config.clone(),
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
        self.closing.send_replace(true);
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
    closing: watch::Sender<bool>,
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
            let stream: Stream = Box::new(Downstream::new(tcp, &self.config, Arc::clone(&self.metrics)));
            let proxy = Arc::clone(&self.proxy);
            let closing = self.closing.subscribe();
            let cut = self.cut.clone();
            let metrics = Arc::clone(&self.metrics);
            self.tasks.spawn(async move {
                metrics.connections.add(1);
                let served = std::panic::AssertUnwindSafe(serve(&proxy, stream, &closing)).catch_unwind();
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

async fn serve(proxy: &Arc<HttpProxy<Service>>, stream: Stream, closing: &watch::Receiver<bool>) {
    let mut next = Some(stream);
    while let Some(stream) = next {
        next = proxy.process_new(stream, closing).await;
    }
}
