//! Step two: who asks. A ticket or a signed URL is found, verified, and held against path, client and revocations.
//!
//! Invariants: the first carrier found wins (path, `Authorization`, cookie, query), and a worse one never rescues it;
//! two different tickets in one carrier are refused. A refusal is decided before cache and origin are looked at, so
//! no byte of media and no sign of an object's existence precedes it.
//!
//! On failure: a [`segue_signing::Refusal`] with its reason word.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderValue};
use segue_signing::{Refusal, TicketCache, Verified};
use url::form_urlencoded;

use crate::config::TicketConfig;
use crate::route::{Line, Target};
use crate::snapshot::Snapshot;

/// The cookie's name.
const COOKIE_NAME: &str = "segue";
/// The query parameters that are ours; none of them ever reaches an origin.
const TICKET: &str = "ticket";
const SIGNED_URL: [&str; 3] = ["kid", "exp", "sig"];

/// Whether a query parameter carries a ticket or a part of a signed URL.
pub(crate) fn is_carrier(parameter: &str) -> bool {
    parameter == TICKET || SIGNED_URL.contains(&parameter)
}

/// Whether this `Authorization` is of the scheme that carries tickets.
pub(crate) fn is_bearer(authorization: &HeaderValue) -> bool {
    let scheme = authorization.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
    scheme.eq_ignore_ascii_case(b"bearer")
}

/// The cookies that are not ours, as one header.
pub(crate) fn other_cookies(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut kept = Vec::new();
    for value in headers.get_all(COOKIE) {
        let Ok(value) = value.to_str() else { continue };
        let ours = |pair: &str| pair.split_once('=').is_some_and(|(name, _)| name.trim() == COOKIE_NAME);
        kept.extend(value.split(';').map(str::trim).filter(|pair| !pair.is_empty() && !ours(pair)));
    }
    if kept.is_empty() { None } else { HeaderValue::try_from(kept.join("; ")).ok() }
}

/// What the request shows to be let in.
#[derive(Debug, PartialEq, Eq)]
enum Proof<'h> {
    Nothing,
    Ticket(Cow<'h, str>),
    SignedUrl { kid: Cow<'h, str>, exp: Cow<'h, str>, sig: Cow<'h, str> },
}

/// Where a ticket stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    Path,
    Header,
    Cookie,
    Query,
}

/// The ticket of a request that was admitted, and where it stood: [`proof`] once more, for the few who need its text.
pub(crate) fn carried<'h>(line: &Line<'h>, headers: &'h HeaderMap) -> Option<(Carrier, Cow<'h, str>)> {
    if let Some(ticket) = line.path_ticket {
        return Some((Carrier::Path, Cow::Borrowed(ticket)));
    }
    if let Some(ticket) = bearer(headers).ok()? {
        return Some((Carrier::Header, Cow::Borrowed(ticket)));
    }
    if let Some(ticket) = cookie(headers).ok()? {
        return Some((Carrier::Cookie, Cow::Borrowed(ticket)));
    }
    match query(line.query?).ok()? {
        Proof::Ticket(ticket) => Some((Carrier::Query, ticket)),
        Proof::Nothing | Proof::SignedUrl { .. } => None,
    }
}

/// Whether the request shows a ticket of ours, or what would be one.
pub(crate) fn is_shown(line: &Line<'_>, headers: &HeaderMap) -> bool {
    !matches!(proof(line, headers), Ok(Proof::Nothing))
}

/// Decides whether this client may have this object at `now` (seconds since the epoch). `None` where tickets are not
/// required and none was shown.
///
/// # Errors
/// The refusal, with its reason.
#[allow(clippy::too_many_arguments, reason = "everything that the decision depends on, and nothing else")]
pub(crate) fn admit(
    config: &TicketConfig,
    verified: &TicketCache,
    snapshot: &Snapshot,
    line: &Line<'_>,
    headers: &HeaderMap,
    target: &Target,
    client: Option<IpAddr>,
    now: i64,
) -> Result<Option<Arc<Verified>>, Refusal> {
    let _step = tracing::trace_span!("ticket").entered();
    let leeway = snapshot.leeway;
    let keyring = &snapshot.keyring;
    let shown = match proof(line, headers)? {
        Proof::Nothing if config.required => return Err(Refusal::TicketMissing),
        Proof::Nothing => return Ok(None),
        Proof::Ticket(ticket) => verified.verify_cached(keyring, keyring.generation(), &ticket, now, leeway)?,
        Proof::SignedUrl { kid, exp, sig } => {
            Arc::new(segue_signing::url::verify(keyring, &target.path, &kid, &exp, &sig, now, leeway)?)
        }
    };
    shown.admits(&target.path, client)?;
    snapshot.revocations.check(&shown, Some(target.track()), now)?;
    Ok(Some(shown))
}

