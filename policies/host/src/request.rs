//! A request as the edge shows it to its policies.
//!
//! Invariants: filling one costs a dozen copies of references; headers, claims and `ctx` are looked up when a policy asks,
//! not before. Access policies see no header that carries a ticket.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;

use crate::contract::types;

/// What an object is, by its name; as in the contract.
pub use crate::contract::types::Kind;

/// Parts a field from the next one.
const SEPARATOR: char = '\u{1f}';
/// Stands for a field that is not there.
const ABSENT: char = '\0';

/// Headers that carry tickets: shown to ticket schemes alone.
const SECRET_HEADERS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// A request's headers.
pub trait Headers {
    /// The value by lower-case name; several of one name joined by `, ` (RFC 9110, section 5.3). What is no UTF-8 is not there.
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// What the accepted ticket says.
pub trait Claims {
    /// A claim by its name, numbers in decimal.
    fn claim(&self, name: &str) -> Option<Cow<'_, str>>;
    /// A value of `ctx` by JSON pointer (RFC 6901).
    fn context(&self, pointer: &str) -> Option<Cow<'_, str>>;
}

/// No headers, no claims.
impl Headers for () {
    fn get(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
}

impl Claims for () {
    fn claim(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn context(&self, _pointer: &str) -> Option<Cow<'_, str>> {
        None
    }
}

/// One request. `path` and `query` without tickets for access policies, as they stand in the request line for ticket schemes.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct RequestView<'a> {
    pub method: &'a str,
    /// Without port, in lower case.
    pub host: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub track: &'a str,
    pub file: &'a str,
    pub kind: Kind,
    pub pos_ms: Option<u64>,
    pub media_ms: Option<u32>,
    pub address: Option<IpAddr>,
    /// ISO 3166-1 alpha-2, in capitals.
    pub country: Option<&'a str>,
    pub edge: &'a str,
    /// Milliseconds since the epoch.
    pub now_ms: u64,
    /// Whom a canary goes by: the session. Empty: the address is taken.
    pub session: &'a str,
    pub headers: &'a dyn Headers,
    pub claims: &'a dyn Claims,
}

impl<'a> RequestView<'a> {
    /// A GET of `path`, and nothing known beside.
    #[must_use]
    pub fn of(path: &'a str) -> Self {
        Self {
            method: "GET",
            host: "",
            path,
            query: None,
            track: "",
            file: "",
            kind: Kind::Other,
            pos_ms: None,
            media_ms: None,
            address: None,
            country: None,
            edge: "",
            now_ms: 0,
            session: "",
            headers: &(),
            claims: &(),
        }
    }

    pub(crate) fn moment(&self) -> types::Moment {
        types::Moment { now_ms: self.now_ms, kind: self.kind, pos_ms: self.pos_ms, media_ms: self.media_ms }
    }

    /// A header, for an access policy (`secret` false) or a ticket scheme.
    pub(crate) fn header(&self, name: &str, secret: bool) -> Option<Cow<'_, str>> {
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.lower_header(&name.to_ascii_lowercase(), secret);
        }
        self.lower_header(name, secret)
    }

    fn lower_header(&self, name: &str, secret: bool) -> Option<Cow<'_, str>> {
        if !secret && SECRET_HEADERS.contains(&name) { None } else { self.headers.get(name) }
    }
}

/// One text that a policy asked for in `configure`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Field {
    Method,
    Host,
    Path,
    Query,
    Track,
    File,
    Address,
    Country,
    Edge,
    Header(String),
    Claim(String),
    Context(String),
}

impl Field {
    /// Reads a field's name as the contract writes it.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "method" => Self::Method,
            "host" => Self::Host,
            "path" => Self::Path,
            "query" => Self::Query,
            "track" => Self::Track,
            "file" => Self::File,
            "address" => Self::Address,
            "country" => Self::Country,
            "edge" => Self::Edge,
            _ => match name.split_once(':')? {
                ("header", name) => Self::Header(name.to_ascii_lowercase()),
                ("claim", name) => Self::Claim(name.to_owned()),
                ("context", pointer) => Self::Context(pointer.to_owned()),
                _ => return None,
            },
        })
    }

    fn append(&self, request: &RequestView<'_>, out: &mut String) {
        let value = match self {
            Self::Method => Some(Cow::Borrowed(request.method)),
            Self::Host => Some(Cow::Borrowed(request.host)),
            Self::Path => Some(Cow::Borrowed(request.path)),
            Self::Query => request.query.map(Cow::Borrowed),
            Self::Track => Some(Cow::Borrowed(request.track)),
            Self::File => Some(Cow::Borrowed(request.file)),
            Self::Country => request.country.map(Cow::Borrowed),
            Self::Edge => Some(Cow::Borrowed(request.edge)),
            Self::Header(name) => request.lower_header(name, false),
            Self::Claim(name) => request.claims.claim(name),
            Self::Context(pointer) => request.claims.context(pointer),
            Self::Address => {
                match request.address {
                    // Writing to a String cannot fail.
                    Some(address) => _ = write!(out, "{}", address.to_canonical()),
                    None => out.push(ABSENT),
                }
                return;
            }
        };
        match value.as_deref() {
            None => out.push(ABSENT),
            Some(value) if is_plain(value) => out.push_str(value),
            Some(value) => out.extend(value.chars().map(plain)),
        }
    }
}

/// Whether there is no control character in it. Looked through to its end, since so the compiler takes many bytes at a time.
fn is_plain(value: &str) -> bool {
    !value.bytes().fold(false, |is_control, byte| is_control | (byte < b' '))
}

/// What would shift the fields behind it comes out as the replacement character.
fn plain(character: char) -> char {
    if matches!(character, SEPARATOR | ABSENT) { char::REPLACEMENT_CHARACTER } else { character }
}

/// Writes the fields into `out`, as `authorize` is given them.
pub(crate) fn write_fields(fields: &[Field], request: &RequestView<'_>, out: &mut String) {
    out.clear();
    for (place, field) in fields.iter().enumerate() {
        if place > 0 {
            out.push(SEPARATOR);
        }
        field.append(request, out);
    }
}

#[cfg(test)]
mod tests;
