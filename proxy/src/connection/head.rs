//! A request head, parsed as far as a hit needs it.
//!
//! Invariants: what counts as plain is a narrow set that every reader reads the same way (origin form, one `Host`,
//! HTTP/1.1, no body, no upgrade, no wish to close); everything else is whole, partial or invalid, and Pingora's to
//! judge. All headers are in the map: what a step looks for is there.

use http::Method;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};

/// More headers than this go to Pingora, which takes up to 256.
const HEADERS_MAX: usize = 64;

/// What stands at the front of the bytes.
pub(super) enum Head<'b> {
    /// Not yet a whole head.
    Partial,
    /// Nothing that can be parsed here.
    Invalid,
    /// A whole head that is not plain. `bodyless`: nothing of this request follows it.
    Whole { length: usize, bodyless: bool },
    /// A plain GET or HEAD.
    Plain { length: usize, method: Method, path: &'b str, query: Option<&'b str> },
}

/// Parses the head at the front of `bytes`; its headers go into `headers`, which is cleared first.
pub(super) fn parse<'b>(bytes: &'b [u8], headers: &mut HeaderMap) -> Head<'b> {
    headers.clear();
    let mut places = [const { std::mem::MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut places) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Head::Partial,
        Err(_) => return Head::Invalid,
    };
    for header in request.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(header.value)) else { return Head::Invalid };
        if headers.try_append(name, value).is_err() {
            return Head::Invalid;
        }
    }
    let method = match request.method {
        Some("GET") => Method::GET,
        Some("HEAD") => Method::HEAD,
        Some("OPTIONS") => return Head::Whole { length, bodyless: is_bodyless(headers) },
        _ => return Head::Whole { length, bodyless: false },
    };
    let bodyless = is_bodyless(headers);
    let target = request.path.unwrap_or_default();
    let closes = headers.get(CONNECTION).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"keep-alive"));
    if !bodyless || closes || request.version != Some(1) || !is_plain_target(target) || !has_plain_host(headers) {
        return Head::Whole { length, bodyless };
    }
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    Head::Plain { length, method, path, query }
}

fn is_bodyless(headers: &HeaderMap) -> bool {
    [CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE, EXPECT].iter().all(|name| !headers.contains_key(name))
}

/// Origin form (RFC 9112, section 3.2.1) of characters that every parser of URIs takes as they stand.
fn is_plain_target(target: &str) -> bool {
    // A fold over bytes and not `all`: without the early exit and branches it runs many bytes at a time.
    target.starts_with('/') && target.bytes().fold(0, |odd, byte| odd | oddity(byte)) == 0
}

/// 0 for what may stand in a target as it is.
fn oddity(byte: u8) -> u8 {
    let one_of = |set: [u8; 10]| set.into_iter().fold(0, |found, odd| found | u8::from(byte == odd));
    u8::from(byte <= b' ') | u8::from(byte >= 0x7f) | one_of(*b"\"#<>\\^`{|}")
}

fn has_plain_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
    !host.is_empty() && host.as_bytes().iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(head: &[u8]) -> String {
        match parse(head, &mut HeaderMap::new()) {
            Head::Partial => "partial".to_owned(),
            Head::Invalid => "invalid".to_owned(),
            Head::Whole { length, bodyless } => format!("whole {length} {bodyless}"),
            Head::Plain { length, method, path, query } => format!("{method} {path} {query:?} {length}"),
        }
    }

    #[test]
    fn plain_heads_are_taken_apart_and_end_where_they_end() {
        assert_eq!(kind(b"GET /a/b?x=1 HTTP/1.1\r\nHost: e:80\r\n\r\nGET /"), "GET /a/b Some(\"x=1\") 37");
        assert_eq!(kind(b"HEAD /a HTTP/1.1\r\nHost: e\r\nConnection: Keep-Alive\r\n\r\n"), "HEAD /a None 53");
        assert_eq!(kind(b"GET /a HTTP/1.1\r\nHost: e\r\n"), "partial");
    }

    #[test]
    fn whatever_two_readers_could_read_in_two_ways_is_not_plain() {
        for (head, bodyless) in [
            ("GET /a HTTP/1.0\r\nHost: e\r\n\r\n", true),
            ("GET /a HTTP/1.1\r\n\r\n", true),
            ("GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", true),
            ("GET /a HTTP/1.1\r\nHost: a b\r\n\r\n", true),
            ("GET http://e/a HTTP/1.1\r\nHost: e\r\n\r\n", true),
            ("GET /a#b HTTP/1.1\r\nHost: e\r\n\r\n", true),
            ("GET /a|b HTTP/1.1\r\nHost: e\r\n\r\n", true),
            ("GET /a HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n", true),
            ("GET /a HTTP/1.1\r\nHost: e\r\nContent-Length: 0\r\n\r\n", false),
            ("GET /a HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("GET /a HTTP/1.1\r\nHost: e\r\nUpgrade: websocket\r\n\r\n", false),
            ("POST /a HTTP/1.1\r\nHost: e\r\n\r\n", false),
            ("OPTIONS /a HTTP/1.1\r\nHost: e\r\n\r\n", true),
        ] {
            assert_eq!(kind(head.as_bytes()), format!("whole {} {bodyless}", head.len()), "{head}");
        }
        for head in ["GET\r\n\r\n", "\x16\x03\x01", "GET /a HTTP/9.9\r\n\r\n"] {
            assert_eq!(kind(head.as_bytes()), "invalid", "{head:?}");
        }
    }
}
