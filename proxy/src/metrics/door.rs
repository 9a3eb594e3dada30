//! What is counted at the door: connections, handshakes, certificates.

use std::collections::BTreeMap;

use super::{Counter, Gauge, Text};
use crate::lock::Mutex;

/// Counts of connections before their first request.
#[derive(Debug, Default)]
pub(crate) struct DoorMetrics {
    /// Connections that were closed unserved, by reason.
    refused: Mutex<BTreeMap<&'static str, u64>>,
    pub(crate) tls_handshakes: Counter,
    handshakes_failed: Mutex<BTreeMap<&'static str, u64>>,
    pub(crate) tls_reloads: Counter,
    pub(crate) tls_reload_failures: Counter,
    /// Seconds since the epoch; 0 without TLS.
    pub(crate) certificate_expires: Gauge,
    pub(crate) http2_connections: Gauge,
    pub(crate) http2_requests: Counter,
}

impl DoorMetrics {
    /// A connection that is closed without a word.
    pub(crate) fn refused(&self, reason: &'static str) {
        *self.refused.lock().entry(reason).or_default() += 1;
    }

    /// A handshake that came to nothing.
    pub(crate) fn handshake_failed(&self, reason: &'static str) {
        *self.handshakes_failed.lock().entry(reason).or_default() += 1;
    }

    pub(super) fn render(&self, text: &mut Text) {
        let by_reason = [
            ("segue_connections_refused_total", "Connections closed unserved, by reason.", &self.refused),
            ("segue_tls_handshake_failures_total", "Handshakes that failed, by reason.", &self.handshakes_failed),
        ];
        for (name, help, counts) in by_reason {
            text.family(name, "counter", help);
            for (reason, count) in counts.lock().iter() {
                text.sample(name, &format!("reason=\"{reason}\""), *count);
            }
        }
        for (name, help, counter) in [
            ("segue_tls_handshakes_total", "Handshakes that succeeded.", &self.tls_handshakes),
            ("segue_tls_reloads_total", "Times that certificates were replaced.", &self.tls_reloads),
            (
                "segue_tls_reload_failures_total",
                "Times that new certificates could not be used.",
                &self.tls_reload_failures,
            ),
            ("segue_http2_requests_total", "Requests over HTTP/2.", &self.http2_requests),
        ] {
            text.family(name, "counter", help);
            text.sample(name, "", counter.get());
        }
        let expires = "segue_tls_certificate_expires_seconds";
        text.family(expires, "gauge", "When the first of the certificates expires, in seconds since the epoch.");
        if self.certificate_expires.get() != 0 {
            text.sample(expires, "", self.certificate_expires.get());
        }
        text.family("segue_http2_connections", "gauge", "Open connections that speak HTTP/2.");
        text.sample("segue_http2_connections", "", self.http2_connections.get());
    }
}
