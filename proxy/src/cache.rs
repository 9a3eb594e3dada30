//! Step three: where the bytes come from. Memory, the disk, or one fill for all who wait, or past the cache.
//!
//! Invariants: at most one fill runs for a key; the memory is asked again under the fills' lock, so that no fill is
//! begun for what a fill has just put there; an object that is out of date is renewed by one request for all.
//!
//! On failure: while the origin fails, an object that is out of date by no more than `stale_if_error` still serves. It
//! serves too where the origin takes longer than [`RENEWAL_PATIENCE`]; the fill goes on and brings the new one. Who
//! waits beyond the bounds (`waiters`, `wait`) is told to come back, and asks the origin nothing.

mod directives;
mod disk;
mod how;
mod key;
mod memfile;
mod memory;
mod object;
pub(crate) mod policy;
mod tiers;
mod vary;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use segue_events::CacheState;

use crate::config::CacheConfig;
use crate::edge::Shared;
use crate::fill::{Fill, FillReader, Head};
use crate::origin::OriginAnswer;
use crate::refusal::{OriginFailure, Refusal};
use crate::route::{ObjectKind, Target};
use crate::snapshot::Snapshot;
use directives::RequestDirectives;

pub(crate) use disk::{Disk, OnDisk, Parts, mark};
pub(crate) use how::{Forward, How};
pub(crate) use key::{Key, KeyRef};
pub(crate) use memfile::{MemFile, MemFiles};
pub(crate) use memory::{Memory, Stored};
pub(crate) use object::{Meta, Object, Use};
pub(crate) use tiers::{forget, keep};
pub(crate) use vary::Variants;

/// How long a request waits for a newer object while it has one that may serve.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(1);
/// Fills at once. Each holds a table entry and a task; what they read has a bound of its own.
const FILLS_MAX: usize = 8192;
/// How often a request may learn that what it waited for is another variant than its own.
const VARIANT_ROUNDS: usize = 4;

/// Where the bytes come from.
pub(crate) enum Found {
    /// All of it is in memory.
    Memory(Arc<Object>, CacheState),
    /// It is on the disk, and too large to be read at once.
    Disk(OnDisk),
    /// It is on its way; its head is known.
    Filling(Arc<Meta>, FillReader, CacheState),
    /// It is not for the cache: the request goes to the origin by itself.
    Pass,
    /// It is not for the cache, and this request's own answer is at hand.
    Handed(Box<OriginAnswer>),
}

/// The key of what `target` asks for. `query` counts for HTTP origins alone.
pub(crate) fn key<'k>(shared: &Shared, snapshot: &Snapshot, target: &'k Target, query: Option<&'k str>) -> KeyRef<'k> {
    let generation = snapshot.generation(target.track());
    let route = shared.routes.get(target.route).map_or(0, |route| route.index);
    KeyRef { route, generation, path: target.path.as_str(), query, variant: None }
}

/// What is fresh in memory at `now`, or on the disk and at hand, without waiting for anything; for requests of the
/// edge's own.
pub(crate) fn fresh(shared: &Shared, key: KeyRef<'_>, now: Instant) -> Option<Result<Found, Refusal>> {
    look(shared, key, None, None, now).map(|found| found.and_then(good))
}

/// What is fresh in memory at `now`, or on the disk and at hand, for a client with these headers. Waits for nothing.
/// Requests of the edge's own have none and demand nothing. `stored`: what the memory had when this request looked before.
pub(crate) fn look(
    shared: &Shared,
    key: KeyRef<'_>,
    stored: Option<Stored>,
    headers: Option<&HeaderMap>,
    now: Instant,
) -> Option<Result<Found, Refusal>> {
    let _step = tracing::trace_span!("cache").entered();
    let served = |object: &Arc<Object>| is_served(shared, object, now, headers);
    match stored.or_else(|| shared.memory.get(key)) {
        Some(Stored::Object(object)) if served(&object) => {
            tiers::touch(shared, key, &object);
            Some(Ok(Found::Memory(object, CacheState::HitMemory)))
        }
        Some(Stored::Object(_)) => None,
        Some(Stored::Missing { until }) => (now < until).then_some(Err(Refusal::NotFound)),
        Some(Stored::Varies(variants)) => {
            let none = HeaderMap::new();
            let variant = variants.key(&Key::from(key), headers.unwrap_or(&none))?;
            match shared.memory.get(variant.borrowed())? {
                Stored::Object(object) if served(&object) => Some(Ok(Found::Memory(object, CacheState::HitMemory))),
                _ => None,
            }
        }
        None => {
            let object = tiers::at_hand(shared, key)?;
            served(&object).then_some(Ok(Found::Memory(object, CacheState::HitDisk)))
        }
    }
}

