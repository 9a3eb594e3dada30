//! Where in its track a segment plays, and for how long: from the media playlist, parsed once.
//!
//! Invariants: positions are sums of `EXTINF` in microseconds, rounded at the end, so that they do not drift; a
//! playlist with a sliding window (a media sequence above zero and no end) gives none, since its sums begin anywhere.
//!
//! On failure: a segment whose playlist cannot be had in time has no position, and is not held up for it any longer.
//! That is remembered for a while: long where there is no playlist, briefly where the origin failed to give one. The
//! fills that a search began go on without it, and what they bring is learnt all the same.

pub(crate) mod playlist;

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use http::Method;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use segue_signing::CanonicalPath;
use tracing::Instrument;

use crate::cache::{self, Found, Key, KeyRef, Object};
use crate::edge::Shared;
use crate::refusal::Refusal;
use crate::route::{ObjectKind, Target};
pub(crate) use playlist::opening;

/// Bytes that all timelines may take.
const BYTES_MAX: u64 = 64 << 20;
/// What the timeline of a 4-minute track at 6 s takes, about; it sizes the tables.
const TYPICAL_FOLDER: u64 = 4096;
/// Media playlists of one master that are looked through.
const RENDITIONS_MAX: usize = 16;
/// How long an answer from memory may wait for its position, so that its fact counts.
pub(crate) const HIT_PATIENCE: Duration = Duration::from_millis(250);
/// How long an answer from the origin may wait for it beyond its own head.
pub(crate) const FILL_PATIENCE: Duration = Duration::from_millis(500);
/// How long it is remembered that a folder has no timeline.
const ABSENT_FOR: Duration = Duration::from_secs(60);
/// How long it is remembered that a playlist could not be had.
const FAILED_FOR: Duration = Duration::from_secs(2);
/// How long it is remembered that a playlist was not there in time.
const LATE_FOR: Duration = Duration::from_secs(3);

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
    Known {
        segments: Arc<HashMap<Box<str>, Media>>,
        /// The playlist that says so.
        by: Arc<str>,
    },
    Absent {
        until: Instant,
    },
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Folder> for ByBytes {
    fn weight(&self, key: &Key, folder: &Folder) -> u64 {
        let Folder::Known { segments, by } = folder else { return key.weight() + 64 };
        let names: usize = segments.keys().map(|name| name.len()).sum();
        // The table's slots and the names' own allocations.
        let slots = segments.capacity() * (size_of::<(Box<str>, Media)>() + 1) + segments.len() * 16;
        key.weight() + (by.len() + names + slots + 128) as u64
    }
}