fn proof<'h>(line: &Line<'h>, headers: &'h HeaderMap) -> Result<Proof<'h>, Refusal> {
    if let Some(ticket) = line.path_ticket {
        return Ok(Proof::Ticket(Cow::Borrowed(ticket)));
    }
    if let Some(ticket) = bearer(headers)? {
        return Ok(Proof::Ticket(Cow::Borrowed(ticket)));
    }
    if let Some(ticket) = cookie(headers)? {
        return Ok(Proof::Ticket(Cow::Borrowed(ticket)));
    }
    line.query.map_or(Ok(Proof::Nothing), query)
}

/// `Authorization: Bearer <ticket>` (RFC 6750, section 2.1). Other schemes are not ours.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refusal::TicketAmbiguous);
    }
    let value = value.to_str().map_err(|_| Refusal::TicketMalformed)?;
    let (scheme, ticket) = value.split_once(' ').unwrap_or((value, ""));
    Ok(scheme.eq_ignore_ascii_case("bearer").then(|| ticket.trim_start()))
}

/// The cookie `segue` (RFC 6265, section 4.2.1), in one header or several (HTTP/2 splits them).
fn cookie(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut found = None;
    for value in headers.get_all(COOKIE) {
        // A cookie of somebody else may hold any bytes.
        let Ok(value) = value.to_str() else { continue };
        for pair in value.split(';') {
            if let Some((name, ticket)) = pair.split_once('=')
                && name.trim() == COOKIE_NAME
                && found.replace(ticket.trim()).is_some_and(|before| before != ticket.trim())
            {
                return Err(Refusal::TicketAmbiguous);
            }
        }
    }
    Ok(found)
}

fn query(query: &str) -> Result<Proof<'_>, Refusal> {
    let mut ticket = None;
    let mut signed: [Option<Cow<'_, str>>; 3] = [None, None, None];
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let place = if name == TICKET {
            &mut ticket
        } else if let Some(place) = SIGNED_URL.iter().position(|wanted| name == *wanted) {
            let Some(place) = signed.get_mut(place) else { continue };
            place
        } else {
            continue;
        };
        // Twice is once too often, even with one value: two readers might pick two.
        if place.replace(value).is_some() {
            return Err(Refusal::TicketAmbiguous);
        }
    }
    match (ticket, signed) {
        (Some(_), [_, _, Some(_)]) => Err(Refusal::TicketAmbiguous),
        (Some(ticket), _) => Ok(Proof::Ticket(ticket)),
        (None, [Some(kid), Some(exp), Some(sig)]) => Ok(Proof::SignedUrl { kid, exp, sig }),
        // `exp` or `kid` alone may be somebody else's parameter; a `sig` without them is a cut URL.
        (None, [_, _, Some(_)]) => Err(Refusal::TicketMalformed),
        (None, _) => Ok(Proof::Nothing),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn an_empty_bearer_is_a_carrier_all_the_same() {
        assert_eq!(bearer(&headers(&[(AUTHORIZATION, "Bearer")])), Ok(Some("")));
        assert_eq!(bearer(&headers(&[(AUTHORIZATION, "bearer  x.y.z")])), Ok(Some("x.y.z")));
        assert_eq!(bearer(&headers(&[(AUTHORIZATION, "Basic dTpw")])), Ok(None));
        let twice = headers(&[(AUTHORIZATION, "Bearer a"), (AUTHORIZATION, "Bearer b")]);
        assert_eq!(bearer(&twice), Err(Refusal::TicketAmbiguous));
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        assert_eq!(cookie(&headers(&[(COOKIE, "a=b; segue=t.t.t; xsegue=no")])), Ok(Some("t.t.t")));
        assert_eq!(cookie(&headers(&[(COOKIE, "xsegue=no")])), Ok(None));
        let both = headers(&[(COOKIE, "segue=1"), (COOKIE, "segue=2")]);
        assert_eq!(cookie(&both), Err(Refusal::TicketAmbiguous));
    }

    #[test]
    fn parameters_that_repeat_or_contradict_are_refused() {
        assert_eq!(query("ticket=a&ticket=a"), Err(Refusal::TicketAmbiguous));
        assert_eq!(query("ticket=a&kid=k&exp=1&sig=s"), Err(Refusal::TicketAmbiguous));
        assert_eq!(query("kid=k&exp=1&sig=s&exp=2"), Err(Refusal::TicketAmbiguous));
        assert_eq!(query("kid=k&sig=s"), Err(Refusal::TicketMalformed));
        assert_eq!(query("exp=1&CMCD=br%3D64"), Ok(Proof::Nothing));
        assert_eq!(query("x=1&ticket=a.b.c"), Ok(Proof::Ticket("a.b.c".into())));
    }
}
