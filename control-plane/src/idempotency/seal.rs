//! Answers that only whoever has the caller's token can read: AES-256-GCM under a key that is made of the token's secret
//! (HKDF-SHA256, RFC 5869).
//!
//! Each claim of a key has a random holder, and with it a key of encryption of its own, which seals one answer: so the nonce is constant.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

const INFO: &[u8] = b"segue idempotency v1";

/// Seals and opens the answer to one request.
pub(super) struct Sealer(Option<LessSafeKey>);

impl Sealer {
    pub(super) fn new(secret: &str, id: &str, holder: &str) -> Self {
        let made = Salt::new(HKDF_SHA256, format!("{id}\n{holder}").as_bytes()).extract(secret.as_bytes());
        let key = made.expand(&[INFO], &AES_256_GCM).map(|okm| LessSafeKey::new(UnboundKey::from(okm)));
        Self(key.ok())
    }

    /// `None`: it cannot be sealed, and must not be kept.
    pub(super) fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = plain.to_vec();
        self.0.as_ref()?.seal_in_place_append_tag(nonce(), Aad::empty(), &mut bytes).ok()?;
        Some(bytes)
    }

    /// `None`: it was sealed for another secret, or is damaged.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = sealed.to_vec();
        let plain = self.0.as_ref()?.open_in_place(nonce(), Aad::empty(), &mut bytes).ok()?;
        Some(plain.to_vec())
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_answer_is_read_with_the_same_secret_for_the_same_request_alone() {
        let sealed = Sealer::new("secret", "id", "holder").seal(b"a secret answer").unwrap();
        assert!(!sealed.windows(6).any(|bytes| bytes == b"secret"));
        assert_eq!(Sealer::new("secret", "id", "holder").open(&sealed).unwrap(), b"a secret answer");
        for other in [("other", "id", "holder"), ("secret", "di", "holder"), ("secret", "id", "other")] {
            assert_eq!(Sealer::new(other.0, other.1, other.2).open(&sealed), None, "{other:?}");
        }
        let mut damaged = sealed;
        damaged[0] ^= 1;
        assert_eq!(Sealer::new("secret", "id", "holder").open(&damaged), None);
    }
}