/// All timelines that are known.
pub(crate) struct Timelines {
    folders: Cache<Key, Folder, ByBytes>,
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
        let items = usize::try_from(BYTES_MAX / TYPICAL_FOLDER).unwrap_or(usize::MAX);
        Self { folders: Cache::with_weighter(items, BYTES_MAX, ByBytes) }
    }

    fn find(&self, key: KeyRef<'_>, path: &str) -> Place {
        let (folder, name) = split(path);
        match self.folders.get(&key.sibling(folder)) {
            Some(Folder::Known { segments, .. }) => segments.get(name).copied().map_or(Place::Absent, Place::Known),
            Some(Folder::Absent { until }) if Instant::now() < until => Place::Absent,
            _ => Place::Unknown,
        }
    }

    /// The place of the segment at `path`, as far as it is known here. `Some(None)`: it has none, or asking would not help.
    pub(crate) fn place(&self, key: KeyRef<'_>, path: &str) -> Option<Option<Media>> {
        match self.find(key, path) {
            Place::Known(media) => Some(Some(media)),
            Place::Absent => Some(None),
            Place::Unknown => None,
        }
    }

    /// The `count` segments that play next after the one at `path`, in order; `None` where its place is not known. A
    /// look through all segments of the folder: asked once for an object, so that no order is kept beside the names.
    pub(crate) fn successors(&self, key: KeyRef<'_>, path: &str, count: usize) -> Option<Vec<CanonicalPath>> {
        let (folder, name) = split(path);
        let Folder::Known { segments, .. } = self.folders.get(&key.sibling(folder))? else { return None };
        let at = segments.get(name)?.pos_ms;
        let mut next: Vec<(u64, &str)> = Vec::with_capacity(count + 1);
        for (name, media) in segments.iter().filter(|(_, media)| media.pos_ms > at) {
            let place = next.partition_point(|(pos_ms, _)| *pos_ms <= media.pos_ms);
            next.insert(place, (media.pos_ms, name));
            next.truncate(count);
        }
        Some(next.iter().filter_map(|(_, name)| CanonicalPath::from_decoded(&format!("{folder}{name}")).ok()).collect())
    }

    /// Remembers that the folder of `path` has no timeline, unless it has got one meanwhile.
    fn absent(&self, key: &Key, path: &str, for_how_long: Duration) {
        let key = key.sibling(split(path).0);
        if !matches!(self.folders.get(&key), Some(Folder::Known { .. })) {
            self.folders.insert(key, Folder::Absent { until: Instant::now() + for_how_long });
        }
    }

    /// Of two playlists that name files of one folder, the one that names more of them says where they play.
    fn keep(&self, key: Key, segments: HashMap<Box<str>, Media>, by: &str) {
        let larger = match self.folders.get(&key) {
            Some(Folder::Known { segments: known, by: known_by }) => *known_by != *by && known.len() > segments.len(),
            _ => false,
        };
        if !larger {
            self.folders.insert(key, Folder::Known { segments: Arc::new(segments), by: by.into() });
        }
    }
}

impl Timeline {
    /// Takes over what the playlist `target` says of segments of its own track. `key` is any key of the same track.
    pub(crate) fn learn(timelines: &Timelines, key: &Key, target: &Target, body: &[u8]) {
        let Ok(text) = std::str::from_utf8(body) else { return };
        let path = target.path.as_str();
        let mut folders: HashMap<String, HashMap<Box<str>, Media>> = HashMap::new();
        for (segment, media) in playlist::segments(path, text) {
            if !segment.as_str().starts_with(target.track_root()) {
                continue;
            }
            let (folder, name) = split(segment.as_str());
            let segments = folders.entry(folder.to_owned()).or_default();
            // One file in many byte ranges counts as one segment that lasts as long as all of them.
            let known = segments.entry(name.into()).or_insert(Media { media_ms: 0, ..media });
            known.media_ms += media.media_ms;
        }
        for (folder, segments) in folders {
            timelines.keep(key.sibling(&folder), segments, path);
        }
    }

    /// The place of `target`, if it can be known without asking anybody. `Some(None)`: it cannot be known at all, or
    /// there is no fact that would tell it.
    pub(crate) fn known(shared: &Shared, method: &Method, key: KeyRef<'_>, target: &Target) -> Option<Option<Media>> {
        if target.kind != ObjectKind::Segment || shared.events.is_none() || *method != Method::GET {
            return Some(None);
        }
        shared.timelines.place(key, target.path.as_str())
    }

    /// Waits for the place of `target` alone, for no longer than `patience`.
    pub(crate) async fn place(shared: &Arc<Shared>, key: &Key, target: &Target, patience: Duration) -> Option<Media> {
        let search = search(shared, key, target).instrument(tracing::trace_span!("timeline"));
        let place = tokio::time::timeout(patience, search).await.ok();
        found(shared, key, target, place.as_ref())
    }

