//! `[cache]`: what is kept, how long, how much of it, and what clients are told.

use std::path::PathBuf;
use std::time::Duration;

use segue_config::{Section, Size, Span};

use crate::cache::Disk;

/// Bounds and lifetimes of the cache.
#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// Bytes of objects in memory (`memory`).
    pub memory: u64,
    /// The largest object that is kept (`max_object`); larger ones are passed through.
    pub max_object: u64,
    /// Bytes of the disk tier, all of its files together (`disk`); 0: there is none.
    pub disk: u64,
    /// The folder of the disk tier (`dir`), for this edge alone.
    pub dir: Option<PathBuf>,
    /// Bytes that all running fills may hold together (`in_flight`).
    pub in_flight: u64,
    /// How long each kind is fresh (`[cache.ttl]`).
    pub ttl: TtlConfig,
    /// How long past its freshness an object may still be served when the origin fails (`stale_if_error`).
    pub stale_if_error: Duration,
    /// How long past its freshness an object is served while one request renews it (`stale_while_revalidate`). Where an
    /// HTTP origin states a lifetime, it alone says whether it may be outlived.
    pub stale_while_revalidate: Duration,
    /// Whether clients' `Cache-Control` is obeyed (`client_directives`). Unless set: for HTTP origins, as RFC 9111 has
    /// it, and not for S3, where `no-cache` in the hands of any client would make each request one at the bucket.
    pub client_directives: Option<bool>,
    /// Requests that may wait for one object (`waiters`); further ones are told to come back.
    pub waiters: usize,
    /// How long a request may wait for an object's head (`wait`), whatever the origin does.
    pub wait: Duration,
    /// What clients are told (`[cache.control]`).
    pub control: ControlConfig,
}

/// How long an object is served without asking the origin, by kind. S3 sends no `Cache-Control`: nothing is guessed.
#[derive(Debug, Clone)]
pub struct TtlConfig {
    /// A track's alias `master.m3u8`, the one mutable name outside of a version folder.
    pub master: Duration,
    /// Whatever stands in a version folder and does not grow, which never changes.
    pub immutable: Duration,
    /// A playlist that grows while its track is encoded (`live.m3u8`, `early.m3u8`). Players ask for it every few seconds: longer than
    /// a second would be time that they wait for.
    pub growing: Duration,
    /// Segments and init segments outside of a version folder.
    pub media: Duration,
    /// A content key that was unwrapped here (`key`): for so long an edge gives it out without looking whether it is still
    /// in the bucket, and whether its wrapping key is still in the file.
    pub key: Duration,
    /// Everything else: media playlists outside of a version folder, images, data.
    pub other: Duration,
    /// An object that is not there.
    pub missing: Duration,
}

/// The `Cache-Control` that clients see.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// For objects that never change. `private`, because the URL holds a listener's ticket.
    pub immutable: String,
    /// For names whose bytes may change.
    pub mutable: String,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            max_object: 16 << 20,
            disk: 0,
            dir: None,
            in_flight: 128 << 20,
            ttl: TtlConfig::default(),
            stale_if_error: Duration::from_secs(600),
            // As long again as an alias is fresh: nobody waits for the bucket while a track is being listened to.
            stale_while_revalidate: Duration::from_secs(10),
            client_directives: None,
            // A crowd on one cold segment, four times over; each takes a connection and a task.
            waiters: 4096,
            wait: Duration::from_secs(30),
            control: ControlConfig::default(),
        }
    }
}

impl Default for TtlConfig {
    fn default() -> Self {
        Self {
            master: Duration::from_secs(10),
            immutable: Duration::from_secs(7 * 86_400),
            growing: Duration::from_secs(1),
            media: Duration::from_secs(3_600),
            key: Duration::from_secs(3_600),
            other: Duration::from_secs(60),
            missing: Duration::from_secs(3),
        }
    }
}

impl Default for ControlConfig {
    fn default() -> Self {
        // Immutable media stays in a player's own memory for one sitting; an alias is asked for again each time,
        // so that replays are seen and a new version is found.
        Self { immutable: "private, max-age=3600".to_owned(), mutable: "private, no-cache".to_owned() }
    }
}

/// Reads `[cache]`; problems go to the document.
pub(super) fn read(section: &Section<'_>, cache: &mut CacheConfig) {
    cache.memory = section.or("memory", Size(cache.memory)).0;
    cache.max_object = section.or("max_object", Size(cache.max_object)).0;
    cache.in_flight = section.or("in_flight", Size(cache.in_flight)).0;
    cache.stale_if_error = section.or("stale_if_error", Span(cache.stale_if_error)).0;
    cache.stale_while_revalidate = section.or("stale_while_revalidate", Span(cache.stale_while_revalidate)).0;
    cache.client_directives = section.get("client_directives");
    cache.waiters = section.or("waiters", cache.waiters);
    if cache.waiters == 0 {
        section.problem("waiters", "whoever asks first waits too; use 1 or more");
    }
    cache.wait = section.or("wait", Span(cache.wait)).0;
    if cache.wait.is_zero() {
        section.problem("wait", "must be longer than 0s, or no object could ever be fetched");
    }
    if cache.max_object > cache.memory {
        section.problem("max_object", "an object of this size does not fit into `memory`; lower it or raise `memory`");
    }
    if cache.max_object > cache.in_flight {
        section.problem("in_flight", "must be at least `max_object`, or the largest objects could never be fetched");
    }
    cache.disk = section.or("disk", Size(cache.disk)).0;
    cache.dir = section.get("dir");
    if cache.disk > 0 {
        let least = Disk::least(cache.max_object);
        if cache.dir.is_none() {
            section.problem("dir", "missing; `disk` needs a folder of its own, such as \"/var/cache/segue\"");
        }
        if cache.disk < least {
            let message =
                format!("too small: with this `max_object` it takes {}MiB or more, or 0 for none", least >> 20);
            section.problem("disk", message);
        } else if cache.disk > Disk::MOST {
            section.problem("disk", format!("too large: at most {}GiB", Disk::MOST >> 30));
        }
    }
    let ttl = section.section("ttl");
    for (name, value) in [
        ("master", &mut cache.ttl.master),
        ("immutable", &mut cache.ttl.immutable),
        ("growing", &mut cache.ttl.growing),
        ("media", &mut cache.ttl.media),
        ("key", &mut cache.ttl.key),
        ("other", &mut cache.ttl.other),
        ("missing", &mut cache.ttl.missing),
    ] {
        *value = ttl.or(name, Span(*value)).0;
    }
    let control = section.section("control");
    for (name, value) in [("immutable", &mut cache.control.immutable), ("mutable", &mut cache.control.mutable)] {
        if let Some(text) = control.get::<String>(name) {
            if http::HeaderValue::from_str(&text).is_err() {
                control.problem(name, "not a header value");
            }
            *value = text;
        }
    }
}
