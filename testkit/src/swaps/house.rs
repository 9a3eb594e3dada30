//! One control plane and three edges, each in a process of its own, and the operator's calls.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, setpriority_process};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use super::load::{Clock, SEGMENTS};
use super::versions::{POLICY, Version};
use crate::facts::origin;
use crate::form::{form, kind};
use crate::process::{ADMIN, Process, free_address, get};
use crate::soak::wire::Wire;

pub(super) const EDGES: usize = 3;
const SECRET: &str = "a secret of the swaps, long enough to be one";
const EDGE: &str = "edge-token-of-the-swaps";
/// How long edges may take to have a version ready.
const READY_WITHIN_MS: u64 = 60_000;
/// How long an activation waits for the edges' word.
const WAIT_MS: u64 = 10_000;

/// One activation, in nanoseconds of the clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act {
    pub(super) version: Version,
    /// When the call was made.
    pub(super) called: u64,
    /// When it was answered.
    pub(super) answered: u64,
    /// Whether the answer said that every edge stands on it.
    pub(super) all_on: bool,
}

/// What a fact says of who judged.
#[derive(Debug, Deserialize)]
pub(super) struct Fact {
    ua: Option<String>,
    pub(super) status: u16,
    #[serde(default)]
    pub(super) policy: Option<String>,
    #[serde(default)]
    pub(super) tags: Vec<String>,
}

/// Counts of one edge: by version and by what was said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// By version and verdict: `allow`, `deny`.
    pub(super) verdicts: BTreeMap<(String, String), u64>,
    /// Calls without a verdict.
    pub(super) failures: u64,
}

pub(super) struct House {
    bin: PathBuf,
    dir: PathBuf,
    control: Process,
    edges: Vec<Process>,
    http: reqwest::Client,
}

impl House {
    pub(super) async fn start(bin: &Path, dir: &Path) -> anyhow::Result<Self> {
        let origin = origin::start().await?;
        let path = |name: &str| dir.join(name).display().to_string();
        let address = free_address()?;
        let config = json!({
            "listen": address, "database": { "url": format!("sqlite://{}", path("control.db")) },
            "objects": { "endpoint": "http://127.0.0.1:9", "bucket": "media", "access_key": "a", "secret_key": "b" },
            "edge": { "base_url": "http://edge.test" }, "keys": { "k1": SECRET },
            "tokens": { "admin": ADMIN, "edge": EDGE },
        });
        let mut control = Process::new(bin, dir, "control", "control", (address, (address, "/v1/tracks")), &config)?;
        control.start()?;
        control.ready().await?;
        let mut edges = Vec::new();
        for number in 1..=EDGES {
            let (listen, admin) = (free_address()?, free_address()?);
            let config = json!({
                "name": format!("e{number}"), "listen": listen, "admin_listen": admin,
                "origin": { "kind": "http", "endpoint": format!("http://{origin}") },
                "control": { "url": format!("http://{address}"), "token": EDGE },
                "snapshot": { "dir": path("state") },
                "events": { "kind": "embedded", "dir": path(&format!("facts-e{number}")), "max": "8GiB" },
            });
            let mut edge =
                Process::new(bin, dir, "edge", &format!("e{number}"), (listen, (admin, "/readyz")), &config)?;
            edge.start()?;
            edges.push(edge);
        }
        for edge in &mut edges {
            edge.ready().await?;
        }
        let http = reqwest::Client::builder().timeout(Duration::from_secs(90)).build()?;
        Ok(Self { bin: bin.to_owned(), dir: dir.to_owned(), control, edges, http })
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.edges.iter().map(|edge| edge.address).collect()
    }

    /// Tickets of so many sessions.
    pub(super) async fn tickets(&self, sessions: usize) -> anyhow::Result<Vec<String>> {
        let mut tickets = Vec::new();
        for number in 0..sessions {
            let mut mint = Command::new(&self.bin);
            mint.args(["ticket", "mint", "--json", "--key", "k1", "--ttl", "86400", "--path", "/hls/", "--sid"]);
            let done = mint.arg(format!("s-{number}")).env("SEGUE_KEY_K1", SECRET).output().await?;
            ensure!(done.status.success(), "segue ticket mint: {}", String::from_utf8_lossy(&done.stderr));
            let answer: Value = serde_json::from_slice(&done.stdout)?;
            tickets.push(answer["ticket"].as_str().context("no ticket")?.to_owned());
        }
        Ok(tickets)
    }

    /// Takes every segment once through every edge, so that all of them lie in memory and their places are known.
    pub(super) async fn warm(&self, ticket: &str) -> anyhow::Result<()> {
        for address in self.addresses() {
            let mut wire = Wire::connect(address).await?;
            for segment in 0..SEGMENTS {
                let path = format!("/p/{ticket}/hls/swapped/{}/{}", origin::VERSION, origin::file(segment));
                let request = format!("GET {path} HTTP/1.1\r\nHost: edge.test\r\nUser-Agent: warm\r\n\r\n");
                let answer = wire.ask(&request, false).await?;
                ensure!(answer.status == 200 && answer.whole, "{path}: {}", answer.status);
            }
        }
        Ok(())
    }

