//! Response heads.
//!
//! Invariants: every answer has a length, names its cache state (RFC 9211), and may be read by scripts of any page:
//! who may have it was decided by the ticket, and cookies are never asked for across sites.

use std::fmt::Write as _;

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
use crate::cache::{How, Meta};

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
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

/// `Cache-Status` (RFC 9211, section 2). `sent`: the status that the client gets; `ttl`: where it is told.
pub(super) fn cache_status(state: CacheState, how: Option<&How>, sent: StatusCode, ttl: Option<i64>) -> HeaderValue {
    let tier = if state == CacheState::HitDisk { "disk" } else { "memory" };
    let forward = match (how, state) {
        (Some(how), _) => how.forward.as_str(),
        (None, CacheState::Miss | CacheState::Coalesced) => Some("miss"),
        (None, CacheState::Bypass) => Some("bypass"),
        (None, _) => None,
    };
    let mut text = String::from("segue");
    let mut add = |part: std::fmt::Arguments<'_>| {
        // Writing to a String does not fail.
        let _ = write!(text, "; {part}");
    };
    match forward {
        Some(reason) => add(format_args!("fwd={reason}")),
        None => add(format_args!("hit")),
    }
    if let Some(status) = how.and_then(|how| how.status).filter(|status| *status != sent) {
        add(format_args!("fwd-status={}", status.as_u16()));
    }
    for (is_so, word) in
        [(how.is_some_and(|how| how.stored), "stored"), (how.is_some_and(|how| how.collapsed), "collapsed")]
    {
        if is_so {
            add(format_args!("{word}"));
        }
    }
    if let Some(ttl) = ttl {
        add(format_args!("ttl={ttl}"));
    }
    match (how.and_then(|how| how.detail), forward) {
        (Some(detail), _) => add(format_args!("detail={detail}")),
        (None, None) => add(format_args!("detail={tier}")),
        (None, Some(_)) => {}
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("segue"))
}

/// The head of an answer that carries `meta`'s object, or a part of it, or says that it has not changed. `status`: its
/// `Cache-Status`, where it is not written elsewhere. `is_first`: it goes to the client whose request brought it.
pub(super) fn of_object(
    meta: &Meta,
    plan: &Plan,
    status: Option<HeaderValue>,
    age: Option<u64>,
    is_first: bool,
) -> ResponseHeader {
    let mut head = empty(plan.status);
    if let Some(etag) = &meta.etag {
        set(&mut head, ETAG, etag.clone());
    }
    if let Some((value, _)) = &meta.last_modified {
        set(&mut head, LAST_MODIFIED, value.clone());
    }
    if meta.http.as_ref().is_none_or(|policy| !policy.controls) {
        set(&mut head, CACHE_CONTROL, meta.cache_control.clone());
    }
    if let Some(age) = age {
        set(&mut head, AGE, HeaderValue::from(age));
    }
    open_to_pages(&mut head);
    if let Some(policy) = &meta.http {
        let once = policy.once.iter().filter(|_| is_first);
        told(&mut head, policy.lines.iter().chain(once));
    }
    if let Some(status) = status {
        add(&mut head, CACHE_STATUS, status);
    }
    if plan.status == StatusCode::NOT_MODIFIED {
        return head;
    }
    if !meta.content_type.is_empty() {
        set(&mut head, CONTENT_TYPE, meta.content_type.clone());
    }
    if let Some(encoding) = &meta.content_encoding {
        set(&mut head, CONTENT_ENCODING, encoding.clone());
    }
    if meta.status() == StatusCode::OK {
        set(&mut head, ACCEPT_RANGES, HeaderValue::from_static(if meta.whole_only { "none" } else { "bytes" }));
    }
    if plan.status != StatusCode::NO_CONTENT {
        set(&mut head, CONTENT_LENGTH, HeaderValue::from(plan.length()));
    }
    match (&plan.parts, plan.window) {
        (Some(parts), _) => {
            if let Some(value) = parts.content_type() {
                set(&mut head, CONTENT_TYPE, value);
            }
        }
        (None, Some(window)) if plan.status == StatusCode::PARTIAL_CONTENT => {
            let range = format!("bytes {}-{}/{}", window.first, window.last(), window.total);
            if let Ok(value) = HeaderValue::try_from(range) {
                set(&mut head, CONTENT_RANGE, value);
            }
        }
        _ => {}
    }
    head
}

/// Adds what an HTTP origin tells beside the object. What it says of who may read it stands in place of ours.
pub(super) fn told<'l>(head: &mut ResponseHeader, lines: impl Iterator<Item = &'l (HeaderName, HeaderValue)>) {
    let is_304 = head.status == StatusCode::NOT_MODIFIED;
    for (name, value) in lines {
        let text = name.as_str();
        // A 304 speaks of no content (RFC 9110, section 15.4.5).
        if is_304 && text.starts_with("content-") && text != "content-location" {
            continue;
        }
        if text.starts_with("access-control-") || *name == TIMING_ALLOW_ORIGIN {
            set(head, name.clone(), value.clone());
        } else {
            add(head, name.clone(), value.clone());
        }
    }
}

/// Adds a line beside those of the same name.
pub(super) fn add(head: &mut ResponseHeader, name: HeaderName, value: HeaderValue) {
    if let Err(error) = head.append_header(name, value) {
        tracing::error!(%error, "a response header could not be added");
    }
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
