//! What a ticket says, and what is known once its signature holds.
//!
//! # Invariants
//! - A [`Verified`] is only made from claims over which a signature held. Its scope and its address were
//!   read then, so that a request pays for comparisons alone.
//! - What a claim of ours cannot be read as is refused: an `ip` that is no address must not open the path to all.
//!   Claims that are not ours (`iss`, `aud`, …) are ignored, as the contract says.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::{IpNet, Ipv4Net};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Number, Value};
use sha2::{Digest as _, Sha256};

use crate::path::CanonicalPath;
use crate::refusal::Refusal;
use crate::scope::{Scope, ScopeError};

/// NumericDates beyond this many seconds either way are refused where they come as fractions: an f64 no longer counts them one by one.
const MAX_FRACTIONAL_DATE: f64 = 9_007_199_254_740_992.0;

/// How much of a hash stands in for a session: 16 bytes do not collide by accident.
const SESSION_HASH_BYTES: usize = 16;

/// The claims of a ticket. Times are seconds since the epoch (RFC 7519 section 2, NumericDate); a minter's
/// fractions are rounded to the stricter second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// From this second on the ticket is void.
    #[serde(deserialize_with = "rounded_down")]
    pub exp: i64,
    /// Before this second the ticket is not valid yet.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rounded_up_if_any")]
    pub nbf: Option<i64>,
    /// When it was issued. Without it, a revocation by time of issue always hits.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rounded_down_if_any")]
    pub iat: Option<i64>,
    /// The scope: a canonical path prefix that ends in `/`, or one whole path; decoded, never escaped.
    pub path: String,
    /// The listener's device session, across tracks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// The listener, opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// The client address, or the CIDR block it must be in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The limit class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lim: Option<String>,
    /// Until when the ticket may be renewed, even if it has expired by then.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rounded_down_if_any")]
    pub renew_until: Option<i64>,
    /// An object for policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctx: Option<Map<String, Value>>,
}

/// What is wrong with claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// The claim `path` is no scope.
    #[error("claim path: {0}")]
    Scope(#[from] ScopeError),
    /// The claim `ip` is neither an address nor a CIDR block.
    #[error("claim ip: neither an address (192.0.2.1, 2001:db8::1) nor a CIDR block (192.0.2.0/24)")]
    Address,
    /// A claim is there but empty.
    #[error("claim {0}: empty; leave it out instead")]
    Empty(&'static str),
}

impl ClaimsError {
    /// The reason word.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Scope(error) => error.kind(),
            Self::Address => "ip-invalid",
            Self::Empty(_) => "claim-empty",
        }
    }
}

impl Claims {
    /// Claims that open `path` until `exp` and say nothing else.
    #[must_use]
    pub fn new(path: impl Into<String>, exp: i64) -> Self {
        Self { exp, path: path.into(), ..Self::default() }
    }

    /// Whether `exp` and `nbf` allow `now`, with `leeway` seconds of doubt about either clock.
    ///
    /// # Errors
    /// [`Refusal::Expired`] or [`Refusal::NotYetValid`].
    pub fn check_time(&self, now: i64, leeway: i64) -> Result<(), Refusal> {
        if now >= self.exp.saturating_add(leeway.max(0)) {
            return Err(Refusal::Expired);
        }
        self.check_begin(now, leeway)
    }

    /// Whether `nbf` is past and `renew_until` is not; `exp` has no say in a renewal.
    pub(crate) fn check_renewal(&self, now: i64, leeway: i64) -> Result<(), Refusal> {
        self.check_begin(now, leeway)?;
        match self.renew_until {
            Some(until) if now < until.saturating_add(leeway.max(0)) => Ok(()),
            _ => Err(Refusal::NotRenewable),
        }
    }

    fn check_begin(&self, now: i64, leeway: i64) -> Result<(), Refusal> {
        if self.nbf.is_some_and(|nbf| now.saturating_add(leeway.max(0)) < nbf) {
            return Err(Refusal::NotYetValid);
        }
        Ok(())
    }

    /// Reads what the claims mean: the one place that mint and verify share, so that nothing is minted that would be refused.
    pub(crate) fn read(&self) -> Result<(Scope, Option<IpNet>), ClaimsError> {
        for (name, claim) in [("sid", &self.sid), ("sub", &self.sub), ("lim", &self.lim)] {
            if claim.as_deref() == Some("") {
                return Err(ClaimsError::Empty(name));
            }
        }
        let scope = Scope::parse(&self.path)?;
        let address = self.ip.as_deref().map(|ip| parse_block(ip).ok_or(ClaimsError::Address)).transpose()?;
        Ok((scope, address))
    }
}

