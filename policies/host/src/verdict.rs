//! What a policy may answer: the contract's verdict, held against its bounds before anybody acts on it.
//!
//! Invariant: a [`Denial`] can be written as a response as it is: status, reason and headers are valid.

use serde::{Deserialize, Serialize};

use crate::contract::types;
use crate::failure::Failure;

const LIMITS: usize = 4;
const TAGS: usize = 8;
const HEADERS: usize = 8;
const NAME_BYTES: usize = 64;
const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 1024;
const REDIRECT_BYTES: usize = 2048;

/// Headers that frame or route a message (RFC 9110, section 7.6.1; RFC 9112, section 6): the edge's own.
const OWN_HEADERS: [&str; 11] = [
    "connection",
    "content-length",
    "content-encoding",
    "date",
    "host",
    "keep-alive",
    "location",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// What one policy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// Yes, under conditions.
    Allow(Allowance),
    /// No.
    Deny(Denial),
    /// Nothing.
    Abstain,
}

impl Verdict {
    /// `allow`, `deny` or `abstain`: the label of the metric.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Allow(_) => "allow",
            Self::Deny(_) => "deny",
            Self::Abstain => "abstain",
        }
    }
}

/// Conditions of a yes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Allowance {
    /// Rate limits to count this request against.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
    /// How many sessions may play at once under one key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<Limit>,
    /// Words for the fact.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// A limit class of the operator's, and whom it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The class.
    pub class: String,
    /// Whom it counts.
    pub key: String,
}

/// A no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denial {
    /// 400 to 599, or a redirection.
    pub status: u16,
    /// The reason word.
    pub reason: String,
    /// Where to go instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<String>,
    /// More headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
}

impl Denial {
    /// What a request gets where a policy failed that fails closed.
    pub(crate) fn failed() -> Self {
        Self { status: 503, reason: "policy-failed".to_owned(), redirect: None, headers: Vec::new() }
    }
}

impl TryFrom<types::Verdict> for Verdict {
    type Error = Failure;

    fn try_from(verdict: types::Verdict) -> Result<Self, Failure> {
        match verdict {
            types::Verdict::Allow(allowance) => allowed(allowance).map(Self::Allow),
            types::Verdict::Deny(denial) => denied(denial).map(Self::Deny),
            types::Verdict::Abstain => Ok(Self::Abstain),
        }
        .map_err(Failure::BadOutput)
    }
}

fn allowed(allowance: types::Allowance) -> Result<Allowance, String> {
    at_most("limits", allowance.limits.len(), LIMITS)?;
    at_most("tags", allowance.tags.len(), TAGS)?;
    for tag in &allowance.tags {
        word("tag", tag, NAME_BYTES)?;
    }
    let limits = allowance.limits.into_iter().map(limit).collect::<Result<_, _>>()?;
    Ok(Allowance { limits, streams: allowance.streams.map(limit).transpose()?, tags: allowance.tags })
}

fn limit(limit: types::Limit) -> Result<Limit, String> {
    word("limit class", &limit.class, NAME_BYTES)?;
    if limit.key.is_empty() || limit.key.len() > KEY_BYTES {
        return Err(format!("limit key of {} bytes; 1 to {KEY_BYTES} are allowed", limit.key.len()));
    }
    Ok(Limit { class: limit.class, key: limit.key })
}

fn denied(denial: types::Denial) -> Result<Denial, String> {
    let redirects = REDIRECTS.contains(&denial.status);
    if !redirects && !(400..=599).contains(&denial.status) {
        return Err(format!(
            "status {}; 400 to 599 are allowed, and 301, 302, 303, 307, 308 with a redirect",
            denial.status
        ));
    }
    if redirects != denial.redirect.is_some() {
        return Err(format!("status {} and redirect belong together: both or neither", denial.status));
    }
    let reason_fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if denial.reason.is_empty() || denial.reason.len() > NAME_BYTES || !denial.reason.bytes().all(reason_fits) {
        return Err(format!("the reason is no word of 1 to {NAME_BYTES} of a-z 0-9 -"));
    }
    if let Some(target) = &denial.redirect {
        let absolute = target.starts_with("https://") || target.starts_with("http://");
        // Two slashes would name a host, and not a path of this one.
        if !absolute && (!target.starts_with('/') || target.starts_with("//")) {
            return Err("the redirect is neither https://… nor a path from /".to_owned());
        }
        word("redirect", target, REDIRECT_BYTES)?;
    }
    at_most("headers", denial.headers.len(), HEADERS)?;
    for (name, value) in &denial.headers {
        header(name, value)?;
    }
    Ok(Denial { status: denial.status, reason: denial.reason, redirect: denial.redirect, headers: denial.headers })
}

/// RFC 9110, sections 5.1 and 5.5.
fn header(name: &str, value: &str) -> Result<(), String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(token) {
        return Err("a header name that is none".to_owned());
    }
    if OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
        return Err(format!("the header {name}, which is the edge's own"));
    }
    if value.len() > VALUE_BYTES || !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
        return Err(format!("a value of the header {name} that is none: at most {VALUE_BYTES} bytes of visible ASCII"));
    }
    Ok(())
}

fn word(what: &str, text: &str, bound: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > bound || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("a {what} that is not 1 to {bound} bytes of visible ASCII"));
    }
    Ok(())
}

fn at_most(what: &str, count: usize, bound: usize) -> Result<(), String> {
    if count > bound { Err(format!("{count} {what}; at most {bound} are allowed")) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
