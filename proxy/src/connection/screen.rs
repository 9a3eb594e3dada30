//! Heads that are refused before anybody asks what they are for: what two readers could read in two ways, and what is
//! no HTTP/1.1 at all.
//!
//! Purpose: an edge stands between proxies that may read a request otherwise. Where RFC 9112 lets a recipient choose
//! between mending and refusing (a bare line feed, a length beside a transfer coding), this one refuses: what is mended
//! here may be cut into two requests elsewhere (section 11.2, request smuggling).
//!
//! Invariants: a head that is handed on has one `Host`, one reading of its length, and whole line ends.

use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};

/// Why a head is refused. The connection ends with it: nobody knows where the next request would begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHead {
    /// No request line and fields of RFC 9112 (sections 3 and 5): control bytes, folded lines, blanks before a colon.
    Malformed,
    /// A line that ends in LF alone (section 2.2).
    BareLineFeed,
    /// Another version than 1.0 and 1.1.
    Version,
    /// More fields than anybody needs.
    TooManyFields,
    /// The target is neither a path nor a URL of http (section 3.2).
    Target,
    /// A tunnel is asked for.
    Connect,
    /// HTTP/1.1 without `Host` (section 3.2).
    HostMissing,
    /// Several `Host` fields.
    HostRepeated,
    /// `Host` holds what is in no name, or contradicts the target.
    Host,
    /// More than one reading of the body's length (section 6.3).
    Framing,
}

impl BadHead {
    /// The reason word.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed-head",
            Self::BareLineFeed => "bare-line-feed",
            Self::Version => "http-version",
            Self::TooManyFields => "too-many-headers",
            Self::Target => "malformed-target",
            Self::Connect => "method-not-allowed",
            Self::HostMissing => "host-missing",
            Self::HostRepeated => "host-repeated",
            Self::Host => "host-malformed",
            Self::Framing => "framing-ambiguous",
        }
    }

    /// The status line, without the version.
    pub(crate) fn status(self) -> &'static str {
        match self {
            Self::Version => "505 HTTP Version Not Supported",
            Self::TooManyFields => "431 Request Header Fields Too Large",
            Self::Connect => "405 Method Not Allowed",
            _ => "400 Bad Request",
        }
    }

    /// A sentence that is safe to show.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Malformed => "this is not an HTTP/1.1 request",
            Self::BareLineFeed => "lines of a request end in CR LF",
            Self::Version => "only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here",
            Self::TooManyFields => "the request has too many headers",
            Self::Target => "the request's target is neither a path nor an http URL",
            Self::Connect => "there are no tunnels here",
            Self::HostMissing => "an HTTP/1.1 request names its host",
            Self::HostRepeated => "the request names more than one host",
            Self::Host => "the request's host is malformed, or another one than its target's",
            Self::Framing => "the request's length can be read in more than one way",
        }
    }

    /// What the parser's refusal means.
    pub(super) fn of(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            httparse::Error::Version => Self::Version,
            _ => Self::Malformed,
        }
    }
}

/// Judges a head that was parsed. `minor`: of its version, 0 or 1.
pub(super) fn judge(method: &str, target: &str, minor: u8, headers: &HeaderMap) -> Result<(), BadHead> {
    if method == "CONNECT" {
        return Err(BadHead::Connect);
    }
    let named = match authority(target) {
        Some(authority) => Some(authority.ok_or(BadHead::Target)?),
        None if target.starts_with('/') || (method == "OPTIONS" && target == "*") => None,
        None => return Err(BadHead::Target),
    };
    host(named, minor, headers)?;
    framing(minor, headers)
}

/// Whether every line of a head ends in CR LF.
pub(super) fn has_whole_lines(head: &[u8]) -> bool {
    // A fold without an early exit, which runs many bytes at a time.
    let pairs = head.iter().zip(head.get(1..).unwrap_or_default());
    let bare = pairs.fold(0, |bare, (before, byte)| bare | (u8::from(*byte == b'\n') & u8::from(*before != b'\r')));
    bare == 0 && head.first() != Some(&b'\n')
}

/// The authority of an absolute target (RFC 9112, section 3.2.2). `None`: it is not absolute; `Some(None)`: it has none,
/// or one that holds more than a host.
fn authority(target: &str) -> Option<Option<&str>> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    Some(Some(authority).filter(|authority| !authority.is_empty() && authority.bytes().all(is_of_host)))
}

fn host(named: Option<&str>, minor: u8, headers: &HeaderMap) -> Result<(), BadHead> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if minor == 0 => Ok(()),
        (None, _) => Err(BadHead::HostMissing),
        (Some(_), Some(_)) => Err(BadHead::HostRepeated),
        (Some(host), None) => {
            let whole = host.as_bytes().iter().copied().all(is_of_host);
            let same = named.is_none_or(|named| named.as_bytes() == host.as_bytes());
            if whole && same { Ok(()) } else { Err(BadHead::Host) }
        }
    }
}

