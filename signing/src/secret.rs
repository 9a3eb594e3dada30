//! Signing secrets: how they are written, and HMAC-SHA256 (RFC 2104) with them.
//!
//! # Invariants
//! - At least [`MIN_SECRET_BYTES`] bytes once decoded (RFC 7518 section 3.2).
//! - Neither `Debug` nor an error repeats a byte of a secret. Comparisons take constant time.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// HS256 asks for a key at least as long as the hash's output (RFC 7518 section 3.2).
pub const MIN_SECRET_BYTES: usize = 32;

const BASE64_CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, BASE64_CONFIG);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, BASE64_CONFIG);

/// A secret that signs and verifies.
#[derive(Clone)]
pub struct SigningSecret {
    bytes: Box<[u8]>,
    // Both key blocks of the HMAC are already hashed in here: a signature starts from a copy and saves two compressions.
    keyed: Hmac<Sha256>,
}

/// Why a secret cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Shorter than [`MIN_SECRET_BYTES`] once decoded.
    #[error("the secret has {0} bytes; HS256 needs at least 32 (`openssl rand -hex 32`, written as hex:…)")]
    TooShort(usize),
    /// What follows `hex:` is not hexadecimal.
    #[error("the secret says hex: but what follows is not an even number of hexadecimal digits")]
    NotHex,
    /// What follows `base64:` is not base64 (RFC 4648 section 4 or 5, padded or not).
    #[error("the secret says base64: but what follows is not base64")]
    NotBase64,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes for a new secret")]
    NoRandomness,
}

impl SecretError {
    /// The reason word.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::TooShort(_) => "secret-too-short",
            Self::NotHex => "secret-not-hex",
            Self::NotBase64 => "secret-not-base64",
            Self::NoRandomness => "secret-no-randomness",
        }
    }
}

impl SigningSecret {
    /// Reads a secret as it is written in a configuration: `hex:…` and `base64:…` are decoded, anything
    /// else is taken as its UTF-8 bytes, none trimmed.
    ///
    /// # Errors
    /// A [`SecretError`] that says what is wrong without repeating it.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        if let Some(digits) = text.strip_prefix("hex:") {
            Self::from_bytes(decode_hex(digits).ok_or(SecretError::NotHex)?)
        } else if let Some(encoded) = text.strip_prefix("base64:") {
            let bytes = STANDARD.decode(encoded).or_else(|_| URL_SAFE.decode(encoded));
            Self::from_bytes(bytes.map_err(|_| SecretError::NotBase64)?)
        } else {
            Self::from_bytes(text.as_bytes().to_vec())
        }
    }

    /// Takes the bytes of a secret as they are.
    ///
    /// # Errors
    /// [`SecretError::TooShort`] below [`MIN_SECRET_BYTES`].
    pub fn from_bytes(bytes: impl Into<Box<[u8]>>) -> Result<Self, SecretError> {
        let bytes = bytes.into();
        if bytes.len() < MIN_SECRET_BYTES {
            return Err(SecretError::TooShort(bytes.len()));
        }
        Self::of_any_length(bytes)
    }

    fn of_any_length(bytes: Box<[u8]>) -> Result<Self, SecretError> {
        // HMAC takes keys of any length: the error is one of its signature only.
        let keyed = Hmac::<Sha256>::new_from_slice(&bytes).map_err(|_| SecretError::TooShort(bytes.len()))?;
        Ok(Self { bytes, keyed })
    }

    /// A new random secret of 32 bytes in the form that [`SigningSecret::parse`] reads: `hex:` and 64 digits.
    ///
    /// # Errors
    /// [`SecretError::NoRandomness`] where the system has none.
    pub fn generate() -> Result<String, SecretError> {
        use fmt::Write as _;
        let mut bytes = [0u8; MIN_SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(|_| SecretError::NoRandomness)?;
        let mut text = String::with_capacity(4 + 2 * bytes.len());
        text.push_str("hex:");
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Ok(text)
    }

    /// HMAC-SHA256 over the parts, one after the other.
    #[must_use]
    pub(crate) fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.mac(parts).finalize().into_bytes().into()
    }

    /// Whether `signature` is the HMAC-SHA256 over the parts; compared in constant time.
    #[must_use]
    pub(crate) fn verifies(&self, parts: &[&[u8]], signature: &[u8]) -> bool {
        self.mac(parts).verify_slice(signature).is_ok()
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        for part in parts {
            mac.update(part);
        }
        mac
    }
}

impl PartialEq for SigningSecret {
    fn eq(&self, other: &Self) -> bool {
        self.bytes.ct_eq(&other.bytes).into()
    }
}

impl Eq for SigningSecret {}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

fn decode_hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

#[cfg(test)]
mod tests;