    /// Waits for `found`, beside it for the place of `target`, and for that no longer than `patience` beyond it. It
    /// asks the edge's own cache for the playlists beside and above the segment: a player that goes on over a restart
    /// of the edge never asks for them again.
    ///
    /// # Errors
    /// Those of `found`; it has none of its own.
    pub(crate) async fn beside(
        shared: &Arc<Shared>,
        key: &Key,
        target: &Target,
        found: impl Future<Output = Result<Found, Refusal>>,
        patience: Duration,
    ) -> Result<(Found, Option<Media>), Refusal> {
        let search = search(shared, key, target).instrument(tracing::trace_span!("timeline"));
        let (found, place) = match select(pin!(found), pin!(search)).await {
            Either::Left((found, search)) => (found?, tokio::time::timeout(patience, search).await.ok()),
            Either::Right((place, found)) => (found.await?, Some(place)),
        };
        let media = self::found(shared, key, target, place.as_ref());
        Ok((found, media))
    }
}

/// What a search came to; where it found nothing, that is remembered. `None`: it was not over in time.
fn found(shared: &Shared, key: &Key, target: &Target, place: Option<&Result<Option<Media>, Refusal>>) -> Option<Media> {
    let absent_for = match place {
        Some(Ok(Some(media))) => return Some(*media),
        Some(Ok(None)) => ABSENT_FOR,
        Some(Err(_)) => FAILED_FOR,
        None => LATE_FOR,
    };
    shared.metrics.timelines_missing.add(1);
    shared.timelines.absent(key, target.path.as_str(), absent_for);
    None
}

/// `None`: no playlist names the segment.
async fn search(shared: &Arc<Shared>, key: &Key, target: &Target) -> Result<Option<Media>, Refusal> {
    let path = target.path.as_str();
    let known = || match shared.timelines.find(key.borrowed(), path) {
        Place::Known(media) => Some(media),
        Place::Absent | Place::Unknown => None,
    };
    let beside = CanonicalPath::from_decoded(&format!("{}index.m3u8", split(path).0))?;
    playlist(shared, key, target, beside).await?;
    if let Some(media) = known() {
        return Ok(Some(media));
    }
    let master = CanonicalPath::from_decoded(&format!("{}master.m3u8", target.track_root()))?;
    let Some(object) = playlist(shared, key, target, master.clone()).await? else { return Ok(None) };
    let text = std::str::from_utf8(&object.body).unwrap_or_default();
    let mut failed = None;
    for rendition in playlist::renditions(master.as_str(), text).into_iter().take(RENDITIONS_MAX) {
        failed = playlist(shared, key, target, rendition).await.err().or(failed);
        if let Some(media) = known() {
            return Ok(Some(media));
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Fetches a playlist of the same track through the cache and learns from it. `None`: there is none.
async fn playlist(
    shared: &Arc<Shared>,
    key: &Key,
    target: &Target,
    path: CanonicalPath,
) -> Result<Option<Arc<Object>>, Refusal> {
    let Some(target) = target.sibling(path) else { return Ok(None) };
    let key = key.sibling(target.path.as_str());
    let found = match cache::fresh(shared, key.borrowed(), Instant::now()) {
        Some(found) => found,
        None => cache::filled(shared, key.clone(), &target, None).await,
    };
    let found = match found {
        // A playlist of this size is rare, and wanted whole.
        Ok(Found::Disk(_)) => cache::fetched(shared, key.clone(), &target, None).await,
        found => found,
    };
    let object = match found {
        Ok(Found::Memory(object, _)) => object,
        Ok(Found::Filling(_, mut reader, _)) => reader.whole().await?,
        Ok(Found::Pass | Found::Handed(_) | Found::Disk(_)) | Err(Refusal::NotFound) => return Ok(None),
        Err(refusal) => return Err(refusal),
    };
    // The object may have outlived its timeline.
    Timeline::learn(&shared.timelines, &key, &target, &object.body);
    Ok(Some(object))
}

/// Folder, with its slash, and name.
fn split(path: &str) -> (&str, &str) {
    let end = path.rfind('/').map_or(0, |slash| slash + 1);
    path.split_at(end)
}
