//! Requests that an edge only lets through: methods other than GET, HEAD and OPTIONS, where `[origin] methods` holds
//! them. They take Pingora's own upstream path.
//!
//! Invariants: the ticket is checked before; the request to the origin is rebuilt: its target is the origin's key, its
//! host and signature are ours, no carrier of a ticket goes with it. Cookie and `Authorization` go along only to HTTP
//! origins that let every method through, and not where they carried the ticket. A cached object that a request may
//! have changed is forgotten (RFC 9111, section 4.4).

use std::sync::Arc;

use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_LOCATION, COOKIE, LOCATION};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType};
use pingora_http::RequestHeader;
use url::form_urlencoded;

use crate::cache::{self, Key};
use crate::edge::Shared;
use crate::exchange::Exchange;
use crate::origin::Origin;
use crate::refusal::{OriginFailure, Refusal};
use crate::route::Target;
use crate::ticket;

/// The origin of a request that has its target.
pub(crate) fn origin<'s>(shared: &'s Shared, exchange: &Exchange) -> Result<&'s Arc<Origin>, Refusal> {
    let target = exchange.target.as_ref().ok_or(Refusal::NoRoute)?;
    let route = shared.routes.get(target.route).ok_or(Refusal::NoRoute)?;
    shared.origins.get(route.origin).ok_or(Refusal::Internal)
}

/// A host that is nobody's (RFC 2606, section 2): what a reference without a host of its own is resolved against.
const NOBODY: &str = "origin.invalid";

/// What a player tells of itself in the query (CTA-5004); it differs with every request and says nothing of the object.
const CMCD: &str = "CMCD";

/// The query without what carries a ticket, and without [`CMCD`]; `None` for S3, whose keys have none. `foreign` names the parameters of
/// somebody else's ticket.
pub(crate) fn query(origin: &Origin, query: Option<&str>, foreign: &[String]) -> Option<String> {
    let query = query.filter(|_| !origin.is_s3())?;
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let (name, _) = form_urlencoded::parse(pair.as_bytes()).next().unwrap_or_default();
            let is_foreign = foreign.iter().any(|parameter| *parameter == name);
            !pair.is_empty() && !ticket::is_carrier(&name) && name != CMCD && !is_foreign
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
    let everything = origin.forwards_everything();
    let carried = request.headers.get_all(AUTHORIZATION).iter().any(ticket::is_bearer);
    if !everything || carried {
        request.remove_header(&AUTHORIZATION);
    }
    let cookies = if everything { ticket::other_cookies(&request.headers) } else { None };
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

/// Forgets what the request may have changed: its own object, and what the answer's `Location` and `Content-Location`
/// name at the same origin, all variants of each, in memory and on the disk.
pub(crate) async fn invalidate(shared: &Shared, exchange: &Exchange, answer: &HeaderMap) {
    let Some(target) = &exchange.target else { return };
    let own =
        [exchange.query.as_deref(), None].map(|query| cache::key(shared, &exchange.snapshot, target, query).into());
    let named = [LOCATION, CONTENT_LOCATION].into_iter().filter_map(|name| {
        let value = answer.get(name)?.to_str().ok()?;
        let (target, query) = named(shared, exchange, target, value)?;
        Some(cache::key(shared, &exchange.snapshot, &target, query.as_deref()).into())
    });
    let keys: Vec<Key> = own.into_iter().chain(named).collect();
    let graves: Vec<_> = {
        let mut fills = shared.fills.lock();
        // A fill that runs may bring what was there before.
        fills.retain(|running, fill| {
            let is_of = keys.iter().any(|key| running == key || running.primary().as_ref() == Some(key));
            if is_of {
                fill.outdate();
            }
            !is_of
        });
        keys.iter().filter_map(|key| cache::forget(shared, key)).collect()
    };
    if let Some(disk) = &shared.disk {
        disk.bury(graves).await;
    }
}

/// What a reference of the origin names here; `None` where that is another origin's, or of no route like the request's.
fn named(shared: &Shared, exchange: &Exchange, target: &Target, reference: &str) -> Option<(Target, Option<String>)> {
    let origin = origin(shared, exchange).ok()?;
    let route = shared.routes.get(target.route)?;
    let asked = origin.target(&route.key(target.path.as_str(), target.track(), target.file()), None);
    let base = url::Url::parse(&format!("http://{NOBODY}{asked}")).ok()?;
    let named = base.join(reference).ok()?;
    let authority = Some(named.authority()).filter(|authority| *authority != NOBODY);
    let key = origin.key_of(authority, named.path())?;
    Some((route.target_of(target.route, key)?, query(origin, named.query(), &[])))
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
    Error::new_up(match refusal.label() {
        "internal" => ErrorType::InternalError,
        reason => ErrorType::Custom(reason),
    })
}
