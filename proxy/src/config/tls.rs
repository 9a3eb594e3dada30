//! `[tls]`: certificates, and where they are shown.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use segue_config::{Section, Span};

use crate::tls::Certificate;

/// TLS towards clients.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The certificates; the first one (`cert`, `key`) is shown to whoever asks for no name that another has.
    pub certificates: Vec<CertificateFiles>,
    /// Where TLS is served beside a plain `listen` (`listen`). `None`: `listen` itself speaks TLS.
    pub listen: Option<SocketAddr>,
    /// How long a handshake may take (`handshake_timeout`).
    pub handshake_timeout: Duration,
}

/// One certificate with its chain, and its key; both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate first, then those that lead from it to an authority (`cert`).
    pub cert: PathBuf,
    /// PKCS #8, PKCS #1 or SEC 1 (`key`).
    pub key: PathBuf,
}

impl TlsConfig {
    /// One certificate, on `listen` itself.
    #[must_use]
    pub fn new(files: CertificateFiles) -> Self {
        // A round trip and a signature: what takes longer than this is not going to become a listener.
        Self { certificates: vec![files], listen: None, handshake_timeout: Duration::from_secs(10) }
    }

    /// `None` where there is no such table.
    pub(super) fn read(root: &Section<'_>) -> Option<Self> {
        let section = root.section("tls");
        if !root.has("tls") && !section.has("cert") && !section.has("key") {
            return None;
        }
        let first = files(&section);
        let more = section.tables("certificate");
        let certificates: Vec<_> = first.into_iter().chain(more.iter().filter_map(files)).collect();
        if certificates.is_empty() {
            section.problem("", "no certificate is named; set `cert` and `key` to two PEM files");
        }
        let base = Self::new(CertificateFiles { cert: PathBuf::new(), key: PathBuf::new() });
        let handshake_timeout = section.or("handshake_timeout", Span(base.handshake_timeout)).0;
        Some(Self { certificates, listen: section.get("listen"), handshake_timeout })
    }
}

/// Both files, loaded once, so that a pair that cannot be used is a problem of the configuration.
fn files(section: &Section<'_>) -> Option<CertificateFiles> {
    let files = match (section.get("cert"), section.get("key")) {
        (Some(cert), Some(key)) => CertificateFiles { cert, key },
        (None, None) => return None,
        (None, Some(_)) => {
            section.problem("cert", "missing; it names the PEM file with the certificate of `key`");
            return None;
        }
        (Some(_), None) => {
            section.problem("key", "missing; it names the PEM file with the key of `cert`");
            return None;
        }
    };
    if let Err(error) = Certificate::load(&files) {
        section.problem("cert", error.to_string());
    }
    Some(files)
}
