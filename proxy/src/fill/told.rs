//! What an HTTP origin tells of its answer, and what the fill does with it (RFC 9111).
//!
//! Invariants: variants have their list in the memory before anybody is told of the head, so that whoever waited for
//! another one finds its own key; an answer that is not certain to be for everybody goes to one client.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use http::header::{AUTHORIZATION, ETAG, HeaderName, HeaderValue};

use super::{Head, Job, proves_its_end};
use crate::cache::policy::{self, Reading, Sent};
use crate::cache::{Key, Meta, Stored, Use, Variants};
use crate::hop;
use crate::origin::{Checks, OriginAnswer};
use crate::refusal::{OriginFailure, Refusal};

impl Job {
    /// What of the client's request goes to the origin.
    pub(super) fn forwarded(&self) -> Vec<(HeaderName, HeaderValue)> {
        if self.origin.is_s3() {
            return Vec::new();
        }
        let coded = policy::reaches(&self.target, &http::header::ACCEPT_ENCODING);
        hop::forwarded(&self.client, coded, self.origin.forwards_everything())
    }

    /// Whether a 304 speaks of the object at hand.
    pub(super) fn confirms(&self, answer: &OriginAnswer) -> bool {
        let weak = |tag: &HeaderValue| tag.as_bytes().strip_prefix(b"W/").unwrap_or(tag.as_bytes()).to_vec();
        let ours = self.previous.as_ref().and_then(|previous| previous.meta.etag.as_ref());
        match (ours, answer.head.headers.get(ETAG)) {
            (Some(ours), Some(theirs)) => weak(ours) == weak(theirs),
            _ => self.previous.is_some(),
        }
    }

    /// Takes the answer of an origin that speaks for itself.
    pub(super) async fn take_told(&self, answer: OriginAnswer) -> Result<(), Refusal> {
        let since = Instant::now();
        let cache = &self.shared.config.cache;
        let sent = Sent {
            target: &self.target,
            cache,
            everything: self.origin.forwards_everything(),
            authorized: self.forwarded().iter().any(|(name, _)| *name == AUTHORIZATION),
            delay: since.saturating_duration_since(answer.asked),
        };
        match answer.status {
            StatusCode::NOT_MODIFIED => return self.renew(answer, &sent, since).await,
            // To a request without a range or a condition these are no answers.
            StatusCode::PARTIAL_CONTENT | StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE => {
                tracing::warn!(origin = self.origin.name, key = self.object_key, status = %answer.status, "a plain GET was answered with a part");
                return Err(OriginFailure::NotAnObject.into());
            }
            status if status.is_server_error() && self.has_better(since) => {
                return Err(OriginFailure::Unavailable.into());
            }
            _ => {}
        }
        let (meta, stored) = match policy::read(&answer.head, &sent) {
            Reading::Keep(meta) => (meta, true),
            Reading::Share(meta) => (meta, false),
            Reading::Pass { lasting } => return self.dismiss(answer, lasting),
        };
        if meta.length.is_some_and(|length| length > cache.max_object) {
            return self.pass(answer, true);
        }
        let is_kept = stored && is_worth_keeping(&meta) && proves_its_end(&answer.head);
        // A failure that is told to all has no variants, and takes no place.
        let key = match if stored { self.place(&meta) } else { Ok(None) } {
            Ok(key) => key.filter(|_| is_kept),
            Err(Unplaced) => return self.pass(answer, false),
        };
        self.bring(meta, answer.body, since, Checks::none(), key).await
    }

    /// Whether the object at hand may stand in for a failure of the origin.
    fn has_better(&self, now: Instant) -> bool {
        let asks = Default::default();
        let usable = |object: &Arc<_>| crate::cache::Object::use_for(object, now, &asks, &self.shared.config.cache);
        self.previous.as_ref().is_some_and(|previous| usable(previous) != Use::Condition)
    }

    /// An answer for one client. What is at hand is not the right one any more.
    fn dismiss(&self, answer: OriginAnswer, lasting: bool) -> Result<(), Refusal> {
        if answer.status.is_success() && self.previous.is_some() {
            self.shared.memory.forget(&self.key);
        }
        self.pass(answer, lasting)
    }

    /// The object at hand, under a head that a 304 has brought up to date (RFC 9111, section 4.3.4).
    async fn renew(&self, answer: OriginAnswer, sent: &Sent<'_>, since: Instant) -> Result<(), Refusal> {
        let Some(previous) = &self.previous else { return Err(OriginFailure::NotAnObject.into()) };
        let head = policy::updated(previous, &answer.head);
        let (meta, stored) = match policy::read(&head, sent) {
            Reading::Keep(meta) => (meta, true),
            Reading::Share(meta) => (meta, false),
            Reading::Pass { .. } => {
                // It is confirmed, and from now on not to be kept: for those who wait it still is the object.
                let meta = Meta::read(&head, &self.target, sent.cache).ok_or(Refusal::Internal)?;
                self.shared.memory.forget(&self.key);
                (Meta { http: previous.meta.http.clone(), ..meta }, false)
            }
        };
        let key = self.place(&meta).unwrap_or(None).filter(|_| stored);
        let object = Arc::new(previous.renewed(meta, since));
        if let Some(key) = &key {
            self.store(key, Stored::Object(Arc::clone(&object)));
        }
        self.publish(Head::Renewed(object));
        answer.body.discard().await;
        Ok(())
    }

    /// The key under which the answer is kept: the URL's own, or that of a variant, whose list is put under the URL's.
    fn place(&self, meta: &Meta) -> Result<Option<Key>, Unplaced> {
        let primary = self.key.primary().unwrap_or_else(|| self.key.clone());
        let names = meta.http.as_ref().map(|policy| policy.selects.clone()).unwrap_or_default();
        if names.is_empty() {
            return Ok(Some(primary));
        }
        let _fills = self.shared.fills.lock();
        let known = match self.shared.memory.get(primary.borrowed()) {
            Some(Stored::Varies(variants)) if variants.names == names => Some(variants),
            _ => None,
        };
        let is_new = known.is_none();
        let variants = known.unwrap_or_else(|| Arc::new(Variants::new(names)));
        let key = variants.key(&primary, &self.client).ok_or(Unplaced)?;
        if !self.fill.outdated.load(std::sync::atomic::Ordering::Relaxed) {
            if is_new {
                self.shared.memory.put(primary, Stored::Varies(Arc::clone(&variants)));
            }
            if let Some(oldest) = variants.admit(&key) {
                self.shared.memory.forget(&oldest);
                self.shared.metrics.variants_dropped.add(1);
            }
        }
        self.fill.update(|state| state.variant = Some((variants, key.clone())));
        Ok(Some(key))
    }
}

/// The request's selecting headers are too long for a key.
struct Unplaced;

/// Something that could be served again, now or after a condition.
fn is_worth_keeping(meta: &Meta) -> bool {
    !meta.fresh_for.is_zero() || meta.etag.is_some() || meta.last_modified.is_some()
}
