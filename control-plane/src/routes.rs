//! The table of contents of the API: every route with the scope that it needs. The router is built from it, and the document
//! at `/v1/openapi.json` is held against it, so that no route can lack either.

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;

use crate::api::{
    audit, denials, edge, events, facts, jobs, keys, limits, multipart, openapi, policies, revocations, stats, tickets,
    tokens, tracks, uploads, webhooks, worker,
};
use crate::audit::{Recorded, Subject};
use crate::auth::Scope;
use crate::state::Shared;

/// A route.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// The scope that it needs; `None`: it is open to everybody.
    pub(crate) scope: Option<Scope>,
    /// Its name: `operationId` of the document, and what the audit calls a change by it.
    pub(crate) name: &'static str,
    pub(crate) recorded: Recorded,
    /// Fields of its request, its query and its answer that the audit tells; never one that can be a secret.
    pub(crate) tells: &'static [&'static str],
    /// The collection of what it makes, and where its answer has the id (a JSON pointer).
    pub(crate) makes: Option<(&'static str, &'static str)>,
    /// Whether it can be named by an `Idempotency-Key`.
    pub(crate) is_once: bool,
    /// Whether it waits by nature, within a bound of its own, instead of the one for all.
    pub(crate) is_waiting: bool,
    pub(crate) handler: MethodRouter<Shared>,
}

impl Route {
    fn new<H, T>(method: Method, scope: Option<Scope>, path: &'static str, name: &'static str, handler: H) -> Self
    where
        H: Handler<T, Shared>,
        T: 'static,
    {
        let filter = match method {
            Method::POST => MethodFilter::POST,
            Method::PUT => MethodFilter::PUT,
            Method::DELETE => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        let recorded = if method == Method::GET { Recorded::Not } else { Recorded::Changes };
        let is_once = method == Method::POST;
        let handler = on(filter, handler);
        Self { method, path, scope, name, recorded, tells: &[], makes: None, is_once, is_waiting: false, handler }
    }

    /// It waits by nature: for a change, for a job, for edges, or for a client that reads.
    fn waits(self) -> Self {
        Self { is_waiting: true, ..self }
    }

    /// Its body may be larger than those of the others: too large to be looked at as a whole, so that no key names the request.
    fn takes(self, bytes: usize) -> Self {
        Self { handler: self.handler.layer(DefaultBodyLimit::max(bytes)), is_once: false, ..self }
    }

    /// The audit tells these fields.
    fn tells(self, tells: &'static [&'static str]) -> Self {
        Self { tells, ..self }
    }

    /// It makes one of `collection`, whose id is at `pointer` of its answer.
    fn makes(self, collection: &'static str, pointer: &'static str) -> Self {
        Self { makes: Some((collection, pointer)), ..self }
    }

    /// It issues tickets, and changes nothing.
    fn issues(self) -> Self {
        Self { recorded: Recorded::Issues, ..self }
    }

    /// It is what a machine reports all the time while it does what was recorded before: of these, refusals alone are recorded.
    fn reports(self) -> Self {
        Self { recorded: Recorded::Reports, is_once: false, ..self }
    }

    /// What the audit has to know of it.
    pub(crate) fn subject(&self) -> Subject {
        Subject {
            operation: self.name,
            method: self.method.clone(),
            path: self.path,
            scope: self.scope,
            recorded: self.recorded,
            tells: self.tells,
            makes: self.makes,
        }
    }
}

fn get<H: Handler<T, Shared>, T: 'static>(scope: Scope, path: &'static str, name: &'static str, handler: H) -> Route {
    Route::new(Method::GET, Some(scope), path, name, handler)
}

fn post<H: Handler<T, Shared>, T: 'static>(scope: Scope, path: &'static str, name: &'static str, handler: H) -> Route {
    Route::new(Method::POST, Some(scope), path, name, handler)
}

fn put<H: Handler<T, Shared>, T: 'static>(scope: Scope, path: &'static str, name: &'static str, handler: H) -> Route {
    Route::new(Method::PUT, Some(scope), path, name, handler)
}

fn delete<H: Handler<T, Shared>, T: 'static>(
    scope: Scope,
    path: &'static str,
    name: &'static str,
    handler: H,
) -> Route {
    Route::new(Method::DELETE, Some(scope), path, name, handler)
}

/// What the audit tells of a change of policies.
const ROLLOUT: &[&str] = &["version", "percent", "note", "done", "from", "revision"];

