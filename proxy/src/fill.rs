//! A fill: one GET at the origin for everybody who waits for a cold object.
//!
//! Invariants:
//! - It is a task of its own. Who asked first may leave, and who reads slowly holds nobody up: pieces lie in a shared
//!   list, and each reader goes through it at its own pace.
//! - It ends well only if the origin's framing ended and the length is the declared one. Only then the object enters
//!   the memory, and before the fill leaves the table of fills.
//! - Its bytes are reserved before they are read, under one bound for all fills.
//!
//! On failure: every reader gets the failure instead of an end, so that no client takes a part for the whole; nothing
//! is cached. A panic in the task counts as failure (the guard's drop).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{
    CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, TRANSFER_ENCODING,
};
use pingora_http::ResponseHeader;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tracing::Instrument;

use crate::cache::{self, Key, Meta, Object, Stored, Variants};
use crate::content_key;
use crate::edge::Shared;
use crate::lock::Mutex;
use crate::origin::{Checks, Mismatch, Origin, OriginAnswer, OriginBody, Want};
use crate::playlist;
use crate::prefetch::Mark;
use crate::refusal::{OriginFailure, Refusal};
use crate::route::{ObjectKind, Target};
use crate::timeline::Timeline;

pub(crate) mod stored;
mod told;

/// Reservations are counted in units of this many bytes.
pub(crate) const RESERVATION_UNIT: u64 = 4096;

/// What the origin's head says.
#[derive(Clone)]
pub(crate) enum Head {
    /// An object follows; whether it is kept beyond those who wait for it now.
    Object { meta: Arc<Meta>, stored: bool },
    /// The object at hand is still the right one.
    Renewed(Arc<Object>),
    /// There is no such object.
    Missing,
    /// It is not for the cache; each reader goes to the origin by itself.
    Pass,
}

#[derive(Default)]
struct State {
    head: Option<Head>,
    pieces: Vec<Bytes>,
    end: Option<Result<(), Refusal>>,
    object: Option<Arc<Object>>,
    /// Where the URL has variants: all of them, and the one that this is.
    variant: Option<(Arc<Variants>, Key)>,
    /// The origin's answer to the request that began the fill, where it is not for the cache.
    handed: Option<Box<OriginAnswer>>,
    /// The origin failed, and its fallback answered.
    by_fallback: bool,
}

/// What a fill asks for, and in whose name. `headers`: the client's, which an HTTP origin may see; `None` for requests
/// of the edge's own.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'r> {
    pub(crate) target: &'r Target,
    pub(crate) query: Option<&'r str>,
    pub(crate) headers: Option<&'r HeaderMap>,
}

/// What the task and its readers share.
pub(crate) struct Fill {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// The object was changed after the fill began. Set and read under the lock of the table of fills.
    outdated: AtomicBool,
    /// How many requests wait for its head.
    waiting: AtomicUsize,
    /// Goes over to the object.
    mark: Option<Arc<Mark>>,
}

/// A place among those who wait for a fill's head; its drop gives it up.
pub(crate) struct Waiter(Arc<Fill>);

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Fill {
    /// Starts the task. The caller puts the fill into the table before it lets go of the table's lock; the task
    /// takes it out. `ahead` is the turn of a prefetch, held to the end.
    ///
    /// # Errors
    /// [`Refusal::ShuttingDown`].
    pub(crate) fn begin(
        shared: &Arc<Shared>,
        key: Key,
        asked: Asked<'_>,
        previous: Option<Arc<Object>>,
        ahead: Option<OwnedSemaphorePermit>,
    ) -> Result<Arc<Self>, Refusal> {
        let Asked { target, query, headers } = asked;
        if shared.tasks.is_closed() {
            return Err(Refusal::ShuttingDown);
        }
        let route = shared.routes.get(target.route).ok_or(Refusal::NoRoute)?;
        let origin = shared.origins.get(route.origin).ok_or(Refusal::Internal)?;
        let object_key = route.key(target.path.as_str(), target.track(), target.file());
        let target = target.sibling(target.path.clone()).ok_or(Refusal::Internal)?;
        let fill = Arc::new(Self {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            outdated: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            mark: Mark::new(shared, ahead.is_some()),
        });
        let client = headers.filter(|_| !origin.is_s3()).cloned().unwrap_or_default();
        let job = Job {
            fill: Arc::clone(&fill),
            shared: Arc::clone(shared),
            origin: Arc::clone(origin),
            key,
            object_key,
            query: query.map(Into::into),
            target,
            previous,
            client,
            _ahead: ahead,
        };
        let span = tracing::trace_span!("fill");
        shared.tasks.spawn(job.run().instrument(span));
        Ok(fill)
    }

    /// What it brings is for those who wait already, and for nobody after them. The caller takes it out of the table.
    pub(crate) fn outdate(&self) {
        self.outdated.store(true, Ordering::Relaxed);
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changed.send_replace(());
    }
}

