//! Content keys (RFC 8216 section 4.3.2.4), and the wrapping keys that hide them at rest.
//!
//! A worker makes a content key, encrypts segments with it and stores it wrapped, under the name that playlists give as
//! its URI. An edge that has the same wrapping key unwraps it for whoever may have it. Nobody else needs to know any.
//!
//! # Invariants
//! - A wrapped key is AES-256-GCM (NIST SP 800-38D) under a random nonce, and the place where it stands is authenticated
//!   with it: a key that was copied to another track, version or name is not unwrapped there.
//! - The key of the cipher is derived from the secret, for this use alone: a secret that signs tickets too would not
//!   give away the other.
//! - Neither key appears in `Debug` or in an error, and a content key's bytes are overwritten when it is dropped.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use zeroize::Zeroize as _;

use crate::keyring::{MAX_KEYS, MAX_KID_BYTES, kid_is_valid};
use crate::secret::SigningSecret;

/// Bytes of a content key: AES-128.
pub const CONTENT_KEY_BYTES: usize = 16;
/// What a wrapped key begins with. Then come the wrapping key's id, a colon, and base64url of nonce and ciphertext.
const MARK: &str = "segue-content-key-v1:";
/// What the cipher's key is derived with.
const DERIVED_FOR: &[u8] = b"segue-content-key-v1";

/// A key that segments are encrypted with.
pub struct ContentKey([u8; CONTENT_KEY_BYTES]);

/// One secret under its id, as a configuration names it.
#[derive(Debug, Clone)]
pub struct WrappingKey {
    /// Stands in what it wrapped: 1 to 64 of `A-Z a-z 0-9 - . _ ~`.
    pub id: String,
    /// The secret.
    pub secret: SigningSecret,
}

/// All wrapping keys of a role. One wraps; those before it still unwrap.
#[derive(Default)]
pub struct WrappingKeys {
    keys: Vec<(String, RandomizedNonceKey)>,
}

/// Why a content key is not wrapped, or not unwrapped. Each text is for an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    /// An id that is none.
    #[error("{0:?} cannot be a wrapping key's id; use 1 to 64 letters, digits and - . _ ~")]
    IdInvalid(String),
    /// More ids than a house needs.
    #[error("{0} wrapping keys are more than the {MAX_KEYS} that are kept")]
    TooMany(usize),
    /// No key of this id.
    #[error("the wrapping key {0:?} is not known here; name it in [wrapping_keys]")]
    Unknown(String),
    /// The id is known, and its secret is another, or what was wrapped is damaged or stands at another place.
    #[error(
        "what the wrapping key {0:?} has wrapped does not open with the secret that [wrapping_keys] has under this id: the \
         secret is another one than the worker's, or the object was damaged or moved"
    )]
    Wrong(String),
    /// It begins like a wrapped key and goes on otherwise.
    #[error("this is no wrapped content key")]
    Malformed,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    NoRandomness,
}

impl WrapError {
    /// The reason word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::IdInvalid(_) => "wrapping-key-id",
            Self::TooMany(_) => "wrapping-keys-too-many",
            Self::Unknown(_) => "wrapping-key-unknown",
            Self::Wrong(_) => "wrapping-key-wrong",
            Self::Malformed => "wrapped-key-malformed",
            Self::NoRandomness => "no-randomness",
        }
    }
}

impl ContentKey {
    /// A new one.
    ///
    /// # Errors
    /// [`WrapError::NoRandomness`].
    pub fn generate() -> Result<Self, WrapError> {
        let mut key = Self([0; CONTENT_KEY_BYTES]);
        getrandom::fill(&mut key.0).map_err(|_| WrapError::NoRandomness)?;
        Ok(key)
    }
}

impl From<[u8; CONTENT_KEY_BYTES]> for ContentKey {
    fn from(bytes: [u8; CONTENT_KEY_BYTES]) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for ContentKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for ContentKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentKey(…)")
    }
}

impl fmt::Debug for WrappingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

