//! A transcoder under test: the real worker, a real S3 server over a folder, and a control plane of a hundred lines
//! that speaks the worker protocol and writes down everything it is told.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop where it is")]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path as Param, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use hyper_util::rt::{TokioExecutor, TokioIo};
use segue_config::Secret;
use segue_transcoder::{ControlEndpoint, ObjectStore, TranscodeConfig, Worker};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

const TOKEN: &str = "worker-token";

/// What the control plane was told about a job, in order: the verb and the body.
pub type Told = (String, String, Value);

/// Whether a report ends a job.
pub fn is_end(verb: &str) -> bool {
    verb == "complete" || verb == "fail"
}

#[derive(Default)]
pub struct Control {
    jobs: Mutex<VecDeque<Value>>,
    told: Mutex<Vec<Told>>,
    changed: Notify,
    fence: AtomicI64,
    /// Answers 409 to every progress report from now on.
    pub lease_lost: AtomicBool,
    /// Takes seconds over the end of a job, whose lease is gone meanwhile; says `answered` when it has answered.
    pub slow_end: AtomicBool,
    /// Answers 503 to everything from now on.
    pub away: AtomicBool,
}

impl Control {
    fn tell(&self, job: &str, verb: &str, body: Value) {
        self.told.lock().unwrap().push((job.to_owned(), verb.to_owned(), body));
        self.changed.notify_waiters();
    }

    pub fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    /// Waits for the first report that fits, for two minutes at most.
    pub async fn until(&self, fits: impl Fn(&Told) -> bool) -> Told {
        let found = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(told) = self.told().into_iter().find(&fits) {
                    return told;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(120), found).await {
            Ok(told) => told,
            Err(_) => panic!("not told in time; told so far: {:#?}", self.told()),
        }
    }
}

async fn claim(State(control): State<Arc<Control>>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    if headers.get("authorization").and_then(|value| value.to_str().ok()) != Some(&format!("Bearer {TOKEN}")) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    control.tell("", "claim", body);
    if control.away.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    for _ in 0..400 {
        if let Some(job) = control.jobs.lock().unwrap().pop_front() {
            return Json(job).into_response();
        }
        tokio::select! {
            () = control.changed.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn report(
    State(control): State<Arc<Control>>,
    Param((job, verb)): Param<(String, String)>,
    Json(body): Json<Value>,
) -> Response {
    control.tell(&job, &verb, body);
    if control.away.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if control.slow_end.load(Ordering::SeqCst) && is_end(&verb) {
        control.lease_lost.store(true, Ordering::SeqCst);
        // Several beats come in between. A worker that does not wait for the answer ends this here.
        tokio::time::sleep(Duration::from_secs(3)).await;
        control.lease_lost.store(false, Ordering::SeqCst);
        control.tell(&job, "answered", Value::Null);
        return Json(json!({"lease_ms": 2000})).into_response();
    }
    if control.lease_lost.load(Ordering::SeqCst) {
        return (StatusCode::CONFLICT, Json(json!({"error": "lease-lost", "message": "gone"}))).into_response();
    }
    Json(json!({"lease_ms": 2000})).into_response()
}

/// Everything that a worker needs, on port 0.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub control: Arc<Control>,
    pub config: TranscodeConfig,
    worker: Option<Worker>,
}

impl Bench {
    pub async fn start() -> Self {
        let mut bench = Self::idle().await;
        bench.worker = Some(Worker::start(bench.config.clone()).await.expect("the worker starts"));
        bench
    }

    /// The servers without a worker.
    pub async fn idle() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir_all(dir.path().join("s3/media/uploads")).expect("bucket");
        let control = Arc::new(Control::default());
        let router = Router::new()
            .route("/v1/worker/claim", post(claim))
            .route("/v1/worker/jobs/{job}/{verb}", post(report))
            .with_state(Arc::clone(&control));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("addr"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let endpoint = serve_s3(&dir.path().join("s3")).await;
        let objects = ObjectStore {
            endpoint,
            region: "us-east-1".into(),
            bucket: "media".into(),
            access_key: Secret::literal("access"),
            secret_key: Secret::literal("secret"),
        };
        let endpoint = ControlEndpoint { url, token: Secret::literal(TOKEN) };
        let config = TranscodeConfig::new(endpoint, objects, dir.path().join("work"));
        Self { dir, control, config, worker: None }
    }

    pub async fn run(&mut self) {
        self.worker = Some(Worker::start(self.config.clone()).await.expect("the worker starts"));
    }

    pub async fn stop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.shutdown().await;
        }
    }

    pub fn bucket(&self) -> PathBuf {
        self.dir.path().join("s3/media")
    }

    /// Uploads and queues; returns the job's id.
    pub fn queue(&self, bytes: &[u8], filename: &str) -> String {
        let fence = self.control.fence.fetch_add(1, Ordering::SeqCst) + 1;
        self.queue_as(&format!("track{fence:07}"), fence, &[], bytes, filename)
    }

    /// The same for a track that was tried before: versions of attempts that died while they could be played.
    pub fn queue_again(&self, track: &str, early: &[&str], bytes: &[u8], filename: &str) -> String {
        let fence = self.control.fence.fetch_add(1, Ordering::SeqCst) + 1;
        self.queue_as(track, fence, early, bytes, filename)
    }

    fn queue_as(&self, track: &str, fence: i64, early: &[&str], bytes: &[u8], filename: &str) -> String {
        let key = format!("uploads/{track}-up");
        std::fs::write(self.bucket().join(&key), bytes).expect("upload");
        let job = format!("job-{fence}");
        self.control.jobs.lock().unwrap().push_back(json!({
            "job": job, "track": track, "fence": fence, "attempt": 1, "lease_ms": 2000,
            "source": {"key": key, "bytes": bytes.len(), "filename": filename},
            "early": early,
        }));
        self.control.changed.notify_waiters();
        job
    }

    /// Queues and waits for the end: the verb (`complete` or `fail`) and its body.
    pub async fn end_of(&self, bytes: &[u8], filename: &str) -> (String, Value) {
        let job = self.queue(bytes, filename);
        let (_, verb, body) = self.control.until(|told| told.0 == job && is_end(&told.1)).await;
        (verb, body)
    }

    /// The reason word and message of a job that must fail for good.
    pub async fn refusal(&self, bytes: &[u8], filename: &str) -> (String, String) {
        let (verb, body) = self.end_of(bytes, filename).await;
        assert_eq!(verb, "fail", "{filename}: {body:#}");
        assert_eq!(body["retryable"], false, "{body}");
        (body["reason"].as_str().unwrap().to_owned(), body["message"].as_str().unwrap().to_owned())
    }

    /// A job that must be done; its completion and the folder of its version.
    pub async fn done(&self, bytes: &[u8], filename: &str) -> (Value, PathBuf) {
        let job = self.queue(bytes, filename);
        let (_, verb, body) = self.control.until(|told| told.0 == job && is_end(&told.1)).await;
        assert_eq!(verb, "complete", "{filename}: {body:#}");
        let number: i64 = job.trim_start_matches("job-").parse().unwrap();
        let folder = self.bucket().join(format!("hls/track{number:07}/{}", body["version"].as_str().unwrap()));
        (body, folder)
    }

    /// Job folders that are there at the moment.
    pub fn job_folders(&self) -> usize {
        let workers = std::fs::read_dir(self.dir.path().join("work")).into_iter().flatten().flatten();
        workers
            .flat_map(|worker| std::fs::read_dir(worker.path()).into_iter().flatten().flatten())
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("job-"))
            .count()
    }
}

