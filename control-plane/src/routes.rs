//! The table of contents of the API: every route with the scope that it needs. The router is built from it, and the document
//! at `/v1/openapi.json` is held against it, so that no route can lack either.

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;

use crate::api::{
    denials, edge, events, facts, jobs, keys, limits, multipart, openapi, policies, revocations, stats, tickets,
    tokens, tracks, uploads, worker,
};
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
        Self { method, path, scope, name, is_waiting: false, handler: on(filter, handler) }
    }

    /// It waits by nature: for a change, for a job, for edges, or for a client that reads.
    fn waits(self) -> Self {
        Self { is_waiting: true, ..self }
    }

    /// Its body may be larger than those of the others.
    fn takes(self, bytes: usize) -> Self {
        Self { handler: self.handler.layer(DefaultBodyLimit::max(bytes)), ..self }
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

/// Every route but the page and its health.
#[rustfmt::skip]
pub(crate) fn routes() -> Vec<Route> {
    use Scope::{Admin, Edge, Play, Publish, Read, Worker};
    vec![
        Route::new(Method::GET, None, "/v1/openapi.json", "openapi", openapi::document),

        post(Publish, "/v1/tracks", "tracks.create", tracks::create),
        get(Read, "/v1/tracks", "tracks.list", tracks::list),
        get(Read, "/v1/tracks/{track}", "tracks.show", tracks::show),
        delete(Publish, "/v1/tracks/{track}", "tracks.delete", tracks::delete),
        post(Publish, "/v1/tracks/{track}/uploaded", "tracks.uploaded", uploads::uploaded),
        get(Publish, "/v1/tracks/{track}/upload", "uploads.show", multipart::show),
        delete(Publish, "/v1/tracks/{track}/upload", "uploads.abort", multipart::abort),
        post(Publish, "/v1/tracks/{track}/upload/urls", "uploads.urls", multipart::presign),
        post(Publish, "/v1/tracks/{track}/upload/parts", "uploads.parts", multipart::report),
        get(Publish, "/v1/uploads", "uploads.list", multipart::list),
        post(Publish, "/v1/tracks/{track}/purge", "tracks.purge", tracks::purge),
        post(Play, "/v1/tracks/{track}/tickets", "tickets.issue", tickets::issue),
        get(Read, "/v1/tracks/{track}/stats", "tracks.stats", stats::of_track),

        get(Read, "/v1/jobs", "jobs.list", jobs::list),
        get(Read, "/v1/jobs/{job}", "jobs.show", jobs::show),
        post(Publish, "/v1/jobs/{job}/retry", "jobs.retry", jobs::retry),
        post(Publish, "/v1/jobs/{job}/cancel", "jobs.cancel", jobs::cancel),
        post(Publish, "/v1/jobs/{job}/priority", "jobs.priority", jobs::prioritise),

        get(Read, "/v1/stats", "stats", stats::of_house),
        get(Read, "/v1/denials", "denials.list", denials::list),
        get(Read, "/v1/events", "events.follow", events::follow).waits(),
        get(Read, "/v1/facts", "facts.export", facts::export).waits(),

        get(Read, "/v1/keys", "keys.list", keys::list),
        post(Admin, "/v1/keys", "keys.add", keys::add),
        post(Admin, "/v1/keys/rotate", "keys.rotate", keys::rotate),
        delete(Admin, "/v1/keys/{kid}", "keys.retire", keys::retire),

        get(Admin, "/v1/tokens", "tokens.list", tokens::list),
        post(Admin, "/v1/tokens", "tokens.create", tokens::create),
        post(Admin, "/v1/tokens/{token}/rotate", "tokens.rotate", tokens::rotate),
        delete(Admin, "/v1/tokens/{token}", "tokens.revoke", tokens::revoke),

        get(Read, "/v1/revocations", "revocations.list", revocations::list),
        post(Admin, "/v1/revocations", "revocations.add", revocations::add),
        delete(Admin, "/v1/revocations/{id}", "revocations.lift", revocations::lift),

        get(Read, "/v1/limits", "limits.list", limits::list),
        put(Admin, "/v1/limits/classes/{name}", "limits.classes.put", limits::put_class),
        delete(Admin, "/v1/limits/classes/{name}", "limits.classes.remove", limits::remove_class),
        put(Admin, "/v1/limits/streams/{name}", "limits.streams.put", limits::put_streams),
        delete(Admin, "/v1/limits/streams/{name}", "limits.streams.remove", limits::remove_streams),

        get(Read, "/v1/policies", "policies.list", policies::list),
        get(Read, "/v1/policies/{policy}", "policies.show", policies::show),
        delete(Admin, "/v1/policies/{policy}", "policies.delete", policies::delete),
        get(Read, "/v1/policies/{policy}/history", "policies.history", policies::history),
        get(Read, "/v1/policies/{policy}/diff", "policies.diff", policies::diff::diff),
        get(Read, "/v1/policies/{policy}/verdicts", "policies.verdicts", policies::diff::verdicts),
        // A form is read and a policy compiled; a change waits for edges.
        post(Admin, "/v1/policies/{policy}/versions", "policies.upload", policies::upload::add)
            .waits().takes(policies::upload::REQUEST_MAX),
        delete(Admin, "/v1/policies/{policy}/versions/{version}", "policies.delete-version", policies::delete_version),
        post(Admin, "/v1/policies/{policy}/push", "policies.push", policies::rollout::push).waits(),
        post(Admin, "/v1/policies/{policy}/shadow", "policies.shadow", policies::rollout::shadow).waits(),
        post(Admin, "/v1/policies/{policy}/canary", "policies.canary", policies::rollout::canary).waits(),
        post(Admin, "/v1/policies/{policy}/active", "policies.activate", policies::rollout::activate).waits(),
        delete(Admin, "/v1/policies/{policy}/active", "policies.disable", policies::rollout::disable).waits(),
        post(Admin, "/v1/policies/{policy}/rollback", "policies.rollback", policies::rollout::roll_back).waits(),
        delete(Admin, "/v1/policies/{policy}/candidate", "policies.end-trial", policies::rollout::end_trial).waits(),

        get(Read, "/v1/edges", "edges.list", edge::list),
        get(Edge, "/v1/edge/snapshot", "edge.snapshot", edge::snapshot).waits(),
        get(Edge, "/v1/edge/policies/{digest}", "edge.component", policies::component),
        post(Edge, "/v1/edge/report", "edge.report", edge::report),
        post(Edge, "/v1/edge/facts", "edge.facts", edge::facts).takes(edge::FACTS_MAX),

        post(Worker, "/v1/worker/claim", "worker.claim", worker::claim).waits(),
        post(Worker, "/v1/worker/jobs/{job}/progress", "worker.progress", worker::progress),
        post(Worker, "/v1/worker/jobs/{job}/early", "worker.early", worker::early),
        post(Worker, "/v1/worker/jobs/{job}/complete", "worker.complete", worker::complete),
        post(Worker, "/v1/worker/jobs/{job}/fail", "worker.fail", worker::fail),
    ]
}
