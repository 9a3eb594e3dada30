//! A large object that is on the disk alone: answered in parts, of which only those of the range are read.
//!
//! On failure: what cannot be read before the head was written is fetched from the origin; after it the answer is cut.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use pingora_proxy::Session;
use segue_events::CacheState;

use super::range::Window;
use super::source::Source;
use super::{Cut, Plan, deliver, head, plan, transfer};
use crate::cache::{self, OnDisk};
use crate::edge::Shared;
use crate::exchange::Exchange;
use crate::refusal::Refusal;
use crate::timeline::Media;

pub(super) async fn answer(
    shared: &Arc<Shared>,
    session: &mut Session,
    exchange: &Exchange,
    object: OnDisk,
    media: Option<Media>,
) -> Result<Result<(), Refusal>, Cut> {
    let length = object.length();
    let plan = match plan(session, object.meta(), length) {
        // Several ranges of what is not in memory are not worth as many reads: all of it is an answer too (RFC 9110,
        // section 14.2).
        Ok(plan) if plan.parts.is_some() => Plan::of(StatusCode::OK, Some(Window::whole(length))),
        Ok(plan) => plan,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let state = CacheState::HitDisk;
    let past = object.since().elapsed();
    let age = past.saturating_add(object.meta().initial_age).as_secs();
    let ttl = object.meta().http.is_some().then(|| seconds(object.meta().fresh_for.saturating_sub(past)));
    let status = head::cache_status(state, None, plan.status, ttl);
    let header = head::of_object(object.meta(), &plan, Some(status), Some(age), false);
    let is_head = session.req_header().method == Method::HEAD;
    let source = match plan.window.filter(|window| !is_head && window.length() > 0) {
        Some(window) => Source::disk(object, window).await,
        None => Some(Source::memory(&Bytes::new(), None)),
    };
    match source {
        Some(source) => transfer(shared, session, exchange, header, source, &plan, state, media).await,
        None => from_the_origin(shared, session, exchange, media).await,
    }
}

fn seconds(left: Duration) -> i64 {
    i64::try_from(left.as_secs()).unwrap_or(i64::MAX)
}

async fn from_the_origin(
    shared: &Arc<Shared>,
    session: &mut Session,
    exchange: &Exchange,
    media: Option<Media>,
) -> Result<Result<(), Refusal>, Cut> {
    let Some(target) = &exchange.target else { return Ok(Err(Refusal::Internal)) };
    let query = exchange.query.as_deref();
    let key = cache::key(shared, &exchange.snapshot, target, query);
    match cache::fetched(shared, key.into(), target, query).await {
        // It never comes from the disk again, so this ends.
        Ok(found) => Box::pin(deliver(shared, session, exchange, found, media)).await,
        Err(refusal) => Ok(Err(refusal)),
    }
}
