//! Tickets: compact JWS (RFC 7515 section 7.1) signed with HS256 (RFC 7518 section 3.2), and nothing else.
//!
//! # Invariants
//! - The size is bounded before anything is parsed.
//! - The algorithm is ours to say, not the header's: any other `alg` is refused, and so is every `crit`.
//! - The claims are not decoded, let alone parsed, before the signature over their bytes holds.
//! - base64url is strict: no padding, no stray bits, so that a ticket has one spelling.
//! - What [`mint`] makes, [`verify`] takes.
//!
//! # On failure
//! One [`Refusal`] per cause. All that an attacker learns from it is which step stopped him.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

use crate::claims::{Claims, ClaimsError, Verified};
use crate::keyring::{Key, Keyring, MAX_KID_BYTES, Place, kid_is_valid};
use crate::refusal::Refusal;

/// The longest ticket, in bytes: it travels in every request line, and proxies on the way cut lines at 8 KiB.
pub const MAX_TICKET_BYTES: usize = 2048;

/// Why a ticket was not minted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The key's name could not be found again by an edge.
    #[error("key name {0:?} must be 1 to 64 characters of A-Z a-z 0-9 - . _ ~")]
    KidInvalid(String),
    /// An edge would refuse the claims.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
    /// `nbf` is at or after `exp`.
    #[error("the ticket would never be valid: nbf is not before exp")]
    NeverValid,
    /// The ticket would be longer than [`MAX_TICKET_BYTES`].
    #[error("the ticket would have {0} bytes, more than 2048; put less into ctx")]
    TooLong(usize),
    /// The claims could not be written as JSON.
    #[error("the claims can not be written as JSON")]
    Unwritable,
}

impl MintError {
    /// The reason word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::KidInvalid(_) => "kid-invalid",
            Self::Claims(error) => error.kind(),
            Self::NeverValid => "ticket-never-valid",
            Self::TooLong(_) => "ticket-too-long",
            Self::Unwritable => "claims-unwritable",
        }
    }
}

/// [`verify`] with its leeway kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verifier {
    /// Seconds by which the clocks of minter and edge may differ. Below zero counts as zero.
    pub leeway: i64,
}

impl Verifier {
    /// Verifies signature, algorithm, size and times, not the scope.
    ///
    /// # Errors
    /// As [`verify`].
    pub fn verify(&self, keyring: &Keyring, ticket: &str, now: i64) -> Result<Verified, Refusal> {
        verify(keyring, ticket, now, self.leeway)
    }
}

/// Mints a ticket. The key's time is not looked at: choose it by [`Keyring::signer`].
///
/// # Errors
/// Where every edge would refuse the ticket.
pub fn mint(key: &Key, claims: &Claims) -> Result<String, MintError> {
    if !kid_is_valid(&key.kid) {
        return Err(MintError::KidInvalid(key.kid.chars().take(MAX_KID_BYTES).collect()));
    }
    claims.read()?;
    if claims.nbf.is_some_and(|nbf| nbf >= claims.exp) {
        return Err(MintError::NeverValid);
    }
    // The characters of a key name need no escaping in JSON.
    let header = format!(r#"{{"alg":"HS256","kid":"{}","typ":"JWT"}}"#, key.kid);
    let payload = serde_json::to_vec(claims).map_err(|_| MintError::Unwritable)?;
    let mut ticket = URL_SAFE_NO_PAD.encode(header);
    ticket.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut ticket);
    let signature = key.secret.sign(&[ticket.as_bytes()]);
    ticket.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut ticket);
    if ticket.len() > MAX_TICKET_BYTES {
        return Err(MintError::TooLong(ticket.len()));
    }
    Ok(ticket)
}

/// Verifies size, algorithm, key, signature and times at `now` (seconds since the epoch); `leeway` in
/// seconds. The scope is for [`Verified::admits`], revocation for [`Revocations::check`](crate::Revocations::check).
///
/// # Errors
/// A [`Refusal`].
pub fn verify(keyring: &Keyring, ticket: &str, now: i64, leeway: i64) -> Result<Verified, Refusal> {
    verify_placed(keyring, ticket, now, leeway).map(|(verified, _)| verified)
}

