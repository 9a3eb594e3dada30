//! An object as it is kept and told of.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{
    AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, EXPIRES, HeaderValue,
    LAST_MODIFIED, VARY,
};
use pingora_http::ResponseHeader;

use super::memfile;
use crate::config::CacheConfig;
use crate::route::{ObjectKind, Target, content_type};
use crate::timeline::Media;

/// What an origin's head says of an object.
#[derive(Debug, Clone)]
pub(crate) struct Meta {
    /// Bytes of the body, where the origin declares them.
    pub(crate) length: Option<u64>,
    /// The entity tag as it stands, quotes included (RFC 9110, section 8.8.3).
    pub(crate) etag: Option<HeaderValue>,
    /// `Last-Modified`, as it stands and as a time.
    pub(crate) last_modified: Option<(HeaderValue, SystemTime)>,
    pub(crate) content_type: HeaderValue,
    pub(crate) content_encoding: Option<HeaderValue>,
    /// What clients are told.
    pub(crate) cache_control: HeaderValue,
    /// How long it is fresh, from when its head came.
    pub(crate) fresh_for: Duration,
    /// How old it was then (RFC 9111, section 4.2.3).
    pub(crate) initial_age: Duration,
}

/// An object in memory.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) meta: Meta,
    pub(crate) body: Bytes,
    /// When its head came.
    pub(crate) since: Instant,
    /// No other object of this process has it.
    pub(crate) number: u64,
    /// Hits that copied the body.
    pub(crate) hits: AtomicU32,
    /// Its place in the track, once it is known.
    pub(crate) media: OnceLock<Media>,
    /// The lines of its head that are the same in every whole answer from memory, once there was one.
    pub(crate) head: OnceLock<Box<[u8]>>,
}

impl Meta {
    /// Reads an origin's head. `None` if the answer is not for a shared cache: `no-store`, `private` or
    /// `Vary: *` (RFC 9111, section 3). Another `Vary` changes nothing: what the edge asks with is the same for all
    /// clients. S3 sends no directives of its own.
    pub(crate) fn read(head: &ResponseHeader, target: &Target, cache: &CacheConfig, s3: bool) -> Option<Self> {
        let get = |name| head.headers.get(name);
        let text = |name| get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let immutable = target.version().is_some();
        let mut fresh_for = ttl(target, cache);
        let mut initial_age = Duration::ZERO;
        if !s3 {
            // Several lines are one list (RFC 9110, section 5.3).
            let all = |name| head.headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
            let directives = all(CACHE_CONTROL).collect::<Vec<_>>().join(",").to_ascii_lowercase();
            let mut no_cache = false;
            let mut shared_age = None;
            let mut private_age = None;
            for directive in directives.split(',').map(str::trim) {
                let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
                let seconds = || Some(delta_seconds(value.trim().trim_matches('"')));
                match name.trim_end() {
                    "no-store" | "private" => return None,
                    "no-cache" => no_cache = true,
                    "s-maxage" => shared_age = shared_age.or_else(seconds),
                    "max-age" => private_age = private_age.or_else(seconds),
                    _ => {}
                }
            }
            if all(VARY).flat_map(|vary| vary.split(',')).any(|name| name.trim() == "*") {
                return None;
            }
            let expires = || text(EXPIRES).map(|expires| lifetime(expires, text(DATE)));
            fresh_for = shared_age.or(private_age).or_else(expires).unwrap_or(fresh_for);
            if no_cache {
                fresh_for = Duration::ZERO;
            }
            initial_age = text(AGE).and_then(|age| age.trim().parse().ok()).map_or(Duration::ZERO, Duration::from_secs);
        }
        let declared = get(CONTENT_TYPE).filter(|value| {
            !value.as_bytes().is_empty() && *value != "application/octet-stream" && *value != "binary/octet-stream"
        });
        let control = if immutable { &cache.control.immutable } else { &cache.control.mutable };
        Some(Self {
            length: text(CONTENT_LENGTH).and_then(|length| length.trim().parse().ok()),
            etag: get(ETAG).filter(|value| is_entity_tag(value.as_bytes())).cloned(),
            last_modified: get(LAST_MODIFIED).and_then(|value| {
                let time = httpdate::parse_http_date(value.to_str().ok()?).ok()?;
                Some((value.clone(), time))
            }),
            content_type: declared.cloned().unwrap_or_else(|| HeaderValue::from_static(content_type(target.file()))),
            content_encoding: get(CONTENT_ENCODING).filter(|value| *value != "identity").cloned(),
            cache_control: HeaderValue::from_str(control).ok()?,
            fresh_for: fresh_for.saturating_sub(initial_age),
            initial_age,
        })
    }
}

/// Seconds of a directive (RFC 9111, section 1.2.2). What is not a number is stale (section 4.2.1).
fn delta_seconds(text: &str) -> Duration {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let beyond = if is_number { 1 << 31 } else { 0 };
    Duration::from_secs(text.parse().ok().filter(|_| is_number).unwrap_or(beyond))
}

