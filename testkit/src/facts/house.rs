//! Three edges and the tally, each in a process of its own, ended by `kill -9` and started again on what they left.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::{Settings, origin, player};
use crate::soak::wire::Wire;

pub(crate) const EDGES: usize = 3;
const SECRET: &str = "a secret of the soak, long enough to be one";
const ADMIN: &str = "admin-token-of-the-soak";
const EDGE: &str = "edge-token-of-the-soak";
/// From start to ready, on a machine that builds something else beside.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Ports to choose from.
const FIRST_PORT: u32 = 20_000;
const PORTS: u32 = 10_000;
/// From SIGTERM to the end.
const ENDS_WITHIN: Duration = Duration::from_secs(40);

/// What the soak reads of a fact.
#[derive(Debug, Deserialize)]
pub(crate) struct Fact {
    pub(crate) id: String,
    pub(crate) track: String,
    pub(crate) file: String,
    pub(crate) sid: String,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) complete: bool,
    #[serde(default)]
    pub(crate) recovered: bool,
    #[serde(default)]
    pub(crate) cmcd: Value,
}

impl Fact {
    /// The number of the request that it tells of.
    pub(crate) fn number(&self) -> Option<u64> {
        self.cmcd.get(player::NUMBER)?.as_u64()
    }
}

/// A track's sums, as the control plane gives them.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub(crate) struct Sums {
    pub(crate) plays: u64,
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
}

/// A role in a process.
struct Process {
    bin: PathBuf,
    role: &'static str,
    config: PathBuf,
    log: PathBuf,
    /// Where clients go, and where it says that it is ready.
    address: SocketAddr,
    health: (SocketAddr, &'static str),
    child: Option<Child>,
}

impl Process {
    fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.bin);
        command.args([self.role, "--config"]).arg(&self.config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        self.child = Some(command.spawn().with_context(|| format!("cannot run {}", self.bin.display()))?);
        Ok(())
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        while started.elapsed() < READY_WITHIN {
            if get(self.health.0, self.health.1).await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                bail!("{} ended by itself, {status}\n{}", self.role, self.tail());
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        bail!("{} was not ready within {READY_WITHIN:?}\n{}", self.role, self.tail())
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        match self.child.take() {
            Some(mut child) => child.kill().await.context("cannot kill"),
            None => Ok(()),
        }
    }

    /// Ends it as an operator does.
    async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.context("it has ended already")?, rustix::process::Signal::TERM)?;
        let status = tokio::time::timeout(ENDS_WITHIN, child.wait()).await;
        let status = status.with_context(|| format!("{} did not end after SIGTERM\n{}", self.role, self.tail()))??;
        ensure!(status.success(), "{} ended with {status}\n{}", self.role, self.tail());
        Ok(())
    }

    fn tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(4096)..]).into_owned()
    }
}

/// Asks a page of an operator's; what it says where it is well.
async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut wire = Wire::connect(address).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\nConnection: close\r\n\r\n");
    let answer = wire.ask(&request, false).await?;
    ensure!(answer.status == 200 && answer.whole, "{path}: {}", answer.status);
    Ok(String::from_utf8(answer.body)?)
}

/// The whole.
pub(crate) struct House {
    bin: PathBuf,
    dir: PathBuf,
    tally: Process,
    edges: Vec<Process>,
    http: reqwest::Client,
}

impl House {
    pub(crate) async fn start(settings: &Settings, dir: &Path) -> anyhow::Result<Self> {
        let origin = origin::start().await?;
        let (bin, path) = (settings.segue.clone(), |name: &str| dir.join(name).display().to_string());
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let fluvio = |mut section: Value| {
            if let Some(address) = &settings.fluvio {
                section["kind"] = json!("fluvio");
                section["endpoint"] = json!(address);
                section["prefix"] = json!(format!("soak-{now}-"));
            }
            section
        };
        let control = free_address()?;
        let objects = json!({
            "endpoint": "http://127.0.0.1:9", "bucket": "media", "access_key": "a", "secret_key": "b",
        });
        let config = json!({
            "listen": control, "database": { "url": format!("sqlite://{}", path("tally.db")) }, "objects": objects,
            "edge": { "base_url": "http://edge.test" }, "keys": { "k1": SECRET },
            "tokens": { "admin": ADMIN, "edge": EDGE }, "events": fluvio(json!({ "kind": "control" })),
        });
        let process = |role, name: &str, address, health, config: &Value| {
            let file = dir.join(format!("{name}.toml"));
            std::fs::write(&file, to_toml(config))?;
            let log = dir.join(format!("{name}.log"));
            anyhow::Ok(Process { bin: bin.clone(), role, config: file, log, address, health, child: None })
        };
        let mut tally = process("control", "tally", control, (control, "/v1/tracks"), &config)?;
        tally.start()?;
        tally.ready().await?;
        let mut edges = Vec::new();
        for number in 1..=EDGES {
            let (address, admin) = (free_address()?, free_address()?);
            let config = json!({
                "name": format!("e{number}"), "listen": address, "admin_listen": admin,
                "origin": { "kind": "http", "endpoint": format!("http://{origin}") }, "keys": { "k1": SECRET },
                "control": { "url": format!("http://{control}"), "token": EDGE },
                "snapshot": { "dir": path("state") },
                "events": fluvio(json!({ "kind": "control", "dir": path(&format!("facts-e{number}")) })),
            });
            edges.push(process("edge", &format!("e{number}"), address, (admin, "/readyz"), &config)?);
        }
        for edge in &mut edges {
            edge.start()?;
        }
        for edge in &mut edges {
            edge.ready().await?;
        }
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
        Ok(Self { bin: settings.segue.clone(), dir: dir.to_owned(), tally, edges, http })
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.edges.iter().map(|edge| edge.address).collect()
    }

