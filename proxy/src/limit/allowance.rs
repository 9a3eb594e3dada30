//! Limits that a policy's verdict names: classes of the operator's, with keys of the policy's.
//!
//! Invariants: a policy's keys lie apart from those that a class has by itself, so that an account called like a track is not that
//! track. What costs a token is what the class applies to, whoever names it: a policy that is asked about a playlist, and says yes under the same
//! conditions as for segments, spends nothing of a class that counts segments. A streams class that a policy names stands in for the one that the
//! ticket would meet: one request plays one stream.
//!
//! On failure: a class that is not configured limits nothing; it is counted, and named in the log once in a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::streams::Asking;
use super::{AddressKey, Playing, by_name, meet};
use crate::edge::Shared;
use crate::exchange::Exchange;
use crate::refusal::Refusal;
use crate::route::ObjectKind;

/// What stands in front of a policy's key. No track, session or address begins so.
const MARK: &[u8] = b"\0policy\0";
/// Milliseconds between two lines in the log about classes that are not there.
const SAY_EVERY_MS: u64 = 60_000;

/// Meets what the verdict names, if it names anything.
pub(super) fn meet_all(shared: &Shared, exchange: &mut Exchange) -> Result<(), Refusal> {
    let Some(allowance) = &exchange.allowance else { return Ok(()) };
    let limiter = &shared.limiter;
    let classes = limiter.classes();
    let now = limiter.at(exchange.started);
    let kind = exchange.target.as_ref().map_or(ObjectKind::Other, |target| target.kind);
    for limit in &allowance.limits {
        match classes.named(&limit.class) {
            Some(class) if by_name(kind)(&class) => {
                meet(limiter.take(class, &marked(&limit.key), now), &mut exchange.pending)?;
            }
            Some(_) => {}
            None => unknown(shared, exchange.started_ms, &limit.class),
        }
    }
    let Some(limit) = allowance.streams.as_ref().filter(|_| kind == ObjectKind::Segment) else { return Ok(()) };
    let Some(streams) = classes.streams_named(&limit.class) else {
        unknown(shared, exchange.started_ms, &limit.class);
        return Ok(());
    };
    let key = marked(&limit.key);
    let sid = match (&exchange.grant, exchange.client) {
        (Some(grant), _) => limiter.stream_hash(grant.sid.as_bytes()),
        (None, Some(client)) => limiter.stream_hash(AddressKey::of(client).bytes()),
        (None, None) => return Ok(()),
    };
    let iat = exchange.grant.as_ref().and_then(|grant| grant.claims.iat);
    let ticket_age = iat.map(|iat| super::ticket_age(exchange.started_s(), iat));
    meet(limiter.play(streams, &key, Asking { sid, now, ticket_age }), &mut exchange.pending)?;
    exchange.playing = Some(Playing { streams: Arc::clone(streams), listener: limiter.stream_hash(&key), sid });
    Ok(())
}

fn marked(key: &str) -> Vec<u8> {
    [MARK, key.as_bytes()].concat()
}

fn unknown(shared: &Shared, now_ms: u64, class: &str) {
    static SAID_MS: AtomicU64 = AtomicU64::new(0);
    shared.desk.tallies.unknown_classes.add(1);
    let said = SAID_MS.load(Ordering::Relaxed);
    let is_due = now_ms >= said.saturating_add(SAY_EVERY_MS);
    if is_due && SAID_MS.compare_exchange(said, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        tracing::warn!(class, "a policy names a limit class that is not configured; it limits nothing");
    }
}
