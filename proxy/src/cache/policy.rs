//! What an HTTP origin's answer permits: whether it is kept, for how long it is fresh, what is told of it (RFC 9111).
//!
//! Purpose: the rules of a shared cache for origins that speak for themselves. S3 does not: its objects live by
//! `[cache.ttl]` alone and never come here.
//!
//! Invariants: what is not certain to be for everybody is for one ([`Reading::Pass`]); header lines that are kept are
//! bounded and end-to-end; a lifetime that the origin states is never lengthened, one that it leaves out is guessed
//! from `Last-Modified` and never beyond the kind's `[cache.ttl]`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{
    ACCEPT_ENCODING, AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, DATE, ETAG, EXPIRES, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED, SET_COOKIE,
};
use pingora_http::ResponseHeader;

use super::directives::ResponseDirectives;
use super::object::{Meta, Object};
use super::vary::Selects;
use crate::config::CacheConfig;
use crate::hop;
use crate::route::{ObjectKind, Target, content_type};

/// Bytes of header lines that are kept with one object. Origins send some hundred; more is for one client alone.
const LINES_MAX: usize = 16 * 1024;
/// Of the time since `Last-Modified`, this share is what an object may be taken to go on unchanged (section 4.2.2).
const HEURISTIC_SHARE: u32 = 10;
/// `Date` counts whole seconds: up to this, two clocks that agree may seem to differ.
const DATE_STEP: Duration = Duration::from_secs(2);

/// A header line.
pub(crate) type Line = (HeaderName, HeaderValue);

/// What an HTTP origin's answer says beside what every object has.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) status: StatusCode,
    /// End-to-end lines that every client is told, those apart that [`Meta`] holds.
    pub(crate) lines: Box<[Line]>,
    /// Lines for the one client whose request brought the answer (qualified `no-cache` and `private`).
    pub(crate) once: Box<[Line]>,
    /// Request headers that tell its variants apart.
    pub(crate) selects: Box<[HeaderName]>,
    /// The origin says itself how long clients may keep it.
    pub(crate) controls: bool,
    /// It must never be served stale (section 4.2.4).
    pub(crate) must_revalidate: bool,
    /// For how long past its lifetime it may be served while it is renewed, and while the origin fails (RFC 5861).
    pub(crate) stale_while_revalidate: Duration,
    pub(crate) stale_if_error: Duration,
}

/// Who asked, and when: what an answer's meaning depends on.
pub(crate) struct Sent<'s> {
    pub(crate) target: &'s Target,
    pub(crate) cache: &'s CacheConfig,
    /// Clients' credentials go through to this origin.
    pub(crate) everything: bool,
    /// The request carried `Authorization` (section 3.5).
    pub(crate) authorized: bool,
    /// From sending the request to its answer's head.
    pub(crate) delay: Duration,
}

/// What becomes of an answer.
pub(crate) enum Reading {
    /// It is kept.
    Keep(Meta),
    /// It is for those who wait for it now: a failure that the origin told of itself.
    Share(Meta),
    /// It is for the client whose request brought it. `lasting`: the next one will be the same.
    Pass { lasting: bool },
}

impl Policy {
    /// Bytes that it takes.
    pub(crate) fn weight(&self) -> u64 {
        let lines = self.lines.iter().chain(&self.once).map(|(name, value)| name.as_str().len() + value.len() + 96);
        (size_of::<Self>() + lines.sum::<usize>() + self.selects.len() * 48) as u64
    }
}

/// Whether clients' headers of this name reach the origin with a request for `target`. What HLS consists of is asked
/// for as it is stored: the edge reads playlists and cuts ranges.
pub(crate) fn reaches(target: &Target, name: &HeaderName) -> bool {
    if *name == ACCEPT_ENCODING {
        return target.kind == ObjectKind::Other;
    }
    *name != COOKIE && *name != AUTHORIZATION && hop::goes_on(name)
}

