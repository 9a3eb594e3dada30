//! The one place where a refusal becomes an answer: status, reason word, message; and a record where it is a denial.
//!
//! Invariants: no byte of media, nothing that a cache may keep.

use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{Method, StatusCode};
use pingora_core::Error;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use segue_policy_host::Denial;

use super::{debug, head};
use crate::edge::Shared;
use crate::exchange::Exchange;
use crate::fact;
use crate::refusal::Refusal;

/// draft-ietf-httpapi-ratelimit-headers.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Answers with the refusal.
///
/// # Errors
/// The client is gone.
pub(crate) async fn refuse(
    shared: &Shared,
    session: &mut Session,
    exchange: &Exchange,
    refusal: &Refusal,
) -> Result<(), Box<Error>> {
    let status = refusal.status();
    shared.metrics.refused(refusal.label(), status.as_str());
    if refusal.is_denial() {
        fact::deny(shared, exchange, session.req_header(), refusal);
    }
    let body = serde_json::json!({ "error": refusal.reason(), "message": refusal.to_string() }).to_string();
    let mut head = head::empty(status);
    head::open_to_pages(&mut head);
    head::set(&mut head, CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head::set(&mut head, CONTENT_LENGTH, HeaderValue::from(body.len()));
    head::set(&mut head, CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match (refusal, status) {
        (Refusal::RangeNotSatisfiable(total), _) => {
            if let Ok(value) = HeaderValue::try_from(format!("bytes */{total}")) {
                head::set(&mut head, CONTENT_RANGE, value);
            }
        }
        (Refusal::MethodNotAllowed, _) => {
            if let Ok(value) = HeaderValue::from_str(&shared.allowed_methods(exchange)) {
                head::set(&mut head, ALLOW, value);
            }
        }
        (Refusal::Limited(denied), _) => {
            head::set(&mut head, RETRY_AFTER, HeaderValue::from(denied.retry_after()));
            for (name, value) in [(RATE_LIMIT, denied.rate_limit()), (RATE_LIMIT_POLICY, denied.policy())] {
                if let Ok(value) = HeaderValue::try_from(value) {
                    head::set(&mut head, name, value);
                }
            }
        }
        // RFC 9110, section 15.5.2: a 401 names its scheme.
        (_, StatusCode::UNAUTHORIZED) => {
            head::set(&mut head, WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"segue\""));
        }
        (_, StatusCode::SERVICE_UNAVAILABLE) => head::set(&mut head, RETRY_AFTER, HeaderValue::from_static("1")),
        _ => {}
    }
    if let Refusal::Policy(denial) = refusal {
        of_policy(denial, &mut head);
    }
    debug::refused(shared, session, exchange, refusal, &mut head);
    let is_head = session.req_header().method == Method::HEAD;
    let client = session.as_downstream_mut();
    client.write_response_header(Box::new(head)).await?;
    let body = if is_head { bytes::Bytes::new() } else { bytes::Bytes::from(body) };
    client.write_response_body(body, true).await
}

/// Where a policy sends the client, and the headers that it adds. What the answer says of its own body stays ours; of the fields that
/// we set by ourselves the policy's stand in our place.
fn of_policy(denial: &Denial, head: &mut ResponseHeader) {
    if let Some(target) = denial.redirect.as_deref().and_then(|target| HeaderValue::from_str(target).ok()) {
        head::set(head, LOCATION, target);
    }
    let ours: Vec<HeaderName> = head.headers.keys().cloned().collect();
    for (name, value) in &denial.headers {
        // The host held both against the contract.
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) else { continue };
        if name == CONTENT_TYPE {
            continue;
        }
        if ours.contains(&name) {
            head::set(head, name, value);
        } else {
            // A response has one or two of a name; failing means more headers than there may be.
            let _full = head.append_header(name, value);
        }
    }
}
