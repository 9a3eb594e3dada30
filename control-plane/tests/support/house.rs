//! A control plane on port 0 over a bucket, and a client with its tokens.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use segue_config::Secret;
use segue_control_plane::{
    AccessConfig, AuditConfig, Control, ControlConfig, ControlInputs, FactsConfig, HttpConfig, JobsConfig,
    ObjectsConfig, PoliciesConfig, RedisConfig, TicketsConfig, TokensConfig, UploadsConfig, WebhooksConfig,
};
use segue_events::EventLog;
use serde_json::{Value, json};

use crate::bucket::{ACCESS, Bucket, SECRET};
use crate::database::database;

pub(crate) const ADMIN: &str = "admin-token-of-the-tests";
pub(crate) const WORKER: &str = "worker-token-of-the-tests";
pub(crate) const EDGE: &str = "edge-token-of-the-tests";
pub(crate) const KEY: &str = "a signing secret of at least thirty-two bytes";
pub(crate) const EDGE_BASE: &str = "http://edge.test:8080";

pub(crate) fn config(folder: &Path, bucket: &Bucket) -> ControlConfig {
    ControlConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        database: database(folder),
        redis: hints(folder),
        objects: ObjectsConfig {
            endpoint: bucket.endpoint(),
            public_endpoint: None,
            region: "us-east-1".to_owned(),
            bucket: "media".to_owned(),
            access_key: Secret::literal(ACCESS),
            secret_key: Secret::literal(SECRET),
            create_bucket: true,
        },
        edge_base_url: EDGE_BASE.to_owned(),
        keys: vec![("k1".to_owned(), Secret::literal(KEY))],
        tokens: TokensConfig {
            admin: Secret::literal(ADMIN),
            worker: Some(Secret::literal(WORKER)),
            edge: Some(Secret::literal(EDGE)),
        },
        access: AccessConfig::default(),
        audit: AuditConfig::default(),
        webhooks: WebhooksConfig::default(),
        uploads: UploadsConfig::default(),
        tickets: TicketsConfig::default(),
        jobs: JobsConfig { sweep: Duration::from_millis(50), backoff: Duration::ZERO, ..JobsConfig::default() },
        policies: PoliciesConfig::default(),
        http: HttpConfig::default(),
        facts: FactsConfig { dir: Some(folder.join("control.db-facts")), ..FactsConfig::default() },
        fluvio: None,
    }
}

/// None, or, where `SEGUE_TEST_REDIS` names a server (`testkit/with-redis` does), that one, under names of the folder's own.
fn hints(folder: &Path) -> Option<RedisConfig> {
    let url = std::env::var("SEGUE_TEST_REDIS").ok()?;
    Some(RedisConfig { url: Secret::literal(url), ca: None, prefix: folder.display().to_string() })
}

/// A running control plane.
pub(crate) struct House {
    pub(crate) control: Control,
    pub(crate) client: Client,
    base: String,
}

/// A claimed job.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub(crate) job: String,
    pub(crate) fence: i64,
}

impl House {
    pub(crate) async fn start(config: ControlConfig) -> Self {
        Self::with_events(config, None).await
    }

    pub(crate) async fn with_events(config: ControlConfig, events: Option<Arc<EventLog>>) -> Self {
        let control = Box::pin(Control::start(config, ControlInputs { listener: None, events })).await.unwrap();
        let base = format!("http://{}", control.addr());
        Self { control, client: Client::new(), base }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) async fn send(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut request = self.client.request(method, self.url(path)).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(ADMIN, Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send(ADMIN, Method::POST, path, Some(body)).await
    }

    pub(crate) async fn worker(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send(WORKER, Method::POST, &format!("/v1/worker/{path}"), Some(body)).await
    }

    /// Creates a track, uploads `bytes` through the presigned URL, and says so. Answers track and job.
    pub(crate) async fn add(&self, filename: &str, bytes: &[u8]) -> (String, String) {
        let (status, created) = self.post("/v1/tracks", json!({ "filename": filename, "size": bytes.len() })).await;
        assert_eq!(status, StatusCode::CREATED, "{created}");
        let track = created["track"]["track"].as_str().unwrap().to_owned();
        assert_eq!(self.upload(&created, bytes).await, StatusCode::OK);
        let (status, queued) = self.post(&format!("/v1/tracks/{track}/uploaded"), json!({})).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{queued}");
        (track, queued["job"]["job"].as_str().unwrap().to_owned())
    }

    /// PUTs to the upload of a created track.
    pub(crate) async fn upload(&self, created: &Value, bytes: &[u8]) -> StatusCode {
        let upload = &created["upload"];
        assert_eq!(upload["method"], "PUT");
        let mut put = self.client.put(upload["url"].as_str().unwrap()).body(bytes.to_vec());
        for (name, value) in upload["headers"].as_object().unwrap() {
            put = put.header(name, value.as_str().unwrap());
        }
        put.send().await.unwrap().status()
    }

    /// Claims, and waits for a job.
    pub(crate) async fn claim(&self) -> Option<Claimed> {
        self.claim_within(5000).await
    }

    /// Claims without a wait.
    pub(crate) async fn claim_now(&self) -> Option<Claimed> {
        self.claim_within(0).await
    }

    async fn claim_within(&self, wait_ms: u64) -> Option<Claimed> {
        self.claim_as("w1", "i1", wait_ms).await
    }

    /// Claims as a process of a worker.
    pub(crate) async fn claim_as(&self, worker: &str, instance: &str, wait_ms: u64) -> Option<Claimed> {
        let body = json!({ "worker": worker, "instance": instance, "wait_ms": wait_ms });
        let (status, claimed) = self.worker("claim", body).await;
        if status == StatusCode::NO_CONTENT {
            return None;
        }
        assert_eq!(status, StatusCode::OK, "{claimed}");
        Some(Claimed { job: claimed["job"].as_str().unwrap().to_owned(), fence: claimed["fence"].as_i64().unwrap() })
    }

    pub(crate) async fn complete(&self, claimed: &Claimed, duration_ms: u64) -> (StatusCode, Value) {
        let path = format!("jobs/{}/complete", claimed.job);
        self.worker(&path, result(claimed.fence, duration_ms)).await
    }

    /// Polls a track until it has this status.
    pub(crate) async fn until(&self, track: &str, status: &str) -> Value {
        for _ in 0..400 {
            let (_, shown) = self.get(&format!("/v1/tracks/{track}")).await;
            if shown["status"] == status {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the track never became {status}: {}", self.get(&format!("/v1/tracks/{track}")).await.1);
    }
}

pub(crate) fn version(fence: i64) -> String {
    format!("0123456789abcdef-{fence}")
}

pub(crate) fn master(fence: i64) -> String {
    format!(
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-STREAM-INF:BANDWIDTH=70000,CODECS=\"mp4a.40.2\"\n{}/a64/index.m3u8\n",
        version(fence)
    )
}

pub(crate) fn result(fence: i64, duration_ms: u64) -> Value {
    json!({
        "fence": fence, "version": version(fence), "duration_ms": duration_ms, "master": master(fence),
        "renditions": [{ "name": "a64", "bandwidth": 70000, "codecs": "mp4a.40.2" }],
        "title": "From the tag", "artist": "Somebody", "album": null, "artwork": true, "waveform": true,
        "loudness": { "input_lufs": -20.5, "input_true_peak": -3.0, "gain_db": 2.0 },
    })
}