/// Reads the head of a final answer that is neither 206 nor 304.
pub(crate) fn read(head: &ResponseHeader, sent: &Sent<'_>) -> Reading {
    let directives = ResponseDirectives::read(&head.headers);
    let status = head.status;
    let selects = selects(head, sent);
    let once = listed(&directives);
    let cookies = head.headers.contains_key(SET_COOKIE) && !once.contains(&SET_COOKIE);
    let understood = directives.must_understand && is_understood(status);
    let whole = status != StatusCode::PARTIAL_CONTENT && !head.headers.contains_key(CONTENT_RANGE);
    let for_one = ((directives.no_store || directives.must_understand) && !understood)
        || directives.is_private()
        || cookies
        || !whole;
    let lasting = status == StatusCode::OK && !sent.authorized;
    let Selects::By(selects) = selects else { return Reading::Pass { lasting } };
    if for_one {
        return Reading::Pass { lasting };
    }
    let Some(meta) = meta(head, sent, &directives, &once, selects) else { return Reading::Pass { lasting } };
    let explicit = directives.max_age.is_some()
        || directives.s_maxage.is_some()
        || directives.public
        || head.headers.contains_key(EXPIRES);
    let opened = directives.public || directives.s_maxage.is_some() || directives.must_revalidate;
    if sent.authorized && !opened {
        return Reading::Pass { lasting: false };
    }
    match explicit || is_kept_by_default(status) {
        true => Reading::Keep(meta),
        false if status.is_server_error() => Reading::Share(meta),
        false => Reading::Pass { lasting: false },
    }
}

/// The stored head with the lines of a 304 in place of its own (sections 3.2 and 4.3.4).
pub(crate) fn updated(stored: &Object, newer: &ResponseHeader) -> ResponseHeader {
    let status = stored.meta.http.as_ref().map_or(StatusCode::OK, |policy| policy.status);
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = status;
    let headers = &mut parts.headers;
    for (name, value) in stored.meta.http.iter().flat_map(|policy| policy.lines.iter()) {
        headers.append(name.clone(), value.clone());
    }
    let meta = &stored.meta;
    for (name, value) in [
        (ETAG, meta.etag.as_ref()),
        (LAST_MODIFIED, meta.last_modified.as_ref().map(|(value, _)| value)),
        (CONTENT_TYPE, Some(&meta.content_type).filter(|value| !value.is_empty())),
        (CONTENT_ENCODING, meta.content_encoding.as_ref()),
    ] {
        if let Some(value) = value {
            headers.insert(name, value.clone());
        }
    }
    // What a 304 says of a body is said of none.
    let told = |name: &HeaderName| {
        ![CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE].contains(name) && hop::is_end_to_end(name, &newer.headers)
    };
    for name in newer.headers.keys().filter(|name| told(name)) {
        headers.remove(name);
        for value in newer.headers.get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(stored.body.len()));
    ResponseHeader::from(parts)
}

/// An answer whose coding nobody asked for is one for those alone who say the same of codings.
fn selects(head: &ResponseHeader, sent: &Sent<'_>) -> Selects {
    let Selects::By(names) = Selects::read(&head.headers, |name| {
        reaches(sent.target, name) || (sent.everything && (*name == COOKIE || *name == AUTHORIZATION))
    }) else {
        return Selects::Nobody;
    };
    if names.iter().any(|name| *name == COOKIE || *name == AUTHORIZATION) {
        // Credentials stay out of keys.
        return Selects::Nobody;
    }
    let coded = head.headers.contains_key(CONTENT_ENCODING) && reaches(sent.target, &ACCEPT_ENCODING);
    if !coded || names.contains(&ACCEPT_ENCODING) {
        return Selects::By(names);
    }
    let mut names = names.into_vec();
    names.insert(0, ACCEPT_ENCODING);
    Selects::By(names.into_boxed_slice())
}

/// The names of qualified `private` and `no-cache`.
fn listed(directives: &ResponseDirectives) -> Vec<HeaderName> {
    directives.private.iter().chain(&directives.no_cache).flatten().cloned().collect()
}

/// `None` where its header lines are more than is kept.
fn meta(
    head: &ResponseHeader,
    sent: &Sent<'_>,
    directives: &ResponseDirectives,
    once: &[HeaderName],
    selects: Box<[HeaderName]>,
) -> Option<Meta> {
    let mut meta = Meta::read(head, sent.target, sent.cache)?;
    let declared = head.headers.contains_key(CONTENT_TYPE);
    if !declared && (head.status != StatusCode::OK || content_type(sent.target.file()) == "application/octet-stream") {
        meta.content_type = HeaderValue::from_static("");
    }
    let lifetime = lifetime(head, sent, directives);
    meta.initial_age = initial_age(head, sent.delay);
    meta.fresh_for = if directives.is_no_cache() {
        Duration::ZERO
    } else {
        lifetime.unwrap_or_else(|| heuristic(head.status, &meta, sent)).saturating_sub(meta.initial_age)
    };
    let (once, lines) = lines(&head.headers, &meta).partition::<Vec<_>, _>(|(name, _)| once.contains(name));
    let bytes: usize = lines.iter().chain(&once).map(|(name, value)| name.as_str().len() + value.len()).sum();
    let strict = directives.must_revalidate || directives.s_maxage.is_some() || directives.is_no_cache();
    // That there is nothing is remembered briefly, and never beyond that.
    let (renewing, failing) = match head.status.is_success() {
        true => (sent.cache.stale_while_revalidate, sent.cache.stale_if_error),
        false => (Duration::ZERO, Duration::ZERO),
    };
    let renewing = if lifetime.is_none() { renewing } else { Duration::ZERO };
    meta.http = Some(Arc::new(Policy {
        status: head.status,
        lines: lines.into_boxed_slice(),
        once: once.into_boxed_slice(),
        selects,
        controls: head.headers.contains_key(CACHE_CONTROL) || head.headers.contains_key(EXPIRES),
        must_revalidate: strict,
        stale_while_revalidate: directives.stale_while_revalidate.unwrap_or(renewing),
        stale_if_error: directives.stale_if_error.unwrap_or(failing),
    }));
    (bytes <= LINES_MAX).then_some(meta)
}