/// One reader's way through a fill.
pub(crate) struct FillReader {
    fill: Arc<Fill>,
    changed: watch::Receiver<()>,
    next: usize,
}

impl FillReader {
    pub(crate) fn new(fill: Arc<Fill>) -> Self {
        let changed = fill.changed.subscribe();
        Self { fill, changed, next: 0 }
    }

    /// Another reader of the same fill, from its start.
    pub(crate) fn another(&self) -> Self {
        Self::new(Arc::clone(&self.fill))
    }

    /// What prefetching has come to with the object.
    pub(crate) fn mark(&self) -> Option<&Arc<Mark>> {
        self.fill.mark.as_ref()
    }

    /// Waits until `look` finds something. The task's own time-outs bound the wait: it always ends.
    async fn wait<T>(&mut self, mut look: impl FnMut(&State) -> Option<T>) -> Result<T, Refusal> {
        loop {
            self.changed.mark_unchanged();
            if let Some(found) = look(&self.fill.state.lock()) {
                return Ok(found);
            }
            // The sender lives in the fill that this reader holds.
            if self.changed.changed().await.is_err() {
                return Err(Refusal::Internal);
            }
        }
    }

    /// Takes a place among those who wait for the head; `None` where there are `max` already.
    pub(crate) fn wait_in_line(&self, max: usize) -> Option<Waiter> {
        let before = self.fill.waiting.fetch_add(1, Ordering::Relaxed);
        let waiter = Waiter(Arc::clone(&self.fill));
        (before < max).then_some(waiter)
    }

    /// Whether what the fill brings is the variant that a request with these headers asks for. Known with the head.
    pub(crate) fn is_for(&self, primary: &Key, headers: &HeaderMap) -> bool {
        match &self.fill.state.lock().variant {
            Some((variants, key)) => variants.key(primary, headers).as_ref() == Some(key),
            None => true,
        }
    }

    /// Whether the origin's fallback answered. Known with the head.
    pub(crate) fn is_by_fallback(&self) -> bool {
        self.fill.state.lock().by_fallback
    }

    /// The origin's answer, where it is not for the cache. Once, and for the request that began the fill.
    pub(crate) fn take_handed(&self) -> Option<Box<OriginAnswer>> {
        self.fill.state.lock().handed.take()
    }

    /// The head, as soon as it is there.
    ///
    /// # Errors
    /// What kept it from coming.
    pub(crate) async fn head(&mut self) -> Result<Head, Refusal> {
        self.wait(|state| match (&state.head, &state.end) {
            (Some(head), _) => Some(Ok(head.clone())),
            (None, Some(Err(refusal))) => Some(Err(refusal.clone())),
            (None, Some(Ok(()))) => Some(Err(Refusal::Internal)),
            (None, None) => None,
        })
        .await?
    }

    /// The next piece, as soon as it is there; `None` at the verified end.
    ///
    /// # Errors
    /// The fill failed; what was read is not the whole.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Refusal> {
        let next = self.next;
        let piece = self
            .wait(|state| match (state.pieces.get(next), &state.end) {
                (Some(piece), _) => Some(Ok(Some(piece.clone()))),
                (None, Some(Ok(()))) => Some(Ok(None)),
                (None, Some(Err(refusal))) => Some(Err(refusal.clone())),
                (None, None) => None,
            })
            .await??;
        self.next += usize::from(piece.is_some());
        Ok(piece)
    }

    /// The whole object, once it is verified.
    ///
    /// # Errors
    /// The fill failed.
    pub(crate) async fn whole(&mut self) -> Result<Arc<Object>, Refusal> {
        self.wait(|state| match (&state.object, &state.end) {
            (Some(object), _) => Some(Ok(Arc::clone(object))),
            (None, Some(Err(refusal))) => Some(Err(refusal.clone())),
            (None, Some(Ok(()))) => Some(Err(Refusal::Internal)),
            (None, None) => None,
        })
        .await?
    }
}

