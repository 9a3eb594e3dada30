//! Somebody else's tickets: policies of the world `ticket-scheme`, asked where a request shows no ticket of ours.
//!
//! Invariants: the scheme verifies the signature; clock, scope and revocations are held against what it says by the same code as for our
//! own tickets. Schemes are asked in order, until one knows what it sees. Nothing is remembered from one request to the next: what a scheme
//! judged by is not known. A path that may hold a ticket is no name of an object until a scheme has taken the ticket off.
//!
//! On failure: a scheme fails closed. Another one may still let the request in; if none does, it is refused.

use std::sync::Arc;

use segue_policy_host::{ForeignClaims, ForeignRefusal, RequestView};
use segue_signing::{CanonicalPath, Claims, Verified};

use super::view::{self, Fields, Parts, Shown};
use super::{Policies, Scheme};
use crate::edge::Shared;
use crate::exchange::{Asked, Exchange};
use crate::fact;
use crate::limit;
use crate::refusal::Refusal;
use crate::route::{self, Line, ObjectKind, Target};

/// What the schemes say of a request.
pub(crate) enum Seen<'p> {
    /// Nobody knows anything in it; whether one could not be asked.
    Nothing { failed: bool },
    /// One knows it, and does not let it in.
    Refused(&'p str, Refusal),
    /// One lets it in.
    Claims(&'p str, ForeignClaims),
}

/// Route and ticket of a request that shows no ticket of ours. `resolved`: where its path leads as it stands.
///
/// # Errors
/// The refusal, with its reason.
pub(crate) fn admit(
    shared: &Shared,
    exchange: &mut Exchange,
    asked: Asked<'_>,
    line: &Line<'_>,
    resolved: Result<Target, Refusal>,
) -> Result<(), Refusal> {
    let kind = resolved.as_ref().map_or_else(|_| ObjectKind::of(line.path), |target| target.kind);
    limit::address(shared, exchange, kind)?;
    let _step = tracing::trace_span!("ticket").entered();
    let snapshot = Arc::clone(&exchange.snapshot);
    let seen = ask(shared, &snapshot.policies, exchange, asked, line, resolved.as_ref().ok(), true);
    match seen {
        Seen::Claims(scheme, claims) => {
            let target = target(shared, &claims, line, resolved)?;
            let parameters = claims.parameters.clone();
            let admitted = admitted(shared, exchange, claims, scheme, &target);
            exchange.target = Some(target);
            exchange.grant = Some(Arc::new(admitted?));
            exchange.foreign = Some(parameters);
            Ok(())
        }
        Seen::Refused(_, refusal) => {
            exchange.target = resolved.ok().filter(|target| fact::is_harmless(target.path.as_str()));
            Err(refusal)
        }
        Seen::Nothing { failed } => {
            exchange.target = Some(resolved?);
            match (failed, shared.config.tickets.required) {
                (true, _) => Err(Refusal::policy_failed()),
                (false, true) => Err(segue_signing::Refusal::TicketMissing.into()),
                (false, false) => Ok(()),
            }
        }
    }
}

/// Asks the schemes; counted, or not (for who only wants to know).
pub(crate) fn ask<'p>(
    shared: &Shared,
    policies: &'p Policies,
    exchange: &Exchange,
    asked: Asked<'_>,
    line: &Line<'_>,
    target: Option<&Target>,
    counts: bool,
) -> Seen<'p> {
    let parts = Parts {
        host: view::host(line),
        query: None,
        country: policies.countries.as_ref().zip(exchange.client).and_then(|(countries, client)| countries.of(client)),
        fields: Fields(asked.headers),
        shown: Shown(None),
    };
    let view = parts.raw(shared, asked, line, target, exchange);
    let mut failed = policies.lacks_schemes;
    for scheme in &policies.schemes {
        let label = scheme.scheme.label();
        match verify(scheme, &view, counts) {
            Some(Ok(claims)) => return Seen::Claims(label, claims),
            Some(Err(ForeignRefusal::Absent)) => {}
            Some(Err(refusal)) => return Seen::Refused(label, of(refusal).into()),
            None => failed = true,
        }
    }
    Seen::Nothing { failed }
}

/// `None`: it gave no answer.
fn verify(scheme: &Scheme, view: &RequestView<'_>, counts: bool) -> Option<Result<ForeignClaims, ForeignRefusal>> {
    let begun = std::time::Instant::now();
    let said = scheme.scheme.verify(view);
    if counts {
        scheme.tally.foreign(said.as_ref(), begun.elapsed());
    }
    said.ok()
}

/// What is asked for, without the ticket where that stood in the path.
pub(crate) fn target(
    shared: &Shared,
    claims: &ForeignClaims,
    line: &Line<'_>,
    resolved: Result<Target, Refusal>,
) -> Result<Target, Refusal> {
    match &claims.path {
        // As a scope it is decoded: decoding it once more would make another path of it.
        Some(path) => route::find(&shared.routes, CanonicalPath::from_decoded(path)?, line.host),
        None => resolved,
    }
}

/// The claims, once time, scope, address and revocations are held against them, as with our own tickets.
///
/// # Errors
/// The refusal, with its reason.
pub(crate) fn admitted(
    shared: &Shared,
    exchange: &Exchange,
    claims: ForeignClaims,
    scheme: &str,
    target: &Target,
) -> Result<Verified, segue_signing::Refusal> {
    let snapshot = &exchange.snapshot;
    let verified = verified(claims, scheme, fact::stand_in_for(shared, exchange))?;
    verified.claims.check_time(exchange.started_s(), snapshot.leeway)?;
    verified.admits(&target.path, exchange.client)?;
    snapshot.revocations.check(&verified, Some(target.track()), exchange.started_s())?;
    Ok(verified)
}

/// The claims in our own words. `sid` stands in for a session that the scheme does not know.
fn verified(claims: ForeignClaims, scheme: &str, sid: String) -> Result<Verified, segue_signing::Refusal> {
    let invalid = segue_signing::Refusal::ClaimsInvalid;
    let seconds = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
    let ctx = claims.context.as_deref().map(serde_json::from_str).transpose().map_err(|_| invalid)?;
    let own = Claims {
        nbf: claims.not_before.map(seconds),
        sid: claims.session.filter(|session| !session.is_empty()),
        sub: claims.listener.filter(|listener| !listener.is_empty()),
        ctx,
        ..Claims::new(claims.scope, seconds(claims.expires))
    };
    Verified::from_foreign(own, scheme.to_owned(), sid).map_err(|_| invalid)
}

fn of(refusal: ForeignRefusal) -> segue_signing::Refusal {
    match refusal {
        ForeignRefusal::Absent => segue_signing::Refusal::TicketMissing,
        ForeignRefusal::Malformed => segue_signing::Refusal::TicketMalformed,
        ForeignRefusal::KeyUnknown => segue_signing::Refusal::KeyUnknown,
        ForeignRefusal::SignatureInvalid => segue_signing::Refusal::SignatureInvalid,
        ForeignRefusal::Expired => segue_signing::Refusal::Expired,
        ForeignRefusal::NotYetValid => segue_signing::Refusal::NotYetValid,
        ForeignRefusal::OutOfScope => segue_signing::Refusal::OutOfScope,
        ForeignRefusal::AddressMismatch => segue_signing::Refusal::AddressMismatch,
        ForeignRefusal::CountryMismatch => segue_signing::Refusal::CountryMismatch,
    }
}
