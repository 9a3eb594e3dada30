//! The demo's folder: what it keeps between runs, who may use it, and the configurations that it writes.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Where a demo lives unless it is told otherwise.
pub(crate) const DEFAULT_DIR: &str = ".demo";

const STATE_FILE: &str = "demo.json";
/// What the demo's one edge and one worker are called.
pub(crate) const NAME: &str = "demo";
const BUCKET: &str = "media";
const REGION: &str = "us-east-1";

/// What a running demo says of itself: its one line of `--json`, and the file that the other commands read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DemoState {
    /// The console, with its token in the fragment.
    pub(crate) page: String,
    /// Where players go.
    pub(crate) edge: String,
    /// The control plane's API.
    pub(crate) control: String,
    /// An API token with every scope.
    pub(crate) token: String,
    /// The folder, absolute.
    pub(crate) dir: PathBuf,
    /// The edge's metrics and health.
    pub(crate) admin: String,
    /// The process, so that a watcher can end it.
    pub(crate) pid: u32,
    /// page, edge, objects, admin: tried first at the next start.
    pub(crate) ports: [u16; 4],
}

impl DemoState {
    /// What the demo in `dir` last said of itself.
    pub(crate) fn load(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(STATE_FILE);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not a demo's state", path.display()))
    }
}

/// The listening sockets of a demo, bound before anything else so that a taken port is the first thing said.
pub(crate) struct Ports {
    pub(crate) page: TcpListener,
    pub(crate) edge: TcpListener,
    pub(crate) objects: TcpListener,
    pub(crate) admin: TcpListener,
}

impl Ports {
    /// Binds four loopback ports: `first` and the next three, or with 0 the last run's where they are free, else any.
    pub(crate) fn bind(first: u16, last: Option<[u16; 4]>) -> anyhow::Result<Self> {
        let bind = |index: u16| -> anyhow::Result<TcpListener> {
            if first == 0 {
                let remembered =
                    last.and_then(|ports| TcpListener::bind((Ipv4Addr::LOCALHOST, ports[usize::from(index)])).ok());
                return match remembered {
                    Some(listener) => Ok(listener),
                    None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1"),
                };
            }
            let Some(port) = first.checked_add(index) else {
                bail!("--port {first} leaves no room for the three ports after it")
            };
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| match error.kind() {
                std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
                    "port {port} on 127.0.0.1 is in use by another program; end that, or choose another with --port (0 finds free ones)"
                ),
                _ => anyhow::anyhow!("cannot listen on 127.0.0.1:{port}: {error}"),
            })
        };
        Ok(Self { page: bind(0)?, edge: bind(1)?, objects: bind(2)?, admin: bind(3)? })
    }

    fn numbers(&self) -> anyhow::Result<[u16; 4]> {
        let number = |listener: &TcpListener| listener.local_addr().map(|addr| addr.port());
        Ok([number(&self.page)?, number(&self.edge)?, number(&self.objects)?, number(&self.admin)?])
    }
}

