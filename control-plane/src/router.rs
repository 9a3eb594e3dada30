//! The table of contents of the API: every route, under the scope that it needs.

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use http::StatusCode;

use crate::api::{
    denials, edge, events, facts, health, jobs, keys, limits, multipart, page, policies, revocations, stats, tickets,
    tracks, uploads, worker,
};
use crate::auth::{self, Scope};
use crate::error::ApiError;
use crate::state::Shared;

/// The whole service.
pub(crate) fn router(shared: Shared) -> Router {
    let publish = Router::new()
        .route("/v1/tracks", post(tracks::create))
        .route("/v1/tracks/{track}", delete(tracks::delete))
        .route("/v1/tracks/{track}/uploaded", post(uploads::uploaded))
        .route("/v1/tracks/{track}/upload", get(multipart::show).delete(multipart::abort))
        .route("/v1/tracks/{track}/upload/urls", post(multipart::presign))
        .route("/v1/tracks/{track}/upload/parts", post(multipart::report))
        .route("/v1/uploads", get(multipart::list))
        .route("/v1/tracks/{track}/purge", post(tracks::purge))
        .route("/v1/jobs/{job}/retry", post(jobs::retry))
        .route("/v1/jobs/{job}/cancel", post(jobs::cancel))
        .route("/v1/jobs/{job}/priority", post(jobs::prioritise));
    let play = Router::new().route("/v1/tracks/{track}/tickets", post(tickets::issue));
    let read = Router::new()
        .route("/v1/tracks", get(tracks::list))
        .route("/v1/tracks/{track}", get(tracks::show))
        .route("/v1/tracks/{track}/stats", get(stats::of_track))
        .route("/v1/stats", get(stats::of_house))
        .route("/v1/denials", get(denials::list))
        .route("/v1/jobs", get(jobs::list))
        .route("/v1/jobs/{job}", get(jobs::show))
        .route("/v1/keys", get(keys::list))
        .route("/v1/revocations", get(revocations::list))
        .route("/v1/limits", get(limits::list))
        .route("/v1/policies", get(policies::list))
        .route("/v1/policies/{policy}", get(policies::show))
        .route("/v1/policies/{policy}/history", get(policies::history))
        .route("/v1/policies/{policy}/diff", get(policies::diff::diff))
        .route("/v1/policies/{policy}/verdicts", get(policies::diff::verdicts))
        .route("/v1/edges", get(edge::list));
    let admin = Router::new()
        .route("/v1/keys", post(keys::add))
        .route("/v1/keys/rotate", post(keys::rotate))
        .route("/v1/keys/{kid}", delete(keys::retire))
        .route("/v1/revocations", post(revocations::add))
        .route("/v1/revocations/{id}", delete(revocations::lift))
        .route("/v1/limits/classes/{name}", put(limits::put_class).delete(limits::remove_class))
        .route("/v1/limits/streams/{name}", put(limits::put_streams).delete(limits::remove_streams))
        .route("/v1/policies/{policy}", delete(policies::delete))
        .route("/v1/policies/{policy}/versions/{version}", delete(policies::delete_version));
    let edges = Router::new()
        .route("/v1/edge/policies/{digest}", get(policies::component))
        .route("/v1/edge/report", post(edge::report))
        .route("/v1/edge/facts", post(edge::facts).layer(DefaultBodyLimit::max(edge::FACTS_MAX)));
    let worker = Router::new()
        .route("/v1/worker/jobs/{job}/progress", post(worker::progress))
        .route("/v1/worker/jobs/{job}/early", post(worker::early))
        .route("/v1/worker/jobs/{job}/complete", post(worker::complete))
        .route("/v1/worker/jobs/{job}/fail", post(worker::fail));
    let open = Router::new().route("/healthz", get(health::healthz)).route("/", get(page::index));

    // Answered within the time limit.
    let prompt = Router::new()
        .merge(needs(publish, &shared, Scope::Publish))
        .merge(needs(play, &shared, Scope::Play))
        .merge(needs(read, &shared, Scope::Read))
        .merge(needs(worker, &shared, Scope::Worker))
        .merge(needs(admin, &shared, Scope::Admin))
        .merge(needs(edges, &shared, Scope::Edge))
        .merge(open)
        .layer(middleware::from_fn_with_state(shared.http.timeout, within));

    // Wait by nature, each within a bound of its own.
    let streams = Router::new().route("/v1/events", get(events::follow)).route("/v1/facts", get(facts::export));
    let claims = Router::new().route("/v1/worker/claim", post(worker::claim));
    let snapshots = Router::new().route("/v1/edge/snapshot", get(edge::snapshot));
    // A form is read and a policy compiled; a change waits for edges.
    let upload = post(policies::upload::add).layer(DefaultBodyLimit::max(policies::upload::REQUEST_MAX));
    let rollout = Router::new()
        .route("/v1/policies/{policy}/versions", upload)
        .route("/v1/policies/{policy}/push", post(policies::rollout::push))
        .route("/v1/policies/{policy}/shadow", post(policies::rollout::shadow))
        .route("/v1/policies/{policy}/canary", post(policies::rollout::canary))
        .route("/v1/policies/{policy}/active", post(policies::rollout::activate))
        .route("/v1/policies/{policy}/active", delete(policies::rollout::disable))
        .route("/v1/policies/{policy}/rollback", post(policies::rollout::roll_back))
        .route("/v1/policies/{policy}/candidate", delete(policies::rollout::end_trial));
    let waiting = Router::new()
        .merge(needs(rollout, &shared, Scope::Admin))
        .merge(needs(streams, &shared, Scope::Read))
        .merge(needs(claims, &shared, Scope::Worker))
        .merge(needs(snapshots, &shared, Scope::Edge));

    let body_max = shared.http.body_max;
    prompt
        .merge(waiting)
        // The page's assets; what is none of them is no route.
        .fallback(page::asset)
        .method_not_allowed_fallback(async || ApiError::Invalid {
            status: StatusCode::METHOD_NOT_ALLOWED,
            word: "method-not-allowed",
            message: "this route does not know that method".to_owned(),
        })
        .layer(DefaultBodyLimit::max(body_max))
        .with_state(shared)
}

/// Puts the check of a scope in front of routes.
fn needs(routes: Router<Shared>, shared: &Shared, scope: Scope) -> Router<Shared> {
    routes.route_layer(middleware::from_fn_with_state((Shared::clone(shared), scope), auth::require))
}

/// Gives up on a request that takes too long. What it had begun in the database is rolled back with it.
async fn within(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = "this took too long; try again in a moment".to_owned();
            ApiError::Busy { word: "timeout", message }.into_response()
        }
    }
}
