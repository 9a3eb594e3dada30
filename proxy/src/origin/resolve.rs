//! The origin's addresses, resolved without blocking and refreshed beside the requests.
//!
//! Invariants: a request waits for a name only while none was ever resolved; addresses take turns, so that a retry
//! goes to another one; a failed refresh keeps the old addresses.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::lock::Mutex;
use crate::refusal::OriginFailure;

/// How long addresses are used before they are asked for again.
const FRESH: Duration = Duration::from_secs(30);
/// How long one resolution may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Resolver {
    name: Arc<Name>,
    turn: AtomicUsize,
    tasks: TaskTracker,
}

struct Name {
    host: String,
    port: u16,
    known: Mutex<Known>,
    /// One resolution at a time.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    addresses: Arc<[SocketAddr]>,
    /// `None` for a literal address, which never ages.
    until: Option<Instant>,
}

impl Resolver {
    pub(super) fn new(host: &str, port: u16, tasks: TaskTracker) -> Self {
        let literal = host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port));
        let known = Known { addresses: literal.into_iter().collect(), until: literal.is_none().then(Instant::now) };
        let name = Name { host: host.to_owned(), port, known: Mutex::new(known), asking: tokio::sync::Mutex::new(()) };
        Self { name: Arc::new(name), turn: AtomicUsize::new(0), tasks }
    }

    /// The address whose turn it is.
    ///
    /// # Errors
    /// No address is known and none could be found.
    pub(super) async fn pick(&self) -> Result<SocketAddr, OriginFailure> {
        let (mut addresses, aged) = self.name.known();
        if addresses.is_empty() {
            self.name.refresh().await?;
            addresses = self.name.known().0;
        } else if aged && !self.tasks.is_closed() {
            let name = Arc::clone(&self.name);
            self.tasks.spawn(async move {
                if let Err(failure) = name.refresh().await {
                    tracing::warn!(host = name.host, reason = failure.kind(), "keeping the origin's old addresses");
                }
            });
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        addresses.get(turn % addresses.len().max(1)).copied().ok_or(OriginFailure::Unreachable)
    }
}

impl Name {
    fn known(&self) -> (Arc<[SocketAddr]>, bool) {
        let known = self.known.lock();
        (Arc::clone(&known.addresses), known.until.is_some_and(|until| Instant::now() >= until))
    }

    async fn refresh(&self) -> Result<(), OriginFailure> {
        let Ok(_turn) = tokio::time::timeout(PATIENCE, self.asking.lock()).await else {
            return Err(OriginFailure::Unreachable);
        };
        let (addresses, aged) = self.known();
        if !addresses.is_empty() && !aged {
            // Another request asked while this one waited for its turn.
            return Ok(());
        }
        let asked = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((self.host.as_str(), self.port))).await;
        let found: Arc<[SocketAddr]> = match asked {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(error)) => {
                tracing::debug!(host = self.host, %error, "a name could not be resolved");
                Arc::default()
            }
            Err(_) => Arc::default(),
        };
        let mut known = self.known.lock();
        known.until = Some(Instant::now() + FRESH);
        if found.is_empty() {
            return Err(OriginFailure::Unreachable);
        }
        known.addresses = found;
        Ok(())
    }
}
