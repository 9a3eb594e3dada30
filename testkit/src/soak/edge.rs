//! The edge under test: the real command in a process of its own, killed and started again.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::process::{Child, Command};

use super::truth::lock;
use super::wire::Wire;

const SECRET: &str = "a secret of the soak, long enough to be one";
const ADMIN_TOKEN: &str = "the soak's own admin token";
/// What the edge may keep in memory, and what its fills may hold.
pub(crate) const MEMORY: u64 = 32 << 20;
const IN_FLIGHT: u64 = 16 << 20;
/// The largest object that it keeps.
pub(crate) const MAX_OBJECT: u64 = 256 << 10;
/// What it may keep on disk.
const DISK: u64 = 96 << 20;
/// Anonymous memory at most: its two bounds, and the rest of it (code's data, connections, tickets, timelines, and what
/// the allocator holds back under a load that comes and goes).
pub(crate) const RSS_MAX: u64 = MEMORY + IN_FLIGHT + (112 << 20);
/// The folder of its cache at most: what it may keep, and its own books.
pub(crate) const CACHE_DIR_MAX: u64 = DISK + DISK / 8 + (16 << 20);
/// The folder of its facts at most: 1 GiB of facts, 64 MiB of denials, and what is noted.
pub(crate) const EVENTS_DIR_MAX: u64 = (1 << 30) + (64 << 20) + (64 << 20);
/// How long an object that changes is served without asking the origin.
pub(crate) const TTL: Duration = Duration::from_secs(1);
/// And beyond that while the origin fails or is slow.
pub(crate) const STALE_IF_ERROR: Duration = Duration::from_secs(3);
const READY_WITHIN: Duration = Duration::from_secs(60);
/// After it was ready again: what a request that began in the meantime may still feel.
const RESTART_ECHO: Duration = Duration::from_secs(2);

/// The edge, and what became of it.
#[derive(Debug)]
pub(crate) struct EdgeProcess {
    bin: PathBuf,
    dir: PathBuf,
    /// Where clients go.
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    /// Which start this is; a connection of an earlier one is dead.
    pub(crate) incarnation: AtomicU64,
    /// Whether it has a disk tier.
    pub(crate) disk: bool,
    child: tokio::sync::Mutex<Child>,
    outages: Mutex<Vec<(Instant, Option<Instant>)>>,
}

impl EdgeProcess {
    pub(crate) async fn start(bin: &Path, dir: &Path, origin: SocketAddr) -> anyhow::Result<Self> {
        let (address, admin) = (free_address()?, free_address()?);
        let least = config(dir, address, admin, origin);
        let with_disk =
            format!("{least}\n[cache]\ndisk = \"{DISK}B\"\ndir = \"{}\"\n{CACHE}", cache_dir(dir).display());
        // An edge that has no disk tier yet refuses its keys, and is tried without.
        let disk = accepts(bin, dir, &with_disk).await?;
        if !disk && !accepts(bin, dir, &format!("{least}\n[cache]\n{CACHE}")).await? {
            bail!("the edge refuses the soak's configuration, {}", dir.join("edge.toml").display());
        }
        let child = spawn(bin, dir)?;
        let edge = Self {
            bin: bin.to_owned(),
            dir: dir.to_owned(),
            address,
            admin,
            incarnation: AtomicU64::new(0),
            disk,
            child: tokio::sync::Mutex::new(child),
            outages: Mutex::default(),
        };
        edge.ready().await?;
        Ok(edge)
    }

    /// `kill -9`, and up again on what it left.
    pub(crate) async fn kill_and_restart(&self) -> anyhow::Result<()> {
        let mut child = self.child.lock().await;
        lock(&self.outages).push((Instant::now(), None));
        child.kill().await.context("cannot kill the edge")?;
        *child = spawn(&self.bin, &self.dir)?;
        self.ready().await?;
        self.incarnation.fetch_add(1, Ordering::AcqRel);
        if let Some((_, until)) = lock(&self.outages).last_mut() {
            *until = Some(Instant::now());
        }
        Ok(())
    }

    /// Whether it was away at any time from `began` until now.
    pub(crate) fn was_away(&self, began: Instant) -> bool {
        lock(&self.outages).iter().any(|(_, until)| until.is_none_or(|until| until + RESTART_ECHO >= began))
    }