/// What a client may demand is looked at; requests of the edge's own demand nothing.
fn is_served(shared: &Shared, object: &Object, now: Instant, headers: Option<&HeaderMap>) -> bool {
    if !object.is_fresh(now) {
        return false;
    }
    let cache = &shared.config.cache;
    match headers {
        Some(headers) if cache.client_directives.unwrap_or(object.meta.http.is_some()) => {
            object.use_for(now, &RequestDirectives::read(headers), cache) == Use::Fresh
        }
        _ => true,
    }
}

/// What the disk has, or what a fill brings: joined, or begun, and waited for until its head is there. For requests of
/// the edge's own.
///
/// # Errors
/// Whatever kept the origin from giving the object.
pub(crate) async fn filled(
    shared: &Arc<Shared>,
    key: Key,
    target: &Target,
    query: Option<&str>,
) -> Result<Found, Refusal> {
    good(served(shared, key, target, query, None).await?.0)
}

/// As [`filled`], past the disk.
///
/// # Errors
/// As [`filled`].
pub(crate) async fn fetched(
    shared: &Arc<Shared>,
    key: Key,
    target: &Target,
    query: Option<&str>,
) -> Result<Found, Refusal> {
    let primary = key.primary().unwrap_or(key);
    let none = HeaderMap::new();
    let request = Request { target, query, asks: RequestDirectives::default(), headers: &none, is_ours: true };
    good(brought(shared, &primary, &request).await?.0)
}

/// What the edge itself can use: an object, or none.
fn good(found: Found) -> Result<Found, Refusal> {
    let status = match &found {
        Found::Memory(object, _) => object.status(),
        Found::Filling(meta, ..) => meta.status(),
        Found::Disk(object) => object.meta().status(),
        Found::Pass | Found::Handed(_) => StatusCode::OK,
    };
    match (status, found) {
        (StatusCode::OK, Found::Handed(_)) => Ok(Found::Pass),
        (StatusCode::OK, found) => Ok(found),
        (StatusCode::NOT_FOUND | StatusCode::GONE, _) => Err(Refusal::NotFound),
        _ => Err(OriginFailure::NotAnObject.into()),
    }
}

/// As [`filled`], for a client's request with these headers, and how it came about.
///
/// # Errors
/// As [`filled`], and [`Refusal::NotCached`] where the client wants nothing but what is at hand.
pub(crate) async fn served(
    shared: &Arc<Shared>,
    key: Key,
    target: &Target,
    query: Option<&str>,
    headers: Option<&HeaderMap>,
) -> Result<(Found, How), Refusal> {
    let primary = key.primary().unwrap_or(key);
    let asks = match headers {
        Some(headers) if heeds(shared, target)? => RequestDirectives::read(headers),
        _ => RequestDirectives::default(),
    };
    let none = HeaderMap::new();
    let request = Request { target, query, asks, headers: headers.unwrap_or(&none), is_ours: headers.is_none() };
    if let Some(found) = tiers::recall(shared, &primary).await
        && suits(shared, &found, &request.asks)
    {
        return Ok((found, How::hit()));
    }
    brought(shared, &primary, &request).await
}

/// Whether what the disk has is what the client asks for.
fn suits(shared: &Shared, found: &Found, asks: &RequestDirectives) -> bool {
    match found {
        Found::Memory(object, _) => object.use_for(Instant::now(), asks, &shared.config.cache) == Use::Fresh,
        _ => *asks == RequestDirectives::default(),
    }
}

