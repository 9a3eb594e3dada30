//! Three edges and the tally, each in a process of its own, ended by `kill -9` and started again on what they left.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{Settings, origin, player};
use crate::process::{ADMIN, Process, free_address, get};

pub(crate) const EDGES: usize = 3;
const SECRET: &str = "a secret of the soak, long enough to be one";
const EDGE: &str = "edge-token-of-the-soak";

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
            Process::new(&bin, dir, role, name, (address, health), config)
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
