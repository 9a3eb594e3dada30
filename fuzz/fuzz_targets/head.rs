//! The head of a request: what is taken as plain must be what httparse, `http::Uri` and a look at the raw headers say.
//!
//! Input: the bytes of a connection.

#![no_main]

use http::Uri;
use libfuzzer_sys::fuzz_target;
use segue_proxy::fuzzing::{Front, front};

/// More than the edge itself looks at.
const HEADERS: usize = 256;
/// Whatever follows one of these is a body, or another protocol.
const FOLLOWED: [&str; 4] = ["content-length", "transfer-encoding", "upgrade", "expect"];

fuzz_target!(|data: &[u8]| {
    let got = front(data);
    let mut places = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut places);
    let parsed = request.parse(data);
    match &got {
        Front::Partial => assert_eq!(parsed, Ok(httparse::Status::Partial)),
        Front::Invalid => assert!(parsed.is_err() || request.headers.len() > 64, "only httparse takes it"),
        Front::Whole { length, bodyless } => {
            assert_eq!(parsed, Ok(httparse::Status::Complete(*length)));
            assert!(!bodyless || !is_followed(&request), "something follows a request that is said to have no body");
            ends_where_it_says(data, *length, &got);
        }
        Front::Plain { length, method, path, query, headers } => {
            assert_eq!(parsed, Ok(httparse::Status::Complete(*length)));
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