    /// Drops what is kept of a track.
    pub(crate) async fn purge(&self, track: &str) -> anyhow::Result<()> {
        let body = serde_json::json!({ "track": track }).to_string();
        let request = format!(
            "POST /purge HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = Wire::connect(self.admin).await?.ask(&request, false).await?;
        if answer.status != 200 {
            bail!("a purge was answered with {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        Ok(())
    }

    /// Anonymous memory of the process, in bytes.
    pub(crate) async fn memory(&self) -> Option<u64> {
        let pid = self.child.lock().await.id()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// Bytes on disk of its cache and of its facts.
    pub(crate) fn disk_use(&self) -> (u64, u64) {
        (bytes_under(&cache_dir(&self.dir)), bytes_under(&self.dir.join("events")))
    }

    /// Whether it has ended by itself, and how.
    pub(crate) async fn has_ended(&self) -> Option<String> {
        let status = self.child.lock().await.try_wait().ok().flatten()?;
        Some(status.to_string())
    }

    /// The end of its log.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.dir.join("edge.log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(4096)..]).into_owned()
    }

    /// Tickets of different sessions for a track.
    pub(crate) async fn tickets(&self, track: &str, count: usize) -> anyhow::Result<Vec<String>> {
        let mut tickets = Vec::new();
        for session in 0..count {
            let mut mint = Command::new(&self.bin);
            mint.args(["ticket", "mint", "--json", "--key", "k1", "--ttl", "86400", "--path"]);
            mint.arg(format!("/hls/{track}/")).args(["--sid", &format!("session-{session}")]);
            let done = mint.env("SEGUE_KEY_K1", SECRET).output().await.context("cannot run segue ticket mint")?;
            if !done.status.success() {
                bail!("segue ticket mint: {}", String::from_utf8_lossy(&done.stderr));
            }
            let answer: Value = serde_json::from_slice(&done.stdout)?;
            tickets.push(answer["ticket"].as_str().context("no ticket")?.to_owned());
        }
        Ok(tickets)
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        while started.elapsed() < READY_WITHIN {
            if let Ok(mut wire) = Wire::connect(self.admin).await
                && let Ok(answer) = wire.ask("GET /readyz HTTP/1.1\r\nHost: admin\r\n\r\n", false).await
                && answer.status == 200
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the edge was not ready within {READY_WITHIN:?}\n{}", self.log())
    }
}

/// The rest of `[cache]`; it stands last in the file.
const CACHE: &str = "memory = \"32MiB\"\nmax_object = \"256KiB\"\nin_flight = \"16MiB\"\nstale_if_error = \"3s\"\nstale_while_revalidate = \"3s\"\n\
    [cache.ttl]\nmaster = \"1s\"\nother = \"1s\"\nmissing = \"1s\"\n";

fn config(dir: &Path, address: SocketAddr, admin: SocketAddr, origin: SocketAddr) -> String {
    format!(
        "name = \"soak\"\nlisten = \"{address}\"\nadmin_listen = \"{admin}\"\n\
         [origin]\nkind = \"s3\"\nendpoint = \"http://{origin}\"\nregion = \"us-east-1\"\nbucket = \"media\"\n\
         access_key = \"soak\"\nsecret_key = \"soak-secret\"\nread_timeout = \"3s\"\ntotal_timeout = \"10s\"\n\
         [keys]\nk1 = \"{SECRET}\"\n[admin]\ntoken = \"{ADMIN_TOKEN}\"\n\
         [events]\nkind = \"embedded\"\ndir = \"{}\"\n",
        dir.join("events").display()
    )
}

fn cache_dir(dir: &Path) -> PathBuf {
    dir.join("cache")
}

/// Writes the configuration and asks the command what it thinks of it.
async fn accepts(bin: &Path, dir: &Path, config: &str) -> anyhow::Result<bool> {
    let file = dir.join("edge.toml");
    std::fs::write(&file, config)?;
    let mut check = Command::new(bin);
    let done = check.args(["edge", "--check", "--config"]).arg(&file).output().await;
    Ok(done.with_context(|| format!("cannot run {}", bin.display()))?.status.success())
}

fn spawn(bin: &Path, dir: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("edge.log"))?;
    let mut edge = Command::new(bin);
    edge.args(["edge", "--config"]).arg(dir.join("edge.toml")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    edge.kill_on_drop(true).spawn().with_context(|| format!("cannot start {}", bin.display()))
}

/// A port that nobody holds now. The edge is killed and comes back to it, so that it cannot be the kernel's choice.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// What is allocated on disk, not what the files' lengths say: they may be sparse.
fn bytes_under(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_under(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}