/// As [`verify`], and tells where the key stands in the ring.
pub(crate) fn verify_placed(
    keyring: &Keyring,
    ticket: &str,
    now: i64,
    leeway: i64,
) -> Result<(Verified, Place), Refusal> {
    let (verified, place) = prove(keyring, ticket)?;
    keyring.admit(place, now, leeway)?;
    verified.claims.check_time(now, leeway)?;
    keyring.count_accepted(place);
    Ok((verified, place))
}

/// Verifies a ticket for renewal: as [`verify`], but `renew_until` stands in for `exp`.
///
/// # Errors
/// A [`Refusal`]; [`Refusal::NotRenewable`] where `renew_until` is past or missing.
pub fn verify_for_renewal(keyring: &Keyring, ticket: &str, now: i64, leeway: i64) -> Result<Verified, Refusal> {
    let (verified, place) = prove(keyring, ticket)?;
    keyring.admit(place, now, leeway)?;
    verified.claims.check_renewal(now, leeway)?;
    keyring.count_accepted(place);
    Ok(verified)
}

/// Everything that does not depend on the time.
fn prove(keyring: &Keyring, ticket: &str) -> Result<(Verified, Place), Refusal> {
    check_size(ticket)?;
    let (signed, signature) = ticket.rsplit_once('.').ok_or(Refusal::TicketMalformed)?;
    let (header, payload) = signed.split_once('.').ok_or(Refusal::TicketMalformed)?;
    if payload.contains('.') {
        return Err(Refusal::TicketMalformed);
    }
    let kid = read_header(header)?;
    let (place, key) = keyring.find(&kid).ok_or(Refusal::KeyUnknown)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Refusal::TicketMalformed)?;
    if !key.secret.verifies(&[signed.as_bytes()], &signature) {
        return Err(Refusal::SignatureInvalid);
    }
    let claims: Claims = read_object(payload).ok_or(Refusal::ClaimsInvalid)?;
    let verified = Verified::from_ticket(claims, kid, ticket).map_err(|_| Refusal::ClaimsInvalid)?;
    Ok((verified, place))
}

pub(crate) fn check_size(ticket: &str) -> Result<(), Refusal> {
    match ticket.len() {
        0 => Err(Refusal::TicketMissing),
        1..=MAX_TICKET_BYTES => Ok(()),
        _ => Err(Refusal::TicketTooLong),
    }
}

/// The header members that are understood (RFC 7515 section 4.1). The others are ignored, as the section
/// says: none of them can lend a key. A known name that comes twice fails the parse.
#[derive(Deserialize)]
struct Header {
    alg: Option<String>,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

/// Reads the header and returns the `kid`.
fn read_header(encoded: &str) -> Result<String, Refusal> {
    let header: Header = read_object(encoded).ok_or(Refusal::TicketMalformed)?;
    if header.alg.as_deref() != Some("HS256") {
        return Err(Refusal::AlgorithmRefused);
    }
    if header.crit {
        return Err(Refusal::CriticalHeaderRefused);
    }
    // Something that says it is another kind of token is not a ticket, even if our key signed it (RFC 8725 section 3.11).
    let jwt = |typ: &str| typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("application/jwt");
    if header.typ.as_deref().is_some_and(|typ| !jwt(typ)) {
        return Err(Refusal::TicketMalformed);
    }
    header.kid.ok_or(Refusal::KeyUnknown)
}

/// Decodes base64url and reads a JSON object. serde would also read an array as the members of a struct; a
/// JWS knows objects only.
fn read_object<T: DeserializeOwned>(encoded: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    if json.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(&json).ok()
}

/// True for a member that is there, whatever its value: `"crit": null` is a `crit` too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

#[cfg(test)]
mod tests;
