//! An edge, an origin that misbehaves on request, and a client that sees every byte; all on port 0.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test file uses a part of it")]

pub mod client;
pub mod control;
pub mod mmdb;
pub mod origin;
pub mod ready;
pub mod tls;
pub mod wasm;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use segue_events::{EventLog, LogOptions};
use segue_proxy::{Edge, EdgeConfig, EdgeInputs, Endpoint, OriginConfig};
use segue_signing::{CanonicalPath, Claims, Key, SigningSecret, SnapshotDoc};
use serde_json::Value;
use tokio::sync::watch;

pub use client::{Answer, Client};
pub use origin::{Behaviour, Origin};
pub use ready::ready_made;

pub const SECRET: &str = "a test secret that is long enough to be one";
pub const TRACK: &str = "abcdefgh2345";
pub const VERSION: &str = "0123456789abcdef-1";

/// A whole edge in front of an [`Origin`].
pub struct House {
    pub origin: Origin,
    pub edge: Edge,
    pub events: Arc<EventLog>,
    pub snapshots: watch::Sender<Arc<SnapshotDoc>>,
    dir: tempfile::TempDir,
}

pub async fn house() -> House {
    house_with(|_| {}).await
}

/// A house whose origin may think for as long as a test needs.
pub async fn patient_house_with(change: impl FnOnce(&mut EdgeConfig)) -> House {
    house_with(|config| {
        let origin = config.origins.get_mut("default").unwrap();
        origin.read_timeout = Duration::from_secs(120);
        origin.total_timeout = Duration::from_secs(120);
        config.cache.wait = Duration::from_secs(120);
        change(config);
    })
    .await
}

pub async fn house_with(change: impl FnOnce(&mut EdgeConfig)) -> House {
    let origin = Origin::start().await;
    let mut upstream = OriginConfig::http(Endpoint::parse(&format!("http://{}", origin.addr)).unwrap());
    upstream.connect_timeout = Duration::from_secs(1);
    upstream.read_timeout = Duration::from_secs(1);
    upstream.total_timeout = Duration::from_secs(10);
    let mut config = EdgeConfig::minimal(upstream);
    config.keys = vec![key()];
    // What one request does is what that request asked for; tests of prefetching turn it on.
    config.prefetch.segments = 0;
    change(&mut config);
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { slots: 64, ..LogOptions::default() };
    let events = EventLog::open(dir.path(), "test", options).unwrap();
    let (snapshots, receiver) = watch::channel(Arc::new(SnapshotDoc::default()));
    let inputs =
        EdgeInputs { listener: None, admin_listener: None, snapshots: receiver, events: Some(Arc::clone(&events)) };
    let edge = Edge::start(config, inputs).await.unwrap();
    House { origin, edge, events, snapshots, dir }
}

impl House {
    pub async fn client(&self) -> Client {
        Client::connect(self.edge.addr()).await
    }

    /// One GET with a ticket in the path, on a connection of its own.
    pub async fn get(&self, file: &str) -> Answer {
        self.client().await.get(&format!("/p/{}/hls/{TRACK}/{file}", ticket())).await
    }

    /// One sample of the metrics, by its full name; where there is none, nothing was counted. Wants `with_admin`.
    pub async fn metric(&self, sample: &str) -> f64 {
        let admin = self.edge.admin_addr().unwrap();
        let answer = Client::connect(admin).await.get("/metrics").await;
        let text = String::from_utf8(answer.body).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a sample has at least this value.
    pub async fn metric_reaches(&self, sample: &str, value: f64) {
        for _ in 0..6_000 {
            if self.metric(sample).await >= value {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{sample} never reached {value}");
    }

    /// All facts so far.
    pub fn facts(&self) -> Vec<Value> {
        let log = self.events.facts();
        let batch = log.read(log.start(), 10_000).unwrap();
        batch.records.iter().map(|(_, json)| serde_json::from_str(json).unwrap()).collect()
    }

    /// The facts, once there are `count` of them.
    pub async fn facts_when(&self, count: usize) -> Vec<Value> {
        for _ in 0..200 {
            if self.facts().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.facts()
    }

    pub fn denials(&self) -> Vec<Value> {
        let log = self.events.denials();
        let batch = log.read(log.start(), 10_000).unwrap();
        batch.records.iter().map(|(_, json)| serde_json::from_str(json).unwrap()).collect()
    }
}

/// Gives the edge a listener for `House::metric`.
pub fn with_admin(config: &mut EdgeConfig) {
    config.admin_listen = Some("127.0.0.1:0".parse().unwrap());
}

pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

pub fn key() -> Key {
    Key { kid: "k1".to_owned(), secret: SigningSecret::parse(SECRET).unwrap(), not_before: None, retire_at: None }
}

pub fn claims() -> Claims {
    Claims {
        exp: now() + 600,
        nbf: None,
        iat: Some(now()),
        path: format!("/hls/{TRACK}/"),
        sid: Some("device-1".to_owned()),
        sub: Some("listener-1".to_owned()),
        ip: None,
        lim: None,
        renew_until: None,
        ctx: None,
    }
}

pub fn ticket() -> String {
    segue_signing::mint(&key(), &claims()).unwrap()
}

pub fn signed_query(path: &str) -> String {
    segue_signing::url::sign(&key(), &CanonicalPath::parse(path).unwrap(), now() + 600)
}

/// Bytes that tell their place.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 % 251) as u8).collect()
}

/// A path under the version folder.
pub fn versioned(file: &str) -> String {
    format!("{VERSION}/{file}")
}
