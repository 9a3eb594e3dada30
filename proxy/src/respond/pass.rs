//! Objects that are not for the cache (too large, private): one request at the origin for one request here.
//!
//! Invariants: conditions and ranges are the origin's to decide, so that seeking in a large object fetches no more
//! than it needs; bytes are not kept beyond the piece that is being written. Of S3's head clients see what an object
//! has, of an HTTP origin's all that is meant for them.

use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    EXPIRES, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    LAST_MODIFIED, RANGE, TRANSFER_ENCODING, VARY,
};
use http::{Method, StatusCode, Version};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use segue_events::CacheState;

use super::{Cut, Open, head};
use crate::cache::policy::{self, Reading, Sent};
use crate::cache::{self, Forward, How};
use crate::edge::Shared;
use crate::exchange::Exchange;
use crate::fact::{Delivered, Delivery};
use crate::fill::stored::is_error_document;
use crate::hop;
use crate::origin::{OriginAnswer, OriginBody, Want};
use crate::refusal::{OriginFailure, Refusal};
use crate::route::{Target, content_type};
use crate::timeline::Media;
use crate::upstream;

const FORWARDED: [HeaderName; 6] = [RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];
const RETURNED: [HeaderName; 6] = [ETAG, LAST_MODIFIED, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_ENCODING, VARY];