/// The task. Its drop ends the fill, whatever became of it.
struct Job {
    fill: Arc<Fill>,
    shared: Arc<Shared>,
    origin: Arc<Origin>,
    key: Key,
    object_key: String,
    query: Option<Box<str>>,
    target: Target,
    previous: Option<Arc<Object>>,
    /// The headers of the client whose request began it; none for S3, which sees nothing of clients.
    client: HeaderMap,
    _ahead: Option<OwnedSemaphorePermit>,
}

impl Job {
    async fn run(self) {
        self.shared.metrics.fills.add(1);
        self.shared.metrics.fills_running.add(1);
        let ended = self.fetch().await;
        if ended.is_err() {
            self.shared.metrics.fills_failed.add(1);
            if self.previous.is_some() {
                self.shared.memory.not_renewed(self.key.clone());
            }
        }
        self.fill.update(|state| state.end = Some(ended));
    }

    async fn fetch(&self) -> Result<(), Refusal> {
        let mut answer = self.ask(&self.conditions()).await?;
        if answer.status == StatusCode::NOT_MODIFIED && !self.confirms(&answer) {
            // It confirms another state than ours (RFC 9111, section 4.3.4): the whole object, then.
            answer.body.discard().await;
            answer = self.ask(&[]).await?;
        }
        if answer.by_fallback {
            self.fill.update(|state| state.by_fallback = true);
        }
        if self.origin.is_s3() { self.take_stored(answer).await } else { self.take_told(answer).await }
    }

    async fn ask(&self, conditions: &[(HeaderName, HeaderValue)]) -> Result<OriginAnswer, Refusal> {
        let mut headers = self.forwarded();
        headers.extend_from_slice(conditions);
        let want = Want { key: &self.object_key, query: self.query.as_deref(), headers: &headers };
        self.origin.get(&want).await
    }

    /// Tells those who wait of the object, reads it, and puts it under `key`, if there is one.
    async fn bring(
        &self,
        meta: Meta,
        body: OriginBody,
        since: Instant,
        checks: Checks,
        key: Option<Key>,
    ) -> Result<(), Refusal> {
        let max = self.shared.config.cache.max_object;
        // Held until the bytes have become an object of the cache, which has its own bound.
        let reserved = meta.length.unwrap_or(max).div_ceil(RESERVATION_UNIT).max(1);
        let units = u32::try_from(reserved).unwrap_or(u32::MAX);
        let patience = self.origin.config.queue_timeout;
        let reservation = tokio::time::timeout(patience, self.shared.in_flight.acquire_many(units)).await;
        let Ok(Ok(_reservation)) = reservation else { return Err(Refusal::Overloaded) };
        self.publish(Head::Object { meta: Arc::new(meta.clone()), stored: key.is_some() });
        let object = self.read(meta, body, since, max, checks).await?;
        let object = content_key::opened(&self.shared, &self.target, object)?;
        self.keep(object, key.as_ref());
        Ok(())
    }

    /// Reads the body to its end and checks it.
    async fn read(
        &self,
        mut meta: Meta,
        mut body: OriginBody,
        since: Instant,
        max: u64,
        mut checks: Checks,
    ) -> Result<Object, Refusal> {
        let mut received = 0_u64;
        while let Some(piece) = body.piece().await? {
            received += piece.len() as u64;
            checks.update(&piece).map_err(|problem| self.refuse_body(problem, received))?;
            if received > meta.length.unwrap_or(max) {
                if meta.length.is_none() {
                    self.shared.memory.pass(self.key.primary().unwrap_or_else(|| self.key.clone()));
                }
                tracing::warn!(
                    origin = self.origin.name,
                    key = self.object_key,
                    received,
                    "a body is longer than it may be"
                );
                return Err(OriginFailure::Broken.into());
            }
            self.shared.metrics.fill_bytes.add(piece.len() as u64);
            self.fill.update(|state| state.pieces.push(piece));
        }
        if meta.length.is_some_and(|length| length != received) {
            tracing::warn!(
                origin = self.origin.name,
                key = self.object_key,
                received,
                "a body ended short of its length"
            );
            return Err(OriginFailure::Broken.into());
        }
        checks.finish().map_err(|problem| self.refuse_body(problem, received))?;
        meta.length = Some(received);
        // Only this task adds pieces, so the list is complete; it is joined outside of the lock.
        let pieces = self.fill.state.lock().pieces.clone();
        let mut whole = BytesMut::with_capacity(usize::try_from(received).unwrap_or(0));
        pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        let whole = whole.freeze();
        // Readers that are not through yet go on in the same memory that the cache holds.
        let mut at = 0;
        for piece in &mut self.fill.state.lock().pieces {
            let end = at + piece.len();
            *piece = whole.slice(at..end);
            at = end;
        }
        Ok(Object::new(meta, whole, since))
    }

