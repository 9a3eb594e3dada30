//! The HTTP server: connections with bounds, and an end that lets requests finish.
//!
//! axum's own `serve` knows neither a time limit for a request's head nor a limit of connections; both are needed
//! against slow clients, so the loop is written out here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::address::Peer;

/// A request's head must be there within this long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Largest head, in bytes.
const HEAD_MAX: usize = 64 * 1024;

/// After an error of `accept` (no file descriptors, mostly) the next try waits this long instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `shutdown`; then finishes what is under way, within `grace`.
pub(crate) async fn run(
    listener: TcpListener,
    router: Router,
    connections: usize,
    shutdown: CancellationToken,
    grace: Duration,
) {
    let seats = Arc::new(Semaphore::new(connections));
    let open = TaskTracker::new();
    let mut accept_fails = false;
    loop {
        // A seat first: without one, clients wait in the kernel's backlog.
        let seat = tokio::select! {
            () = shutdown.cancelled() => break,
            seat = Arc::clone(&seats).acquire_owned() => match seat {
                Ok(seat) => seat,
                Err(_) => break,
            },
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                accept_fails = false;
                let connection = connection(stream, peer, router.clone(), shutdown.clone());
                open.spawn(async move {
                    connection.await;
                    drop(seat);
                });
            }
            Err(error) => {
                if !accept_fails {
                    tracing::error!(%error, "connections cannot be accepted; trying on");
                }
                accept_fails = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    open.close();
    if tokio::time::timeout(grace, open.wait()).await.is_err() {
        tracing::warn!(connections = open.len(), "connections were cut: they did not end in time");
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, shutdown: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY was refused");
    }
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        inner.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "a connection ended early");
                }
                return;
            }
            () = shutdown.cancelled(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
