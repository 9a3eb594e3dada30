//! What policies have to do with a request, for `segue explain`: somebody else's ticket, and the verdicts. Asked like the request would ask them, and not
//! counted.

use std::sync::Arc;

use segue_policy_host::{Decision, Failure, Verdict};
use serde_json::{Value, json};

use super::{Request, Steps};
use crate::edge::Shared;
use crate::exchange::Exchange;
use crate::fact;
use crate::policy;
use crate::policy::foreign::{self, Seen};
use crate::refusal::Refusal;
use crate::route::{self, Line};

/// Route and ticket, where the request shows none of ours.
pub(super) fn route_and_foreign_ticket(
    shared: &Shared,
    exchange: &mut Exchange,
    request: &Request,
    line: &Line<'_>,
    steps: &mut Steps,
) -> Result<(), (Refusal, Value)> {
    let resolved = route::resolve(&shared.routes, line);
    let snapshot = Arc::clone(&exchange.snapshot);
    let seen = foreign::ask(shared, &snapshot.policies, exchange, request.asked(), line, resolved.as_ref().ok(), false);
    let nowhere = |refusal: Refusal| (refusal, json!({ "path": line.path }));
    match seen {
        Seen::Refused(scheme, refusal) => {
            if let Ok(target) = resolved {
                steps.routed(&target);
            }
            Err((refusal, json!({ "scheme": scheme })))
        }
        Seen::Nothing { failed } => {
            let target = resolved.map_err(nowhere)?;
            steps.routed(&target);
            exchange.target = Some(target);
            match (failed, shared.config.tickets.required) {
                (true, _) => Err((Refusal::policy_failed(), json!({ "scheme": "failed" }))),
                (false, true) => Err((segue_signing::Refusal::TicketMissing.into(), json!({ "ticket": null }))),
                (false, false) => {
                    steps.passed("ticket", json!({ "required": false }));
                    Ok(())
                }
            }
        }
        Seen::Claims(scheme, claims) => {
            let target = foreign::target(shared, &claims, line, resolved).map_err(nowhere)?;
            steps.routed(&target);
            let parameters = claims.parameters.clone();
            let said = json!({ "scheme": scheme, "claims": claims });
            let verified = foreign::admitted(shared, exchange, claims, scheme, &target);
            let verified = verified.map_err(|refusal| (refusal.into(), said))?;
            steps.passed(
                "ticket",
                json!({ "scheme": scheme, "sid": verified.sid, "claims": verified.claims, "parameters": parameters }),
            );
            (exchange.target, exchange.grant, exchange.foreign) =
                (Some(target), Some(Arc::new(verified)), Some(parameters));
            Ok(())
        }
    }
}

/// What the policies say.
pub(super) fn judged(
    shared: &Shared,
    exchange: &mut Exchange,
    request: &Request,
    line: &Line<'_>,
    steps: &mut Steps,
) -> Result<(), (Refusal, Value)> {
    let snapshot = Arc::clone(&exchange.snapshot);
    if !snapshot.policies.unready().is_empty() {
        return Err((Refusal::policy_failed(), json!({ "not_ready": snapshot.policies.unready() })));
    }
    let is_placed = policy::is_placed(shared, exchange);
    let decision =
        policy::decide(shared, exchange, request.asked(), line, false).map_err(|refusal| (refusal, Value::Null))?;
    let Decision { verdict, policy, failures, shadows, took } = decision;
    let said = |verdict: &Result<Verdict, Failure>| match verdict {
        Ok(verdict) => json!(verdict),
        Err(failure) => json!({ "failure": failure.kind(), "message": failure.to_string() }),
    };
    let failures: Vec<_> = failures
        .iter()
        .map(|(policy, failure, mode)| json!({ "policy": policy, "failure": failure.kind(), "fails": mode }))
        .collect();
    let shadows: Vec<_> = shadows
        .iter()
        .map(|shadow| json!({ "policy": shadow.policy, "would": said(&shadow.verdict), "said": shadow.beside }))
        .collect();
    let found = json!({
        "policy": policy, "said": verdict, "failures": failures, "shadows": shadows, "took_us": took.as_secs_f64() * 1e6,
        "pos_ms": exchange.placed.flatten().map(|media| media.pos_ms), "place_known": is_placed,
        "session": exchange.grant.as_ref().map_or_else(|| fact::stand_in_for(shared, exchange), |grant| grant.sid.clone()),
    });
    match verdict {
        Verdict::Deny(denial) => Err((Refusal::Policy(Box::new(denial)), found)),
        Verdict::Allow(_) | Verdict::Abstain => {
            steps.passed("policy", found);
            Ok(())
        }
    }
}