/// A name, an address in brackets, and a port (RFC 3986, section 3.2.2), without the characters that join several.
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(&byte)
}

/// RFC 9112, section 6.3; stricter where it may be: `chunked` alone or one length alone.
fn framing(minor: u8, headers: &HeaderMap) -> Result<(), BadHead> {
    let (length, more_lengths) = one(headers, CONTENT_LENGTH);
    let (coding, more_codings) = one(headers, TRANSFER_ENCODING);
    let is_number = |value: &HeaderValue| {
        let value = value.as_bytes();
        // 19 digits fit into 64 bits.
        !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit)
    };
    let clear = match (length, coding) {
        (None, None) => true,
        (Some(length), None) => !more_lengths && is_number(length),
        (None, Some(coding)) => !more_codings && minor == 1 && coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    if clear { Ok(()) } else { Err(BadHead::Framing) }
}

/// The first value, and whether there are more.
fn one(headers: &HeaderMap, name: http::HeaderName) -> (Option<&HeaderValue>, bool) {
    let mut values = headers.get_all(name).iter();
    (values.next(), values.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(method: &str, target: &str, minor: u8, lines: &[(&'static str, &'static str)]) -> Option<BadHead> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        judge(method, target, minor, &headers).err()
    }

    #[test]
    fn a_head_with_one_reading_goes_on() {
        for (method, target, minor, lines) in [
            ("GET", "/a", 1, &[("host", "e")][..]),
            ("GET", "/a", 1, &[("host", "")]),
            ("GET", "/a", 1, &[("host", "[2001:db8::1]:8080")]),
            ("GET", "/a", 0, &[]),
            ("OPTIONS", "*", 1, &[("host", "e")]),
            ("GET", "http://e:80/a", 1, &[("host", "e:80")]),
            ("POST", "/a", 1, &[("host", "e"), ("content-length", "0")]),
            ("POST", "/a", 1, &[("host", "e"), ("transfer-encoding", "Chunked")]),
        ] {
            assert_eq!(judged(method, target, minor, lines), None, "{method} {target} {lines:?}");
        }
    }

    #[test]
    fn a_head_with_two_readings_does_not() {
        for (method, target, minor, lines, bad) in [
            ("GET", "/a", 1, &[][..], BadHead::HostMissing),
            ("GET", "/a", 1, &[("host", "a"), ("host", "a")], BadHead::HostRepeated),
            ("GET", "/a", 1, &[("host", "a,b")], BadHead::Host),
            ("GET", "/a", 1, &[("host", "u@a")], BadHead::Host),
            ("GET", "/a", 1, &[("host", "a/b")], BadHead::Host),
            ("GET", "http://a/x", 1, &[("host", "b")], BadHead::Host),
            ("GET", "http://u@a/x", 1, &[("host", "a")], BadHead::Target),
            ("GET", "http:///x", 1, &[("host", "a")], BadHead::Target),
            ("GET", "ftp://a/x", 1, &[("host", "a")], BadHead::Target),
            ("GET", "*", 1, &[("host", "a")], BadHead::Target),
            ("GET", "a:443", 1, &[("host", "a")], BadHead::Target),
            ("CONNECT", "a:443", 1, &[("host", "a:443")], BadHead::Connect),
            ("GET", "/", 1, &[("host", "a"), ("content-length", "1"), ("content-length", "1")], BadHead::Framing),
            ("GET", "/", 1, &[("host", "a"), ("content-length", "1, 1")], BadHead::Framing),
            ("GET", "/", 1, &[("host", "a"), ("content-length", "+1")], BadHead::Framing),
            ("GET", "/", 1, &[("host", "a"), ("content-length", "")], BadHead::Framing),
            ("GET", "/", 1, &[("host", "a"), ("content-length", "99999999999999999999")], BadHead::Framing),
            (
                "POST",
                "/",
                1,
                &[("host", "a"), ("content-length", "1"), ("transfer-encoding", "chunked")],
                BadHead::Framing,
            ),
            ("POST", "/", 1, &[("host", "a"), ("transfer-encoding", "xchunked")], BadHead::Framing),
            ("POST", "/", 1, &[("host", "a"), ("transfer-encoding", "chunked, identity")], BadHead::Framing),
            ("POST", "/", 1, &[("host", "a"), ("transfer-encoding", "gzip, chunked")], BadHead::Framing),
            (
                "POST",
                "/",
                1,
                &[("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
                BadHead::Framing,
            ),
            ("POST", "/", 0, &[("transfer-encoding", "chunked")], BadHead::Framing),
        ] {
            assert_eq!(judged(method, target, minor, lines), Some(bad), "{method} {target} {lines:?}");
        }
    }

    #[test]
    fn line_feeds_stand_behind_carriage_returns() {
        assert!(has_whole_lines(b"GET / HTTP/1.1\r\nHost: e\r\n\r\n"));
        for head in [&b"GET / HTTP/1.1\nHost: e\r\n\r\n"[..], b"\nGET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\n"] {
            assert!(!has_whole_lines(head));
        }
    }
}
