//! Whose policies are taken: Ed25519 public keys (RFC 8032) of those who may sign one (`[policies.signers]`).
//!
//! A signature is detached and goes over the bytes of the file as they are, so that any tool can make it:
//! `openssl pkeyutl -sign -rawin -inkey release.pem -in rule.wasm -out rule.sig`.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// `SubjectPublicKeyInfo` of an Ed25519 key up to the key itself (RFC 8410, section 10.1).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Bytes of a signature.
const SIGNATURE: usize = 64;

/// A text is no Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an Ed25519 public key; give PEM (`openssl pkey -in release.pem -pubout`), as \"file:PATH\", or its 32 bytes in base64"
)]
pub struct NotASigner;

/// One who may sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// Its name in the configuration, in versions and in the history.
    pub name: String,
    key: [u8; 32],
}

/// Why a signature is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignatureError {
    #[error("this control plane takes signed policies only ([policies.signers]), and the upload has no `signature`")]
    Missing,
    #[error("the `signature` is not one: give the 64 bytes of an Ed25519 signature, raw or in base64 or hex")]
    Malformed,
    #[error("the `signature` is not over this file by any of [policies.signers]")]
    Wrong,
}

impl SignatureError {
    /// The reason word.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Missing => "signature-missing",
            Self::Malformed => "signature-malformed",
            Self::Wrong => "signature-wrong",
        }
    }
}

impl Signer {
    /// Reads a public key: PEM, or 32 bytes in base64.
    ///
    /// # Errors
    /// [`NotASigner`].
    pub fn parse(name: &str, text: &str) -> Result<Self, NotASigner> {
        let is_pem = text.contains("-----BEGIN PUBLIC KEY-----");
        let body: String = text
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .flat_map(str::chars)
            .filter(|c| !c.is_whitespace())
            .collect();
        let bytes = STANDARD.decode(body).map_err(|_| NotASigner)?;
        let key = if is_pem { bytes.strip_prefix(&SPKI).ok_or(NotASigner)? } else { bytes.as_slice() };
        Ok(Self { name: name.to_owned(), key: key.try_into().map_err(|_| NotASigner)? })
    }

    fn signed(&self, file: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.key).verify(file, signature).is_ok()
    }
}

/// Who signed the file. Where nobody may sign, no signature is needed, and none is believed.
pub(crate) fn signer<'s>(
    signers: &'s [Signer],
    file: &[u8],
    signature: Option<&[u8]>,
) -> Result<Option<&'s Signer>, SignatureError> {
    if signers.is_empty() {
        return Ok(None);
    }
    let signature = read(signature.ok_or(SignatureError::Missing)?).ok_or(SignatureError::Malformed)?;
    signers.iter().find(|signer| signer.signed(file, &signature)).map(Some).ok_or(SignatureError::Wrong)
}

fn read(given: &[u8]) -> Option<[u8; SIGNATURE]> {
    if let Ok(raw) = given.try_into() {
        return Some(raw);
    }
    let text = std::str::from_utf8(given).ok()?.trim();
    let hex = || {
        let pair = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        (0..text.len()).step_by(2).map(pair).collect::<Option<Vec<u8>>>()
    };
    let bytes = if text.len() == 2 * SIGNATURE {
        hex()?
    } else {
        STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok()?
    };
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // RFC 8032, section 7.1, test 2: a file of one byte, 0x72.
    const KEY: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    const SIGNED: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                          085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn the_vectors_of_the_rfc_hold_in_every_form() {
        let raw = STANDARD.encode(hex(KEY));
        let pem = STANDARD.encode([&SPKI[..], &hex(KEY)].concat());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n");
        for key in [raw, pem] {
            let signers = [Signer::parse("release", &key).unwrap()];
            for signature in [hex(SIGNED), SIGNED.into(), STANDARD.encode(hex(SIGNED)).into_bytes()] {
                let by = signer(&signers, &[0x72], Some(&signature)).unwrap();
                assert_eq!(by.unwrap().name, "release");
                assert_eq!(signer(&signers, &[0x73], Some(&signature)), Err(SignatureError::Wrong));
            }
            assert_eq!(signer(&signers, &[0x72], None), Err(SignatureError::Missing));
            assert_eq!(signer(&signers, &[0x72], Some(b"?")), Err(SignatureError::Malformed));
        }
        assert_eq!(signer(&[], &[0x72], None), Ok(None));
    }

    #[test]
    fn what_is_no_key_is_told_apart() {
        for wrong in ["", "AAAA", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "€"] {
            assert_eq!(Signer::parse("x", wrong), Err(NotASigner), "{wrong:?}");
        }
    }
}
