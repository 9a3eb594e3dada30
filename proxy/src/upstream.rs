//! Requests that an edge only lets through: methods other than GET, HEAD and OPTIONS, where `[origin] methods` holds
//! them. They take Pingora's own upstream path.
//!
//! Invariants: the ticket is checked before; the request to the origin is rebuilt: its target is the origin's key, its
//! host and signature are ours, no carrier of a ticket goes with it. Cookie and `Authorization` go along only to HTTP
//! origins that let every method through, and not where they carried the ticket. A cached object that a request may
//! have changed is forgotten (RFC 9111, section 4.4).

use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType};
use pingora_http::RequestHeader;
use url::form_urlencoded;

use crate::cache::{self, Key};
use crate::edge::Shared;
use crate::exchange::Exchange;
use crate::origin::Origin;
use crate::refusal::{OriginFailure, Refusal};
use crate::ticket;

/// The origin of a request that has its target.
pub(crate) fn origin<'s>(shared: &'s Shared, exchange: &Exchange) -> Result<&'s Arc<Origin>, Refusal> {
    let target = exchange.target.as_ref().ok_or(Refusal::NoRoute)?;
    let route = shared.routes.get(target.route).ok_or(Refusal::NoRoute)?;
    shared.origins.get(route.origin).ok_or(Refusal::Internal)
}

/// What a player tells of itself in the query (CTA-5004); it differs with every request and says nothing of the object.
const CMCD: &str = "CMCD";

/// The query without what carries a ticket, and without [`CMCD`]; `None` for S3, whose keys have none.
pub(crate) fn query(origin: &Origin, query: Option<&str>) -> Option<String> {
    let query = query.filter(|_| !origin.is_s3())?;
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let (name, _) = form_urlencoded::parse(pair.as_bytes()).next().unwrap_or_default();
            !pair.is_empty() && !ticket::is_carrier(&name) && name != CMCD
        })
        .collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

/// Takes the origin's turn and says where to connect.
pub(crate) async fn peer(shared: &Shared, exchange: &mut Exchange) -> Result<Box<HttpPeer>, Refusal> {
    let origin = Arc::clone(origin(shared, exchange)?);
    if exchange.turn.is_none() {
        exchange.turn = Some(origin.turn().await?);
    }
    Ok(Box::new(origin.peer().await?))
}

/// Rebuilds the request for the origin. Runs again on every attempt.
pub(crate) fn rebuild(shared: &Shared, exchange: &Exchange, request: &mut RequestHeader) -> Result<(), Refusal> {
    let origin = origin(shared, exchange)?;
    let target = exchange.target.as_ref().ok_or(Refusal::NoRoute)?;
    let route = shared.routes.get(target.route).ok_or(Refusal::NoRoute)?;
    let key = route.key(target.path.as_str(), target.track(), target.file());
    let path = origin.target(&key, exchange.query.as_deref());
    request.set_raw_path(path.as_bytes()).map_err(|_| Refusal::Internal)?;
    let everything = !origin.is_s3() && origin.config.methods.iter().any(|method| method == "*");
    let bearer = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let carried =
        bearer.is_some_and(|value| value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer ")));
    if !everything || carried {
        request.remove_header(&AUTHORIZATION);
    }
    let cookies = if everything { other_cookies(request) } else { None };
    request.remove_header(&COOKIE);
    if let Some(cookies) = cookies {
        request.insert_header(COOKIE, cookies).map_err(|_| Refusal::Internal)?;
    }
    // To S3 these are commands (copy a source, set an ACL), which our signature would lend our rights.
    let commands: Vec<_> = request.headers.keys().filter(|name| name.as_str().starts_with("x-amz-")).cloned().collect();
    for name in &commands {
        request.remove_header(name);
    }
    origin.authorize(request)
}

fn other_cookies(request: &RequestHeader) -> Option<String> {
    let mut kept = Vec::new();
    for value in request.headers.get_all(COOKIE) {
        let Ok(value) = value.to_str() else { continue };
        kept.extend(value.split(';').map(str::trim).filter(|pair| !pair.starts_with("segue=") && !pair.is_empty()));
    }
    (!kept.is_empty()).then(|| kept.join("; "))
}

/// Forgets what the request may have changed.
pub(crate) fn invalidate(shared: &Shared, exchange: &Exchange) {
    if let Some(target) = &exchange.target {
        let mut fills = shared.fills.lock();
        for query in [exchange.query.as_deref(), None] {
            let key = Key::from(cache::key(shared, &exchange.snapshot, target, query));
            // A fill that runs may bring what was there before.
            if let Some(fill) = fills.remove(&key) {
                fill.outdate();
            }
            shared.memory.forget(&key);
        }
    }
}

/// Pingora's failure on the upstream path as one of ours.
pub(crate) fn failure(error: &Error) -> Refusal {
    match error.etype() {
        ErrorType::InternalError | ErrorType::HTTPStatus(_) => Refusal::Internal,
        ErrorType::Custom("overloaded") => Refusal::Overloaded,
        ErrorType::Custom("origin-timeout") => OriginFailure::Timeout.into(),
        ErrorType::Custom("origin-unreachable") => OriginFailure::Unreachable.into(),
        _ => crate::origin::classify(error).into(),
    }
}

/// One of ours as Pingora's, so that [`failure`] finds it again.
pub(crate) fn error(refusal: &Refusal) -> Box<Error> {
    Error::new_up(match refusal.reason() {
        "internal" => ErrorType::InternalError,
        reason => ErrorType::Custom(reason),
    })
}
