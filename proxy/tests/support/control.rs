//! A control plane that says what a test wants, and can be away, slow or wrong.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use segue_config::Secret;
use segue_proxy::ControlEndpoint;
use segue_signing::{
    EdgeReport, KeyDoc, NamedRevocation, PolicyCandidate, PolicyDoc, PolicyStanding, PolicyTrial, PolicyVersion,
    SnapshotDelta,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::SECRET;

#[derive(Default)]
struct State {
    snapshot: SnapshotDelta,
    bytes: HashMap<String, Vec<u8>>,
    /// Whether policies are not answered at all.
    stalls: bool,
    fetched: Vec<String>,
    /// The last report of each edge.
    reports: BTreeMap<String, EdgeReport>,
}

#[derive(Clone)]
pub struct Control {
    pub addr: SocketAddr,
    state: Arc<Mutex<State>>,
    revision: watch::Sender<u64>,
    task: Arc<tokio::task::JoinHandle<()>>,
}

pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A policy whose versions are these bytes.
pub fn policy(name: &str, active: Option<&str>, versions: &[(&str, &[u8])]) -> PolicyDoc {
    let version = |(version, bytes): &(&str, &[u8])| PolicyVersion {
        version: (*version).to_owned(),
        digest: digest(bytes),
        bytes: bytes.len() as u64,
        config: serde_json::json!({}),
    };
    PolicyDoc {
        name: name.to_owned(),
        active: active.map(str::to_owned),
        versions: versions.iter().map(version).collect(),
        ..PolicyDoc::default()
    }
}

pub fn tried(doc: PolicyDoc, version: &str, trial: PolicyTrial) -> PolicyDoc {
    PolicyDoc { candidate: Some(PolicyCandidate { version: version.to_owned(), trial }), ..doc }
}

impl Control {
    pub async fn start() -> Self {
        Self::over(Arc::default(), "127.0.0.1:0".parse().unwrap()).await
    }

    async fn over(state: Arc<Mutex<State>>, addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        {
            let mut state = state.lock().unwrap();
            state.snapshot.revision = state.snapshot.revision.max(1);
            state.snapshot.keys_tag = "k".to_owned();
            let secret = SECRET.to_owned();
            state.snapshot.keys =
                Some(vec![KeyDoc { kid: "k1".to_owned(), secret, not_before: None, retire_at: None }]);
            state.snapshot.policies.get_or_insert_default();
        }
        let revision = watch::Sender::new(1);
        let (state_, revision_) = (Arc::clone(&state), revision.clone());
        let task = tokio::spawn(async move {
            // Owned here, so that they end with the listener.
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, revision) = (Arc::clone(&state_), revision_.clone());
                serving.spawn(async move {
                    let service = service_fn(|request| {
                        let (state, revision) = (Arc::clone(&state), revision.clone());
                        async move { Ok::<_, Infallible>(answer(&state, &revision, request).await) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { addr, state, revision, task: Arc::new(task) }
    }

    pub fn endpoint(&self) -> ControlEndpoint {
        ControlEndpoint { url: format!("http://{}", self.addr), token: Secret::literal("edge-token") }
    }

    /// Goes away, connections and all.
    pub fn stop(&self) {
        self.task.abort();
    }

    /// Comes back with what it had.
    pub async fn again(&self) -> Self {
        let mut tries = 0;
        while !self.task.is_finished() && tries < 1_000 {
            tries += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self::over(Arc::clone(&self.state), self.addr).await
    }

    /// What a digest's bytes are; a wrong answer where they are not those.
    pub fn hold(&self, digest: &str, bytes: &[u8]) {
        self.state.lock().unwrap().bytes.insert(digest.to_owned(), bytes.to_vec());
    }

    pub fn stall(&self, stalls: bool) {
        self.state.lock().unwrap().stalls = stalls;
    }

    /// Publishes these policies.
    pub fn publish(&self, policies: Vec<PolicyDoc>) {
        self.change(|snapshot| {
            snapshot.policies_tag = format!("p{}", snapshot.revision);
            snapshot.policies = Some(policies);
        });
    }

    pub fn revoke(&self, revocation: segue_signing::Revocation) {
        self.change(|snapshot| snapshot.revocations.push(NamedRevocation { id: "r".to_owned(), revocation }));
    }

    fn change(&self, change: impl FnOnce(&mut SnapshotDelta)) {
        let revision = {
            let mut state = self.state.lock().unwrap();
            state.snapshot.revision += 1;
            change(&mut state.snapshot);
            state.snapshot.revision
        };
        self.revision.send_replace(revision);
    }

    pub fn fetched(&self) -> usize {
        self.state.lock().unwrap().fetched.len()
    }

    pub fn report(&self, edge: &str) -> Option<EdgeReport> {
        self.state.lock().unwrap().reports.get(edge).cloned()
    }

    /// Waits until a version's standing on an edge is as wanted.
    pub async fn stands(
        &self,
        edge: &str,
        policy: &str,
        version: &str,
        wanted: impl Fn(&PolicyStanding) -> bool,
    ) -> PolicyStanding {
        let mut last = None;
        for _ in 0..6_000 {
            let report = self.report(edge);
            let of = |standing: &PolicyStanding| standing.policy == policy && standing.version == version;
            let found = report.and_then(|report| report.policies.into_iter().find(of));
            if let Some(standing) = found.clone().filter(&wanted) {
                return standing;
            }
            last = found;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{policy}@{version} on {edge} stands otherwise: {last:?}");
    }
}

async fn answer(
    state: &Mutex<State>,
    revision: &watch::Sender<u64>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    let asked = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        pair.unwrap_or_default().to_owned()
    };
    let respond = |status: StatusCode, body: Vec<u8>| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response
    };
    if request.headers().get("authorization").is_none_or(|token| token != "Bearer edge-token") {
        return respond(StatusCode::UNAUTHORIZED, Vec::new());
    }
    if path == "/v1/edge/report" {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let report: EdgeReport = serde_json::from_slice(&body).unwrap();
        state.lock().unwrap().reports.insert(report.edge.clone(), report);
        return respond(StatusCode::NO_CONTENT, Vec::new());
    }
    if let Some(digest) = path.strip_prefix("/v1/edge/policies/") {
        while state.lock().unwrap().stalls {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut state = state.lock().unwrap();
        state.fetched.push(digest.to_owned());
        return match state.bytes.get(digest) {
            Some(bytes) => respond(StatusCode::OK, bytes.clone()),
            None => respond(StatusCode::NOT_FOUND, b"{\"message\":\"no such policy\"}".to_vec()),
        };
    }
    if path != "/v1/edge/snapshot" {
        return respond(StatusCode::NOT_FOUND, Vec::new());
    }
    let cursor: u64 = asked("cursor").parse().unwrap_or(0);
    let wait = Duration::from_millis(asked("wait_ms").parse().unwrap_or(0));
    let mut changes = revision.subscribe();
    let is_newer = |state: &Mutex<State>| state.lock().unwrap().snapshot.revision > cursor;
    let changed = async {
        while !is_newer(state) {
            changes.changed().await.unwrap();
        }
    };
    if tokio::time::timeout(wait, changed).await.is_err() && !is_newer(state) {
        return respond(StatusCode::NOT_MODIFIED, Vec::new());
    }
    let mut snapshot = state.lock().unwrap().snapshot.clone();
    if asked("policies") == snapshot.policies_tag && cursor > 0 {
        snapshot.policies = None;
    }
    respond(StatusCode::OK, serde_json::to_vec(&snapshot).unwrap())
}
