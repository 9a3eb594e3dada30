//! Hashes, MACs and signatures for policies; the contract's interfaces `crypto` and `signing`.

use aws_lc_rs::constant_time;
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use rsa::pkcs1v15::Pkcs1v15Sign;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha384};

use crate::contract::crypto::{Algorithm, Hash, KeyError};
use crate::services::{Key, Services};

/// DigestInfo of SHA-1 and SHA-256 (RFC 8017, section 9.2, note 1).
const SHA1_INFO: [u8; 15] = [0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14];
const SHA256_INFO: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];

pub(crate) fn digest(hash: Hash, parts: &[&[u8]]) -> Vec<u8> {
    fn of<D: sha2::Digest>(parts: &[&[u8]]) -> Vec<u8> {
        let mut hash = D::new();
        for part in parts {
            hash.update(part);
        }
        hash.finalize().to_vec()
    }
    match hash {
        Hash::Md5 => of::<Md5>(parts),
        Hash::Sha1 => of::<Sha1>(parts),
        Hash::Sha256 => of::<Sha256>(parts),
    }
}

fn secret<'s>(services: &'s Services, name: &str) -> Result<&'s [u8], KeyError> {
    match services.keys.get(name) {
        Some(Key::Secret(bytes)) => Ok(bytes),
        Some(_) => Err(KeyError::Unfit),
        None => Err(KeyError::Unknown),
    }
}

pub(crate) fn digest_keyed(
    services: &Services,
    hash: Hash,
    key: &str,
    before: &[u8],
    after: &[u8],
) -> Result<Vec<u8>, KeyError> {
    Ok(digest(hash, &[before, secret(services, key)?, after]))
}

pub(crate) fn hmac(services: &Services, hash: Hash, key: &str, data: &[u8]) -> Result<Vec<u8>, KeyError> {
    let key = secret(services, key)?;
    // HMAC takes a key of any length (RFC 2104, section 2), so `new_from_slice` has no reason to fail.
    let unfit = |_| KeyError::Unfit;
    Ok(match hash {
        Hash::Md5 => {
            Hmac::<Md5>::new_from_slice(key).map_err(unfit)?.chain_update(data).finalize().into_bytes().to_vec()
        }
        Hash::Sha1 => {
            Hmac::<Sha1>::new_from_slice(key).map_err(unfit)?.chain_update(data).finalize().into_bytes().to_vec()
        }
        Hash::Sha256 => {
            Hmac::<Sha256>::new_from_slice(key).map_err(unfit)?.chain_update(data).finalize().into_bytes().to_vec()
        }
    })
}

pub(crate) fn verify(
    services: &Services,
    algorithm: Algorithm,
    key: &str,
    data: &[u8],
    signature: &[u8],
) -> Result<bool, KeyError> {
    let key = services.keys.get(key).ok_or(KeyError::Unknown)?;
    let verifier = key.verifier(algorithm).ok_or(KeyError::Unfit)?;
    Ok(verifier.verify(data, signature).is_ok())
}

pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// Signs. RSA here works with blinding: its time says nothing of the key to whoever asks for tickets.
pub(crate) fn sign(services: &Services, algorithm: Algorithm, key: &str, data: &[u8]) -> Result<Vec<u8>, KeyError> {
    if !services.signer {
        return Err(KeyError::Forbidden);
    }
    let key = services.keys.get(key).ok_or(KeyError::Unknown)?;
    match (algorithm, key) {
        (Algorithm::RsaSha1, Key::RsaPrivate(key)) => rsa_sign(key, &SHA1_INFO, &Sha1::digest(data)),
        (Algorithm::RsaSha256, Key::RsaPrivate(key)) => rsa_sign(key, &SHA256_INFO, &Sha256::digest(data)),
        (Algorithm::P256Sha1, Key::P256Private(key)) => p256_sign(key, &Sha1::digest(data)),
        (Algorithm::P256Sha256, Key::P256Private(key)) => p256_sign(key, &Sha256::digest(data)),
        (Algorithm::P384Sha384, Key::P384Private(key)) => {
            let signature: p384::ecdsa::Signature =
                key.sign_prehash(&Sha384::digest(data)).map_err(|_| KeyError::Unfit)?;
            Ok(signature.to_der().as_bytes().to_vec())
        }
        _ => Err(KeyError::Unfit),
    }
}

fn p256_sign(key: &p256::ecdsa::SigningKey, digest: &[u8]) -> Result<Vec<u8>, KeyError> {
    let signature: p256::ecdsa::Signature = key.sign_prehash(digest).map_err(|_| KeyError::Unfit)?;
    Ok(signature.to_der().as_bytes().to_vec())
}

fn rsa_sign(key: &rsa::RsaPrivateKey, info: &'static [u8], digest: &[u8]) -> Result<Vec<u8>, KeyError> {
    let padding = Pkcs1v15Sign { hash_len: Some(digest.len()), prefix: info.into() };
    key.sign_with_rng(&mut rsa::rand_core::OsRng, padding, digest).map_err(|_| KeyError::Unfit)
}

#[cfg(test)]
mod tests;
