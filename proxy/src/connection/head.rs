//! A request head, parsed as far as a hit needs it.
//!
//! Invariants: what counts as plain is a narrow set that every reader reads the same way (origin form, one `Host`,
//! HTTP/1.1, no body, no upgrade, no wish to close); everything else is whole and Pingora's to answer, partial, or bad
//! (`screen.rs`), and answered by nobody. All headers are in the map: what a step looks for is there.

use http::Method;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};

use super::screen::{self, BadHead};

/// Headers that are parsed without an allocation; nobody but a browser behind three proxies has so many.
const HEADERS_FEW: usize = 64;
/// Headers at most, which is as many as Pingora takes.
const HEADERS_MAX: usize = 256;

/// What a client sends first that knows beforehand that HTTP/2 is spoken (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What stands at the front of the bytes.
pub(crate) enum Head<'b> {
    /// Not yet a whole head.
    Partial,
    /// Nothing that anybody should answer as a request.
    Bad(BadHead),
    /// The beginning of HTTP/2.
    Preface,
    /// A whole head that is not plain. `bodyless`: nothing of this request follows it.
    Whole { length: usize, bodyless: bool },
    /// A plain GET or HEAD.
    Plain { length: usize, method: Method, path: &'b str, query: Option<&'b str> },
}

/// Parses the head at the front of `bytes`; its headers go into `headers`, which is cleared first.
pub(crate) fn parse<'b>(bytes: &'b [u8], headers: &mut HeaderMap) -> Head<'b> {
    let mut places = [const { std::mem::MaybeUninit::uninit() }; HEADERS_FEW];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut places) {
        Ok(httparse::Status::Complete(length)) => judged(bytes, length, &request, headers),
        Ok(httparse::Status::Partial) => Head::Partial,
        Err(httparse::Error::TooManyHeaders) => parse_many(bytes, headers),
        Err(_) if bytes.starts_with(PREFACE) => Head::Preface,
        Err(_) if PREFACE.starts_with(bytes) => Head::Partial,
        Err(error) => Head::Bad(BadHead::of(error)),
    }
}

#[cold]
fn parse_many<'b>(bytes: &'b [u8], headers: &mut HeaderMap) -> Head<'b> {
    let mut places = vec![httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut places);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => judged(bytes, length, &request, headers),
        Ok(httparse::Status::Partial) => Head::Partial,
        Err(error) => Head::Bad(BadHead::of(error)),
    }
}

fn judged<'b>(
    bytes: &'b [u8],
    length: usize,
    request: &httparse::Request<'_, 'b>,
    headers: &mut HeaderMap,
) -> Head<'b> {
    headers.clear();
    if !screen::has_whole_lines(bytes.get(..length).unwrap_or_default()) {
        return Head::Bad(BadHead::BareLineFeed);
    }
    for header in request.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(header.value)) else {
            return Head::Bad(BadHead::Malformed);
        };
        if headers.try_append(name, value).is_err() {
            return Head::Bad(BadHead::TooManyFields);
        }
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let minor = request.version.unwrap_or_default();
    let bodyless = is_bodyless(headers);
    let known = match method {
        "GET" => Some(Method::GET),
        "HEAD" => Some(Method::HEAD),
        _ => None,
    };
    let closes = headers.get_all(CONNECTION).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"keep-alive"));
    let plain = bodyless && !closes && minor == 1 && is_plain_target(target) && has_plain_host(headers);
    if let (Some(method), true) = (known.clone(), plain) {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        return Head::Plain { length, method, path, query };
    }
    match screen::judge(method, target, minor, headers) {
        // Other methods may have a body without saying so: they stay where they are answered.
        Ok(()) => Head::Whole { length, bodyless: bodyless && (known.is_some() || method == "OPTIONS") },
        Err(bad) => Head::Bad(bad),
    }
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
            Head::Bad(bad) => bad.reason().to_owned(),
            Head::Preface => "preface".to_owned(),
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
            ("GET /a HTTP/1.1\r\nHost: a%41\r\n\r\n", true),
            ("GET http://e/a HTTP/1.1\r\nHost: e\r\n\r\n", true),
            ("GET /a#b HTTP/1.1\r\nHost: e\r\n\r\n", true),
            ("GET /a|b HTTP/1.1\r\nHost: e\r\n\r\n", true),
            ("GET /a HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n", true),
            ("GET /a HTTP/1.1\r\nHost: e\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", true),
            ("GET /a HTTP/1.1\r\nHost: e\r\nContent-Length: 0\r\n\r\n", false),
            ("GET /a HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("GET /a HTTP/1.1\r\nHost: e\r\nUpgrade: websocket\r\n\r\n", false),
            ("POST /a HTTP/1.1\r\nHost: e\r\n\r\n", false),
            ("OPTIONS /a HTTP/1.1\r\nHost: e\r\n\r\n", true),
        ] {
            assert_eq!(kind(head.as_bytes()), format!("whole {} {bodyless}", head.len()), "{head}");
        }
        let many = format!("GET /a HTTP/1.1\r\nHost: e\r\n{}\r\n", "a: b\r\n".repeat(200));
        assert_eq!(kind(many.as_bytes()), format!("GET /a None {}", many.len()));
    }

    #[test]
    fn what_nobody_should_answer_is_bad() {
        for (head, reason) in [
            ("GET\r\n\r\n", "malformed-head"),
            ("\x16\x03\x01", "malformed-head"),
            ("GET /a\r\n", "malformed-head"),
            ("GET /a HTTP/9.9\r\n\r\n", "http-version"),
            ("GET /a b HTTP/1.1\r\nHost: e\r\n\r\n", "http-version"),
            ("GET /a HTTP/1.1\r\nHost: e\r\nA: b\r\n c\r\n\r\n", "malformed-head"),
            ("GET /a HTTP/1.1\r\nHost : e\r\n\r\n", "malformed-head"),
            ("GET /a HTTP/1.1\r\nHost: e\r\nA: \0\r\n\r\n", "malformed-head"),
            ("GET /a\0 HTTP/1.1\r\nHost: e\r\n\r\n", "malformed-head"),
            ("GET /a HTTP/1.1\r\nHost: e\nA: b\r\n\r\n", "bare-line-feed"),
            ("GET /a HTTP/1.1\r\n\r\n", "host-missing"),
            ("GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "host-repeated"),
            ("GET /a HTTP/1.1\r\nHost: a b\r\n\r\n", "host-malformed"),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "method-not-allowed"),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "preface"),
            ("PRI * HTTP/2.0\r\n\r\nS", "partial"),
            ("PRI * HTTP/2.0\r\n\r\nX", "http-version"),
        ] {
            assert_eq!(kind(head.as_bytes()), reason, "{head:?}");
        }
        let many = format!("GET /a HTTP/1.1\r\nHost: e\r\n{}\r\n", "a: b\r\n".repeat(300));
        assert_eq!(kind(many.as_bytes()), "too-many-headers");
    }
}
