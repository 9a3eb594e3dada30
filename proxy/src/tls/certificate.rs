//! Certificates with their keys, from PEM files, and which of them a client is shown.
//!
//! Invariants: a certificate is used only with the key that it was made for; certificates that are loaded together are
//! used together.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::sign::CertifiedKey;

use super::{provider, validity};
use crate::config::CertificateFiles;

/// A chain and its key take a few KiB; a larger file is another one.
const FILE_MAX: u64 = 1 << 20;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {error}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {problem}", .path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificate and key do not belong together.
    #[error("{} is not the key of {}: {error}", .key.display(), .cert.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What `rustls` said.
        error: rustls::Error,
    },
    /// The algorithms themselves cannot be had.
    #[error("the TLS algorithms cannot be used: {0}")]
    Provider(rustls::Error),
}

/// One certificate with its chain and key.
#[derive(Debug)]
pub(crate) struct Certificate {
    key: Arc<CertifiedKey>,
    /// The names in it, in lower case; `*.` in front of one stands for one label.
    names: Vec<String>,
    /// When it ends, in seconds since the epoch.
    expires: i64,
}

impl Certificate {
    /// Loads a pair.
    ///
    /// # Errors
    /// [`CertificateError`]
    pub(crate) fn load(files: &CertificateFiles) -> Result<Self, CertificateError> {
        let chain = chain(&files.cert)?;
        let content = |problem: String| CertificateError::Content { path: files.cert.clone(), problem };
        let first = chain.first().ok_or_else(|| content("holds no certificate (PEM)".to_owned()))?;
        let expires = validity::ends(first).ok_or_else(|| content("has no time of expiry".to_owned()))?;
        let parsed = webpki::EndEntityCert::try_from(first);
        let parsed = parsed.map_err(|error| content(format!("is not a certificate: {error}")))?;
        let names = parsed.valid_dns_names().map(str::to_ascii_lowercase).collect();
        let pem = read(&files.key)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| CertificateError::Content {
            path: files.key.clone(),
            problem: match error {
                pem::Error::NoItemsFound => "holds no private key (PEM; PKCS #8, PKCS #1 or SEC 1)".to_owned(),
                error => format!("is not a private key: {error}"),
            },
        })?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| CertificateError::Pair {
            cert: files.cert.clone(),
            key: files.key.clone(),
            error,
        })?;
        Ok(Self { key: Arc::new(key), names, expires })
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let pem = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    chain.map_err(|error| CertificateError::Content {
        path: path.to_owned(),
        problem: format!("is not a chain of certificates (PEM): {error}"),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let failed = |error| CertificateError::Read { path: path.to_owned(), error };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_MAX {
        let problem = format!("is larger than {FILE_MAX} bytes; name a PEM file");
        return Err(CertificateError::Content { path: path.to_owned(), problem });
    }
    std::fs::read(path).map_err(failed)
}

/// All certificates of an edge.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// For whoever asks for no name that is known here.
    first: Arc<CertifiedKey>,
    /// By name, where there are several.
    by_name: HashMap<String, Arc<CertifiedKey>>,
    /// When the first of them ends, in seconds since the epoch.
    pub(super) expires: i64,
}

impl Certificates {
    /// Loads all of them, or none.
    ///
    /// # Errors
    /// [`CertificateError`] for the first that cannot be used.
    pub(crate) fn load(files: &[CertificateFiles]) -> Result<Self, CertificateError> {
        let loaded: Vec<_> = files.iter().map(Certificate::load).collect::<Result<_, _>>()?;
        let Some(first) = loaded.first().map(|certificate| Arc::clone(&certificate.key)) else {
            let problem = "no certificate is named".to_owned();
            return Err(CertificateError::Content { path: PathBuf::from("[tls]"), problem });
        };
        let expires = loaded.iter().map(|certificate| certificate.expires).min().unwrap_or(i64::MAX);
        let mut by_name = HashMap::new();
        // A single certificate is shown to everybody: there is nothing to choose.
        for certificate in loaded.iter().filter(|_| loaded.len() > 1) {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_insert_with(|| Arc::clone(&certificate.key));
            }
        }
        Ok(Self { first, by_name, expires })
    }

    /// The one for `name` (RFC 6066, section 3), which `rustls` has in lower case; a wildcard stands for one label
    /// (RFC 6125, section 6.4.3).
    pub(super) fn choose(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let exact = name.and_then(|name| self.by_name.get(name));
        let wild = || self.by_name.get(&format!("*{}", name?.get(name?.find('.')?..)?));
        Arc::clone(exact.or_else(|| if self.by_name.is_empty() { None } else { wild() }).unwrap_or(&self.first))
    }
}
