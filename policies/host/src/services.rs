//! What an operator gives a policy beside its configuration: keys by name, and read-only tables.
//!
//! Invariant: no function hands a key's bytes out; a `Debug` of keys names them only.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature as verifying;
use p256::pkcs8::DecodePrivateKey as _;
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::DecodePublicKey as _;
use rsa::traits::PublicKeyParts as _;

/// One key. What it is decides what it can be used for.
#[derive(Clone)]
pub enum Key {
    /// A shared secret, for HMAC and keyed digests.
    Secret(Arc<[u8]>),
    /// An RSA public key, as PKCS#1 DER.
    RsaPublic(Arc<[u8]>),
    /// A point on P-256 or P-384, uncompressed.
    EcPublic(Arc<[u8]>),
    /// An RSA private key.
    RsaPrivate(Arc<rsa::RsaPrivateKey>),
    /// A P-256 private key.
    P256Private(Arc<p256::ecdsa::SigningKey>),
    /// A P-384 private key.
    P384Private(Arc<p384::ecdsa::SigningKey>),
}

/// Why a key text is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// PEM of a kind that is not known, or damaged.
    #[error(
        "not a key that is known here: PEM of RSA (2048 bits and more), P-256 or P-384, public (SPKI) or private (PKCS#8, PKCS#1)"
    )]
    Pem,
    /// Too short to be secret.
    #[error("an RSA key of {0} bits; at least 2048 are needed")]
    Short(usize),
    /// Nothing there.
    #[error("the secret is empty")]
    Empty,
}

impl Key {
    /// A shared secret.
    ///
    /// # Errors
    /// [`KeyError::Empty`].
    pub fn secret(bytes: impl Into<Arc<[u8]>>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        if bytes.is_empty() { Err(KeyError::Empty) } else { Ok(Self::Secret(bytes)) }
    }

    /// Reads PEM: `PUBLIC KEY` (RFC 7468, section 13), `PRIVATE KEY` (section 10) or `RSA PRIVATE KEY`.
    ///
    /// # Errors
    /// [`KeyError`], which says what can be read.
    pub fn pem(text: &str) -> Result<Self, KeyError> {
        if text.contains("-----BEGIN PUBLIC KEY-----") { public(text) } else { private(text) }
    }

    /// The public half: what verifies.
    pub(crate) fn verifier(&self, algorithm: Algorithm) -> Option<verifying::UnparsedPublicKey<Vec<u8>>> {
        let bytes = match self {
            Self::RsaPublic(bytes) | Self::EcPublic(bytes) => bytes.to_vec(),
            Self::RsaPrivate(key) => rsa_public(&key.to_public_key()),
            Self::P256Private(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            Self::P384Private(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            Self::Secret(_) => return None,
        };
        // An uncompressed point has 65 bytes on P-256 and 97 on P-384 (SEC 1, section 2.3.3).
        let fits = match algorithm {
            Algorithm::RsaSha1 | Algorithm::RsaSha256 => matches!(self, Self::RsaPublic(_) | Self::RsaPrivate(_)),
            Algorithm::P256Sha1 | Algorithm::P256Sha256 => bytes.len() == 65,
            Algorithm::P384Sha384 => bytes.len() == 97,
        };
        let parameters: &'static dyn verifying::VerificationAlgorithm = match algorithm {
            Algorithm::RsaSha1 => &verifying::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::RsaSha256 => &verifying::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::P256Sha1 => &verifying::ECDSA_P256_SHA1_ASN1,
            Algorithm::P256Sha256 => &verifying::ECDSA_P256_SHA256_ASN1,
            Algorithm::P384Sha384 => &verifying::ECDSA_P384_SHA384_ASN1,
        };
        fits.then(|| verifying::UnparsedPublicKey::new(parameters, bytes))
    }
}

pub(crate) use crate::contract::crypto::Algorithm;

fn public(text: &str) -> Result<Key, KeyError> {
    if let Ok(key) = rsa::RsaPublicKey::from_public_key_pem(text) {
        long_enough(key.size())?;
        return Ok(Key::RsaPublic(rsa_public(&key).into()));
    }
    if let Ok(key) = <p256::PublicKey as p256::pkcs8::DecodePublicKey>::from_public_key_pem(text) {
        return Ok(Key::EcPublic(p256::ecdsa::VerifyingKey::from(key).to_sec1_point(false).as_bytes().into()));
    }
    <p384::PublicKey as p384::pkcs8::DecodePublicKey>::from_public_key_pem(text)
        .map(|key| Key::EcPublic(p384::ecdsa::VerifyingKey::from(key).to_sec1_point(false).as_bytes().into()))
        .map_err(|_| KeyError::Pem)
}

fn private(text: &str) -> Result<Key, KeyError> {
    let rsa_key = <rsa::RsaPrivateKey as rsa::pkcs8::DecodePrivateKey>::from_pkcs8_pem(text)
        .ok()
        .or_else(|| rsa::RsaPrivateKey::from_pkcs1_pem(text).ok());
    if let Some(key) = rsa_key {
        long_enough(key.size())?;
        return Ok(Key::RsaPrivate(Arc::new(key)));
    }
    if let Ok(key) = p256::ecdsa::SigningKey::from_pkcs8_pem(text) {
        return Ok(Key::P256Private(Arc::new(key)));
    }
    p384::ecdsa::SigningKey::from_pkcs8_pem(text).map(|key| Key::P384Private(Arc::new(key))).map_err(|_| KeyError::Pem)
}

fn long_enough(bytes: usize) -> Result<(), KeyError> {
    if bytes < 256 { Err(KeyError::Short(bytes * 8)) } else { Ok(()) }
}

fn rsa_public(key: &rsa::RsaPublicKey) -> Vec<u8> {
    use rsa::pkcs1::EncodeRsaPublicKey as _;
    // Encoding fails on numbers that are no key's; a verifier then knows no key in it.
    key.to_pkcs1_der().map(|document| document.as_bytes().to_vec()).unwrap_or_default()
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret",
            Self::RsaPublic(_) => "RsaPublic",
            Self::EcPublic(_) => "EcPublic",
            Self::RsaPrivate(_) => "RsaPrivate",
            Self::P256Private(_) => "P256Private",
            Self::P384Private(_) => "P384Private",
        })
    }
}

/// What one policy is lent.
#[derive(Debug, Clone, Default)]
pub struct Services {
    /// Keys by name.
    pub keys: HashMap<String, Key>,
    /// Tables by name.
    pub tables: HashMap<String, Arc<HashMap<String, String>>>,
    /// Whether it may sign: in the control plane and the command, never on an edge.
    pub signer: bool,
}

#[cfg(test)]
mod tests;