/// Every route but the page and its health.
#[rustfmt::skip]
pub(crate) fn routes() -> Vec<Route> {
    use Scope::{Admin, Edge, Play, Publish, Read, Worker};
    vec![
        Route::new(Method::GET, None, "/v1/openapi.json", "openapi", openapi::document),

        post(Publish, "/v1/tracks", "tracks.create", tracks::create)
            .makes("tracks", "/track/track").tells(&["filename", "size", "title", "publisher", "multipart"]),
        get(Read, "/v1/tracks", "tracks.list", tracks::list),
        get(Read, "/v1/tracks/{track}", "tracks.show", tracks::show),
        delete(Publish, "/v1/tracks/{track}", "tracks.delete", tracks::delete),
        post(Publish, "/v1/tracks/{track}/uploaded", "tracks.uploaded", uploads::uploaded),
        get(Publish, "/v1/tracks/{track}/upload", "uploads.show", multipart::show),
        delete(Publish, "/v1/tracks/{track}/upload", "uploads.abort", multipart::abort),
        post(Publish, "/v1/tracks/{track}/upload/urls", "uploads.urls", multipart::presign).reports(),
        post(Publish, "/v1/tracks/{track}/upload/parts", "uploads.parts", multipart::report).reports(),
        get(Publish, "/v1/uploads", "uploads.list", multipart::list),
        post(Publish, "/v1/tracks/{track}/purge", "tracks.purge", tracks::purge).tells(&["generation"]),
        post(Play, "/v1/tracks/{track}/tickets", "tickets.issue", tickets::issue)
            .issues().tells(&["sid", "sub", "ttl_s", "expires", "ip", "lim", "scheme"]),
        get(Read, "/v1/tracks/{track}/stats", "tracks.stats", stats::of_track),

        get(Read, "/v1/jobs", "jobs.list", jobs::list),
        get(Read, "/v1/jobs/{job}", "jobs.show", jobs::show),
        post(Publish, "/v1/jobs/{job}/retry", "jobs.retry", jobs::retry),
        post(Publish, "/v1/jobs/{job}/cancel", "jobs.cancel", jobs::cancel),
        post(Publish, "/v1/jobs/{job}/priority", "jobs.priority", jobs::prioritise).tells(&["priority"]),

        get(Read, "/v1/stats", "stats", stats::of_house),
        get(Read, "/v1/denials", "denials.list", denials::list),
        get(Read, "/v1/events", "events.follow", events::follow).waits(),
        get(Read, "/v1/facts", "facts.export", facts::export).waits(),

        get(Admin, "/v1/audit", "audit.list", audit::list),

        get(Read, "/v1/keys", "keys.list", keys::list),
        post(Admin, "/v1/keys", "keys.add", keys::add).makes("keys", "/kid").tells(&["not_before", "retire_at"]),
        post(Admin, "/v1/keys/rotate", "keys.rotate", keys::rotate)
            .makes("keys", "/key/kid").tells(&["overlap_s", "retiring"]),
        delete(Admin, "/v1/keys/{kid}", "keys.retire", keys::retire).tells(&["at", "force", "retire_at"]),

        get(Admin, "/v1/tokens", "tokens.list", tokens::list),
        post(Admin, "/v1/tokens", "tokens.create", tokens::create)
            .makes("tokens", "/token/id").tells(&["name", "scopes", "expires_at"]),
        post(Admin, "/v1/tokens/{token}/rotate", "tokens.rotate", tokens::rotate).tells(&["overlap_s"]),
        delete(Admin, "/v1/tokens/{token}", "tokens.revoke", tokens::revoke),

        get(Admin, "/v1/webhooks", "webhooks.list", webhooks::list),
        post(Admin, "/v1/webhooks", "webhooks.create", webhooks::create)
            .makes("webhooks", "/webhook/id").tells(&["events"]),
        get(Admin, "/v1/webhooks/{webhook}", "webhooks.show", webhooks::show),
        delete(Admin, "/v1/webhooks/{webhook}", "webhooks.delete", webhooks::delete),
        get(Admin, "/v1/webhooks/{webhook}/deliveries", "webhooks.deliveries", webhooks::deliveries),
        post(Admin, "/v1/webhooks/{webhook}/deliveries/{delivery}/redeliver", "webhooks.redeliver", webhooks::redeliver),

        get(Read, "/v1/revocations", "revocations.list", revocations::list),
        post(Admin, "/v1/revocations", "revocations.add", revocations::add)
            .makes("revocations", "/id").tells(&["sid", "sub", "track", "issued_before", "until", "note"]),
        delete(Admin, "/v1/revocations/{id}", "revocations.lift", revocations::lift),

        get(Read, "/v1/limits", "limits.list", limits::list),
        put(Admin, "/v1/limits/classes/{name}", "limits.classes.put", limits::put_class)
            .tells(&["rate", "burst", "per", "on_outage"]),
        delete(Admin, "/v1/limits/classes/{name}", "limits.classes.remove", limits::remove_class),
        put(Admin, "/v1/limits/streams/{name}", "limits.streams.put", limits::put_streams)
            .tells(&["max", "grace", "on_excess", "on_outage"]),
        delete(Admin, "/v1/limits/streams/{name}", "limits.streams.remove", limits::remove_streams),

        get(Read, "/v1/policies", "policies.list", policies::list),
        get(Read, "/v1/policies/{policy}", "policies.show", policies::show),
        delete(Admin, "/v1/policies/{policy}", "policies.delete", policies::delete),
        get(Read, "/v1/policies/{policy}/history", "policies.history", policies::history),
        get(Read, "/v1/policies/{policy}/diff", "policies.diff", policies::diff::diff),
        get(Read, "/v1/policies/{policy}/verdicts", "policies.verdicts", policies::diff::verdicts),
        // A form is read and a policy compiled; a change waits for edges.
        post(Admin, "/v1/policies/{policy}/versions", "policies.upload", policies::upload::add)
            .waits().takes(policies::upload::REQUEST_MAX).tells(&["version", "digest", "signer"]),
        delete(Admin, "/v1/policies/{policy}/versions/{version}", "policies.delete-version", policies::delete_version),
        post(Admin, "/v1/policies/{policy}/push", "policies.push", policies::rollout::push).waits()
            .tells(ROLLOUT),
        post(Admin, "/v1/policies/{policy}/shadow", "policies.shadow", policies::rollout::shadow).waits()
            .tells(ROLLOUT),
        post(Admin, "/v1/policies/{policy}/canary", "policies.canary", policies::rollout::canary).waits()
            .tells(ROLLOUT),
        post(Admin, "/v1/policies/{policy}/active", "policies.activate", policies::rollout::activate).waits()
            .tells(ROLLOUT),
        delete(Admin, "/v1/policies/{policy}/active", "policies.disable", policies::rollout::disable).waits()
            .tells(ROLLOUT),
        post(Admin, "/v1/policies/{policy}/rollback", "policies.rollback", policies::rollout::roll_back).waits()
            .tells(ROLLOUT),
        delete(Admin, "/v1/policies/{policy}/candidate", "policies.end-trial", policies::rollout::end_trial).waits()
            .tells(ROLLOUT),

        get(Read, "/v1/edges", "edges.list", edge::list),
        get(Edge, "/v1/edge/snapshot", "edge.snapshot", edge::snapshot).waits(),
        get(Edge, "/v1/edge/policies/{digest}", "edge.component", policies::component),
        post(Edge, "/v1/edge/report", "edge.report", edge::report).reports(),
        post(Edge, "/v1/edge/facts", "edge.facts", edge::facts).takes(edge::FACTS_MAX).reports(),

        post(Worker, "/v1/worker/claim", "worker.claim", worker::claim).waits().reports(),
        post(Worker, "/v1/worker/jobs/{job}/progress", "worker.progress", worker::progress).reports(),
        post(Worker, "/v1/worker/jobs/{job}/early", "worker.early", worker::early).reports(),
        post(Worker, "/v1/worker/jobs/{job}/complete", "worker.complete", worker::complete).tells(&["version", "fence", "duration_ms"]),
        post(Worker, "/v1/worker/jobs/{job}/fail", "worker.fail", worker::fail).tells(&["fence", "reason", "retryable"]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_route_that_changes_something_escapes_the_audit() {
        let of = |recorded: Recorded| {
            let all = routes();
            all.iter().filter(|route| route.recorded == recorded).map(|route| route.name).collect::<Vec<_>>()
        };
        for route in routes() {
            assert_eq!(route.method == Method::GET, route.recorded == Recorded::Not, "{}", route.name);
            assert!(route.recorded == Recorded::Not || route.scope.is_some(), "{} is open to everybody", route.name);
        }
        // What is not a record for each request is named here one by one.
        assert_eq!(of(Recorded::Issues), ["tickets.issue"]);
        let reports = [
            "uploads.urls",
            "uploads.parts",
            "edge.report",
            "edge.facts",
            "worker.claim",
            "worker.progress",
            "worker.early",
        ];
        assert_eq!(of(Recorded::Reports), reports);
    }

    #[test]
    fn the_audit_tells_nothing_that_can_be_a_secret() {
        for route in routes() {
            for field in route.tells {
                let is_secret =
                    ["secret", "url", "ticket", "token", "hash", "password", "headers", "upload", "ctx", "options"]
                        .iter()
                        .any(|word| field.contains(word));
                assert!(!is_secret, "{} tells {field}", route.name);
            }
        }
    }
}
