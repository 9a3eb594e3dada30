//! The truth that answers are held against: what every object holds in every version, worked out anew each time from its
//! path and version, and which version was current when.
//!
//! Invariants: nothing of an object is stored but the times of its versions; an ETag names one version of one path, so
//! that an answer says itself what it must consist of.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::random::{Random, hash};

/// Tracks, and segments of each. Together they are about three times what the edge may keep in memory.
const TRACKS: usize = 30;
const SEGMENTS: usize = 40;
/// Lengths of segments, in bytes: 6 s at 10 to 260 kbit/s, and a few very small ones.
const SEGMENT_MAX: u64 = 200 * 1024;
/// Larger than the edge keeps at all: these go past its cache.
pub(crate) const OVERSIZED: u64 = super::edge::MAX_OBJECT + 100 * 1024;
/// How long a fault at the origin may be felt: the edge's patience with one object, and its rest after a failure.
const FAULT_ECHO: Duration = Duration::from_secs(20);

/// How long a false length may be repeated: as long as one fill takes at most.
const LIE_ECHO: Duration = Duration::from_secs(12);

/// What an object is, as far as the soak is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In a version folder: never changes.
    Segment,
    /// A media playlist in a version folder.
    Playlist,
    /// A track's alias: changes under the same name.
    Master,
    /// Artwork: changes under the same name, and its length with it.
    Cover,
    /// Too large for the cache.
    Oversized,
    /// Named by nobody: 404.
    Absent,
}

/// One object of the origin.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) path: String,
    pub(crate) kind: Kind,
    pub(crate) track: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When each version became current; the last is.
    versions: Vec<Instant>,
    last_fault: Option<Instant>,
    /// When the origin last gave it a length that it does not have, and which.
    last_lie: Option<(Instant, u64)>,
}

/// Everything at the origin.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) objects: Vec<Object>,
    places: HashMap<String, usize>,
    /// The places of objects that change.
    pub(crate) mutable: Vec<usize>,
    /// For each track, when its last purge was sent and when it was answered.
    purges: Vec<Mutex<Option<(Instant, Instant)>>>,
    planted: bool,
}

impl World {
    /// `planted` makes the truth differ from what the origin serves in one byte of every cover.
    pub(crate) fn new(planted: bool) -> Self {
        let now = Instant::now();
        let mut objects = Vec::new();
        let mut add = |track: usize, file: &str, kind| {
            let path = format!("/hls/{}/{file}", track_name(track));
            let state = Mutex::new(State { versions: vec![now], last_fault: None, last_lie: None });
            objects.push(Object { path, kind, track, state });
        };
        for track in 0..TRACKS {
            for segment in 0..SEGMENTS {
                add(track, &format!("{VERSION}/a128/seg-{segment:05}.m4s"), Kind::Segment);
            }
            add(track, &format!("{VERSION}/a128/index.m3u8"), Kind::Playlist);
            add(track, "master.m3u8", Kind::Master);
            add(track, "cover.jpg", Kind::Cover);
            add(track, &format!("{VERSION}/a128/whole.m4a"), Kind::Oversized);
            add(track, &format!("{VERSION}/a128/seg-99999.m4s"), Kind::Absent);
        }
        let changes = |object: &Object| matches!(object.kind, Kind::Master | Kind::Cover);
        let mutable = (0..objects.len()).filter(|place| objects.get(*place).is_some_and(changes)).collect();
        let places = objects.iter().enumerate().map(|(place, object)| (object.path.clone(), place)).collect();
        Self { objects, places, mutable, purges: (0..TRACKS).map(|_| Mutex::default()).collect(), planted }
    }

    pub(crate) fn tracks(&self) -> usize {
        self.purges.len()
    }

    pub(crate) fn find(&self, path: &str) -> Option<&Object> {
        self.objects.get(*self.places.get(path)?)
    }

    /// What `object` holds in `version`, as clients must get it.
    pub(crate) fn bytes(&self, object: &Object, version: usize) -> Vec<u8> {
        let mut bytes = object.served(version);
        if self.planted
            && object.kind == Kind::Cover
            && let Some(byte) = bytes.last_mut()
        {
            *byte ^= 1;
        }
        bytes
    }

    pub(crate) fn purged(&self, track: usize, sent: Instant) {
        if let Some(purge) = self.purges.get(track) {
            *lock(purge) = Some((sent, Instant::now()));
        }
    }