/// What a fill brings.
async fn brought(shared: &Arc<Shared>, primary: &Key, request: &Request<'_>) -> Result<(Found, How), Refusal> {
    for _ in 0..VARIANT_ROUNDS {
        if let Some(found) = once(shared, primary, request).await? {
            return Ok(found);
        }
    }
    // Its URL selects by something that changes faster than it can be fetched.
    Ok((Found::Pass, How::new(Forward::Bypass)))
}

/// Whether clients of this target's origin may demand something of the cache.
fn heeds(shared: &Shared, target: &Target) -> Result<bool, Refusal> {
    let route = shared.routes.get(target.route).ok_or(Refusal::NoRoute)?;
    let origin = shared.origins.get(route.origin).ok_or(Refusal::Internal)?;
    Ok(shared.config.cache.client_directives.unwrap_or(!origin.is_s3()))
}

struct Request<'r> {
    target: &'r Target,
    query: Option<&'r str>,
    asks: RequestDirectives,
    headers: &'r HeaderMap,
    is_ours: bool,
}

impl Request<'_> {
    /// What `object` is good for here. Who asks for a playlist that grows asks for what is new in it: the one from before
    /// would be asked for again only half a segment later. Where an HTTP origin says otherwise, that holds.
    fn used(&self, object: &Object, now: Instant, cache: &CacheConfig) -> Use {
        match object.use_for(now, &self.asks, cache) {
            Use::WhileRenewed if self.target.is_growing() && object.meta.http.is_none() => Use::OnError,
            used => used,
        }
    }
}

/// What a request waits for.
struct Waiting {
    reader: FillReader,
    key: Key,
    begun: bool,
    how: How,
    /// What may serve if the origin fails.
    stale: Option<Arc<Object>>,
}

/// What can be decided without waiting.
enum Decided {
    Found(Found, How),
    Waiting(Waiting),
}

/// `None`: the fill brought another variant; the request starts over.
async fn once(shared: &Arc<Shared>, primary: &Key, request: &Request<'_>) -> Result<Option<(Found, How)>, Refusal> {
    if shared.memory.passes(primary) {
        return match request.asks.only_if_cached {
            true => Err(Refusal::NotCached),
            false => Ok(Some((Found::Pass, How::new(Forward::Bypass)))),
        };
    }
    let Waiting { reader, key, begun, how, stale } = match decide(shared, primary, request)? {
        Decided::Found(found, how) => return Ok(Some((found, how))),
        Decided::Waiting(waiting) => waiting,
    };
    let _waiter = reader.wait_in_line(shared.config.cache.waiters).ok_or_else(|| {
        shared.metrics.waiters_refused.add(1);
        Refusal::Overloaded
    })?;
    let Some(stale) = stale else {
        let patience = shared.config.cache.wait;
        let settled = tokio::time::timeout(patience, settled(reader, primary, request, begun, how)).await;
        return settled.unwrap_or_else(|_| {
            shared.metrics.waiters_refused.add(1);
            Err(Refusal::Overloaded)
        });
    };
    match tokio::time::timeout(RENEWAL_PATIENCE, settled(reader, primary, request, begun, how)).await {
        Ok(Err(Refusal::NotFound)) => Err(Refusal::NotFound),
        Ok(Err(_)) | Err(_) => {
            shared.memory.not_renewed(key);
            Ok(Some((Found::Memory(stale, CacheState::Stale), How::stale("stale-if-error"))))
        }
        Ok(found) => found,
    }
}

