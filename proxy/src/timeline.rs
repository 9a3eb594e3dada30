//! Where in its track a segment plays, and for how long: from the media playlist, parsed once.
//!
//! Invariants: positions are sums of `EXTINF` in microseconds, rounded at the end, so that they do not drift; a
//! playlist with a sliding window (a media sequence above zero and no end) gives none, since its sums begin anywhere.
//!
//! On failure: a segment whose playlist cannot be had in time has no position. That is remembered for a while, so
//! that a house without playlists does not ask for them at every segment.

mod playlist;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use segue_signing::CanonicalPath;
use tracing::Instrument;

use crate::cache::{self, Found, Key, Object};
use crate::edge::Shared;
use crate::route::{ObjectKind, Target};

/// Folders whose timelines are remembered; one of a 4-minute track at 6 s takes about 4 KB.
const FOLDERS_MAX: usize = 16_384;
/// Media playlists of one master that are looked through.
const RENDITIONS_MAX: usize = 16;
/// How long a segment's fact may wait for its position. It runs beside the segment's own fill.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it is remembered that a folder has no timeline.
const ABSENT_FOR: Duration = Duration::from_secs(60);

/// A segment's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Media {
    /// Start in the track, milliseconds.
    pub(crate) pos_ms: u64,
    /// Length, milliseconds.
    pub(crate) media_ms: u64,
}

/// The segments of one folder.
#[derive(Clone)]
enum Folder {
    Known(Arc<HashMap<Box<str>, Media>>),
    Absent { until: Instant },
}

/// All timelines that are known.
pub(crate) struct Timelines {
    folders: Cache<Key, Folder>,
}

/// What is known of a segment's place.
enum Place {
    Known(Media),
    /// Its folder has a timeline, or is known to have none: asking again would not help.
    Absent,
    Unknown,
}

/// Namespace of the functions that read playlists into timelines.
pub(crate) struct Timeline;

impl Timelines {
    pub(crate) fn new() -> Self {
        Self { folders: Cache::new(FOLDERS_MAX) }
    }

    fn find(&self, key: &Key, path: &str) -> Place {
        let (folder, name) = split(path);
        match self.folders.get(&key.sibling(folder)) {
            Some(Folder::Known(segments)) => segments.get(name).copied().map_or(Place::Absent, Place::Known),
            Some(Folder::Absent { until }) if Instant::now() < until => Place::Absent,
            _ => Place::Unknown,
        }
    }
}

impl Timeline {
    /// Takes over what the playlist at `path` says of its segments. `key` is any key of the same track.
    pub(crate) fn learn(timelines: &Timelines, key: &Key, path: &str, body: &[u8]) {
        let Ok(text) = std::str::from_utf8(body) else { return };
        let mut folders: HashMap<String, HashMap<Box<str>, Media>> = HashMap::new();
        for (segment, media) in playlist::segments(path, text) {
            let (folder, name) = split(segment.as_str());
            let segments = folders.entry(folder.to_owned()).or_default();
            // One file in many byte ranges counts as one segment that lasts as long as all of them.
            let known = segments.entry(name.into()).or_insert(Media { media_ms: 0, ..media });
            known.media_ms += media.media_ms;
        }
        for (folder, segments) in folders {
            timelines.folders.insert(key.sibling(&folder), Folder::Known(Arc::new(segments)));
        }
    }

    /// The place of `target`, if it can be known without asking anybody. `Some(None)`: it cannot be known at all.
    pub(crate) fn known(shared: &Shared, key: &Key, target: &Target) -> Option<Option<Media>> {
        if target.kind != ObjectKind::Segment {
            return Some(None);
        }
        match shared.timelines.find(key, target.path.as_str()) {
            Place::Known(media) => Some(Some(media)),
            Place::Absent => Some(None),
            Place::Unknown => None,
        }
    }

    /// The place of `target`, asking the edge's own cache for the playlists beside and above it: a player that
    /// goes on over a restart of the edge never asks for them again.
    pub(crate) async fn locate(shared: &Arc<Shared>, key: &Key, target: &Target) -> Option<Media> {
        let search = search(shared, key, target).instrument(tracing::trace_span!("timeline"));
        let found = tokio::time::timeout(PATIENCE, search).await;
        if !matches!(found, Ok(Some(_))) {
            shared.metrics.timelines_missing.add(1);
        }
        if let Ok(None) = found {
            let absent = Folder::Absent { until: Instant::now() + ABSENT_FOR };
            shared.timelines.folders.insert(key.sibling(split(target.path.as_str()).0), absent);
        }
        found.ok().flatten()
    }
}

async fn search(shared: &Arc<Shared>, key: &Key, target: &Target) -> Option<Media> {
    let path = target.path.as_str();
    let beside = CanonicalPath::from_decoded(&format!("{}index.m3u8", split(path).0)).ok()?;
    if playlist(shared, key, target, beside).await.is_some()
        && let Place::Known(media) = shared.timelines.find(key, path)
    {
        return Some(media);
    }
    let master = CanonicalPath::from_decoded(&format!("{}master.m3u8", target.track_root())).ok()?;
    let object = playlist(shared, key, target, master.clone()).await?;
    let renditions = playlist::renditions(master.as_str(), std::str::from_utf8(&object.body).ok()?);
    for rendition in renditions.into_iter().take(RENDITIONS_MAX) {
        playlist(shared, key, target, rendition).await;
        if let Place::Known(media) = shared.timelines.find(key, path) {
            return Some(media);
        }
    }
    None
}

/// Fetches a playlist of the same track through the cache and learns from it.
async fn playlist(shared: &Arc<Shared>, key: &Key, target: &Target, path: CanonicalPath) -> Option<Arc<Object>> {
    let target = target.sibling(path)?;
    let key = key.sibling(target.path.as_str());
    let found = match cache::fresh(shared, &key) {
        Some(found) => found,
        None => cache::filled(shared, key.clone(), &target, None).await,
    };
    let object = match found.ok()? {
        Found::Memory(object, _) => object,
        Found::Filling(_, mut reader, _) => reader.whole().await.ok()?,
        Found::Pass => return None,
    };
    // The object may have outlived its timeline.
    Timeline::learn(&shared.timelines, &key, target.path.as_str(), &object.body);
    Some(object)
}

/// Folder, with its slash, and name.
fn split(path: &str) -> (&str, &str) {
    let end = path.rfind('/').map_or(0, |slash| slash + 1);
    path.split_at(end)
}
