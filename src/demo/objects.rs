//! The embedded S3: `s3s-fs` over a folder, behind real authentication, spoken to over HTTP like any other S3.
//!
//! The page uploads from another origin, so the cross-origin answers (Fetch standard, section 3.3) that an operator
//! would configure on a bucket are given here.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HeaderValue,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections served at once; the edge, the worker and a browser use some dozens.
const CONNECTIONS_MAX: usize = 512;
/// A client that has not sent its request's head by then is dropped.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// The running store.
pub(crate) struct Objects {
    addr: SocketAddr,
    stop: CancellationToken,
    connections: TaskTracker,
    accepting: JoinHandle<()>,
}

impl Objects {
    /// Serves the buckets under `root` to whoever holds the credentials.
    pub(crate) fn start(
        listener: TcpListener,
        root: &Path,
        (access, secret): (String, String),
    ) -> anyhow::Result<Self> {
        let files = FileSystem::new(root)
            .map_err(|error| anyhow::anyhow!("cannot open the object folder {}: {error:?}", root.display()))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(access, secret));
        let service = builder.build();
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let listener = tokio::net::TcpListener::from_std(listener).context("cannot listen for S3 requests")?;
        let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
        let accepting = tokio::spawn(accept(listener, service, stop.clone(), connections.clone()));
        Ok(Self { addr, stop, connections, accepting })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Takes no more requests and waits for those in hand.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.accepting.await {
            tracing::error!(?error, "the object store's listener broke");
        }
        self.connections.close();
        self.connections.wait().await;
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    service: S3Service,
    stop: CancellationToken,
    connections: TaskTracker,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let socket = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    // Most often out of file descriptors: wait for some to come back.
                    tracing::warn!(%error, "the object store could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = stop.cancelled() => return,
        };
        let (service, stop) = (service.clone(), stop.clone());
        connections.spawn(async move {
            let answer = service_fn(move |request| answer(service.clone(), request));
            let mut http = http1::Builder::new();
            let connection = http
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .serve_connection(TokioIo::new(socket), answer);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "an S3 connection broke off");
            }
            drop(place);
        });
    }
}

async fn answer(service: S3Service, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if request.method() == Method::OPTIONS {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        allow_other_origins(response.headers_mut());
        return Ok(response);
    }
    let mut response = match service.call(request.map(Body::from)).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(?error, "the object store failed");
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    };
    allow_other_origins(response.headers_mut());
    Ok(response)
}

fn allow_other_origins(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("PUT, GET, HEAD"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("ETag"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
}