/// Sends the origin's own answer.
///
/// # Errors
/// As [`super::send`].
pub(super) async fn through(
    shared: &Arc<Shared>,
    session: &mut Session,
    exchange: &Exchange,
    media: Option<Media>,
) -> Result<Result<(), Refusal>, Cut> {
    let Some(target) = &exchange.target else { return Ok(Err(Refusal::Internal)) };
    match ask(shared, session, exchange, target).await {
        Ok(answer) => {
            reconsider(shared, exchange, target, &answer);
            on(shared, session, exchange, answer, media).await
        }
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// Sends an answer that is at hand.
///
/// # Errors
/// As [`super::send`].
pub(super) async fn on(
    shared: &Arc<Shared>,
    session: &mut Session,
    exchange: &Exchange,
    answer: OriginAnswer,
    media: Option<Media>,
) -> Result<Result<(), Refusal>, Cut> {
    let Some(target) = &exchange.target else { return Ok(Err(Refusal::Internal)) };
    let is_s3 = upstream::origin(shared, exchange).is_ok_and(|origin| origin.is_s3());
    let refusal = match answer.status {
        StatusCode::NOT_FOUND | StatusCode::GONE if is_s3 => Some(Refusal::NotFound),
        StatusCode::PRECONDITION_FAILED => Some(Refusal::PreconditionFailed),
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let total = answer.head.headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let total = total.and_then(|value| value.rsplit_once('/')?.1.parse().ok());
            Some(Refusal::RangeNotSatisfiable(total.unwrap_or(0)))
        }
        status if is_s3 && status.is_success() && is_error_document(target, answer.head.headers.get(CONTENT_TYPE)) => {
            tracing::warn!(path = target.path.as_str(), %status, "an error document came in place of an object");
            Some(OriginFailure::NotAnObject.into())
        }
        _ => None,
    };
    if let Some(refusal) = refusal {
        return Ok(Err(refusal));
    }
    let length = answer.head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let how =
        How { detail: answer.by_fallback.then_some("fallback"), ..exchange.how.unwrap_or(How::new(Forward::Bypass)) };
    let status = head::cache_status(CacheState::Bypass, Some(&how), answer.status, None);
    let mut head = if is_s3 { head_of(shared, target, &answer) } else { head_told(shared, target, &answer) };
    head::add(&mut head, head::CACHE_STATUS, status);
    let bodyless = [StatusCode::NOT_MODIFIED, StatusCode::NO_CONTENT].contains(&answer.status);
    let no_body = session.req_header().method == Method::HEAD || bodyless;
    if length.is_none() && !no_body && session.req_header().version == Version::HTTP_11 {
        // Its last chunk is what tells an end from a cut (RFC 9112, section 7.1).
        head::set(&mut head, TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let delivered = Delivered {
        status: answer.status.as_u16(),
        bytes: if no_body { 0 } else { length.unwrap_or(0) },
        range: range_of(&answer.head),
        state: CacheState::Bypass,
        media,
        ttfb_ms: exchange.elapsed_ms(),
    };
    let mut pass = Pass { shared, exchange, delivered, sent: 0 };
    if no_body {
        pass.head_alone(session, head).await.map(Ok)
    } else {
        pass.body(session, head, answer.body, length).await.map(Ok)
    }
}

/// Whether an answer to this request may be one to a request without ranges and conditions.
pub(super) fn is_plain(session: &Session) -> bool {
    !FORWARDED.iter().any(|name| session.req_header().headers.contains_key(name))
}

async fn ask(
    shared: &Shared,
    session: &Session,
    exchange: &Exchange,
    target: &Target,
) -> Result<OriginAnswer, Refusal> {
    let route = shared.routes.get(target.route).ok_or(Refusal::NoRoute)?;
    let origin = shared.origins.get(route.origin).ok_or(Refusal::Internal)?;
    let key = route.key(target.path.as_str(), target.track(), target.file());
    let asked = &session.req_header().headers;
    let mut headers = Vec::new();
    if !origin.is_s3() {
        let coded = policy::reaches(target, &ACCEPT_ENCODING);
        headers = hop::forwarded(asked, coded, origin.forwards_everything());
    }
    for name in FORWARDED {
        if let Some(value) = asked.get(&name) {
            headers.push((name, value.clone()));
        }
    }
    origin.get(&Want { key: &key, query: exchange.query.as_deref(), headers: &headers }).await
}

/// What went past the cache for a while and is one for it now goes through it again.
fn reconsider(shared: &Shared, exchange: &Exchange, target: &Target, answer: &OriginAnswer) {
    let Ok(origin) = upstream::origin(shared, exchange) else { return };
    if origin.is_s3() || answer.status != StatusCode::OK {
        return;
    }
    let everything = origin.forwards_everything();
    // Credentials may have been part of the question.
    let sent = Sent { target, cache: &shared.config.cache, everything, authorized: everything, delay: Duration::ZERO };
    let fits = |length: Option<u64>| length.is_some_and(|length| length <= shared.config.cache.max_object);
    if matches!(policy::read(&answer.head, &sent), Reading::Keep(meta) if fits(meta.length)) {
        shared.memory.pass_no_more(&cache::key(shared, &exchange.snapshot, target, exchange.query.as_deref()).into());
    }
}

/// All that an HTTP origin says from end to end.
fn head_told(shared: &Shared, target: &Target, answer: &OriginAnswer) -> ResponseHeader {
    let mut head = head::empty(answer.status);
    head::open_to_pages(&mut head);
    let headers = &answer.head.headers;
    for (name, value) in headers.iter().filter(|(name, _)| hop::is_end_to_end(name, headers)) {
        head::told(&mut head, std::iter::once(&(name.clone(), value.clone())));
    }
    if !headers.contains_key(CACHE_CONTROL) && !headers.contains_key(EXPIRES) {
        head::set(&mut head, CACHE_CONTROL, ours(shared, target));
    }
    head
}

fn ours(shared: &Shared, target: &Target) -> HeaderValue {
    let control = &shared.config.cache.control;
    let ours = if target.is_immutable() { &control.immutable } else { &control.mutable };
    HeaderValue::from_str(ours).unwrap_or(HeaderValue::from_static("no-store"))
}

fn head_of(shared: &Shared, target: &Target, answer: &OriginAnswer) -> ResponseHeader {
    let mut head = head::empty(answer.status);
    for name in RETURNED {
        if let Some(value) = answer.head.headers.get(&name) {
            head::set(&mut head, name, value.clone());
        }
    }
    let declared = answer.head.headers.get(CONTENT_TYPE).filter(|value| *value != "application/octet-stream");
    let by_name = HeaderValue::from_static(content_type(target.file()));
    head::set(&mut head, CONTENT_TYPE, declared.cloned().unwrap_or(by_name));
    head::set(&mut head, ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let control = answer.head.headers.get(CACHE_CONTROL).cloned();
    head::set(&mut head, CACHE_CONTROL, control.unwrap_or_else(|| ours(shared, target)));
    head::open_to_pages(&mut head);
    head
}

/// First, last and total of `Content-Range: bytes 0-9/100`.
fn range_of(head: &ResponseHeader) -> Option<[u64; 3]> {
    let value = head.headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = value.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some([first.parse().ok()?, last.parse().ok()?, total.parse().ok()?])
}

struct Pass<'a> {
    shared: &'a Shared,
    exchange: &'a Exchange,
    delivered: Delivered,
    sent: u64,
}

impl Pass<'_> {
    async fn head_alone(&mut self, session: &mut Session, head: ResponseHeader) -> Result<(), Cut> {
        let fact = Delivery::note(self.shared, self.exchange, session.req_header(), self.delivered);
        let written = session.as_downstream_mut().write_response_header(Box::new(head)).await;
        fact.settle(written.is_ok(), 0);
        self.shared.metrics.served(self.delivered.status, CacheState::Bypass, 0);
        written.map_err(|_| Cut)
    }

    async fn body(
        &mut self,
        session: &mut Session,
        head: ResponseHeader,
        body: OriginBody,
        length: Option<u64>,
    ) -> Result<(), Cut> {
        let written = self.pieces(session, head, body, length).await;
        if written.is_ok() {
            self.shared.metrics.served(self.delivered.status, CacheState::Bypass, self.sent);
        } else {
            self.shared.metrics.aborted.add(1);
            self.shared.metrics.bytes.add(self.sent);
        }
        written
    }

    async fn pieces(
        &mut self,
        session: &mut Session,
        head: ResponseHeader,
        mut body: OriginBody,
        length: Option<u64>,
    ) -> Result<(), Cut> {
        let Self { shared, exchange, delivered, sent } = self;
        let mut open = Open { shared, session, exchange, delivered, sent, begun: true, fact: None };
        open.session.as_downstream_mut().write_response_header(Box::new(head)).await.map_err(|_| Cut)?;
        // One piece ahead, so that the last one is known before it is written.
        let mut ahead = body.piece().await;
        loop {
            let piece = ahead.map_err(|_| Cut)?.unwrap_or_default();
            ahead = if piece.is_empty() { Ok(None) } else { body.piece().await };
            let last = matches!(ahead, Ok(None));
            let whole = *open.sent + piece.len() as u64;
            if last && length.is_some_and(|length| length != whole) {
                return Err(Cut);
            }
            open.delivered.bytes = length.unwrap_or(whole);
            if last {
                open.note();
            }
            open.session.as_downstream_mut().write_response_body(piece, last).await.map_err(|_| Cut)?;
            *open.sent = whole;
            if last {
                open.complete();
                return Ok(());
            }
        }
    }
}
