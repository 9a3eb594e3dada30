//! The next segments, fetched before they are asked for.
//!
//! Purpose: who gets segment k asks for k+1 within seconds. When a listener has been given a segment, the ones behind
//! it in the same rendition are filled; when it was a media playlist, the init segment and the first ones.
//!
//! Invariants:
//! - Listeners come first. A prefetch begins only while at least half of its origin's turns and of the fills' memory
//!   is free, and at most `[prefetch] concurrency` run at once; what finds no room is dropped, never queued.
//! - It names nothing that the playlist does not name: never past the end, never outside of the track, never for a
//!   request that was refused. It is a fill like any other, so whoever asks meanwhile joins it; it is no delivery, so
//!   it makes no fact.
//! - It does not feed itself: a prefetched segment draws its successors only once a listener has asked for it.
//! - Once per object: a [`Mark`] says that its successors were seen to, so that a hot hit pays one load.
//!
//! On failure: nobody waits for it; it counts as wasted, and the listener's own request tries again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use http::Method;
use segue_signing::CanonicalPath;
use tokio::sync::Semaphore;

use crate::cache::{Found, Key, KeyRef, Object};
use crate::config::PrefetchConfig;
use crate::edge::Shared;
use crate::fill::{Asked, Fill, RESERVATION_UNIT};
use crate::metrics::Metrics;
use crate::route::{ObjectKind, Target};
use crate::timeline;

/// The successors were seen to.
const DONE: u8 = 0;
/// They were not, yet.
const OPEN: u8 = 1;
/// They were not, and nobody has asked for the object itself.
const AHEAD: u8 = 2;

/// What prefetching has come to with one object, from its fill on.
#[derive(Debug)]
pub(crate) struct Mark {
    state: AtomicU8,
    metrics: Arc<Metrics>,
}

impl Mark {
    /// A mark for a fill: begun ahead of any listener, or for one. `None` where nothing is prefetched.
    pub(crate) fn new(shared: &Shared, ahead: bool) -> Option<Arc<Self>> {
        let state = AtomicU8::new(if ahead { AHEAD } else { OPEN });
        (shared.config.prefetch.segments > 0).then(|| Arc::new(Self { state, metrics: Arc::clone(&shared.metrics) }))
    }

    fn is_done(&self) -> bool {
        self.state.load(Ordering::Relaxed) == DONE
    }

    /// A listener has the object, and its successors are seen to. Whether that is new.
    fn take(&self) -> bool {
        let before = self.state.swap(DONE, Ordering::Relaxed);
        self.metrics.prefetches_used.add(u64::from(before == AHEAD));
        before != DONE
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.metrics.prefetches_wasted.add(u64::from(*self.state.get_mut() == AHEAD));
    }
}

/// The bound on how many run.
pub(crate) struct Prefetch {
    turns: Arc<Semaphore>,
}

impl Prefetch {
    pub(crate) fn new(config: &PrefetchConfig) -> Self {
        Self { turns: Arc::new(Semaphore::new(config.concurrency)) }
    }
}

/// A listener is given what was `found`: sees to its successors, once. `query` is what an HTTP origin is asked with:
/// the successors of an object with a query are not known, since playlists are read without them.
pub(crate) fn behind(
    shared: &Arc<Shared>,
    method: &Method,
    key: KeyRef<'_>,
    target: &Target,
    query: Option<&str>,
    found: &Found,
) {
    let mark = match found {
        Found::Memory(object, _) => object.mark.as_ref(),
        Found::Filling(_, reader, _) => reader.mark(),
        Found::Disk(_) | Found::Pass | Found::Handed(_) => None,
    };
    if let Some(mark) = mark.filter(|mark| !mark.is_done())
        && *method == Method::GET
        && query.is_none()
    {
        match target.kind {
            ObjectKind::Segment => behind_segment(shared, key, target, mark),
            ObjectKind::Playlist => behind_playlist(shared, key, target, mark, found),
            _ => {
                mark.take();
            }
        }
    }
}

fn behind_segment(shared: &Arc<Shared>, key: KeyRef<'_>, target: &Target, mark: &Mark) {
    // Without a timeline nothing follows, and the next segment sees to its own: a hot one must not look each time.
    if mark.take()
        && let Some(next) = shared.timelines.successors(key, target.path.as_str(), shared.config.prefetch.segments)
    {
        fetch(shared, key, target, next);
    }
}

fn behind_playlist(shared: &Arc<Shared>, key: KeyRef<'_>, target: &Target, mark: &Mark, found: &Found) {
    if !mark.take() {
        return;
    }
    match found {
        Found::Memory(object, _) => open(shared, key, target, object),
        Found::Filling(_, reader, _) => {
            let Some(target) = target.sibling(target.path.clone()) else { return };
            let (mut reader, shared_, key) = (reader.another(), Arc::clone(shared), Key::from(key));
            // It ends with the fill, whose own time-outs bound it; one runs for a fill at most.
            shared.tasks.spawn(async move {
                if let Ok(object) = reader.whole().await {
                    open(&shared_, key.borrowed(), &target, &object);
                }
            });
        }
        Found::Disk(_) | Found::Pass | Found::Handed(_) => {}
    }
}

/// The init segment and the first segments of a media playlist.
fn open(shared: &Arc<Shared>, key: KeyRef<'_>, target: &Target, object: &Object) {
    let Ok(text) = std::str::from_utf8(&object.body) else { return };
    fetch(shared, key, target, timeline::opening(target.path.as_str(), text, shared.config.prefetch.segments));
}

fn fetch(shared: &Arc<Shared>, key: KeyRef<'_>, target: &Target, paths: Vec<CanonicalPath>) {
    for path in paths {
        if let Some(next) = target.sibling(path) {
            begin(shared, Key::from(key.sibling(next.path.as_str())), &next);
        }
    }
}

/// Begins one fill, if it is needed and there is room.
fn begin(shared: &Arc<Shared>, key: Key, target: &Target) {
    if shared.memory.passes(&key) {
        return;
    }
    let mut fills = shared.fills.lock();
    let is_here = shared.memory.get(key.borrowed()).is_some() || fills.contains_key(&key);
    if is_here || shared.disk.as_ref().is_some_and(|disk| disk.knows(key.borrowed())) {
        return;
    }
    let turn = Arc::clone(&shared.prefetch.turns).try_acquire_owned();
    let (Ok(turn), true) = (turn, has_room(shared, target)) else {
        shared.metrics.prefetches_dropped.add(1);
        return;
    };
    if let Ok(fill) = Fill::begin(shared, key.clone(), Asked { target, query: None, headers: None }, None, Some(turn)) {
        shared.metrics.prefetches.add(1);
        fills.insert(key, fill);
    }
}

/// Whether at least half of what a fill takes is free, so that listeners find theirs.
fn has_room(shared: &Shared, target: &Target) -> bool {
    let origin = shared.routes.get(target.route).and_then(|route| shared.origins.get(route.origin));
    let units = usize::try_from(shared.config.cache.in_flight / RESERVATION_UNIT).unwrap_or(usize::MAX);
    origin.is_some_and(|origin| origin.has_room()) && shared.in_flight.available_permits() >= units / 2
}