/// The lines that are kept as they stand. `Date` is among them: without one, the moment of receipt (RFC 9110, 6.6.1).
fn lines(headers: &HeaderMap, meta: &Meta) -> impl Iterator<Item = Line> {
    let apart = |name: &HeaderName| match name.as_str() {
        "etag" => meta.etag.is_some(),
        "last-modified" => meta.last_modified.is_some(),
        "content-length" | "content-type" | "content-encoding" | "content-range" | "accept-ranges" | "age" => true,
        _ => false,
    };
    let date = (!headers.contains_key(DATE)).then(|| HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())));
    let kept = headers.iter().filter(|(name, _)| !apart(name) && hop::is_end_to_end(name, headers));
    let kept: Vec<Line> = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    kept.into_iter().chain(date.into_iter().flatten().map(|value| (DATE, value)))
}

/// What the origin states (section 4.2.1); `None` where it states nothing.
fn lifetime(head: &ResponseHeader, sent: &Sent<'_>, directives: &ResponseDirectives) -> Option<Duration> {
    let expires = || {
        let mut values = head.headers.get_all(EXPIRES).iter();
        let expires = values.next()?.to_str().unwrap_or_default();
        let now = || SystemTime::now().checked_sub(sent.delay).unwrap_or(SystemTime::UNIX_EPOCH);
        let date = date(head).unwrap_or_else(now);
        // What is not a time, `0` above all, is in the past.
        let expires = httpdate::parse_http_date(expires.trim()).ok();
        Some(expires.and_then(|expires| expires.duration_since(date).ok()).unwrap_or_default())
    };
    directives.s_maxage.or(directives.max_age).or_else(expires)
}

/// What is assumed where the origin says nothing (section 4.2.2).
fn heuristic(status: StatusCode, meta: &Meta, sent: &Sent<'_>) -> Duration {
    if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
        return sent.cache.ttl.missing;
    }
    if !is_kept_by_default(status) {
        return Duration::ZERO;
    }
    // The bytes of media do not change under one name, and a version folder's never do.
    let ceiling = meta.fresh_for;
    if matches!(sent.target.kind, ObjectKind::Segment | ObjectKind::Init) || sent.target.is_immutable() {
        return ceiling;
    }
    match &meta.last_modified {
        Some((_, modified)) => {
            let unchanged = SystemTime::now().duration_since(*modified).unwrap_or_default();
            (unchanged / HEURISTIC_SHARE).min(ceiling)
        }
        None if matches!(sent.target.kind, ObjectKind::Master | ObjectKind::Playlist) => ceiling,
        None => Duration::ZERO,
    }
}

/// How old the answer was when its head came (section 4.2.3).
fn initial_age(head: &ResponseHeader, delay: Duration) -> Duration {
    let apparent = date(head).and_then(|date| SystemTime::now().duration_since(date).ok()).unwrap_or_default();
    let apparent = if apparent < DATE_STEP { Duration::ZERO } else { apparent };
    let told = head.headers.get(AGE).and_then(|age| age.to_str().ok());
    let told = told
        .and_then(|age| age.split(',').next()?.trim().parse().ok())
        .map_or(Duration::ZERO, |age: u64| Duration::from_secs(age).saturating_add(delay));
    apparent.max(told).max(delay)
}

fn date(head: &ResponseHeader) -> Option<SystemTime> {
    httpdate::parse_http_date(head.headers.get(DATE)?.to_str().ok()?).ok()
}

/// Statuses that are kept though the origin says nothing of caches (RFC 9110, section 15.1). Those of requests that
/// were wrong (405, 414) and 501 are as cheap to ask for again.
fn is_kept_by_default(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 410)
}

