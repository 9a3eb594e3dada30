//! Certificates for a minute, and clients that trust them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use segue_proxy::{CertificateFiles, EdgeConfig, TlsConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Client, House, house_with, with_admin};

/// A self-signed certificate and its key.
pub struct Pair {
    pub cert: CertificateDer<'static>,
    cert_pem: String,
    key_pem: String,
}

impl Pair {
    pub fn new(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Self { cert: made.cert.der().clone(), cert_pem: made.cert.pem(), key_pem: made.key_pair.serialize_pem() }
    }

    /// Writes both files as a careful operator does: each whole, by a rename.
    pub fn write(&self, dir: &Path, name: &str) -> CertificateFiles {
        let files = files(dir, name);
        put(&files.cert, &self.cert_pem);
        put(&files.key, &self.key_pem);
        files
    }

    /// The certificate alone, beside the key of another.
    pub fn write_cert(&self, dir: &Path, name: &str) {
        put(&files(dir, name).cert, &self.cert_pem);
    }
}

fn files(dir: &Path, name: &str) -> CertificateFiles {
    CertificateFiles { cert: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) }
}

fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

/// A client's settings: whom it trusts, what it speaks.
pub struct Trust(pub ClientConfig);

impl Trust {
    pub fn new(pairs: &[&Pair]) -> Self {
        Self::with(pairs, &[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    pub fn with(pairs: &[&Pair], versions: &[&'static SupportedProtocolVersion]) -> Self {
        let mut roots = RootCertStore::empty();
        for pair in pairs {
            roots.add(pair.cert.clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        Self(builder.with_root_certificates(roots).with_no_client_auth())
    }

    pub fn speaking(mut self, protocol: &str) -> Self {
        self.0.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        self
    }

    pub async fn connect(&self, addr: SocketAddr, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        self.over(TcpStream::connect(addr).await?, name).await
    }

    pub async fn over<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        name: &str,
    ) -> std::io::Result<TlsStream<S>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(self.0.clone())).connect(name, stream).await
    }

    pub async fn client(&self, addr: SocketAddr, name: &str) -> Client<TlsStream<TcpStream>> {
        Client::over(self.connect(addr, name).await.unwrap())
    }
}

/// A house whose edge speaks TLS, with its certificate and the folder where that lies.
pub struct Secured {
    pub house: House,
    pub pair: Pair,
    pub dir: tempfile::TempDir,
}

pub async fn secured() -> Secured {
    secured_with(|_| {}).await
}

pub async fn secured_with(change: impl FnOnce(&mut EdgeConfig)) -> Secured {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::new(&["edge.example"]);
    let files = pair.write(dir.path(), "edge");
    let house = house_with(|config| {
        with_admin(config);
        config.tls = Some(TlsConfig::new(files));
        change(config);
    })
    .await;
    Secured { house, pair, dir }
}
