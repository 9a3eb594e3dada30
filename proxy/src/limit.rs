//! Who asks for too much: rate limits by address, session and track, and streams by listener.
//!
//! Purpose: the step stands twice in a request's life: the address before any work is spent on a ticket, session and
//! track after it, when both are known to be real.
//!
//! Invariants: nothing here waits but [`settle`], which requests pass off the path of hits where Redis has to be asked
//! first. A request meets the classes that apply to its kind by themselves; the class that its ticket names (`lim`)
//! stands in for those of the same `per`. What is limited is a request, whatever comes of it later.
//!
//! On failure: [`Refusal::Limited`], with the time after which the request may pass.

mod allowance;
mod backend;
mod class;
mod denied;
mod gcra;
mod lease;
mod limiter;
mod redis;
mod streams;
mod table;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use class::Class;
pub use denied::{Denied, Word};
pub use gcra::Gcra;
pub use limiter::{Limiter, Pending, Verdict};
pub use redis::RedisConfig;
pub(crate) use redis::probe;
use segue_signing::limits::Sort;
pub use segue_signing::limits::{Kinds, LimitConfig, LimitsConfig, OnExcess, OnOutage, Per, StreamsConfig};
use streams::{Asking, Streams};

use crate::edge::Shared;
use crate::exchange::Exchange;
use crate::refusal::Refusal;
use crate::route::ObjectKind;
use crate::timeline::Media;

/// A session that holds a place among its listener's streams.
pub(crate) struct Playing {
    streams: Arc<Streams>,
    listener: u64,
    sid: u64,
}

/// The key of a client's address: IPv6 by /64, since that is what one household or one machine has.
struct AddressKey([u8; 8], usize);

impl AddressKey {
    fn of(client: IpAddr) -> Self {
        let mut bytes = [0; 8];
        let length = match client.to_canonical() {
            IpAddr::V4(v4) => fill(&mut bytes, &v4.octets()),
            IpAddr::V6(v6) => fill(&mut bytes, &v6.octets()),
        };
        Self(bytes, length)
    }

    fn bytes(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or_default()
    }
}

fn fill(place: &mut [u8; 8], octets: &[u8]) -> usize {
    for (byte, octet) in place.iter_mut().zip(octets) {
        *byte = *octet;
    }
    octets.len().min(place.len())
}

/// The classes of the client's address, for an object of this kind.
pub(crate) fn address(shared: &Shared, exchange: &mut Exchange, kind: ObjectKind) -> Result<(), Refusal> {
    let limiter = &shared.limiter;
    if limiter.is_idle() {
        return Ok(());
    }
    let classes = limiter.classes();
    let Some(client) = exchange.client else { return Ok(()) };
    if classes.address().is_empty() {
        return Ok(());
    }
    let _step = tracing::trace_span!("limit").entered();
    let key = AddressKey::of(client);
    let now = limiter.at(exchange.started);
    for class in classes.address().iter().filter(|class| class.config.apply.has(sort(kind))) {
        meet(limiter.take(class, key.bytes(), now), &mut exchange.pending)?;
    }
    Ok(())
}

/// The classes of session and track, the one that the ticket names, and the listener's streams.
pub(crate) fn listener(shared: &Shared, exchange: &mut Exchange) -> Result<(), Refusal> {
    allowance::meet_all(shared, exchange)?;
    let limiter = &shared.limiter;
    if limiter.is_idle() {
        return Ok(());
    }
    let Some(target) = &exchange.target else { return Ok(()) };
    let classes = limiter.classes();
    let _step = tracing::trace_span!("limit").entered();
    let now = limiter.at(exchange.started);
    let lim = exchange.grant.as_ref().and_then(|grant| grant.claims.lim.as_deref());
    let named = lim.and_then(|name| classes.named(name));
    let kind = target.kind;
    let by_itself = |class: &&Arc<Class>| {
        class.config.apply.has(sort(kind)) && named.is_none_or(|named| named.config.per != class.config.per)
    };
    for class in named.into_iter().filter(by_name(kind)).chain(classes.listener().iter().filter(by_itself)) {
        let address = exchange.client.map(AddressKey::of);
        let address = address.as_ref().map_or(&[][..], AddressKey::bytes);
        let key = match class.config.per {
            Per::Track => target.track().as_bytes(),
            Per::Session => exchange.grant.as_ref().map_or(address, |grant| grant.sid.as_bytes()),
            Per::Address => address,
        };
        meet(limiter.take(class, key, now), &mut exchange.pending)?;
    }
    if kind == ObjectKind::Segment
        && exchange.playing.is_none()
        && let Some(grant) = &exchange.grant
        && let Some(sub) = &grant.claims.sub
        && let Some(streams) = classes.streams(lim)
    {
        let ticket_age = grant.claims.iat.map(|iat| ticket_age(exchange.started_s(), iat));
        let sid = limiter.stream_hash(grant.sid.as_bytes());
        meet(limiter.play(streams, sub.as_bytes(), Asking { sid, now, ticket_age }), &mut exchange.pending)?;
        let listener = limiter.stream_hash(sub.as_bytes());
        exchange.playing = Some(Playing { streams: Arc::clone(streams), listener, sid });
    }
    Ok(())
}

fn sort(kind: ObjectKind) -> Sort {
    match kind {
        ObjectKind::Segment => Sort::Segment,
        ObjectKind::Init => Sort::Init,
        ObjectKind::Master | ObjectKind::Playlist => Sort::Playlist,
        ObjectKind::Key => Sort::Key,
        ObjectKind::Other => Sort::Other,
    }
}

/// A class that applies to nothing by itself costs a token a segment where it is named.
fn by_name(kind: ObjectKind) -> impl Fn(&&Arc<Class>) -> bool {
    move |class| class.config.apply.has(sort(kind)) || (class.config.apply.is_empty() && kind == ObjectKind::Segment)
}

/// How long ago a ticket was issued, in nanoseconds. In whole seconds it may be one more; a ticket of doubtful age is an old one.
fn ticket_age(now: i64, iat: i64) -> u64 {
    u64::try_from(now.saturating_sub(iat)).unwrap_or(0).saturating_add(1).saturating_mul(1_000_000_000)
}

/// The session of this request was given media.
pub(crate) fn played(shared: &Shared, exchange: &Exchange, media: Option<Media>) {
    if let (Some(Playing { streams, listener, sid }), Some(media)) = (&exchange.playing, media) {
        shared.limiter.played(streams, *listener, *sid, Duration::from_millis(media.media_ms));
    }
}

/// Waits for what only Redis knows, where the steps so far came upon it; each class's `max_wait` is the bound.
pub(crate) async fn settle(shared: &Shared, exchange: &mut Exchange) -> Result<(), Refusal> {
    for pending in std::mem::take(&mut exchange.pending) {
        meet(shared.limiter.wait(pending).await, &mut exchange.pending)?;
    }
    Ok(())
}

fn meet(verdict: Verdict, waits: &mut Vec<Pending>) -> Result<(), Refusal> {
    match verdict {
        Verdict::Admitted => Ok(()),
        Verdict::Wait(pending) => {
            waits.push(pending);
            Ok(())
        }
        Verdict::Refused(denied) => Err(Refusal::Limited(Box::new(denied))),
    }
}
