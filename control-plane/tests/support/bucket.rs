#![allow(clippy::unwrap_used, dead_code, reason = "shared by test programs that each use a part")]
//! An S3 server in the test's process: `s3s-fs` over a temporary folder, with switches that make it answer 503.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;

pub(crate) const ACCESS: &str = "test-access";
pub(crate) const SECRET: &str = "test-secret-key";

/// What becomes of a call that puts the parts of an upload together.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Completes {
    Work,
    /// 503, and nothing is done.
    Fail,
    /// It is done, and 503 is answered.
    LoseTheAnswer,
}

/// A running S3 server.
pub(crate) struct Bucket {
    folder: TempDir,
    addr: SocketAddr,
    away: Arc<AtomicBool>,
    refused: Arc<Mutex<Option<String>>>,
    completes: Arc<AtomicU8>,
    task: tokio::task::JoinHandle<()>,
}

impl Bucket {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS, SECRET));
        let service = builder.build();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let away = Arc::new(AtomicBool::new(false));
        let switch = Arc::clone(&away);
        let refused = Arc::new(Mutex::new(None::<String>));
        let text = Arc::clone(&refused);
        let completes = Arc::new(AtomicU8::new(Completes::Work as u8));
        let mode = Arc::clone(&completes);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (service, switch, text) = (service.clone(), Arc::clone(&switch), Arc::clone(&text));
                let mode = Arc::clone(&mode);
                let answer = service_fn(move |request: http::Request<Incoming>| {
                    let (service, away) = (service.clone(), switch.load(Ordering::SeqCst));
                    let uri = request.uri().to_string();
                    let refused = text.lock().unwrap().as_ref().is_some_and(|text| uri.contains(text));
                    let completes = request.method() == http::Method::POST && uri.contains("uploadId=");
                    let mode = if completes { mode.load(Ordering::SeqCst) } else { Completes::Work as u8 };
                    async move {
                        let away = away || mode == Completes::Fail as u8;
                        if away || refused {
                            let status = if away { 503 } else { 403 };
                            let response = http::Response::builder().status(status).body(s3s::Body::empty()).unwrap();
                            return Ok::<_, Infallible>(response);
                        }
                        let request = request.map(s3s::Body::from);
                        let mut response = service.call(request).await.unwrap();
                        if mode == Completes::LoseTheAnswer as u8 {
                            // An answer that began as 200 may end as an error: it is done once its body is read.
                            let (_, body) = response.into_parts();
                            http_body_util::BodyExt::collect(body).await.unwrap();
                            response = http::Response::builder().status(503).body(s3s::Body::empty()).unwrap();
                        }
                        Ok(response)
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Self { folder, addr, away, refused, completes, task }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Makes every request fail, or work again.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// Answers 403 to requests whose target contains `text`; `None`: to none.
    pub(crate) fn refuse(&self, text: Option<&str>) {
        *self.refused.lock().unwrap() = text.map(str::to_owned);
    }

    /// Decides over calls that put parts together.
    pub(crate) fn completes(&self, how: Completes) {
        self.completes.store(how as u8, Ordering::SeqCst);
    }

    /// How many files there are of uploads in parts that are not finished.
    pub(crate) fn parts(&self) -> usize {
        let entries = std::fs::read_dir(self.folder.path()).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".upload")).count()
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.path().join("media").join(key)
    }

    /// An object's bytes; `None`: there is none.
    pub(crate) fn object(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path(key)).ok()
    }

    /// Whether any file is under a prefix that ends at a folder.
    pub(crate) fn holds_under(&self, prefix: &str) -> bool {
        fn any(folder: &std::path::Path) -> bool {
            std::fs::read_dir(folder).is_ok_and(|entries| {
                entries.flatten().any(|entry| if entry.path().is_dir() { any(&entry.path()) } else { true })
            })
        }
        any(&self.path(prefix))
    }

    /// Puts an object there, as a worker would.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.path(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.task.abort();
    }
}
