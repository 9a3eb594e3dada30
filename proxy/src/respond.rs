//! Step four: the answer. Conditions and ranges are decided, the head is made, bytes go out, the fact is taken.
//!
//! Invariants: the first bytes are at hand before the head is written, so that a failure until then is an honest
//! status; after it a failure cuts the connection, so that no client takes a part for the whole. Each 256 KiB has the
//! client's write time-out of its own.
//!
//! On failure: [`Cut`], which tells Pingora to close the connection without another byte.

pub(crate) mod conditions;
pub(crate) mod debug;
mod head;
pub(crate) mod hit;
mod pass;
pub(crate) mod range;
mod refuse;
mod source;

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method, StatusCode};
use pingora_core::{Error, ErrorType};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use segue_events::CacheState;
use tracing::Instrument;

use crate::cache::{Found, Meta, Object};
use crate::edge::Shared;
use crate::exchange::Exchange;
use crate::fact::{Delivered, Delivery};
use crate::fill::FillReader;
use crate::refusal::Refusal;
use crate::timeline::Media;
use conditions::Verdict;
use range::Window;
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
    /// `None`: no body is sent.
    window: Option<Window>,
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
        Found::Memory(object, state) => {
            let length = object.body.len() as u64;
            let plan = match plan(session, &object.meta, length) {
                Ok(plan) => plan,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let age = if state == CacheState::Miss { None } else { Some(object.age(Instant::now())) };
            let media = place(&object, media);
            let header = head::of_object(&object.meta, length, &plan, state, age);
            let source = Source::memory(&object.body, plan.window);
            transfer(shared, session, exchange, header, source, &plan, state, media).await
        }
        Found::Filling(meta, reader, state) => filling(shared, session, exchange, (&meta, reader), state, media).await,
        Found::Pass => pass::through(shared, session, exchange, media).await,
    }
}

async fn filling(
    shared: &Arc<Shared>,
    session: &mut Session,
    exchange: &Exchange,
    (meta, reader): (&Meta, FillReader),
    state: CacheState,
    media: Option<Media>,
) -> Result<Result<(), Refusal>, Cut> {
    let length = meta.length.unwrap_or_default();
    let plan = match plan(session, meta, length) {
        Ok(plan) => plan,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let header = head::of_object(meta, length, &plan, state, None);
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
    match conditions::judge(headers, meta) {
        Verdict::NotModified => return Ok(Plan { status: StatusCode::NOT_MODIFIED, window: None }),
        Verdict::Failed => return Err(Refusal::PreconditionFailed),
        Verdict::Go => {}
    }
    // Range is defined for GET alone (RFC 9110, section 14.2).
    let window = if *method == Method::GET && conditions::range_applies(headers, meta) {
        range::select(headers, length)?
    } else {
        None
    };
    let status = if window.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    Ok(Plan { status, window: window.or(Some(Window::whole(length))) })
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
    let bytes = plan.window.filter(|_| !is_head).map(|window| window.length());
    let range = plan.window.filter(|_| plan.status == StatusCode::PARTIAL_CONTENT);
    let mut delivered = Delivered {
        status: plan.status.as_u16(),
        bytes: bytes.unwrap_or(0),
        range: range.map(|window| [window.first, window.last(), window.total]),
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