    async fn call(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let url = format!("http://{}/v1/policies/{POLICY}/{path}", self.control.address);
        let answer = self.http.post(url).bearer_auth(ADMIN).json(body).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Uploads and pushes every version; all edges have them ready after it.
    pub(super) async fn publish(&self) -> anyhow::Result<()> {
        for version in Version::ALL {
            let name = version.name();
            let form = form(&[("version", name.as_bytes()), ("component", &version.module()?)]);
            let url = format!("http://{}/v1/policies/{POLICY}/versions", self.control.address);
            let request = self.http.post(url).bearer_auth(ADMIN).header("Content-Type", kind()).body(form);
            let answer = request.send().await?;
            let status = answer.status();
            ensure!(status.is_success(), "the upload of {name}: {status} {}", answer.text().await?);
            let pushed = self.call(&format!("push?wait_ms={READY_WITHIN_MS}"), &json!({ "version": name })).await?;
            let ready = pushed["edges"]["ready"].as_array().map(Vec::len);
            ensure!(ready == Some(EDGES), "{name} is not ready everywhere: {pushed}");
        }
        Ok(())
    }

    pub(super) async fn activate(&self, clock: &Clock, version: Version) -> anyhow::Result<Act> {
        let called = clock.now();
        let answer = self.call(&format!("active?wait_ms={WAIT_MS}"), &json!({ "version": version.name() })).await?;
        let answered = clock.now();
        ensure!(answer["done"] == "activate", "{answer}");
        let all_on = answer["edges"]["on"].as_array().map(Vec::len) == Some(EDGES);
        Ok(Act { version, called, answered, all_on })
    }

    /// Gives the control plane the lowest priority, in all of its threads and in those that they begin.
    pub(super) fn control_steps_back(&self) -> anyhow::Result<()> {
        let pid = self.control.pid().context("it does not run")?;
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = Pid::from_raw(thread?.file_name().to_string_lossy().parse()?).context("no thread")?;
            // A thread that has ended meanwhile needs none.
            match setpriority_process(Some(thread), 19) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// CPU time of the edges and of the control plane, in seconds.
    pub(super) fn cpu(&self) -> anyhow::Result<(f64, f64)> {
        let mut edges = 0.0;
        for edge in &self.edges {
            edges += cpu_of(edge)?;
        }
        Ok((edges, cpu_of(&self.control)?))
    }

    /// What each edge counted since it started.
    pub(super) async fn counts(&self) -> anyhow::Result<Vec<Counts>> {
        let mut all = Vec::new();
        for edge in &self.edges {
            let text = get(edge.health.0, "/metrics").await?;
            let mut counts = Counts::default();
            for line in text.lines() {
                let Some((labels, value)) = line.split_once("} ") else { continue };
                let label = |name: &str| {
                    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                    rest.split_once('"').map(|(value, _)| value.to_owned())
                };
                if labels.starts_with("segue_policy_verdicts_total{") {
                    let key = (label("version").context("version")?, label("verdict").context("verdict")?);
                    *counts.verdicts.entry(key).or_default() += value.parse::<u64>()?;
                } else if labels.starts_with("segue_policy_failures_total{") {
                    counts.failures += value.parse::<u64>()?;
                }
            }
            all.push(counts);
        }
        Ok(all)
    }

    /// Stops all and reads the facts out of the edges' logs, by the number of the request; and how many there were.
    pub(super) async fn facts(&mut self) -> anyhow::Result<(HashMap<u64, Vec<(usize, Fact)>>, u64)> {
        let (mut facts, mut count) = (HashMap::<u64, Vec<(usize, Fact)>>::new(), 0);
        for (place, edge) in self.edges.iter_mut().enumerate() {
            edge.stop().await?;
            let mut read = Command::new(&self.bin);
            let done = read.args(["events", "read", "--log"]).arg(self.dir.join(format!("facts-e{}", place + 1)));
            let done = done.output().await?;
            ensure!(done.status.success(), "segue events read: {}", String::from_utf8_lossy(&done.stderr));
            for line in String::from_utf8(done.stdout)?.lines() {
                let fact: Fact = serde_json::from_str(line).with_context(|| line.to_owned())?;
                let ua = fact.ua.as_deref().context("a fact without a user agent")?;
                if ua != "warm" {
                    facts.entry(ua.parse().with_context(|| line.to_owned())?).or_default().push((place, fact));
                    count += 1;
                }
            }
        }
        self.control.stop().await?;
        Ok((facts, count))
    }
}

fn cpu_of(process: &Process) -> anyhow::Result<f64> {
    let pid = process.pid().context("it does not run")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name, which may hold anything: utime and stime are the 14th and 15th fields of proc(5).
    let (_, fields) = stat.rsplit_once(") ").context("a line of proc(5)")?;
    let ticks: Vec<u64> = fields.split(' ').skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    // USER_HZ is 100 on every Linux that this runs on.
    Ok(ticks.iter().sum::<u64>() as f64 / 100.0)
}
