//! Step four: the answer. Conditions and ranges are decided, the head is made, bytes go out, the fact is taken.
//!
//! Invariants: the first bytes are at hand before the head is written, so that a failure until then is an honest
//! status; after it a failure cuts the connection, so that no client takes a part for the whole. Each 256 KiB has the
//! client's write time-out of its own.
//!
//! On failure: [`Cut`], which tells Pingora to close the connection without another byte.

pub(crate) mod conditions;
pub(crate) mod debug;
mod disk;
mod head;
pub(crate) mod hit;
mod multipart;
mod pass;
pub(crate) mod range;
mod refuse;
mod source;

use std::sync::Arc;
use std::time::Instant;

use http::header::RANGE;
use http::{HeaderMap, Method, StatusCode};
use pingora_core::{Error, ErrorType};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use segue_events::CacheState;
use tracing::Instrument;

use crate::cache::{Forward, Found, Meta, Object};
use crate::edge::Shared;
use crate::exchange::Exchange;
use crate::fact::{Delivered, Delivery};
use crate::fill::FillReader;
use crate::refusal::Refusal;
use crate::timeline::Media;
use conditions::Verdict;
use multipart::Multipart;
use range::{Selected, Window};
use source::Source;

pub(crate) use head::preflight;
pub(crate) use refuse::refuse;

/// The answer ended before its last byte; the connection must close.
#[derive(Debug)]
pub(crate) struct Cut;

impl From<Cut> for Box<Error> {
    fn from(_: Cut) -> Self {
        Error::new_down(ErrorType::Custom("answer-cut"))
    }
}

/// The fact of an answer whose body is being written. Wherever that ends before the last byte, also where the request
/// is dropped in the middle (a shutdown, a panic), the drop settles it as not complete, with what was sent.
struct Open<'a> {
    shared: &'a Shared,
    session: &'a mut Session,
    exchange: &'a Exchange,
    delivered: &'a mut Delivered,
    sent: &'a mut u64,
    /// Whether the head's write was begun: without that there is nothing to record.
    begun: bool,
    /// Noted before the last write.
    fact: Option<Delivery>,
}

impl Open<'_> {
    fn note(&mut self) {
        let header = self.session.req_header();
        self.fact = Some(Delivery::note(self.shared, self.exchange, header, *self.delivered));
    }

    /// The kernel took the last byte.
    fn complete(mut self) {
        self.begun = false;
        if let Some(fact) = self.fact.take() {
            fact.settle(true, *self.sent);
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.begun && self.fact.is_none() {
            self.note();
        }
        if let Some(fact) = self.fact.take() {
            fact.settle(false, *self.sent);
        }
    }
}

/// How the answer is cut out of an object.
struct Plan {
    status: StatusCode,
    /// `None`: no body is sent, or several parts are.
    window: Option<Window>,
    parts: Option<Multipart>,
}

impl Plan {
    fn of(status: StatusCode, window: Option<Window>) -> Self {
        Self { status, window, parts: None }
    }

    /// Bytes of the body.
    fn length(&self) -> u64 {
        match &self.parts {
            Some(parts) => parts.length(),
            None => self.window.map_or(0, Window::length),
        }
    }

    /// What of the object a partial answer holds; of several parts the largest.
    fn range(&self) -> Option<[u64; 3]> {
        let window = self.parts.as_ref().map_or(self.window, Multipart::largest);
        let window = window.filter(|_| self.status == StatusCode::PARTIAL_CONTENT)?;
        Some([window.first, window.last(), window.total])
    }
}

/// Sends what was found.
///
/// # Errors
/// [`Cut`] after the head was written; a refusal before, which the caller answers.
pub(crate) async fn send(
    shared: &Arc<Shared>,
    session: &mut Session,
    exchange: &Exchange,
    found: Found,
    media: Option<Media>,
) -> Result<Result<(), Refusal>, Cut> {
    let step = tracing::trace_span!("respond");
    deliver(shared, session, exchange, found, media).instrument(step).await
}

