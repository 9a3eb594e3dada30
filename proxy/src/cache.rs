//! Step three: where the bytes come from. Memory, or one fill for all who wait, or past the cache.
//!
//! Invariants: at most one fill runs for a key; the memory is asked again under the fills' lock, so that no fill is
//! begun for what a fill has just put there; an object that is out of date is renewed by one request for all.
//!
//! On failure: while the origin fails, an object that is out of date by no more than `stale_if_error` still serves. It
//! serves too where the origin takes longer than [`RENEWAL_PATIENCE`]; the fill goes on and brings the new one.

mod key;
mod memfile;
mod memory;
mod object;

use std::sync::Arc;
use std::time::{Duration, Instant};

use segue_events::CacheState;

use crate::edge::Shared;
use crate::fill::{Fill, FillReader, Head};
use crate::refusal::{OriginFailure, Refusal};
use crate::route::Target;
use crate::snapshot::Snapshot;

pub(crate) use key::{Key, KeyRef};
pub(crate) use memfile::{MemFile, MemFiles};
pub(crate) use memory::{Memory, Stored};
pub(crate) use object::{Meta, Object};

/// How long a request waits for a newer object while it has one that may serve.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(1);

/// Where the bytes come from.
pub(crate) enum Found {
    /// All of it is in memory.
    Memory(Arc<Object>, CacheState),
    /// It is on its way; its head is known.
    Filling(Arc<Meta>, FillReader, CacheState),
    /// It is not for the cache: the request goes to the origin by itself.
    Pass,
}

/// The key of what `target` asks for. `query` counts for HTTP origins alone.
pub(crate) fn key<'k>(shared: &Shared, snapshot: &Snapshot, target: &'k Target, query: Option<&'k str>) -> KeyRef<'k> {
    let generation = snapshot.generation(target.track());
    let route = shared.routes.get(target.route).map_or(0, |route| route.index);
    KeyRef { route, generation, path: target.path.as_str(), query }
}

/// What is fresh in memory at `now`, without waiting for anything.
pub(crate) fn fresh(shared: &Shared, key: KeyRef<'_>, now: Instant) -> Option<Result<Found, Refusal>> {
    let _step = tracing::trace_span!("cache").entered();
    match shared.memory.get(key)? {
        Stored::Object(object) if object.is_fresh(now) => Some(Ok(Found::Memory(object, CacheState::HitMemory))),
        Stored::Missing { until } if now < until => Some(Err(Refusal::NotFound)),
        _ => None,
    }
}

/// Joins the fill of `key`, or begins it, and waits for its head.
///
/// # Errors
/// Whatever kept the origin from giving the object.
pub(crate) async fn filled(
    shared: &Arc<Shared>,
    key: Key,
    target: &Target,
    query: Option<&str>,
) -> Result<Found, Refusal> {
    if shared.memory.passes(&key) {
        return Ok(Found::Pass);
    }
    let mut stale = None;
    let mut begun = false;
    let usable = |object: &Arc<Object>| object.is_usable(Instant::now(), shared.config.cache.stale_if_error);
    let reader = {
        let mut fills = shared.fills.lock();
        match shared.memory.get(key.borrowed()) {
            Some(Stored::Object(object)) if object.is_fresh(Instant::now()) => {
                return Ok(Found::Memory(object, CacheState::Coalesced));
            }
            Some(Stored::Object(object)) if usable(&object) && shared.memory.rests(&key) => {
                return Ok(Found::Memory(object, CacheState::Stale));
            }
            Some(Stored::Object(object)) => stale = Some(object),
            Some(Stored::Missing { until }) if Instant::now() < until => return Err(Refusal::NotFound),
            _ => {}
        }
        match fills.get(&key) {
            Some(fill) => FillReader::new(Arc::clone(fill)),
            None => {
                let fill = Fill::begin(shared, key.clone(), target, query, stale.clone())?;
                begun = true;
                let reader = FillReader::new(Arc::clone(&fill));
                fills.insert(key.clone(), fill);
                reader
            }
        }
    };
    let state = if begun { CacheState::Miss } else { CacheState::Coalesced };
    let Some(stale) = stale.filter(usable) else { return settled(reader, state).await };
    let found = tokio::time::timeout(RENEWAL_PATIENCE, settled(reader, state)).await;
    match found.unwrap_or(Err(OriginFailure::Timeout.into())) {
        Err(Refusal::NotFound) => Err(Refusal::NotFound),
        Err(_) => {
            shared.memory.not_renewed(key);
            Ok(Found::Memory(stale, CacheState::Stale))
        }
        found => found,
    }
}

/// What a fill's head says, once it is there.
async fn settled(mut reader: FillReader, state: CacheState) -> Result<Found, Refusal> {
    match reader.head().await? {
        Head::Object(meta) if meta.length.is_some() => Ok(Found::Filling(meta, reader, state)),
        // Without a declared length the end is known only when it is there, and clients are told the truth at once.
        Head::Object(_) => Ok(Found::Memory(reader.whole().await?, state)),
        Head::Renewed(object) => Ok(Found::Memory(object, state)),
        Head::Missing => Err(Refusal::NotFound),
        Head::Pass => Ok(Found::Pass),
    }
}