/// From `Date` to `Expires` (RFC 9111, section 4.2.1); what is not a time, `0` above all, is in the past.
fn lifetime(expires: &str, date: Option<&str>) -> Duration {
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(SystemTime::now);
    let expires = httpdate::parse_http_date(expires).ok();
    expires.and_then(|expires| expires.duration_since(date).ok()).unwrap_or_default()
}

/// The configured lifetime of what `target` names.
fn ttl(target: &Target, cache: &CacheConfig) -> Duration {
    if target.version().is_some() {
        return cache.ttl.immutable;
    }
    match target.kind {
        ObjectKind::Master => cache.ttl.master,
        ObjectKind::Segment | ObjectKind::Init => cache.ttl.media,
        ObjectKind::Playlist | ObjectKind::Key | ObjectKind::Other => cache.ttl.other,
    }
}

fn is_entity_tag(value: &[u8]) -> bool {
    let tag = value.strip_prefix(b"W/").unwrap_or(value);
    tag.len() >= 2 && tag.starts_with(b"\"") && tag.ends_with(b"\"")
}

impl Object {
    pub(crate) fn new(meta: Meta, body: Bytes, since: Instant) -> Self {
        let (number, hits) = (memfile::number(), AtomicU32::new(0));
        Self { meta, body, since, number, hits, media: OnceLock::new(), head: OnceLock::new() }
    }

    /// The same bytes under a newer head, after the origin said that they have not changed.
    pub(crate) fn renewed(&self, meta: Meta, since: Instant) -> Self {
        let meta = Meta { length: Some(self.body.len() as u64), ..meta };
        Self { media: self.media.clone(), ..Self::new(meta, self.body.clone(), since) }
    }

    /// An object of these bytes and nothing else.
    #[cfg(test)]
    pub(crate) fn of_bytes(body: Bytes) -> Self {
        let meta = Meta {
            length: Some(body.len() as u64),
            etag: None,
            last_modified: None,
            content_type: HeaderValue::from_static("audio/mp4"),
            content_encoding: None,
            cache_control: HeaderValue::from_static("private"),
            fresh_for: Duration::from_secs(60),
            initial_age: Duration::ZERO,
        };
        Self::new(meta, body, Instant::now())
    }

    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < self.meta.fresh_for
    }

    /// Whether it may still serve while the origin fails.
    pub(crate) fn is_usable(&self, now: Instant, stale_for: Duration) -> bool {
        now.saturating_duration_since(self.since) < self.meta.fresh_for.saturating_add(stale_for)
    }

    /// `Age` in seconds (RFC 9111, section 5.1).
    pub(crate) fn age(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.since).saturating_add(self.meta.initial_age).as_secs()
    }

    pub(crate) fn weight(&self) -> u64 {
        // What is allocated beside the body: the object, its header values and lines, the cache's own entry.
        self.body.len() as u64 + size_of::<Self>() as u64 + 1024
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::StatusCode;

    use super::*;
    use crate::config::RouteConfig;
    use crate::route::{Route, line, resolve};

    /// Seconds of freshness under these headers; `None` where the answer is not for the cache.
    fn fresh(headers: &[(&'static str, &str)]) -> Option<u64> {
        meta(headers).map(|meta| meta.fresh_for.as_secs())
    }

    fn meta(headers: &[(&'static str, &str)]) -> Option<Meta> {
        let mut head = ResponseHeader::build(StatusCode::OK, None).unwrap();
        for (name, value) in headers {
            head.append_header(*name, *value).unwrap();
        }
        let routes = [Route::new(0, 0, &RouteConfig::contract()).unwrap()];
        let request = pingora_http::RequestHeader::build("GET", b"/hls/t/cover.jpg", None).unwrap();
        let target = resolve(&routes, &line(&request)).unwrap();
        Meta::read(&head, &target, &CacheConfig::default(), false)
    }

    #[test]
    fn lifetimes_are_those_of_the_standard() {
        let (date, later) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:50:37 GMT");
        for (headers, wanted) in [
            (&[("cache-control", "max-age=7")][..], Some(7)),
            (&[("cache-control", "max-age=7, s-maxage=9")], Some(9)),
            (&[("cache-control", "s-maxage=9"), ("cache-control", "no-cache")], Some(0)),
            (&[("cache-control", "public"), ("cache-control", "private")], None),
            (&[("cache-control", "max-age=soon")], Some(0)),
            (&[("cache-control", "max-age=+5")], Some(0)),
            (&[("cache-control", "max-age=99999999999999999999")], Some(1 << 31)),
            (&[("date", date), ("expires", later)], Some(60)),
            (&[("date", date), ("expires", later), ("cache-control", "max-age=7")], Some(7)),
            (&[("expires", "0")], Some(0)),
            (&[("cache-control", "max-age=7"), ("vary", "Origin, Accept-Encoding")], Some(7)),
            (&[("vary", "Origin"), ("vary", "*")], None),
        ] {
            assert_eq!(fresh(headers), wanted, "{headers:?}");
        }
    }

    #[test]
    fn an_absurd_age_is_no_panic() {
        let age = u64::MAX.to_string();
        let object = Object::new(meta(&[("age", age.as_str())]).unwrap(), Bytes::new(), Instant::now());
        assert_eq!(object.age(Instant::now() + Duration::from_secs(5)), u64::MAX);
    }
}
