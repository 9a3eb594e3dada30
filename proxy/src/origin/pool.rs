//! The origin's idle connections.
//!
//! Invariants: a connection lies here only after a body was read to its end; at most [`IDLE_MAX`] of them, none longer
//! than [`IDLE_TIME`]; one on which something has arrived meanwhile (an end, or an answer to nothing) is not given out.
//!
//! On failure: none of its own. A connection that died unseen fails its first use, and the request takes another.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures::FutureExt;
use pingora_core::Result;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::Stream;
use pingora_core::upstreams::peer::HttpPeer;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::lock::Mutex;

/// Idle connections that are kept; beyond it the oldest is closed.
const IDLE_MAX: usize = 128;
/// How long an idle connection is kept: below the 60 s after which common balancers drop theirs silently.
pub(super) const IDLE_TIME: Duration = Duration::from_secs(50);

/// See the module.
pub(super) struct Pool {
    transport: TransportConnector,
    idle: Mutex<VecDeque<Idle>>,
}

struct Idle {
    stream: Stream,
    address: SocketAddr,
    until: Instant,
}

impl Pool {
    pub(super) fn new() -> Self {
        // Its own pool stays empty: nothing is ever given back to it.
        Self { transport: TransportConnector::new(Some(ConnectorOptions::new(1))), idle: Mutex::default() }
    }

    /// The idle connection to `address` that was used last.
    pub(super) fn take(&self, address: SocketAddr) -> Option<Stream> {
        loop {
            let mut stream = {
                let mut idle = self.idle.lock();
                let now = Instant::now();
                while idle.front().is_some_and(|oldest| oldest.until <= now) {
                    idle.pop_front();
                }
                let place = idle.iter().rposition(|idle| idle.address == address)?;
                idle.remove(place)?.stream
            };
            // Nobody speaks on an idle connection, so that anything to read is its end.
            if stream.read(&mut [0]).now_or_never().is_none() {
                return Some(stream);
            }
        }
    }

    /// A new connection, TLS included.
    pub(super) async fn connect(&self, peer: &HttpPeer) -> Result<Stream> {
        self.transport.new_stream(peer).await
    }

    /// Keeps a connection for the next request.
    pub(super) fn put(&self, stream: Stream, address: SocketAddr) {
        let mut idle = self.idle.lock();
        if idle.len() >= IDLE_MAX {
            idle.pop_front();
        }
        idle.push_back(Idle { stream, address, until: Instant::now() + IDLE_TIME });
    }
}