    /// The purge that a request which began at `at` must heed: when it was sent.
    pub(crate) fn purge_before(&self, track: usize, at: Instant) -> Option<Instant> {
        let purge = *lock(self.purges.get(track)?);
        purge.filter(|(_, answered)| *answered <= at).map(|(sent, _)| sent)
    }
}

/// The folder of the one version that each track has; what changes stands outside of it.
const VERSION: &str = "0123456789abcdef-1";

pub(crate) fn track_name(track: usize) -> String {
    format!("track{track:03}")
}

impl Object {
    /// The version that is current, counted from 0.
    pub(crate) fn current(&self) -> usize {
        lock(&self.state).versions.len() - 1
    }

    /// Makes a new version current.
    pub(crate) fn change(&self) {
        lock(&self.state).versions.push(Instant::now());
    }

    /// The times from and until which a version was current; `None` if there was no such version by now.
    pub(crate) fn reign(&self, version: usize) -> Option<(Instant, Option<Instant>)> {
        let state = lock(&self.state);
        state.versions.get(version).map(|from| (*from, state.versions.get(version + 1).copied()))
    }

    pub(crate) fn etag(&self, version: usize) -> String {
        format!("\"{:016x}-{version}\"", hash(self.path.as_bytes()))
    }

    /// The version that an ETag of this object names.
    pub(crate) fn version_of(&self, etag: &str) -> Option<usize> {
        let (name, version) = etag.trim_matches('"').split_once('-')?;
        (name == format!("{:016x}", hash(self.path.as_bytes()))).then(|| version.parse().ok()).flatten()
    }

    pub(crate) fn fault(&self) {
        lock(&self.state).last_fault = Some(Instant::now());
    }

    /// The origin is about to say that it is so long, though it is not.
    pub(crate) fn tell_lie(&self, length: u64) {
        lock(&self.state).last_lie = Some((Instant::now(), length));
    }

    /// A length that the origin stated and an answer to a request from `began` on may repeat: heads leave before the
    /// end is there that tells them false.
    pub(crate) fn lie(&self, began: Instant) -> Option<u64> {
        lock(&self.state).last_lie.filter(|(at, _)| *at + LIE_ECHO >= began).map(|(_, length)| length)
    }

    /// Whether a fault may be what a request from `began` until now feels.
    pub(crate) fn may_fail(&self, began: Instant) -> bool {
        lock(&self.state).last_fault.is_some_and(|at| at + FAULT_ECHO >= began)
    }

    pub(crate) fn content_type(&self) -> &'static str {
        match self.kind {
            Kind::Master | Kind::Playlist => "application/vnd.apple.mpegurl",
            Kind::Cover => "image/jpeg",
            Kind::Segment | Kind::Oversized | Kind::Absent => "audio/mp4",
        }
    }

    /// What the origin gives for a version.
    pub(crate) fn served(&self, version: usize) -> Vec<u8> {
        let mut random = Random::of_part(hash(self.path.as_bytes()), "content", version as u64);
        let length = match self.kind {
            Kind::Master => return master(version),
            Kind::Playlist => return playlist(),
            Kind::Absent => 0,
            Kind::Oversized => OVERSIZED,
            Kind::Segment if random.per_mille(100) => random.below(2048),
            Kind::Segment => random.below(SEGMENT_MAX),
            Kind::Cover => 1024 + random.below(60 * 1024),
        };
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 8);
        while (bytes.len() as u64) < length {
            bytes.extend_from_slice(&random.next().to_le_bytes());
        }
        bytes.truncate(usize::try_from(length).unwrap_or(0));
        bytes
    }
}

fn master(version: usize) -> Vec<u8> {
    let filler = "#".repeat(100 + version * 7 % 900);
    format!("#EXTM3U\n## version {version} {filler}\n#EXT-X-STREAM-INF:BANDWIDTH=128000\n{VERSION}/a128/index.m3u8\n")
        .into()
}

fn playlist() -> Vec<u8> {
    let mut text = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:6\n#EXT-X-PLAYLIST-TYPE:VOD\n".to_owned();
    for segment in 0..SEGMENTS {
        // Writing to a String cannot fail.
        let _ = write!(text, "#EXTINF:6.0,\nseg-{segment:05}.m4s\n");
    }
    text.push_str("#EXT-X-ENDLIST\n");
    text.into()
}

/// A panic elsewhere ends the run by itself; what it left behind is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