impl WrappingKeys {
    /// Takes them in the order of the configuration; ids are told apart by their names there.
    ///
    /// # Errors
    /// [`WrapError::IdInvalid`] and [`WrapError::TooMany`].
    pub fn new(keys: &[WrappingKey]) -> Result<Self, WrapError> {
        if keys.len() > MAX_KEYS {
            return Err(WrapError::TooMany(keys.len()));
        }
        let made = |WrappingKey { id, secret }: &WrappingKey| {
            let invalid = || WrapError::IdInvalid(id.chars().take(MAX_KID_BYTES).collect());
            if !kid_is_valid(id) {
                return Err(invalid());
            }
            let mut derived = secret.sign(&[DERIVED_FOR]);
            // 32 bytes are what this cipher takes: there is no other error.
            let key = RandomizedNonceKey::new(&AES_256_GCM, &derived).map_err(|_| invalid());
            derived.zeroize();
            Ok((id.clone(), key?))
        };
        Ok(Self { keys: keys.iter().map(made).collect::<Result<_, _>>()? })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Their ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(id, _)| id.as_str())
    }

    fn find(&self, id: &str) -> Result<&RandomizedNonceKey, WrapError> {
        let found = self.keys.iter().find(|(known, _)| known == id);
        found.map(|(_, key)| key).ok_or_else(|| WrapError::Unknown(id.chars().take(MAX_KID_BYTES).collect()))
    }

    /// Wraps a content key that will stand at `place`: `<track>/<version>/…`, as a player asks for it.
    ///
    /// # Errors
    /// [`WrapError::Unknown`], and [`WrapError::NoRandomness`].
    pub fn wrap(&self, id: &str, key: &ContentKey, place: &str) -> Result<String, WrapError> {
        let cipher = self.find(id)?;
        let mut bytes = key.0.to_vec();
        let sealed = cipher.seal_in_place_append_tag(Aad::from(bound(id, place)), &mut bytes);
        let nonce = sealed.map_err(|_| {
            bytes.zeroize();
            WrapError::NoRandomness
        })?;
        let mut all = nonce.as_ref().to_vec();
        all.extend_from_slice(&bytes);
        Ok(format!("{MARK}{id}:{}", BASE64.encode(all)))
    }

    /// Unwraps what stands at `place`.
    ///
    /// # Errors
    /// [`WrapError::Malformed`], [`WrapError::Unknown`] and [`WrapError::Wrong`].
    pub fn unwrap(&self, wrapped: &[u8], place: &str) -> Result<ContentKey, WrapError> {
        let text = std::str::from_utf8(wrapped).map_err(|_| WrapError::Malformed)?;
        let (id, encoded) =
            text.strip_prefix(MARK).and_then(|rest| rest.split_once(':')).ok_or(WrapError::Malformed)?;
        let mut bytes = BASE64.decode(encoded).map_err(|_| WrapError::Malformed)?;
        let length = NONCE_LEN + CONTENT_KEY_BYTES + AES_256_GCM.tag_len();
        let Some((nonce, sealed)) = bytes.split_at_mut_checked(NONCE_LEN).filter(|_| text.len() < 512) else {
            return Err(WrapError::Malformed);
        };
        if NONCE_LEN + sealed.len() != length {
            return Err(WrapError::Malformed);
        }
        let cipher = self.find(id)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| WrapError::Malformed)?;
        let opened = cipher.open_in_place(nonce, Aad::from(bound(id, place)), sealed);
        let opened = opened.map_err(|_| WrapError::Wrong(id.to_owned()))?;
        let key = <[u8; CONTENT_KEY_BYTES]>::try_from(&*opened).map(ContentKey);
        opened.zeroize();
        key.map_err(|_| WrapError::Malformed)
    }
}

/// Whether these bytes are, or claim to be, a wrapped content key.
#[must_use]
pub fn is_wrapped(bytes: &[u8]) -> bool {
    bytes.starts_with(MARK.as_bytes())
}

/// Where a bucket keeps what shows whether a role's secret of this id is the one that workers wrap with: a wrapped key
/// that encrypts nothing. No track is called so: tracks have twelve letters and digits.
#[must_use]
pub fn check_object(id: &str) -> String {
    format!("hls/{}", check_place(id))
}

/// The place that such an object is bound to.
#[must_use]
pub fn check_place(id: &str) -> String {
    format!("segue-wrapping/{id}.check")
}

/// What is authenticated beside the key. No id holds a colon.
fn bound(id: &str, place: &str) -> Vec<u8> {
    format!("{MARK}{id}:{place}").into_bytes()
}

#[cfg(test)]
mod tests;
