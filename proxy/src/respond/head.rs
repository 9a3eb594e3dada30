//! Response heads.
//!
//! Invariants: every answer has a length, names its cache state (RFC 9211), and may be read by scripts of any page:
//! who may have it was decided by the ticket, and cookies are never asked for across sites.

use http::header::{
    ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, AGE, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LAST_MODIFIED,
};
use http::{HeaderMap, StatusCode};
use pingora_core::Error;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use segue_events::CacheState;

use super::Plan;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Content-Length, Content-Range, ETag, Age, Date, Cache-Status, Retry-After");

/// An empty head of this status. Header case is not kept: HTTP/1.1 does not care, and keeping it costs a map.
pub(super) fn empty(status: StatusCode) -> ResponseHeader {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = status;
    parts.headers = HeaderMap::with_capacity(16);
    ResponseHeader::from(parts)
}

/// Sets a header. The name and value are well-formed, so nothing can fail but a head of absurd size.
pub(super) fn set(head: &mut ResponseHeader, name: HeaderName, value: HeaderValue) {
    if let Err(error) = head.insert_header(name, value) {
        tracing::error!(%error, "a response header could not be set");
    }
}

/// What every answer that a page's script may read needs (Fetch standard, CORS protocol; Resource Timing).
pub(super) fn open_to_pages(head: &mut ResponseHeader) {
    set(head, ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    set(head, ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    set(head, TIMING_ALLOW_ORIGIN, HeaderValue::from_static("*"));
}

/// The `Cache-Status` of a state (RFC 9211, section 2).
pub(super) fn cache_status(state: CacheState) -> HeaderValue {
    HeaderValue::from_static(match state {
        CacheState::HitMemory => "segue; hit; detail=memory",
        CacheState::HitDisk => "segue; hit; detail=disk",
        CacheState::Miss => "segue; fwd=miss; stored",
        CacheState::Coalesced => "segue; fwd=miss; collapsed",
        CacheState::Stale => "segue; hit; detail=stale-if-error",
        CacheState::Bypass => "segue; fwd=bypass",
    })
}

/// The head of an answer that carries `meta`'s object, or a part of it, or says that it has not changed.
pub(super) fn of_object(
    meta: &crate::cache::Meta,
    length: u64,
    plan: &Plan,
    state: CacheState,
    age: Option<u64>,
) -> ResponseHeader {
    let mut head = empty(plan.status);
    if let Some(etag) = &meta.etag {
        set(&mut head, ETAG, etag.clone());
    }
    if let Some((value, _)) = &meta.last_modified {
        set(&mut head, LAST_MODIFIED, value.clone());
    }
    set(&mut head, CACHE_CONTROL, meta.cache_control.clone());
    set(&mut head, CACHE_STATUS, cache_status(state));
    if let Some(age) = age {
        set(&mut head, AGE, HeaderValue::from(age));
    }
    open_to_pages(&mut head);
    if plan.status == StatusCode::NOT_MODIFIED {
        return head;
    }
    set(&mut head, CONTENT_TYPE, meta.content_type.clone());
    if let Some(encoding) = &meta.content_encoding {
        set(&mut head, CONTENT_ENCODING, encoding.clone());
    }
    set(&mut head, ACCEPT_RANGES, HeaderValue::from_static(if meta.whole_only { "none" } else { "bytes" }));
    let sent = plan.window.map_or(0, |window| window.length());
    set(&mut head, CONTENT_LENGTH, HeaderValue::from(sent));
    if plan.status == StatusCode::PARTIAL_CONTENT
        && let Some(window) = plan.window
        && let Ok(value) = HeaderValue::try_from(format!("bytes {}-{}/{length}", window.first, window.last()))
    {
        set(&mut head, CONTENT_RANGE, value);
    }
    head
}

/// Answers OPTIONS: what players on other sites may send. A preflight carries no ticket, so none is asked for.
pub(crate) async fn preflight(session: &mut Session, allowed: &str) -> Result<(), Box<Error>> {
    let mut head = empty(StatusCode::NO_CONTENT);
    open_to_pages(&mut head);
    if let Ok(methods) = HeaderValue::from_str(allowed) {
        set(&mut head, ALLOW, methods.clone());
        set(&mut head, ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    let headers = "Authorization, Range, If-Range, If-None-Match, If-Modified-Since, CMCD-Request, CMCD-Object, CMCD-Status, CMCD-Session";
    set(&mut head, ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(headers));
    set(&mut head, ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    session.as_downstream_mut().write_response_header(Box::new(head)).await
}