async fn deliver(
    shared: &Arc<Shared>,
    session: &mut Session,
    exchange: &Exchange,
    found: Found,
    media: Option<Media>,
) -> Result<Result<(), Refusal>, Cut> {
    match found {
        Found::Memory(object, state) => memory(shared, session, exchange, &object, state, media).await,
        Found::Filling(meta, reader, state) => filling(shared, session, exchange, (&meta, reader), state, media).await,
        Found::Disk(object) => disk::answer(shared, session, exchange, object, media).await,
        Found::Pass => pass::through(shared, session, exchange, media).await,
        // It came to a request without ranges and conditions; they are the origin's to decide.
        Found::Handed(answer) if answer.status == StatusCode::OK && !pass::is_plain(session) => {
            drop(answer);
            pass::through(shared, session, exchange, media).await
        }
        Found::Handed(answer) => pass::on(shared, session, exchange, *answer, media).await,
    }
}

async fn memory(
    shared: &Arc<Shared>,
    session: &mut Session,
    exchange: &Exchange,
    object: &Object,
    state: CacheState,
    media: Option<Media>,
) -> Result<Result<(), Refusal>, Cut> {
    let plan = match plan(session, &object.meta, object.body.len() as u64) {
        Ok(plan) => plan,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let now = Instant::now();
    let is_first = state == CacheState::Miss;
    let age = Some(object.age(now)).filter(|age| !is_first || *age > 0);
    let media = place(object, media);
    let is_told = object.meta.http.is_some() || state == CacheState::Stale;
    let ttl =
        exchange.how.as_ref().map_or(is_told, |how| how.forward == Forward::No && is_told).then(|| object.ttl(now));
    let status = head::cache_status(state, exchange.how.as_ref(), plan.status, ttl);
    let header = head::of_object(&object.meta, &plan, Some(status), age, is_first);
    let source = match &plan.parts {
        Some(parts) => match parts.pieces(&object.body) {
            Some(left) => Source::Pieces { left },
            None => return Ok(Err(Refusal::Internal)),
        },
        None => Source::memory(&object.body, plan.window),
    };
    transfer(shared, session, exchange, header, source, &plan, state, media).await
}

async fn filling(
    shared: &Arc<Shared>,
    session: &mut Session,
    exchange: &Exchange,
    (meta, mut reader): (&Meta, FillReader),
    state: CacheState,
    media: Option<Media>,
) -> Result<Result<(), Refusal>, Cut> {
    let length = meta.length.unwrap_or_default();
    let plan = match plan(session, meta, length) {
        Ok(plan) => plan,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if plan.parts.is_some() {
        // Parts may come in any order: they are cut when all of it is there and verified.
        return match reader.whole().await {
            Ok(object) => memory(shared, session, exchange, &object, state, media).await,
            Err(refusal) => Ok(Err(refusal)),
        };
    }
    let age = Some(meta.initial_age.as_secs()).filter(|age| *age > 0);
    let status = head::cache_status(state, exchange.how.as_ref(), plan.status, None);
    let header = head::of_object(meta, &plan, Some(status), age, state == CacheState::Miss);
    let source = Source::fill(reader, plan.window, length);
    transfer(shared, session, exchange, header, source, &plan, state, media).await
}

/// The object remembers its place, so that it outlives the timeline.
fn place(object: &Object, media: Option<Media>) -> Option<Media> {
    match media {
        Some(media) => Some(*object.media.get_or_init(|| media)),
        None => object.media.get().copied(),
    }
}

/// Conditions first, then the range (RFC 9110, section 13.2.2).
fn plan(session: &Session, meta: &Meta, length: u64) -> Result<Plan, Refusal> {
    let request = session.req_header();
    plan_for(&request.method, &request.headers, meta, length)
}

fn plan_for(method: &Method, headers: &HeaderMap, meta: &Meta, length: u64) -> Result<Plan, Refusal> {
    let status = meta.status();
    if status != StatusCode::OK {
        // Conditions and ranges speak of an object, not of a redirect or an error (RFC 9110, section 13.2.1).
        return Ok(Plan::of(status, Some(Window::whole(length))));
    }
    match conditions::judge(headers, meta) {
        Verdict::NotModified => return Ok(Plan::of(StatusCode::NOT_MODIFIED, None)),
        Verdict::Failed => return Err(Refusal::PreconditionFailed),
        Verdict::Go => {}
    }
    // Range is defined for GET alone (RFC 9110, section 14.2).
    let is_cut = *method == Method::GET && headers.contains_key(RANGE) && !meta.whole_only;
    if !is_cut || !conditions::range_applies(headers, meta) {
        return Ok(Plan::of(StatusCode::OK, Some(Window::whole(length))));
    }
    Ok(match range::select(headers, length)? {
        Selected::All => Plan::of(StatusCode::OK, Some(Window::whole(length))),
        Selected::One(window) => Plan::of(StatusCode::PARTIAL_CONTENT, Some(window)),
        Selected::Several(windows) => {
            Plan { parts: Some(Multipart::new(windows, meta)?), ..Plan::of(StatusCode::PARTIAL_CONTENT, None) }
        }
    })
}

/// Writes head and body, with the fact noted before the last write and settled after it.
#[allow(clippy::too_many_arguments, reason = "one place where all that an answer consists of comes together")]
async fn transfer(
    shared: &Shared,
    session: &mut Session,
    exchange: &Exchange,
    header: ResponseHeader,
    mut source: Source,
    plan: &Plan,
    state: CacheState,
    media: Option<Media>,
) -> Result<Result<(), Refusal>, Cut> {
    let is_head = session.req_header().method == Method::HEAD;
    let bytes = Some(plan.length()).filter(|_| !is_head);
    let mut delivered = Delivered {
        status: plan.status.as_u16(),
        bytes: bytes.unwrap_or(0),
        range: plan.range(),
        state,
        media,
        ttfb_ms: 0,
    };
    let mut sent = 0;
    let result = write(shared, session, exchange, header, &mut source, bytes, &mut delivered, &mut sent).await;
    match result {
        Ok(Ok(())) => {
            shared.metrics.served(delivered.status, state, sent);
            Ok(Ok(()))
        }
        Ok(Err(refusal)) => Ok(Err(refusal)),
        Err(Cut) => {
            shared.metrics.aborted.add(1);
            shared.metrics.bytes.add(sent);
            Err(Cut)
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "see above")]
async fn write(
    shared: &Shared,
    session: &mut Session,
    exchange: &Exchange,
    header: ResponseHeader,
    source: &mut Source,
    bytes: Option<u64>,
    delivered: &mut Delivered,
    sent: &mut u64,
) -> Result<Result<(), Refusal>, Cut> {
    let mut header = header;
    let Some(_) = bytes.filter(|bytes| *bytes > 0) else {
        debug::found(shared, session, exchange, delivered.state, &mut header);
        delivered.ttfb_ms = exchange.elapsed_ms();
        let fact = Delivery::note(shared, exchange, session.req_header(), *delivered);
        let client = session.as_downstream_mut();
        let written = match client.write_response_header(Box::new(header)).await {
            Ok(()) => client.write_response_body(bytes::Bytes::new(), true).await,
            Err(error) => Err(error),
        };
        fact.settle(written.is_ok(), 0);
        return written.map(Ok).map_err(|_| Cut);
    };
    let mut header = Some(header);
    let mut open = Open { shared, session, exchange, delivered, sent, begun: false, fact: None };
    loop {
        let part = match source.next().await {
            Ok(Some(part)) => part,
            // A source ends with its last part; an end before it is a broken one.
            Ok(None) => return end_early(&open, Refusal::Internal),
            Err(refusal) => return end_early(&open, refusal),
        };
        if header.is_some() {
            open.delivered.ttfb_ms = exchange.elapsed_ms();
            open.begun = true;
        }
        if part.last {
            open.note();
        }
        let length = part.bytes.len() as u64;
        if let Some(header) = &mut header {
            debug::found(shared, open.session, exchange, open.delivered.state, header);
        }
        let client = open.session.as_downstream_mut();
        let mut written = Ok(());
        if let Some(header) = header.take() {
            written = client.write_response_header(Box::new(header)).await;
        }
        if written.is_ok() {
            // With `last` this returns after the flush, hence after the kernel has taken all of it.
            written = client.write_response_body(part.bytes, part.last).await;
        }
        written.map_err(|_| Cut)?;
        *open.sent += length;
        if part.last {
            open.complete();
            return Ok(Ok(()));
        }
    }
}

fn end_early(open: &Open<'_>, refusal: Refusal) -> Result<Result<(), Refusal>, Cut> {
    if !open.begun {
        return Ok(Err(refusal));
    }
    tracing::info!(reason = refusal.reason(), sent = *open.sent, "an answer was cut: the object failed on its way");
    Err(Cut)
}
