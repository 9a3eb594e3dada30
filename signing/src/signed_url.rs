//! Signed URLs for one object: `?kid=…&exp=…&sig=…`, where `sig` is
//! base64url(HMAC-SHA256(secret, `"segue-url-v1\n" + canonical path + "\n" + exp`)).
//!
//! # Invariants
//! - A canonical path holds no newline, so that what is signed reads in one way only. Its first line keeps
//!   a URL's signature from ever being a ticket's under the same key.
//! - `exp` is signed as it is written, and has one spelling: decimal digits without leading zeros.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::claims::Verified;
use crate::keyring::{Key, Keyring};
use crate::path::CanonicalPath;
use crate::refusal::Refusal;

const DOMAIN: &[u8] = b"segue-url-v1\n";

/// A 32-byte signature in base64url without padding.
const SIGNATURE_CHARS: usize = 43;

/// The year 5138 has eleven digits; more is no time.
const MAX_EXP_DIGITS: usize = 11;

/// The largest `exp` that has as many digits.
const MAX_EXP: i64 = 99_999_999_999;

/// The query that opens `path` until `exp` (seconds since the epoch): `kid=…&exp=…&sig=…`. An `exp` out of
/// range is moved into it, so that the URL is void at once or lasts to the year 5138.
#[must_use]
pub fn sign(key: &Key, path: &CanonicalPath, exp: i64) -> String {
    let exp = exp.clamp(0, MAX_EXP).to_string();
    let signature = URL_SAFE_NO_PAD.encode(key.secret.sign(&signed(path, &exp)));
    // A name from a keyring needs no escapes; one that does can at least not add parameters.
    let kid = utf8_percent_encode(&key.kid, KID_ESCAPED);
    format!("kid={kid}&exp={exp}&sig={signature}")
}

const KID_ESCAPED: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Verifies the three parameters for `path`, as they came (the keyring's names need no decoding).
///
/// # Errors
/// A [`Refusal`]. Another path than the signed one is [`Refusal::SignatureInvalid`]: the two can not be told apart.
pub fn verify(
    keyring: &Keyring,
    path: &CanonicalPath,
    kid: &str,
    exp: &str,
    sig: &str,
    now: i64,
    leeway: i64,
) -> Result<Verified, Refusal> {
    let until = parse_exp(exp).ok_or(Refusal::TicketMalformed)?;
    if sig.len() != SIGNATURE_CHARS {
        return Err(Refusal::TicketMalformed);
    }
    let signature = URL_SAFE_NO_PAD.decode(sig).map_err(|_| Refusal::TicketMalformed)?;
    let (place, key) = keyring.find(kid).ok_or(Refusal::KeyUnknown)?;
    let signed = signed(path, exp);
    if !key.secret.verifies(&signed, &signature) {
        return Err(Refusal::SignatureInvalid);
    }
    keyring.admit(place, now, leeway)?;
    let verified = Verified::from_url(path, key.kid.clone(), until, &signed);
    verified.claims.check_time(now, leeway)?;
    keyring.count_accepted(place);
    Ok(verified)
}

fn signed<'a>(path: &'a CanonicalPath, exp: &'a str) -> [&'a [u8]; 4] {
    [DOMAIN, path.as_str().as_bytes(), b"\n", exp.as_bytes()]
}

fn parse_exp(text: &str) -> Option<i64> {
    let digits = (1..=MAX_EXP_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let one_spelling = text == "0" || !text.starts_with('0');
    if digits && one_spelling { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