/// A ticket or signed URL whose signature holds and whose times allowed it when it was verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// What it says.
    pub claims: Claims,
    /// The key that signed it.
    pub kid: String,
    /// What it opens.
    pub scope: Scope,
    /// The session: the claim `sid`, or the first 16 bytes of the SHA-256 of what was signed, in base64url.
    pub sid: String,
    address: Option<IpNet>,
}

impl Verified {
    /// Takes a ticket's claims after its signature held.
    pub(crate) fn from_ticket(claims: Claims, kid: String, ticket: &str) -> Result<Self, ClaimsError> {
        let (scope, address) = claims.read()?;
        let sid = claims.sid.clone().unwrap_or_else(|| session_hash(&[ticket.as_bytes()]));
        Ok(Self { claims, kid, scope, sid, address })
    }

    /// Takes a signed URL's meaning after its signature held: this one path, until `exp`.
    pub(crate) fn from_url(path: &CanonicalPath, kid: String, exp: i64, signed: &[&[u8]]) -> Self {
        Self {
            claims: Claims::new(path.as_str(), exp),
            kid,
            scope: Scope::whole(path.clone()),
            sid: session_hash(signed),
            address: None,
        }
    }

    /// Takes what somebody else's ticket says, after whoever knows its scheme found that its signature holds. `kid` names the scheme, `sid` is
    /// the session where the claims know none.
    ///
    /// # Errors
    /// [`ClaimsError`] where a claim cannot be read.
    pub fn from_foreign(claims: Claims, kid: String, sid: String) -> Result<Self, ClaimsError> {
        let (scope, address) = claims.read()?;
        let sid = claims.sid.clone().unwrap_or(sid);
        Ok(Self { claims, kid, scope, sid, address })
    }

    /// Whether it opens `path` for this client. `None` is a client whose address is not known: it fails
    /// every ticket that is bound to one.
    ///
    /// # Errors
    /// [`Refusal::OutOfScope`] or [`Refusal::AddressMismatch`].
    pub fn admits(&self, path: &CanonicalPath, client: Option<IpAddr>) -> Result<(), Refusal> {
        if !self.scope.allows(path) {
            return Err(Refusal::OutOfScope);
        }
        match (&self.address, client) {
            (None, _) => Ok(()),
            // A dual-stack listener sees IPv4 clients as ::ffff:a.b.c.d.
            (Some(block), Some(client)) if block.contains(&client.to_canonical()) => Ok(()),
            (Some(_), _) => Err(Refusal::AddressMismatch),
        }
    }
}

/// Reads an address or a CIDR block; IPv4 written as IPv6 is taken as the IPv4 that it is.
fn parse_block(text: &str) -> Option<IpNet> {
    let block = match text.parse::<IpNet>() {
        Ok(block) => block,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    let IpNet::V6(v6) = block else { return Some(block) };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(v4), Some(prefix)) => Ipv4Net::new(v4, prefix).ok().map(IpNet::V4),
        _ => Some(block),
    }
}

fn session_hash(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    URL_SAFE_NO_PAD.encode(digest.get(..SESSION_HASH_BYTES).unwrap_or(&digest))
}

fn rounded_down<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    seconds(&Number::deserialize(deserializer)?, f64::floor).ok_or_else(|| D::Error::custom("not a NumericDate"))
}

fn rounded_down_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    rounded_if_any(deserializer, f64::floor)
}

fn rounded_up_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    rounded_if_any(deserializer, f64::ceil)
}

fn rounded_if_any<'de, D: Deserializer<'de>>(deserializer: D, round: fn(f64) -> f64) -> Result<Option<i64>, D::Error> {
    let Some(number) = Option::<Number>::deserialize(deserializer)? else { return Ok(None) };
    seconds(&number, round).map(Some).ok_or_else(|| D::Error::custom("not a NumericDate"))
}

/// Whole seconds of a NumericDate, which may have a fraction: PyJWT passes `time.time()` through as it is.
fn seconds(number: &Number, round: fn(f64) -> f64) -> Option<i64> {
    if let Some(seconds) = number.as_i64() {
        return Some(seconds);
    }
    let seconds = round(number.as_f64()?);
    // In this range the conversion is exact.
    (seconds.abs() <= MAX_FRACTIONAL_DATE).then_some(seconds as i64)
}

#[cfg(test)]
mod tests;
