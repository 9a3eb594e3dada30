//! The signed debug header: `Segue-Debug: <exp>.<sig>`, where `sig` is base64url(HMAC-SHA256(secret,
//! `"segue-debug-v1\n" + canonical path + "\n" + exp`)). Whoever shows a right one is told how an answer came about.
//!
//! # Invariants
//! - Its first line keeps it from ever being a ticket or a signed URL, even under the same secret.
//! - `exp` lies at most [`MAX_LIFE_S`] ahead: a header that leaked is soon of no use.
//!
//! # On failure
//! `false`, without a reason: a wrong header is to be told nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::path::CanonicalPath;
use crate::secret::SigningSecret;

/// The header's name.
pub const HEADER: &str = "segue-debug";

/// The longest life of a header, in seconds.
pub const MAX_LIFE_S: i64 = 24 * 3600;

const DOMAIN: &[u8] = b"segue-debug-v1\n";

/// The value that asks about `path` until `exp` (seconds since the epoch).
#[must_use]
pub fn sign(secret: &SigningSecret, path: &CanonicalPath, exp: i64) -> String {
    let exp = exp.max(0).to_string();
    let signature = URL_SAFE_NO_PAD.encode(secret.sign(&[DOMAIN, path.as_str().as_bytes(), b"\n", exp.as_bytes()]));
    format!("{exp}.{signature}")
}

/// Whether `value` asks about `path` rightfully at `now`.
#[must_use]
pub fn verify(secret: &SigningSecret, path: &CanonicalPath, value: &str, now: i64) -> bool {
    let Some((exp, signature)) = value.split_once('.') else { return false };
    let Ok(until) = exp.parse::<i64>() else { return false };
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
    until > now
        && until <= now.saturating_add(MAX_LIFE_S)
        && secret.verifies(&[DOMAIN, path.as_str().as_bytes(), b"\n", exp.as_bytes()], &signature)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_is_good_for_one_path_and_one_day_at_most() {
        let secret = SigningSecret::parse("a secret that is long enough to be one").unwrap();
        let other = SigningSecret::parse("another secret that is long enough for it").unwrap();
        let path = |text| CanonicalPath::parse(text).unwrap();
        let value = sign(&secret, &path("/hls/t/a"), 1_000);
        assert!(verify(&secret, &path("/hls/t/a"), &value, 999));
        assert!(!verify(&secret, &path("/hls/t/b"), &value, 999), "another path");
        assert!(!verify(&other, &path("/hls/t/a"), &value, 999), "another secret");
        assert!(!verify(&secret, &path("/hls/t/a"), &value, 1_000), "over");
        let late = sign(&secret, &path("/hls/t/a"), 1_000 + MAX_LIFE_S);
        assert!(!verify(&secret, &path("/hls/t/a"), &late, 999), "too far ahead");
        for wrong in ["", ".", "1000", "1000.", "x.y", &value[..value.len() - 1], &format!("{value}A")] {
            assert!(!verify(&secret, &path("/hls/t/a"), wrong, 999), "{wrong:?}");
        }
    }
}
