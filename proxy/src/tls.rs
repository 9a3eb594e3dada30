//! TLS towards clients: 1.3 and 1.2, HTTP/2 or HTTP/1.1 by ALPN, certificates that change while the edge serves.
//!
//! Invariants:
//! - Certificate and key change together or not at all: a handshake takes one pair, once.
//! - A session that is resumed (RFC 8446, section 2.2) carries its state in a ticket of its own; the edge remembers
//!   none. There is no early data, which could be replayed.
//! - Handshakes in computation are fewer than the threads that serve: a flood of them delays itself, not hits.
//!
//! On failure: a pair that cannot be used leaves the last good one in place, is logged and counted; a handshake that
//! fails is counted by its reason.

mod certificate;
mod handshake;
mod validity;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::Semaphore;

use crate::config::{CertificateFiles, TlsConfig};
use crate::metrics::Metrics;
pub(crate) use certificate::{Certificate, CertificateError, Certificates};

/// HTTP/2 first: a client that speaks both asks for many segments at once over it.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Tickets that a client gets with each handshake. One is enough to come back; a player that opens several connections
/// may use it for all of them.
const TICKETS: usize = 1;

/// What all handshakes share.
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
    files: Vec<CertificateFiles>,
    /// Handshakes that may compute at once.
    turns: Semaphore,
    timeout: Duration,
    metrics: Arc<Metrics>,
}

/// The certificates of this moment, as `rustls` asks for them.
#[derive(Debug)]
struct Shown(ArcSwap<Certificates>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().choose(hello.server_name()))
    }
}

/// When the first of the configured certificates ends, in seconds since the epoch.
///
/// # Errors
/// [`CertificateError`] for the first pair that cannot be used.
pub(crate) fn soonest_end(config: &TlsConfig) -> Result<i64, CertificateError> {
    Certificates::load(&config.certificates).map(|certificates| certificates.expires)
}

impl Tls {
    /// Loads the certificates.
    ///
    /// # Errors
    /// [`CertificateError`] for the first pair that cannot be used.
    pub(crate) fn new(config: &TlsConfig, metrics: Arc<Metrics>) -> Result<Self, CertificateError> {
        let certificates = Certificates::load(&config.certificates)?;
        metrics.door.certificate_expires.set(certificates.expires);
        let shown = Arc::new(Shown(ArcSwap::from_pointee(certificates)));
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(CertificateError::Provider)?.with_no_client_auth();
        let mut server = builder.with_cert_resolver(Arc::<Shown>::clone(&shown));
        server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        server.ticketer = ticketer().map_err(CertificateError::Provider)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = TICKETS;
        Ok(Self {
            config: Arc::new(server),
            shown,
            files: config.certificates.clone(),
            turns: Semaphore::new(turns()),
            timeout: config.handshake_timeout,
            metrics,
        })
    }

    /// Loads the certificates anew; whether they are in use now. The last good ones stay where they cannot be used.
    pub(crate) fn reload(&self) -> bool {
        match Certificates::load(&self.files) {
            Ok(certificates) => {
                self.metrics.door.certificate_expires.set(certificates.expires);
                self.metrics.door.tls_reloads.add(1);
                tracing::info!(expires = certificates.expires, "the certificates were replaced");
                self.shown.0.store(Arc::new(certificates));
                true
            }
            Err(error) => {
                self.metrics.door.tls_reload_failures.add(1);
                tracing::error!(%error, "new certificates cannot be used; the last good ones are shown on");
                false
            }
        }
    }
}

/// Half of the threads, so that the other half serves whatever comes; a single thread takes turns.
fn turns() -> usize {
    (tokio::runtime::Handle::current().metrics().num_workers() / 2).max(1)
}

/// The algorithms. Of the two that are linked, this one seals 32 KB and 200 KB with a sixth less CPU (measured where the
/// processor has AES for wide vectors); a handshake costs it a quarter more, and there is one for many segments.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Seals the state of sessions into tickets, with keys that change by themselves.
fn ticketer() -> Result<Arc<dyn rustls::server::ProducesTickets>, rustls::Error> {
    rustls::crypto::aws_lc_rs::Ticketer::new()
}
