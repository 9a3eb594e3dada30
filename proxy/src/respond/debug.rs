//! The answer's own debug header: which step decided, from which tier, and how long the first byte took; only for a
//! request that carries a right `Segue-Debug` of its own.
//!
//! Invariants: without a configured key this is one branch; without the header, one more. A header that is wrong in any
//! way is told nothing, so that it cannot be tried out.

use http::header::{HeaderName, HeaderValue};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use segue_events::CacheState;
use segue_signing::debug;

use super::head;
use crate::edge::Shared;
use crate::exchange::Exchange;
use crate::refusal::Refusal;
use crate::snapshot::unix_s;

const NAME: HeaderName = HeaderName::from_static(debug::HEADER);

/// Whether somebody asks: such a request is answered on the way where answers are annotated.
pub(crate) fn is_asked(shared: &Shared, headers: &http::HeaderMap) -> bool {
    shared.config.debug_key.is_some() && headers.contains_key(NAME)
}

/// Says where the object came from.
pub(super) fn found(
    shared: &Shared,
    session: &Session,
    exchange: &Exchange,
    state: CacheState,
    head: &mut ResponseHeader,
) {
    annotate(shared, session, exchange, head, || {
        let tier = match state {
            CacheState::HitMemory => "memory",
            CacheState::HitDisk => "disk",
            CacheState::Stale => "stale",
            CacheState::Miss | CacheState::Coalesced | CacheState::Bypass => "origin",
        };
        format!("step=respond;tier={tier};state={}", state.as_str())
    });
}

/// Says which step refused.
pub(super) fn refused(
    shared: &Shared,
    session: &Session,
    exchange: &Exchange,
    refusal: &Refusal,
    head: &mut ResponseHeader,
) {
    annotate(shared, session, exchange, head, || format!("step={};reason={}", step(refusal), refusal.reason()));
}

fn annotate(
    shared: &Shared,
    session: &Session,
    exchange: &Exchange,
    head: &mut ResponseHeader,
    what: impl FnOnce() -> String,
) {
    let Some(key) = &shared.config.debug_key else { return };
    let Some(shown) = session.req_header().headers.get(NAME).and_then(|value| value.to_str().ok()) else { return };
    // A path that leads nowhere has no canonical form to sign.
    let Some(target) = &exchange.target else { return };
    if !debug::verify(key, &target.path, shown, unix_s()) {
        return;
    }
    let ms = exchange.started.elapsed().as_secs_f64() * 1000.0;
    let text = format!("{};ttfb={ms:.3};revision={}", what(), exchange.snapshot.revision);
    if let Ok(value) = HeaderValue::try_from(text) {
        head::set(head, NAME, value);
    }
}

/// The step that a refusal comes from.
pub(crate) fn step(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Path(_) | Refusal::NoRoute => "route",
        Refusal::Ticket(_) => "ticket",
        Refusal::Policy(_) => "policy",
        Refusal::NoSnapshot | Refusal::SnapshotTooOld => "snapshot",
        Refusal::MethodNotAllowed => "method",
        Refusal::NotFound | Refusal::Origin(_) => "origin",
        Refusal::PreconditionFailed | Refusal::RangeNotSatisfiable(_) => "respond",
        _ => "edge",
    }
}
