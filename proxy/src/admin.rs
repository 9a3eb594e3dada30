//! What operators ask of an edge, on a listener of its own: `/metrics`, `/healthz`, `/readyz`, and `POST /purge`.
//!
//! Invariants: writing calls want the token, compared in constant time, and are refused where none is configured; a
//! body is read up to 64 KiB; connections are tracked and bounded.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::edge::Shared;

/// Operators, scrapers and probes; nobody needs more at once.
const CONNECTIONS_MAX: usize = 64;
const BODY_MAX: usize = 64 * 1024;
/// Bytes of a track's name; what is purged stays in memory.
const TRACK_MAX: usize = 256;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running listener.
pub(crate) struct Admin {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    track: String,
}

impl Admin {
    pub(crate) fn start(listener: TcpListener, address: SocketAddr, shared: Arc<Shared>) -> Self {
        let admin = Self { address, stop: CancellationToken::new(), tasks: TaskTracker::new() };
        let (stop, tasks) = (admin.stop.clone(), admin.tasks.clone());
        admin.tasks.spawn(async move {
            let _ = stop.clone().run_until_cancelled(accept(listener, shared, stop, tasks)).await;
        });
        admin
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken, tasks: TaskTracker) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the admin listener could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        let stop = stop.clone();
        tasks.spawn(async move {
            let _ = stop.run_until_cancelled(serve(stream, shared)).await;
            drop(permit);
        });
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move {
            let answer = tokio::time::timeout(CALL_TIMEOUT, answer(&shared, request)).await;
            Ok::<_, Infallible>(
                answer.unwrap_or_else(|_| error(StatusCode::REQUEST_TIMEOUT, "timeout", "the call took too long")),
            )
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the admin listener ended badly");
    }
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => text(StatusCode::OK, "text/plain; version=0.0.4", shared.metrics_text()),
        (&Method::GET, "/healthz") => text(StatusCode::OK, "text/plain", "ok\n".to_owned()),
        (&Method::GET, "/readyz") if shared.ready.load(Ordering::Acquire) => ready(shared),
        (&Method::GET, "/readyz") => error(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "the edge starts or stops"),
        (&Method::POST, "/purge") => purge(shared, request).await,
        (&Method::POST, "/explain") => explain(shared, request).await,
        (_, "/metrics" | "/healthz" | "/readyz" | "/purge" | "/explain") => {
            error(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "GET, or POST for /purge and /explain")
        }
        _ => error(StatusCode::NOT_FOUND, "not-found", "there is /metrics, /healthz, /readyz, /purge and /explain"),
    }
}

/// An edge that cannot judge requests is not ready; one whose snapshot ages is, and says so.
fn ready(shared: &Shared) -> Response<Full<Bytes>> {
    if let Err(refusal) = shared.standing.check() {
        return error(StatusCode::SERVICE_UNAVAILABLE, refusal.reason(), &refusal.to_string());
    }
    if let Some(lacks) = shared.desk.lacks() {
        return error(StatusCode::SERVICE_UNAVAILABLE, "policies-not-ready", &lacks);
    }
    let concern = shared.standing.concern().map(|concern| format!("; {concern}")).unwrap_or_default();
    text(StatusCode::OK, "text/plain", format!("ready{concern}\n"))
}

/// Why a call that wants the token is refused; `None`: it is not.
fn refused(shared: &Shared, request: &Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    let Some(token) = &shared.config.admin_token else {
        return Some(error(StatusCode::FORBIDDEN, "no-token-configured", "set [admin] token to allow this here"));
    };
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    (!bool::from(shown.as_bytes().ct_eq(token.expose().as_bytes())))
        .then(|| error(StatusCode::UNAUTHORIZED, "token-refused", "the bearer token is not the configured one"))
}

/// What would become of a request.
async fn explain(shared: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if let Some(refusal) = refused(shared, &request) {
        return refusal;
    }
    let Ok(body) = Limited::new(request.into_body(), BODY_MAX).collect().await else {
        return error(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "a question names one URL");
    };
    let question = serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string());
    match question.and_then(|question| crate::explain::on_edge(shared, &question)) {
        Ok(explanation) => text(StatusCode::OK, "application/json", serde_json::json!(explanation).to_string()),
        Err(problem) => error(StatusCode::BAD_REQUEST, "body-malformed", &problem),
    }
}

async fn purge(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if let Some(refusal) = refused(shared, &request) {
        return refusal;
    }
    let Ok(body) = Limited::new(request.into_body(), BODY_MAX).collect().await else {
        return error(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "a purge names one track");
    };
    let Ok(Purge { track }) = serde_json::from_slice(&body.to_bytes()) else {
        return error(StatusCode::BAD_REQUEST, "body-malformed", "write {\"track\":\"…\"}");
    };
    let is_segment = !matches!(track.as_str(), "" | "." | "..") && !track.contains('/') && track.len() <= TRACK_MAX;
    if !is_segment {
        let message = "a track is one path segment of at most 256 bytes, as it stands decoded in the path";
        return error(StatusCode::BAD_REQUEST, "track-malformed", message);
    }
    match shared.snapshots.purge(&track) {
        Ok(generation) => {
            shared.metrics.purges.add(1);
            tracing::info!(track, generation, "a track was purged on this edge");
            if let Err(problem) = kept(shared, &track, generation).await {
                let message = format!("purged for now, but a restart may undo it, for it cannot be kept: {problem}");
                return error(StatusCode::INTERNAL_SERVER_ERROR, "purge-not-kept", &message);
            }
            let body = serde_json::json!({ "track": track, "generation": generation });
            text(StatusCode::OK, "application/json", body.to_string())
        }
        Err(problem) => error(StatusCode::SERVICE_UNAVAILABLE, "too-many-purges", &problem.to_string()),
    }
}

/// Makes a purge outlive the process, where cached bytes do.
async fn kept(shared: &Arc<Shared>, track: &str, generation: u64) -> Result<(), String> {
    let Some(disk) = shared.disk.clone() else { return Ok(()) };
    let track = track.to_owned();
    let kept = tokio::task::spawn_blocking(move || disk.keep_purge(&track, generation)).await;
    kept.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

fn error(status: StatusCode, word: &str, message: &str) -> Response<Full<Bytes>> {
    text(status, "application/json", serde_json::json!({ "error": word, "message": message }).to_string())
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
