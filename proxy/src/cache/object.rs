//! An object as it is kept and told of.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue, LAST_MODIFIED};
use pingora_http::ResponseHeader;

use super::directives::RequestDirectives;
use super::memfile;
use super::policy::Policy;
use crate::config::CacheConfig;
use crate::prefetch::Mark;
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
    /// What an HTTP origin says beside it; `None` for S3.
    pub(crate) http: Option<Arc<Policy>>,
    /// Made by the edge for one request or mode: ranges of it are not served.
    pub(crate) whole_only: bool,
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
    /// The time, as the disk tier counts it, in which that was told last that this object is wanted.
    pub(crate) told: AtomicU32,
    /// What `playlist = "define"` makes of a playlist; set before the object enters the memory, where it weighs.
    pub(crate) defined: Option<Arc<Object>>,
    /// What prefetching has come to with it; `None` where that is off, or nothing follows.
    pub(crate) mark: Option<Arc<Mark>>,
}

/// What an object is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// To be served.
    Fresh,
    /// To be served while one request renews it (RFC 5861, section 3).
    WhileRenewed,
    /// To be served if the origin fails (RFC 5861, section 4).
    OnError,
    /// To ask the origin whether it still holds, and for nothing else.
    Condition,
}

impl Meta {
    /// The status under which it came.
    pub(crate) fn status(&self) -> StatusCode {
        self.http.as_ref().map_or(StatusCode::OK, |policy| policy.status)
    }

    /// Reads what every object has; its lifetime is the configured one of its kind. S3 sends no directives of its own;
    /// `policy.rs` goes on with those of an HTTP origin. `None` where the configured `Cache-Control` is no header value.
    pub(crate) fn read(head: &ResponseHeader, target: &Target, cache: &CacheConfig) -> Option<Self> {
        let get = |name| head.headers.get(name);
        let text = |name| get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let immutable = target.is_immutable();
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
            content_encoding: content_encoding(get(CONTENT_ENCODING)),
            cache_control: HeaderValue::from_str(control).ok()?,
            fresh_for: ttl(target, cache),
            initial_age: Duration::ZERO,
            http: None,
            whole_only: false,
        })
    }
}

/// The coding of the bytes as clients get them. `aws-chunked` was one of the upload alone, which some S3 servers keep.
fn content_encoding(declared: Option<&HeaderValue>) -> Option<HeaderValue> {
    let text = declared?.to_str().ok()?;
    let of_the_bytes = |coding: &&str| !matches!(*coding, "" | "identity" | "aws-chunked");
    let codings: Vec<_> = text.split(',').map(str::trim).filter(of_the_bytes).collect();
    if codings.is_empty() { None } else { HeaderValue::try_from(codings.join(", ")).ok() }
}

/// The configured lifetime of what `target` names.
fn ttl(target: &Target, cache: &CacheConfig) -> Duration {
    if target.is_immutable() {
        return cache.ttl.immutable;
    }
    if target.is_growing() {
        return cache.ttl.growing;
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
        let (media, head, told) = (OnceLock::new(), OnceLock::new(), AtomicU32::new(0));
        Self { meta, body, since, number, hits, media, head, told, defined: None, mark: None }
    }

    /// The same bytes under a newer head, after the origin said that they have not changed.
    pub(crate) fn renewed(&self, meta: Meta, since: Instant) -> Self {
        let defined = self.defined.as_ref().map(|defined| {
            let Meta { fresh_for, initial_age, .. } = meta;
            let meta = Meta { fresh_for, initial_age, ..defined.meta.clone() };
            Arc::new(Self::new(meta, defined.body.clone(), since))
        });
        let meta = Meta { length: Some(self.body.len() as u64), ..meta };
        Self { media: self.media.clone(), defined, ..Self::new(meta, self.body.clone(), since) }
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
            http: None,
            whole_only: false,
        };
        Self::new(meta, body, Instant::now())
    }

    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < self.meta.fresh_for
    }

    /// What it is good for, for a client that asks so.
    pub(crate) fn use_for(&self, now: Instant, asks: &RequestDirectives, cache: &CacheConfig) -> Use {
        let since = now.saturating_duration_since(self.since);
        let lifetime = self.meta.fresh_for;
        let stale_by = since.saturating_sub(lifetime);
        let age = since.saturating_add(self.meta.initial_age);
        let is_fresh = since < lifetime;
        let strict = self.meta.http.as_ref().is_some_and(|policy| policy.must_revalidate);
        if asks.no_cache {
            return Use::Condition;
        }
        let is_enough = asks.min_fresh.is_none_or(|least| lifetime.saturating_sub(since) >= least);
        if is_fresh && is_enough && asks.max_age.is_none_or(|most| age <= most) {
            return Use::Fresh;
        }
        if strict {
            return Use::Condition;
        }
        let is_asked_for = asks.max_age.is_some() || asks.min_fresh.is_some();
        if !is_fresh && !is_asked_for && asks.max_stale.is_some_and(|most| stale_by <= most) {
            return Use::Fresh;
        }
        let (renewing, failing) = match &self.meta.http {
            Some(policy) => (policy.stale_while_revalidate, policy.stale_if_error),
            None => (cache.stale_while_revalidate, cache.stale_if_error),
        };
        if !is_asked_for && !lifetime.is_zero() && stale_by < renewing {
            Use::WhileRenewed
        } else if stale_by < failing {
            Use::OnError
        } else {
            Use::Condition
        }
    }

    /// The status under which it was stored.
    pub(crate) fn status(&self) -> StatusCode {
        self.meta.status()
    }

    /// Seconds for which it is fresh; below zero, how long it has not been (RFC 9211, section 2.4).
    pub(crate) fn ttl(&self, now: Instant) -> i64 {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        seconds(self.meta.fresh_for).saturating_sub(seconds(now.saturating_duration_since(self.since)))
    }

    /// `Age` in seconds (RFC 9111, section 5.1).
    pub(crate) fn age(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.since).saturating_add(self.meta.initial_age).as_secs()
    }

    pub(crate) fn weight(&self) -> u64 {
        // What is allocated beside the body: the object, its header values and lines, the cache's own entry.
        let policy = self.meta.http.as_ref().map_or(0, |policy| policy.weight());
        let defined = self.defined.as_ref().map_or(0, |defined| defined.weight());
        self.body.len() as u64 + size_of::<Self>() as u64 + 1024 + policy + defined
    }
}
