//! The head of a request: what is taken as plain must be what httparse, `http::Uri` and a look at the raw headers say,
//! and what is refused is what RFC 9112 lets two readers read in two ways, no less and no more.
//!
//! Input: the bytes of a connection.

#![no_main]

use http::Uri;
use libfuzzer_sys::fuzz_target;
use segue_proxy::fuzzing::{Front, front};

/// As many as the edge takes.
const HEADERS: usize = 256;
/// The beginning of HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Whatever follows one of these is a body, or another protocol.
const FOLLOWED: [&str; 4] = ["content-length", "transfer-encoding", "upgrade", "expect"];

fuzz_target!(|data: &[u8]| {
    let got = front(data);
    let mut places = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut places);
    let parsed = request.parse(data);
    match &got {
        Front::Partial => assert!(parsed == Ok(httparse::Status::Partial) || PREFACE.starts_with(data)),
        Front::Invalid => match parsed {
            Ok(httparse::Status::Complete(length)) => assert!(is_ambiguous(&data[..length], &request), "refused"),
            parsed => assert!(parsed.is_err(), "refused before it is whole"),
        },
        Front::Whole { length, bodyless } => {
            assert_eq!(parsed, Ok(httparse::Status::Complete(*length)));
            assert!(!is_ambiguous(&data[..*length], &request), "two readers could read it in two ways");
            assert!(!bodyless || !is_followed(&request), "something follows a request that is said to have no body");
            ends_where_it_says(data, *length, &got);
        }
        Front::Plain { length, method, path, query, headers } => {
            assert_eq!(parsed, Ok(httparse::Status::Complete(*length)));
            assert!(!is_ambiguous(&data[..*length], &request), "two readers could read it in two ways");
            assert!(!is_followed(&request), "a plain request has no body");
            assert!(["GET", "HEAD"].contains(&method.as_str()) && request.method == Some(method));
            assert_eq!(request.version, Some(1));
            same_target(request.path.unwrap(), path, query.as_deref());
            assert_eq!(headers.len(), request.headers.len(), "a header is missing");
            for header in request.headers.iter() {
                let mut values = headers.get_all(header.name).iter();
                assert!(values.any(|value| value.as_bytes() == header.value), "{} is missing", header.name);
            }
            assert_eq!(named(&request, "host").count(), 1, "a plain request has one Host");
            assert!(named(&request, "connection").all(|value| value.eq_ignore_ascii_case(b"keep-alive")));
            ends_where_it_says(data, *length, &got);
        }
    }
});

fn named<'r>(request: &'r httparse::Request<'_, '_>, name: &'r str) -> impl Iterator<Item = &'r [u8]> {
    request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

fn is_followed(request: &httparse::Request<'_, '_>) -> bool {
    FOLLOWED.iter().any(|name| named(request, name).next().is_some())
}

/// RFC 9112, sections 2.2, 3.2 and 6.3, from the raw lines.
fn is_ambiguous(head: &[u8], request: &httparse::Request<'_, '_>) -> bool {
    let (method, target, minor) = (request.method.unwrap(), request.path.unwrap(), request.version.unwrap());
    let lines: Vec<_> = head.split(|byte| *byte == b'\n').collect();
    let bare = lines[..lines.len() - 1].iter().any(|line| !line.ends_with(b"\r"));
    let named = ["http://", "https://"].into_iter().find_map(|scheme| {
        let start = target.get(..scheme.len()).filter(|start| start.eq_ignore_ascii_case(scheme))?;
        target[start.len()..].split(['/', '?', '#', '\\']).next()
    });
    let known = target.starts_with('/') || named.is_some() || (method, target) == ("OPTIONS", "*");
    let hosts: Vec<_> = named_values(request, "host");
    let clear_host = match hosts[..] {
        [] => minor == 0,
        [host] => host.iter().all(is_of_host) && named.is_none_or(|named| named.as_bytes() == host),
        _ => false,
    };
    let clear_name = named.is_none_or(|named| !named.is_empty() && named.as_bytes().iter().all(is_of_host));
    let (lengths, codings) = (named_values(request, "content-length"), named_values(request, "transfer-encoding"));
    let clear_length = match (&lengths[..], &codings[..]) {
        ([], []) => true,
        ([length], []) => (1..20).contains(&length.len()) && length.iter().all(u8::is_ascii_digit),
        ([], [coding]) => minor == 1 && coding.eq_ignore_ascii_case(b"chunked"),
        _ => false,
    };
    method == "CONNECT" || bare || !known || !clear_host || !clear_name || !clear_length
}

fn named_values<'r>(request: &'r httparse::Request<'_, '_>, name: &'r str) -> Vec<&'r [u8]> {
    named(request, name).collect()
}

/// What may stand in an authority (RFC 3986, section 3.2), but for what joins several or a user to it.
fn is_of_host(byte: &u8) -> bool {
    byte.is_ascii_graphic() && !b"\"#,/<>?@\\^`{|}".contains(byte)
}

/// The target is read by `http::Uri` as it is here, and nothing in it is read away.
fn same_target(target: &str, path: &str, query: Option<&str>) {
    let uri: Uri = target.parse().expect("a plain target is a URI");
    assert_eq!((uri.path(), uri.query()), (path, query));
    assert_eq!(uri.path_and_query().map(|both| both.as_str()), Some(target));
    assert!(uri.host().is_none());
}

/// What comes behind the head changes nothing, and a byte less is no head.
fn ends_where_it_says(data: &[u8], length: usize, got: &Front) {
    assert_eq!(&front(&data[..length]), got, "bytes behind the head change it");
    assert_eq!(front(&data[..length - 1]), Front::Partial, "a head without its last byte");
}