    fn refuse_body(&self, problem: Mismatch, received: u64) -> Refusal {
        tracing::warn!(
            origin = self.origin.name,
            key = self.object_key,
            received,
            problem = problem.as_str(),
            "a body is not the object"
        );
        self.shared.metrics.origin_error(&self.origin.name, problem.failure());
        problem.failure().into()
    }

    /// Puts a whole object where requests find it, and what it tells of other objects where facts find it.
    fn keep(&self, mut object: Object, key: Option<&Key>) {
        object.mark.clone_from(&self.fill.mark);
        let object = Arc::new(playlist::prepared(&self.shared, &self.target, object));
        let is_playlist = matches!(self.target.kind, ObjectKind::Playlist | ObjectKind::Master);
        if is_playlist && object.status() == StatusCode::OK {
            Timeline::learn(&self.shared.timelines, &self.key, &self.target, &object.body);
        }
        if let Some(key) = key {
            self.store(key, Stored::Object(Arc::clone(&object)));
        }
        self.fill.update(|state| state.object = Some(object));
    }

    /// Puts it into the memory, unless the object was changed meanwhile. The table's lock makes that one step: whoever
    /// changed the object either set the mark before, or forgets what is put here.
    fn store(&self, key: &Key, stored: Stored) {
        let _fills = self.shared.fills.lock();
        if !self.fill.outdated.load(Ordering::Relaxed) {
            cache::keep(&self.shared, key, self.target.kind, &stored, self.previous.as_ref());
            self.shared.memory.put(key.clone(), stored);
        }
    }

    fn publish(&self, head: Head) {
        self.fill.update(|state| state.head = Some(head));
    }

    /// The answer is for the client whose request brought it. `lasting`: so will the next ones be.
    fn pass(&self, answer: OriginAnswer, lasting: bool) -> Result<(), Refusal> {
        if lasting {
            self.shared.memory.pass(self.key.primary().unwrap_or_else(|| self.key.clone()));
        }
        self.fill.update(|state| state.handed = Some(Box::new(answer)));
        self.publish(Head::Pass);
        Ok(())
    }

    /// Asks whether the object at hand is still the right one (RFC 9111, section 4.3.1).
    fn conditions(&self) -> Vec<(HeaderName, HeaderValue)> {
        let Some(previous) = &self.previous else { return Vec::new() };
        match (&previous.meta.etag, &previous.meta.last_modified) {
            (Some(etag), _) => vec![(IF_NONE_MATCH, etag.clone())],
            (None, Some((value, _))) => vec![(IF_MODIFIED_SINCE, value.clone())],
            (None, None) => Vec::new(),
        }
    }
}

/// Whether the body's end can be told from a cut: one that ends with its connection may be short (RFC 9112, section 8).
fn proves_its_end(head: &ResponseHeader) -> bool {
    head.status == StatusCode::NO_CONTENT
        || [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| head.headers.contains_key(name))
}

impl Drop for Job {
    fn drop(&mut self) {
        {
            let mut fills = self.shared.fills.lock();
            // Another fill stands in its place where this one was outdated.
            if fills.get(&self.key).is_some_and(|fill| Arc::ptr_eq(fill, &self.fill)) {
                fills.remove(&self.key);
            }
        }
        self.shared.metrics.fills_running.sub(1);
        let mut state = self.fill.state.lock();
        if state.end.is_none() {
            state.end = Some(Err(Refusal::Internal));
            drop(state);
            self.fill.changed.send_replace(());
        }
    }
}