/// Statuses whose caching rules this cache knows (RFC 9111, section 5.2.2.3).
fn is_understood(status: StatusCode) -> bool {
    is_kept_by_default(status)
        || matches!(status.as_u16(), 302 | 303 | 307 | 400..=403 | 405..=409 | 411..=415 | 500..=504)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use bytes::Bytes;

    use super::*;
    use crate::cache::Use;
    use crate::cache::directives::RequestDirectives;
    use crate::config::{PlaylistMode, RouteConfig};
    use crate::route::{Route, line, resolve};

    fn head(status: u16, headers: &[(&'static str, &str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(StatusCode::from_u16(status).unwrap(), None).unwrap();
        for (name, value) in headers {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    fn target(path: &'static str) -> Target {
        let routes = [Route::new(0, 0, &RouteConfig::contract(), PlaylistMode::Path).unwrap()];
        let request = pingora_http::RequestHeader::build("GET", path.as_bytes(), None).unwrap();
        resolve(&routes, &line(&request)).unwrap()
    }

    fn reading(authorized: bool, status: u16, headers: &[(&'static str, &str)]) -> Reading {
        let (target, cache) = (target("/hls/t/cover.jpg"), CacheConfig::default());
        let sent = Sent { target: &target, cache: &cache, everything: authorized, authorized, delay: Duration::ZERO };
        read(&head(status, headers), &sent)
    }

    fn kept(status: u16, headers: &[(&'static str, &str)]) -> Option<Meta> {
        match reading(false, status, headers) {
            Reading::Keep(meta) => Some(meta),
            _ => None,
        }
    }

    /// Seconds of freshness under these headers; `None` where the answer is not kept.
    fn fresh(headers: &[(&'static str, &str)]) -> Option<u64> {
        kept(200, headers).map(|meta| meta.fresh_for.as_secs())
    }

    fn ago(seconds: u64) -> String {
        httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(seconds))
    }

    #[test]
    fn lifetimes_are_those_of_the_standard() {
        let (date, later) = (ago(0), httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60)));
        let dated =
            |more: &'static str| [("date", date.as_str()), ("expires", later.as_str()), ("cache-control", more)];
        for (headers, wanted) in [
            (&[("cache-control", "max-age=7")][..], Some(7)),
            (&[("cache-control", "max-age=7, s-maxage=9")], Some(9)),
            (&[("cache-control", "s-maxage=9"), ("cache-control", "no-cache")], Some(0)),
            (&[("cache-control", "public"), ("cache-control", "private")], None),
            (&[("cache-control", "max-age=5, private=\"x-a\"")], Some(5)),
            (&[("cache-control", "no-store, max-age=5")], None),
            (&[("cache-control", "no-store, must-understand, max-age=5")], Some(5)),
            (&dated(""), Some(60)),
            (&dated("max-age=7"), Some(7)),
            (&[("expires", "0")], Some(0)),
            (&[("cache-control", "max-age=7"), ("vary", "Origin, Accept-Encoding")], Some(7)),
            (&[("vary", "Origin"), ("vary", "*")], None),
            (&[("cache-control", "max-age=7"), ("set-cookie", "a=b")], None),
            (&[("cache-control", "max-age=7, no-cache=\"set-cookie\""), ("set-cookie", "a=b")], Some(7)),
            (&[("cache-control", "max-age=7"), ("age", "5")], Some(2)),
            (&[("cache-control", "max-age=100"), ("date", &ago(40))], Some(60)),
            (&[("cache-control", "max-age=7"), ("content-range", "bytes 0-1/5")], None),
        ] {
            // The clock may go on by a second between the two readings of it.
            let found = fresh(headers);
            assert!(found == wanted || found.map(|found| found + 1) == wanted, "{headers:?}: {found:?}");
        }
    }

    #[test]
    fn silence_is_a_tenth_of_the_time_unchanged() {
        assert_eq!(fresh(&[("last-modified", &ago(200))]), Some(20));
        assert_eq!(fresh(&[("last-modified", &ago(1_000_000))]), Some(60), "the kind's time to live is the most");
        assert_eq!(fresh(&[]), Some(0));
        assert_eq!(kept(404, &[]).unwrap().fresh_for, Duration::from_secs(3));
        assert!(kept(301, &[]).is_some() && kept(302, &[]).is_none() && kept(403, &[]).is_none());
        assert_eq!(kept(302, &[("cache-control", "max-age=9")]).unwrap().fresh_for, Duration::from_secs(9));
        assert!(matches!(reading(false, 503, &[]), Reading::Share(_)));
        assert!(matches!(reading(false, 206, &[("cache-control", "max-age=9")]), Reading::Pass { .. }));
    }

    #[test]
    fn what_credentials_brought_is_kept_only_where_the_origin_opens_it() {
        for (control, is_kept) in [
            ("max-age=9", false),
            ("max-age=9, public", true),
            ("s-maxage=9", true),
            ("max-age=9, must-revalidate", true),
        ] {
            let found = matches!(reading(true, 200, &[("cache-control", control)]), Reading::Keep(_));
            assert_eq!(found, is_kept, "{control}");
        }
        let vary = [("cache-control", "public, max-age=9"), ("vary", "cookie")];
        assert!(matches!(reading(true, 200, &vary), Reading::Pass { .. }), "credentials are in no key");
        assert!(matches!(reading(false, 200, &vary), Reading::Keep(_)), "they did not reach the origin");
    }

    #[test]
    fn lines_are_kept_but_for_those_of_the_connection_and_of_one_client() {
        let meta = kept(
            200,
            &[
                ("cache-control", "max-age=9, no-cache=\"x-one\""),
                ("connection", "x-hop"),
                ("x-hop", "1"),
                ("x-one", "2"),
                ("link", "<a>"),
                ("link", "<b>"),
                ("date", &ago(0)),
            ],
        );
        let policy = meta.unwrap().http.unwrap();
        let names = |lines: &[Line]| lines.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&policy.lines), ["cache-control", "link", "link", "date"]);
        assert_eq!(names(&policy.once), ["x-one"]);
        let long = "x".repeat(LINES_MAX);
        assert!(kept(200, &[("cache-control", "max-age=9"), ("x-long", &long)]).is_none());
    }

    fn object(headers: &[(&'static str, &str)]) -> Object {
        Object::new(kept(200, headers).unwrap(), Bytes::from_static(b"body"), Instant::now())
    }

    #[test]
    fn a_304_brings_the_stored_lines_up_to_date() {
        let stored = object(&[("cache-control", "max-age=1"), ("etag", "\"a\""), ("x-a", "old"), ("x-b", "kept")]);
        let newer = head(304, &[("cache-control", "max-age=9"), ("x-a", "new"), ("content-length", "0")]);
        let updated = updated(&stored, &newer);
        let get = |name: &str| updated.headers.get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!((get("x-a").as_str(), get("x-b").as_str(), get("etag").as_str()), ("new", "kept", "\"a\""));
        assert_eq!((get("cache-control").as_str(), get("content-length").as_str()), ("max-age=9", "4"));
    }

    #[test]
    fn what_is_stale_serves_where_both_sides_allow_it() {
        let cache = CacheConfig::default();
        let nothing = RequestDirectives::default();
        let at = |object: &Object, seconds, asks: &RequestDirectives| {
            object.use_for(object.since + Duration::from_secs(seconds), asks, &cache)
        };
        let open = object(&[("cache-control", "max-age=10, stale-while-revalidate=5, stale-if-error=20")]);
        let uses = [9, 11, 16, 31].map(|seconds| at(&open, seconds, &nothing));
        assert_eq!(uses, [Use::Fresh, Use::WhileRenewed, Use::OnError, Use::Condition]);
        let strict = object(&[("cache-control", "max-age=10, must-revalidate, stale-while-revalidate=5")]);
        assert_eq!(at(&strict, 11, &nothing), Use::Condition);
        let asks = |change: fn(&mut RequestDirectives)| {
            let mut asks = RequestDirectives::default();
            change(&mut asks);
            asks
        };
        assert_eq!(at(&open, 1, &asks(|asks| asks.no_cache = true)), Use::Condition);
        assert_eq!(at(&open, 5, &asks(|asks| asks.max_age = Some(Duration::from_secs(3)))), Use::OnError);
        assert_eq!(at(&open, 5, &asks(|asks| asks.min_fresh = Some(Duration::from_secs(6)))), Use::OnError);
        assert_eq!(at(&open, 12, &asks(|asks| asks.max_stale = Some(Duration::MAX))), Use::Fresh);
        assert_eq!(at(&strict, 12, &asks(|asks| asks.max_stale = Some(Duration::MAX))), Use::Condition);
    }

    #[test]
    fn an_absurd_age_is_no_panic() {
        let age = u64::MAX.to_string();
        let object = object(&[("age", age.as_str())]);
        assert_eq!(object.age(Instant::now() + Duration::from_secs(5)), u64::MAX);
    }
}
