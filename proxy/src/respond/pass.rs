//! Objects that are not for the cache (too large, private): one request at the origin for one request here.
//!
//! Invariants: conditions and ranges are the origin's to decide, so that seeking in a large object fetches no more
//! than it needs; bytes are not kept beyond the piece that is being written.

use std::sync::Arc;

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
    TRANSFER_ENCODING, VARY,
};
use http::{Method, StatusCode, Version};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use segue_events::CacheState;

use super::{Cut, Open, head};
use crate::edge::Shared;
use crate::exchange::Exchange;
use crate::fact::{Delivered, Delivery};
use crate::origin::{OriginAnswer, OriginBody, Want};
use crate::refusal::Refusal;
use crate::route::{Target, content_type};
use crate::timeline::Media;

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
    let answer = match ask(shared, session, exchange, target).await {
        Ok(answer) => answer,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let refusal = match answer.status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Some(Refusal::NotFound),
        StatusCode::PRECONDITION_FAILED => Some(Refusal::PreconditionFailed),
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let total = answer.head.headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let total = total.and_then(|value| value.rsplit_once('/')?.1.parse().ok());
            Some(Refusal::RangeNotSatisfiable(total.unwrap_or(0)))
        }
        _ => None,
    };
    if let Some(refusal) = refusal {
        return Ok(Err(refusal));
    }
    let length = answer.head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut head = head_of(shared, target, &answer);
    let no_body = session.req_header().method == Method::HEAD || answer.status == StatusCode::NOT_MODIFIED;
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

async fn ask(
    shared: &Shared,
    session: &Session,
    exchange: &Exchange,
    target: &Target,
) -> Result<OriginAnswer, Refusal> {
    let route = shared.routes.get(target.route).ok_or(Refusal::NoRoute)?;
    let origin = shared.origins.get(route.origin).ok_or(Refusal::Internal)?;
    let key = route.key(target.path.as_str(), target.track(), target.file());
    let mut headers = Vec::new();
    for name in FORWARDED {
        if let Some(value) = session.req_header().headers.get(&name) {
            headers.push((name, value.clone()));
        }
    }
    origin.get(&Want { key: &key, query: exchange.query.as_deref(), headers: &headers }).await
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
    let control = &shared.config.cache.control;
    let ours = if target.version().is_some() { &control.immutable } else { &control.mutable };
    let control = answer.head.headers.get(CACHE_CONTROL).cloned().or_else(|| HeaderValue::from_str(ours).ok());
    if let Some(control) = control {
        head::set(&mut head, CACHE_CONTROL, control);
    }
    head::set(&mut head, HeaderName::from_static("cache-status"), head::cache_status(CacheState::Bypass));
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
