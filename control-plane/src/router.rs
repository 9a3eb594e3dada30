//! The service: the routes of the table behind their checks, the page, and what every answer gets.

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;

use crate::api::{health, page};
use crate::audit::{self, Recorded};
use crate::auth;
use crate::error::ApiError;
use crate::idempotency;
use crate::problem;
use crate::routes::{Route, routes};
use crate::state::Shared;

/// The whole service.
pub(crate) fn router(shared: Shared) -> Router {
    let (timeout, body_max) = (shared.http.timeout, shared.http.body_max);
    let mut router = Router::new().route("/healthz", get(health::healthz)).route("/", get(page::index));
    for route in routes() {
        let (subject, state) = (route.subject(), Shared::clone(&shared));
        let is_recorded = subject.recorded != Recorded::Not;
        let Route { path, scope, is_waiting, is_once, handler, .. } = route;
        // From the inside out: the record of a change stands around the change itself, so that an answer that is given again is none.
        let handler = match subject.recorded {
            Recorded::Changes | Recorded::Issues => handler
                .route_layer(middleware::from_fn_with_state((Shared::clone(&shared), subject.clone()), audit::change)),
            Recorded::Not | Recorded::Reports => handler,
        };
        let handler = if is_once {
            handler.route_layer(middleware::from_fn_with_state(Shared::clone(&shared), idempotency::once))
        } else {
            handler
        };
        let handler = match scope {
            Some(scope) => {
                handler.route_layer(middleware::from_fn_with_state((Shared::clone(&shared), scope), auth::require))
            }
            None => handler,
        };
        let handler =
            if is_waiting { handler } else { handler.route_layer(middleware::from_fn_with_state(timeout, within)) };
        let handler = if is_recorded {
            handler.route_layer(middleware::from_fn_with_state((state, subject), audit::refusals))
        } else {
            handler
        };
        router = router.route(path, handler);
    }
    router
        // The page's assets; what is none of them is no route.
        .fallback(page::asset)
        .method_not_allowed_fallback(async || ApiError::Invalid {
            status: StatusCode::METHOD_NOT_ALLOWED,
            word: "method-not-allowed",
            message: "this route does not know that method".to_owned(),
        })
        .layer(DefaultBodyLimit::max(body_max))
        .layer(middleware::from_fn(problem::finish))
        .with_state(shared)
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