    /// Makes tracks, of which nothing but their names is needed.
    pub(crate) async fn tracks(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let mut tracks = Vec::new();
        for number in 0..count {
            let wish = json!({ "filename": format!("{number}.wav"), "size": 1000 });
            let url = format!("http://{}/v1/tracks", self.tally.address);
            let answer = self.http.post(url).bearer_auth(ADMIN).json(&wish).send().await?;
            ensure!(answer.status().is_success(), "a track was refused: {}", answer.text().await?);
            let made: Value = serde_json::from_str(&answer.text().await?)?;
            tracks.push(made["track"]["track"].as_str().context("no id")?.to_owned());
        }
        Ok(tracks)
    }

    /// A ticket for every track, for each player's session.
    pub(crate) async fn tickets(&self, players: u64) -> anyhow::Result<Vec<String>> {
        let mut tickets = Vec::new();
        for number in 0..players {
            let mut mint = Command::new(&self.bin);
            mint.args(["ticket", "mint", "--json", "--key", "k1", "--ttl", "86400", "--path", "/hls/", "--sid"]);
            let done = mint.arg(player::sid(number)).env("SEGUE_KEY_K1", SECRET).output().await?;
            ensure!(done.status.success(), "segue ticket mint: {}", String::from_utf8_lossy(&done.stderr));
            let answer: Value = serde_json::from_slice(&done.stdout)?;
            tickets.push(answer["ticket"].as_str().context("no ticket")?.to_owned());
        }
        Ok(tickets)
    }

    pub(crate) async fn kill_edge(&mut self, edge: usize) -> anyhow::Result<()> {
        self.edges.get_mut(edge).context("no such edge")?.kill().await
    }

    pub(crate) async fn restart_edge(&mut self, edge: usize) -> anyhow::Result<()> {
        let edge = self.edges.get_mut(edge).context("no such edge")?;
        edge.start()?;
        edge.ready().await
    }

    pub(crate) async fn kill_tally(&mut self) -> anyhow::Result<()> {
        self.tally.kill().await
    }

    pub(crate) async fn restart_tally(&mut self) -> anyhow::Result<()> {
        self.tally.start()?;
        self.tally.ready().await
    }

    /// Waits until no edge has anything left to hand over.
    ///
    /// # Errors
    /// When it takes longer than that.
    pub(crate) async fn drained(&self, within: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        for edge in &self.edges {
            loop {
                let text = get(edge.health.0, "/metrics").await?;
                let waits =
                    text.lines().find_map(|line| line.strip_prefix("segue_ship_waiting_bytes{stream=\"facts\"} "));
                if waits == Some("0") {
                    break;
                }
                ensure!(began.elapsed() < within, "after {within:?} {waits:?} bytes of facts wait\n{}", edge.tail());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Stops the edges and reads all facts out of their logs.
    pub(crate) async fn facts(&mut self) -> anyhow::Result<Vec<Fact>> {
        let mut facts = Vec::new();
        for (number, edge) in (1..).zip(&mut self.edges) {
            edge.stop().await?;
            let mut read = Command::new(&self.bin);
            let done = read.args(["events", "read", "--log"]).arg(self.dir.join(format!("facts-e{number}")));
            let done = done.output().await?;
            ensure!(done.status.success(), "segue events read: {}", String::from_utf8_lossy(&done.stderr));
            for line in String::from_utf8(done.stdout)?.lines() {
                facts.push(serde_json::from_str(line).with_context(|| line.to_owned())?);
            }
        }
        Ok(facts)
    }

    /// What the tally counted of a track.
    pub(crate) async fn sums(&self, track: &str) -> anyhow::Result<Sums> {
        let text = get(self.tally.address, &format!("/v1/tracks/{track}/stats")).await?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        self.tally.stop().await
    }
}

/// A configuration of strings, numbers and tables one deep.
fn to_toml(config: &Value) -> String {
    let (mut text, mut tables) = (String::new(), String::new());
    for (key, value) in config.as_object().into_iter().flatten() {
        match value.as_object() {
            None => text.push_str(&format!("{key} = {value}\n")),
            Some(table) => {
                tables.push_str(&format!("[{key}]\n"));
                tables.extend(table.iter().map(|(key, value)| format!("{key} = {value}\n")));
            }
        }
    }
    text + &tables
}

/// A port that nobody holds now. A process is killed and comes back to it, so that it cannot be the kernel's choice; and it
/// lies below those that the kernel gives to connections, of which one could take it in between (ip(7), ip_local_port_range).
fn free_address() -> anyhow::Result<SocketAddr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..PORTS {
        let place = (std::process::id().wrapping_mul(97) % PORTS + NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let port = u16::try_from(FIRST_PORT + place)?;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("none of {PORTS} ports from {FIRST_PORT} on is free")
}