async fn serve_s3(root: &Path) -> String {
    let files = s3s_fs::FileSystem::new(root).expect("s3 folder");
    let mut builder = s3s::service::S3ServiceBuilder::new(files);
    builder.set_auth(s3s::auth::SimpleAuth::from_single("access", "secret"));
    let service = builder.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("addr");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    format!("http://{address}")
}

/// Runs ffmpeg with `args` (split at spaces), `{out}` being a fresh file named `name`; returns the file's bytes.
pub fn made(name: &str, args: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("tempdir");
    let out = dir.path().join(name);
    ffmpeg(args.split(' ').filter(|arg| !arg.is_empty()).chain([out.to_str().unwrap()]));
    std::fs::read(out).expect("made")
}

/// Runs ffmpeg and returns its standard error.
pub fn ffmpeg<'a>(args: impl IntoIterator<Item = &'a str>) -> String {
    let args: Vec<&str> = args.into_iter().collect();
    let output = Command::new("ffmpeg").args(["-hide_banner", "-nostdin", "-y"]).args(&args).output().expect("ffmpeg");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ffmpeg {args:?}: {log}");
    log
}

/// Ten seconds of changing stereo tones, as ffmpeg input options.
pub const TONES: &str = "-f lavfi -i aevalsrc=0.3*sin(2*PI*(220+40*t)*t)|0.2*sin(2*PI*330*t):s=44100:d=10";

/// A real song of Debian's asc-music, or tones where the package is missing.
pub fn song() -> Vec<u8> {
    std::fs::read("/usr/share/games/asc/music/machine_wars.mp3")
        .unwrap_or_else(|_| made("song.mp3", &format!("{TONES} -b:a 80k")))
}

/// Seconds that a file or playlist decodes to, counted in samples.
pub fn decoded_seconds(path: &Path) -> f64 {
    let path = path.to_str().unwrap();
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i", path, "-map", "0:a:0", "-ac", "1", "-ar", "48000", "-f", "s16le", "-"])
        .output()
        .expect("ffmpeg");
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout.len() as f64 / 2.0 / 48_000.0
}

/// Integrated loudness and true peak by ffmpeg's own meter.
pub fn loudness(path: &Path) -> (f64, f64) {
    let log = ffmpeg(["-nostats", "-i", path.to_str().unwrap(), "-af", "ebur128=peak=true", "-f", "null", "-"]);
    let summary = &log[log.rfind("Summary:").expect("summary")..];
    let value = |key: &str| {
        let line = summary.lines().find(|line| line.trim().starts_with(key)).expect("line");
        line.split_whitespace().nth(1).unwrap().parse::<f64>().expect("number")
    };
    (value("I:"), value("Peak:"))
}