/// Looks once more, under the lock of the table of fills, and joins or begins a fill.
fn decide(shared: &Arc<Shared>, primary: &Key, request: &Request<'_>) -> Result<Decided, Refusal> {
    let now = Instant::now();
    let cache = &shared.config.cache;
    let asks = &request.asks;
    let mut fills = shared.fills.lock();
    let (key, stored, known) = match shared.memory.get(primary.borrowed()) {
        Some(Stored::Varies(variants)) => match variants.key(primary, request.headers) {
            Some(key) => {
                let stored = shared.memory.get(key.borrowed());
                (key, stored, Forward::VaryMiss)
            }
            None => return Ok(Decided::Found(Found::Pass, How::new(Forward::Bypass))),
        },
        stored => (primary.clone(), stored, Forward::Miss),
    };
    let mut previous = None;
    let mut stale = None;
    let mut forward = known;
    match stored {
        Some(Stored::Object(object)) => match request.used(&object, now, cache) {
            Use::Fresh if object.is_fresh(now) => {
                return Ok(Decided::Found(Found::Memory(object, CacheState::Coalesced), How::hit()));
            }
            Use::Fresh => {
                return Ok(Decided::Found(Found::Memory(object, CacheState::Stale), How::stale("max-stale")));
            }
            Use::WhileRenewed => {
                if !fills.contains_key(&key) && !shared.memory.rests(&key) && fills.len() < FILLS_MAX {
                    let fill = Fill::begin(shared, key.clone(), request.into(), Some(Arc::clone(&object)), None);
                    fills.extend(fill.ok().map(|fill| (key, fill)));
                }
                let how = How::stale("stale-while-revalidate");
                return Ok(Decided::Found(Found::Memory(object, CacheState::Stale), how));
            }
            Use::OnError if shared.memory.rests(&key) && !asks.only_if_cached => {
                return Ok(Decided::Found(Found::Memory(object, CacheState::Stale), How::stale("stale-if-error")));
            }
            usable => {
                forward = if object.is_fresh(now) { Forward::Request } else { Forward::Stale };
                stale = (usable == Use::OnError).then(|| Arc::clone(&object));
                previous = Some(object);
            }
        },
        Some(Stored::Missing { until }) if now < until => return Err(Refusal::NotFound),
        _ => {}
    }
    if asks.only_if_cached {
        return Err(Refusal::NotCached);
    }
    if asks.no_store && !request.is_ours {
        return Ok(Decided::Found(Found::Pass, How::new(Forward::Request)));
    }
    let (reader, begun) = match fills.get(&key) {
        Some(fill) => (FillReader::new(Arc::clone(fill)), false),
        None if fills.len() >= FILLS_MAX => {
            shared.metrics.waiters_refused.add(1);
            return Err(Refusal::Overloaded);
        }
        None => {
            let fill = Fill::begin(shared, key.clone(), request.into(), previous, None)?;
            let reader = FillReader::new(Arc::clone(&fill));
            fills.insert(key.clone(), fill);
            (reader, true)
        }
    };
    Ok(Decided::Waiting(Waiting { reader, key, begun, how: How::new(forward), stale }))
}

/// What a fill's head says, once it is there. `None`: it is another variant than the request's.
async fn settled(
    mut reader: FillReader,
    primary: &Key,
    request: &Request<'_>,
    begun: bool,
    how: How,
) -> Result<Option<(Found, How)>, Refusal> {
    let state = if begun { CacheState::Miss } else { CacheState::Coalesced };
    let head = reader.head().await?;
    let detail = reader.is_by_fallback().then_some("fallback");
    let how = How { collapsed: !begun, detail, ..how };
    if !begun && !reader.is_for(primary, request.headers) {
        return Ok(None);
    }
    Ok(Some(match head {
        Head::Object { meta, stored } => {
            let how = How { stored, status: Some(meta.status()), ..how };
            match meta.length {
                Some(_) if request.target.kind != ObjectKind::Key => (Found::Filling(meta, reader, state), how),
                // Without a declared length the end is known only when it is there, and clients are told the truth at once.
                // A key may be wrapped, and what comes is then not what goes out.
                _ => (Found::Memory(reader.whole().await?, state), how),
            }
        }
        Head::Renewed(object) => {
            let how = How { stored: true, status: Some(StatusCode::NOT_MODIFIED), ..how };
            (Found::Memory(object, state), how)
        }
        Head::Missing => return Err(Refusal::NotFound),
        // The answer is the one to the request that began the fill, and nobody else's.
        Head::Pass => match if begun { reader.take_handed() } else { None } {
            Some(answer) => (Found::Handed(answer), how),
            None => (Found::Pass, how),
        },
    }))
}

impl<'r> From<&Request<'r>> for crate::fill::Asked<'r> {
    fn from(request: &Request<'r>) -> Self {
        Self { target: request.target, query: request.query, headers: (!request.is_ours).then_some(request.headers) }
    }
}