/// An open demo folder. Holding it keeps a second demo out.
pub(crate) struct Folder {
    dir: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder where it is missing, and takes it for this process.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let refuse = |error: std::io::Error| {
            anyhow::anyhow!("cannot write to the folder {}: {error}; choose another with --dir", dir.display())
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(refuse)?;
        let dir = dir.canonicalize().map_err(refuse)?;
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(dir.join("lock"))
            .map_err(refuse)?;
        if lock.try_lock().is_err() {
            let mut holder = String::new();
            lock.read_to_string(&mut holder)?;
            bail!(
                "another demo (process {}) runs in {}; end it, or choose another folder with --dir",
                holder.trim(),
                dir.display()
            );
        }
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())?;
        for part in ["secrets", "objects", "events", "work", "edge", "config"] {
            std::fs::create_dir_all(dir.join(part)).map_err(refuse)?;
        }
        std::fs::create_dir_all(dir.join("objects").join(BUCKET)).map_err(refuse)?;
        let folder = Self { dir, _lock: lock };
        for name in [
            "key-k1",
            "token-admin",
            "token-worker",
            "token-edge",
            "token-edge-admin",
            "s3-access",
            "s3-secret",
            "wrap-w1",
        ] {
            folder.secret(name)?;
        }
        Ok(folder)
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.dir.join("objects")
    }

    pub(crate) fn events(&self) -> PathBuf {
        self.dir.join("events")
    }

    pub(crate) fn config(&self, role: &str) -> PathBuf {
        self.dir.join("config").join(format!("{role}.toml"))
    }

    pub(crate) fn last_ports(&self) -> Option<[u16; 4]> {
        DemoState::load(&self.dir).ok().map(|state| state.ports)
    }

    /// The access key and the secret key of the embedded S3.
    pub(crate) fn s3_credentials(&self) -> anyhow::Result<(String, String)> {
        Ok((self.secret("s3-access")?, self.secret("s3-secret")?))
    }

    /// A secret of this folder, made at the first use: 32 random bytes in hexadecimal, readable by the owner alone.
    fn secret(&self, name: &str) -> anyhow::Result<String> {
        let path = self.dir.join("secrets").join(name);
        match std::fs::read_to_string(&path) {
            Ok(secret) => return Ok(secret.trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
        let mut random = [0u8; 32];
        getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no randomness from the system: {error}"))?;
        let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        write_private(&path, &secret)?;
        Ok(secret)
    }

    /// Writes the roles' configurations for these ports.
    pub(crate) fn write(&self, ports: &Ports) -> anyhow::Result<DemoState> {
        let numbers @ [page, edge, objects, admin] = ports.numbers()?;
        let Some(dir) = self.dir.to_str() else { bail!("the folder's path is not text: {}", self.dir.display()) };
        let secret = |name: &str| format!("file:{dir}/secrets/{name}");
        let s3 = json!({
            "endpoint": format!("http://127.0.0.1:{objects}"),
            "region": REGION,
            "bucket": BUCKET,
            "access_key": secret("s3-access"),
            "secret_key": secret("s3-secret"),
        });
        let mut origin = s3.clone();
        origin["kind"] = json!("s3");
        let keys = json!({ "k1": secret("key-k1") });
        // Nothing is encrypted unless SEGUE_TRANSCODE_ENCRYPTION_METHOD says so.
        let wrapping = json!({ "w1": secret("wrap-w1") });
        let control = json!({
            "listen": format!("127.0.0.1:{page}"),
            "database": { "url": format!("sqlite://{dir}/segue.db") },
            "objects": s3,
            "edge": { "base_url": format!("http://127.0.0.1:{edge}") },
            "keys": keys,
            "tokens": { "admin": secret("token-admin"), "worker": secret("token-worker"), "edge": secret("token-edge") },
            "jobs": { "lease": "10s" },
        });
        let edge_ = json!({
            "name": NAME,
            "listen": format!("127.0.0.1:{edge}"),
            "admin_listen": format!("127.0.0.1:{admin}"),
            "admin": { "token": secret("token-edge-admin") },
            "control": { "url": format!("http://127.0.0.1:{page}"), "token": secret("token-edge") },
            "snapshot": { "dir": format!("{dir}/edge") },
            "origin": origin,
            "keys": keys,
            "wrapping_keys": wrapping,
        });
        let transcode = json!({
            "control": { "url": format!("http://127.0.0.1:{page}"), "token": secret("token-worker") },
            "objects": s3,
            "transcode": { "work_dir": format!("{dir}/work"), "name": NAME },
            "wrapping_keys": wrapping,
        });
        for (role, config) in [("control", control), ("edge", edge_), ("transcode", transcode)] {
            let text = toml::to_string(&config)?;
            write_private(&self.config(role), &format!("# Written by `segue demo` at each start.\n{text}"))?;
        }
        let token = self.secret("token-admin")?;
        Ok(DemoState {
            page: format!("http://127.0.0.1:{page}/#token={token}"),
            edge: format!("http://127.0.0.1:{edge}"),
            control: format!("http://127.0.0.1:{page}"),
            admin: format!("http://127.0.0.1:{admin}"),
            token,
            dir: self.dir.clone(),
            pid: std::process::id(),
            ports: numbers,
        })
    }

    /// Says to the other commands where this demo is. Written once all of it runs.
    pub(crate) fn publish(&self, state: &DemoState) -> anyhow::Result<()> {
        write_private(&self.dir.join(STATE_FILE), &serde_json::to_string_pretty(state)?)
    }
}

/// Writes a file that only its owner reads, whole or not at all.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        std::fs::rename(&part, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
