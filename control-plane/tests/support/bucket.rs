#![allow(clippy::unwrap_used, dead_code, reason = "shared by test programs that each use a part")]
//! An S3 server in the test's process: `s3s-fs` over a temporary folder, with a switch that makes it answer 503.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// A running S3 server.
pub(crate) struct Bucket {
    folder: TempDir,
    addr: SocketAddr,
    away: Arc<AtomicBool>,
    refused: Arc<Mutex<Option<String>>>,
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
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (service, switch, text) = (service.clone(), Arc::clone(&switch), Arc::clone(&text));
                let answer = service_fn(move |request: http::Request<Incoming>| {
                    let (service, away) = (service.clone(), switch.load(Ordering::SeqCst));
                    let uri = request.uri().to_string();
                    let refused = text.lock().unwrap().as_ref().is_some_and(|text| uri.contains(text));
                    async move {
                        if away || refused {
                            let status = if away { 503 } else { 403 };
                            let response = http::Response::builder().status(status).body(s3s::Body::empty()).unwrap();
                            return Ok::<_, Infallible>(response);
                        }
                        let request = request.map(s3s::Body::from);
                        Ok(service.call(request).await.unwrap())
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Self { folder, addr, away, refused, task }
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
