//! An object as it is kept and told of.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{
    AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue, LAST_MODIFIED, VARY,
};
use pingora_http::ResponseHeader;

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
    /// Its place in the track, once it is known.
    pub(crate) media: OnceLock<Media>,
    /// The lines of its head that are the same in every whole answer from memory, once there was one.
    pub(crate) head: OnceLock<Box<[u8]>>,
}

impl Meta {
    /// Reads an origin's head. `None` if the answer is not for a shared cache: `no-store`, `private` or a `Vary`
    /// that is not answered by asking for identity (RFC 9111, section 3). S3 sends no directives of its own.
    pub(crate) fn read(head: &ResponseHeader, target: &Target, cache: &CacheConfig, s3: bool) -> Option<Self> {
        let get = |name| head.headers.get(name);
        let text = |name| get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let immutable = target.version().is_some();
        let mut fresh_for = ttl(target, cache);
        let mut initial_age = Duration::ZERO;
        if !s3 {
            let directives = text(CACHE_CONTROL).unwrap_or_default().to_ascii_lowercase();
            let mut shared_age = None;
            let mut private_age = None;
            for directive in directives.split(',').map(str::trim) {
                let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
                let seconds = || value.trim_matches('"').parse().ok().map(Duration::from_secs);
                match name {
                    "no-store" | "private" => return None,
                    "no-cache" => private_age = Some(Duration::ZERO),
                    "s-maxage" => shared_age = seconds(),
                    "max-age" => private_age = private_age.or_else(seconds),
                    _ => {}
                }
            }
            if text(VARY).is_some_and(|vary| !vary.trim().eq_ignore_ascii_case("accept-encoding")) {
                return None;
            }
            fresh_for = shared_age.or(private_age).unwrap_or(fresh_for);
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
        Self { meta, body, since, media: OnceLock::new(), head: OnceLock::new() }
    }

    /// The same bytes under a newer head, after the origin said that they have not changed.
    pub(crate) fn renewed(&self, meta: Meta, since: Instant) -> Self {
        let meta = Meta { length: Some(self.body.len() as u64), ..meta };
        Self { media: self.media.clone(), ..Self::new(meta, self.body.clone(), since) }
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
        (now.saturating_duration_since(self.since) + self.meta.initial_age).as_secs()
    }

    pub(crate) fn weight(&self) -> u64 {
        // What is allocated beside the body: the object, its header values and lines, the cache's own entry.
        self.body.len() as u64 + size_of::<Self>() as u64 + 1024
    }
}
