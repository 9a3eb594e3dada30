//! A connection that speaks HTTP/2 (RFC 9113): each stream is a request of its own, and goes through Pingora.
//!
//! Invariants:
//! - What a client may have open, send ahead, or break is bounded here; nothing is left to a default that has no bound.
//! - The tasks of a connection's streams end with it; a panic in one is counted and ends that stream alone.
//!
//! On failure: a stream that breaks the rules is reset, or refused with 400; a client that does so again and again
//! loses its connection. A connection that idles is told so (GOAWAY) and closed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake};
use pingora_core::protocols::{Digest, GetSocketDigest};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::Connection;
use crate::config::ConnectionConfig;
use crate::downstream::Downstream;
use crate::metrics::Metrics;

/// Requests of one connection at once: more than a player asks for, and what each costs is a task.
const STREAMS_MAX: u32 = 128;

/// Bytes of a request body that a client may send ahead, of one stream and of all: enough for forms, and as much as
/// one connection may make the edge hold.
const BODY_WINDOW: u32 = 64 * 1024;
const BODIES_WINDOW: u32 = 256 * 1024;

/// Bytes of one answer that wait for the client's window or socket. They are shared with the cache where they are in it.
const SEND_BUFFER: usize = 256 * 1024;

/// Streams that were reset by the client before they were looked at ("rapid reset"), and by the edge for errors of the
/// client: beyond these the connection is closed.
const RESETS_PENDING: usize = 16;
const RESETS_OURS: usize = 64;

/// Requests that are refused before they are one, on one connection.
const REFUSED_MAX: usize = 32;

/// How long a client that was told goodbye may take to say it too.
const GOODBYE: Duration = Duration::from_secs(2);

fn options(config: &ConnectionConfig) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(config.head_max).unwrap_or(u32::MAX))
        .initial_window_size(BODY_WINDOW)
        .initial_connection_window_size(BODIES_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS_PENDING)
        .max_local_error_reset_streams(Some(RESETS_OURS));
    options
}

/// A connection as the gauge sees it.
struct Open(Arc<Metrics>);

impl Open {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.door.http2_connections.add(1);
        Self(Arc::clone(metrics))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.door.http2_connections.sub(1);
    }
}

/// The requests of one connection.
struct Streams<'m> {
    running: JoinSet<()>,
    /// How many were refused before they were one.
    refused: usize,
    metrics: &'m Metrics,
}

impl Streams<'_> {
    fn begin(&mut self, stream: impl Future<Output = ()> + Send + 'static) {
        self.metrics.door.http2_requests.add(1);
        self.running.spawn(stream);
    }

    fn ended(&self, done: &Result<(), JoinError>) {
        if done.as_ref().is_err_and(JoinError::is_panic) {
            self.metrics.panics.add(1);
            tracing::error!("a request panicked; its stream is reset");
        }
    }

    /// Counts a request that was none; whether the client may send another.
    fn may_go_on(&mut self) -> bool {
        self.metrics.refused("malformed-head", "4");
        self.refused += 1;
        let may = self.refused < REFUSED_MAX;
        if !may {
            self.metrics.door.refused("http2-malformed");
        }
        may
    }

    /// The connection is over: what is still running finds that out, or has only its fact to settle.
    async fn end(mut self) {
        let all = async {
            while let Some(done) = self.running.join_next().await {
                self.ended(&done);
            }
        };
        if tokio::time::timeout(GOODBYE, all).await.is_err() {
            tracing::debug!("requests of a connection that is gone are cut");
        }
    }
}

impl Connection {
    /// Serves the client to the end of its connection.
    pub(super) async fn http2(&self, mut stream: Box<Downstream>) {
        let metrics = &self.service.shared().metrics;
        let _open = Open::new(metrics);
        let config = &self.service.shared().config.connections;
        stream.carries_frames();
        let digest = Arc::new(Digest { socket_digest: stream.get_socket_digest(), ..Digest::default() });
        let begun = tokio::time::timeout(config.head_timeout, handshake(stream, Some(options(config)))).await;
        let Ok(Ok(mut connection)) = begun else { return metrics.door.refused("http2-preface") };
        let mut streams = Streams { running: JoinSet::new(), refused: 0, metrics };
        let mut told = false;
        let mut closing = pin!(self.closing.begun());
        let mut idle = pin!(tokio::time::sleep(config.idle_timeout));
        loop {
            tokio::select! {
                biased;
                () = &mut closing, if !told => {
                    connection.graceful_shutdown();
                    told = true;
                    idle.as_mut().reset(Instant::now() + GOODBYE);
                }
                Some(done) = streams.running.join_next() => {
                    streams.ended(&done);
                    idle.as_mut().reset(Instant::now() + if told { GOODBYE } else { config.idle_timeout });
                }
                accepted = HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)) => {
                    match accepted {
                        Ok(Some(H2Accept::Session(session))) => streams.begin(self.stream(session)),
                        Ok(Some(H2Accept::Rejected)) if streams.may_go_on() => {}
                        Ok(Some(H2Accept::Rejected) | None) | Err(_) => break,
                    }
                },
                () = &mut idle, if streams.running.is_empty() => {
                    if told {
                        break;
                    }
                    connection.graceful_shutdown();
                    told = true;
                    idle.as_mut().reset(Instant::now() + GOODBYE);
                }
            }
        }
        drop(connection);
        streams.end().await;
    }

    /// One request, to its end.
    fn stream(&self, session: HttpSession) -> impl Future<Output = ()> + Send + use<> {
        let (proxy, closing) = (Arc::clone(&self.proxy), self.closing.watch());
        async move {
            // What comes back is a connection to be used again, which a stream is not.
            let _never = proxy.process_new_http(ServerSession::new_http2(session), &closing).await;
        }
    }
}
