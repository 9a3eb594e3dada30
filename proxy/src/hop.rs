//! Which header fields go on through the edge, and which end at it (RFC 9110, section 7.6.1).
//!
//! Invariants: fields of one connection never reach the next; what `Connection` names is one of them, whatever it is.

use http::header::{CONNECTION, COOKIE, HeaderMap, HeaderName, HeaderValue, VIA};

use crate::ticket;

/// How the edge names itself to origins (RFC 9110, section 7.6.3).
const PSEUDONYM: &str = "1.1 segue";

/// Whether a field of a message with these headers is meant for the next recipient too.
pub(crate) fn is_end_to_end(name: &HeaderName, headers: &HeaderMap) -> bool {
    let named = || {
        let lists = headers.get_all(CONNECTION).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
        lists.flat_map(|list| list.split(',')).any(|named| named.trim().eq_ignore_ascii_case(name.as_str()))
    };
    !(is_hop_by_hop(name) || (headers.contains_key(CONNECTION) && named()))
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "keep-alive"
            | "proxy-connection"
            | "http2-settings"
    )
}

/// Whether a client's field of this name goes to an HTTP origin with a request that the cache makes for it. What the
/// cache decides by itself (conditions, ranges, freshness) does not, and credentials only with [`forwarded`]'s leave.
pub(crate) fn goes_on(name: &HeaderName) -> bool {
    let ours = matches!(
        name.as_str(),
        "host"
            | "content-length"
            | "content-type"
            | "expect"
            | "range"
            | "if-range"
            | "if-match"
            | "if-none-match"
            | "if-modified-since"
            | "if-unmodified-since"
            | "cache-control"
            | "pragma"
            | "via"
    );
    !ours && !is_hop_by_hop(name)
}

/// What of a client's request goes to an HTTP origin. `coded`: the origin may answer in a coding that the client
/// accepts. `everything`: credentials go along, where they are not our tickets.
pub(crate) fn forwarded(headers: &HeaderMap, coded: bool, everything: bool) -> Vec<(HeaderName, HeaderValue)> {
    let mut kept = Vec::with_capacity(headers.len() + 2);
    for (name, value) in headers {
        let goes = match name.as_str() {
            "accept-encoding" => coded,
            "authorization" => everything && !ticket::is_bearer(value),
            "cookie" => false,
            _ => goes_on(name) && is_end_to_end(name, headers),
        };
        if goes {
            kept.push((name.clone(), value.clone()));
        }
    }
    if everything && let Some(cookies) = ticket::other_cookies(headers) {
        kept.push((COOKIE, cookies));
    }
    kept.push((VIA, via(headers)));
    kept
}

fn via(headers: &HeaderMap) -> HeaderValue {
    let mut hops: Vec<&str> = headers.get_all(VIA).iter().filter_map(|value| value.to_str().ok()).collect();
    hops.push(PSEUDONYM);
    HeaderValue::try_from(hops.join(", ")).unwrap_or(HeaderValue::from_static(PSEUDONYM))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn names(kept: &[(HeaderName, HeaderValue)]) -> Vec<&str> {
        kept.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn a_connections_own_fields_end_here() {
        let headers = headers(&[
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("range", "bytes=0-1"),
            ("if-none-match", "\"a\""),
            ("cache-control", "no-cache"),
            ("accept-language", "de"),
            ("via", "1.0 a"),
        ]);
        let kept = forwarded(&headers, false, false);
        assert_eq!(names(&kept), ["accept-language", "via"]);
        assert_eq!(kept[1].1, "1.0 a, 1.1 segue");
    }

    #[test]
    fn credentials_go_along_only_where_they_may_and_tickets_never() {
        let pairs = [("authorization", "Basic eDp5"), ("cookie", "segue=t; a=b"), ("accept-encoding", "gzip")];
        assert_eq!(names(&forwarded(&headers(&pairs), false, false)), ["via"]);
        let kept = forwarded(&headers(&pairs), true, true);
        assert_eq!(names(&kept), ["authorization", "accept-encoding", "cookie", "via"]);
        assert_eq!(kept[2].1, "a=b");
        let ticket = [("authorization", "Bearer t.t.t"), ("cookie", "segue=t")];
        assert_eq!(names(&forwarded(&headers(&ticket), false, true)), ["via"]);
    }
}
