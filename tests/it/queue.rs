//! Two control planes behind a balancer and three workers, and `kill -9` at random among them: every track ends ready, or
//! failed with a reason, none is published twice, and none is stuck.
//!
//! On SQLite (one file for both control planes), or, where `SEGUE_TEST_MYSQL` names a server (`testkit/with-mariadb` does), on
//! MariaDB with a Redis that carries hints. `make jobs-soak` is the long form.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use reqwest::Method;
use segue_testkit::songs;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::roles::{ADMIN, Role, WORKER, control_plane, objects, s3};

/// After the last kill everything comes to its end within this: several leases, and the encoding of what is left.
const ENDS_WITHIN: Duration = Duration::from_secs(120);

/// What a run is like.
#[derive(Debug)]
struct Run {
    /// How long it kills.
    length: Duration,
    uploads: usize,
    seed: u64,
}

impl Run {
    fn from_environment() -> anyhow::Result<Self> {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name} is no number")),
            Err(_) => Ok(default),
        };
        Ok(Self {
            length: Duration::from_secs(number("SEGUE_JOBS_SOAK_SECONDS", 25)?),
            uploads: usize::try_from(number("SEGUE_JOBS_SOAK_UPLOADS", 10)?)?,
            seed: number("SEGUE_JOBS_SOAK_SEED", 2026)?,
        })
    }
}

/// xorshift64, so that choices can be made again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Gives each connection to a control plane that takes it, one after the other.
pub(crate) async fn balancer(behind: Vec<SocketAddr>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (behind, next) = (Arc::new(behind), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (behind, first) = (Arc::clone(&behind), next.fetch_add(1, Ordering::Relaxed));
            tokio::spawn(async move {
                for n in 0..behind.len() {
                    if let Ok(mut server) = TcpStream::connect(behind[(first + n) % behind.len()]).await {
                        // Either side may be killed: the other one sees its connection end.
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}

/// A redis-server that keeps nothing; ends with the test.
struct Redis(Child);

impl Redis {
    fn start(dir: &Path) -> anyhow::Result<(Self, String)> {
        let socket = dir.join("redis");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--dir"]).arg(dir);
        command.arg("--unixsocket").arg(&socket).stdout(Stdio::null());
        let this = Self(command.spawn().context("redis-server is missing; make test installs it")?);
        Ok((this, format!("redis+unix://{}", socket.display())))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct House {
    dir: tempfile::TempDir,
    roles: Vec<Role>,
    api: String,
    http: reqwest::Client,
    _redis: Option<Redis>,
}

impl House {
    async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("segue-queue-").tempdir()?;
        let s3 = s3(&format!("http://{}", objects(&dir.path().join("objects")).await?));
        let server = std::env::var("SEGUE_TEST_MYSQL").ok();
        let mut config = control_plane(dir.path(), &s3, &json!({ "admin": ADMIN, "worker": WORKER }));
        if let Some(server) = &server {
            config["database"] = json!({ "url": mariadb(server, dir.path())? });
            // Else they lie where the test was started.
            config["facts"] = json!({ "dir": dir.path().join("facts").display().to_string() });
        }
        config["jobs"] =
            json!({ "lease": "4s", "backoff": "200ms", "backoff_max": "2s", "sweep": "200ms", "max_attempts": 5 });
        let mut redis = None;
        if server.is_some() {
            let (process, url) = Redis::start(dir.path())?;
            redis = Some(process);
            config["redis"] = json!({ "url": url });
        }
        let mut roles = Vec::new();
        for name in ["control-1", "control-2"] {
            roles.push(Role::start(dir.path(), "control", name, &config).await?);
        }
        let behind = roles.iter().filter_map(Role::addr).collect();
        let api = format!("http://{}", balancer(behind).await?);
        for name in ["w1", "w2", "w3"] {
            let config = json!({
                "control": { "url": api, "token": WORKER }, "objects": s3,
                "transcode": { "work_dir": dir.path().join("work").display().to_string(), "name": name },
            });
            roles.push(Role::start(dir.path(), "transcode", name, &config).await?);
        }
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).pool_max_idle_per_host(0).build()?;
        Ok(Self { dir, roles, api, http, _redis: redis })
    }

    /// A call that is made again until a control plane answers it, as a client behind a balancer does.
    async fn call(&self, method: Method, path: &str, body: Value) -> anyhow::Result<Value> {
        let begun = Instant::now();
        loop {
            let request = self.http.request(method.clone(), format!("{}{path}", self.api)).bearer_auth(ADMIN);
            let last = match request.json(&body).send().await {
                Ok(response) => {
                    let status = response.status();
                    match response.text().await {
                        Ok(text) if status.is_success() => return Ok(serde_json::from_str(&text)?),
                        Ok(text) => {
                            ensure!(status.is_server_error(), "{path}: {status} {text}");
                            format!("{status} {text}")
                        }
                        Err(error) => error.to_string(),
                    }
                }
                Err(error) => error.to_string(),
            };
            ensure!(begun.elapsed() < ENDS_WITHIN, "{path}: {last}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Uploads a song; gives its track.
    async fn upload(&self, song: &Path) -> anyhow::Result<String> {
        let bytes = std::fs::read(song)?;
        let wish = json!({ "filename": "song.wav", "size": bytes.len() });
        let created = self.call(Method::POST, "/v1/tracks", wish).await?;
        let id = created["track"]["track"].as_str().context("no id")?.to_owned();
        let mut put = self.http.put(created["upload"]["url"].as_str().context("no url")?);
        for (name, value) in created["upload"]["headers"].as_object().context("no headers")? {
            if !name.eq_ignore_ascii_case("content-length") {
                put = put.header(name, value.as_str().context("a header is not text")?);
            }
        }
        ensure!(put.body(bytes).send().await?.status().is_success(), "the upload was refused");
        self.call(Method::POST, &format!("/v1/tracks/{id}/uploaded"), json!({})).await?;
        Ok(id)
    }

    /// What listeners are given of a track, if it was ever published.
    fn alias(&self, track: &str) -> Option<String> {
        std::fs::read_to_string(self.dir.path().join("objects/media/hls").join(track).join("master.m3u8")).ok()
    }

    fn logs(&self) -> String {
        let tail = |role: &Role| {
            let log = std::fs::read_to_string(&role.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("== {}\n{}", role.log.display(), lines[lines.len().saturating_sub(40)..].join("\n"))
        };
        self.roles.iter().map(tail).collect::<Vec<_>>().join("\n")
    }
}

/// A database of its own on the server.
fn mariadb(server: &str, dir: &Path) -> anyhow::Result<String> {
    let mut url = url::Url::parse(server)?;
    let socket = url.query_pairs().find(|(key, _)| key == "socket").context("no socket")?.1.into_owned();
    let name =
        format!("segue_queue_{}", dir.file_name().context("no name")?.to_string_lossy().replace(['-', '.'], "_"));
    let made = Command::new("mariadb")
        .args(["--no-defaults", "--user=root", "--socket", &socket, "--execute"])
        .arg(format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4"))
        .status()?;
    ensure!(made.success(), "the database could not be made");
    url.set_path(&name);
    Ok(url.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_control_planes_and_three_workers_under_kills_end_every_track_once() -> anyhow::Result<()> {
    let run = Run::from_environment()?;
    eprintln!("{run:?}");
    let mut house = House::start().await?;
    let outcome = soak(&run, &mut house).await;
    outcome.with_context(|| house.logs())
}

async fn soak(run: &Run, house: &mut House) -> anyhow::Result<()> {
    let songs = [songs::tone(5.0, "five.wav")?, songs::tone(8.0, "eight.wav")?, songs::tone(12.0, "twelve.wav")?];
    let mut dice = Dice(run.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let (begun, mut kills) = (Instant::now(), 0);
    let mut tracks: Vec<String> = Vec::new();
    let mut aliases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    while begun.elapsed() < run.length || tracks.len() < run.uploads {
        // As many uploads as are due by now, spread over the first four fifths.
        let share = begun.elapsed().as_secs_f64() / (run.length.as_secs_f64() * 0.8);
        while tracks.len() < run.uploads && (tracks.len() as f64) < share * run.uploads as f64 + 1.0 {
            let song = &songs[usize::try_from(dice.roll(3))?];
            tracks.push(house.upload(song).await?);
        }
        tokio::time::sleep(Duration::from_millis(100 + dice.roll(1500))).await;
        if begun.elapsed() < run.length {
            let victim = usize::try_from(dice.roll(house.roles.len() as u64))?;
            house.roles[victim].kill().await?;
            kills += 1;
            watch(house, &tracks, &mut aliases);
            tokio::time::sleep(Duration::from_millis(dice.roll(1000))).await;
            house.roles[victim].restart().await?;
        }
        watch(house, &tracks, &mut aliases);
    }
    let last = Instant::now();
    let mut ended: BTreeMap<String, Value> = BTreeMap::new();
    while ended.len() < tracks.len() {
        for track in tracks.iter().filter(|track| !ended.contains_key(*track)).cloned().collect::<Vec<_>>() {
            let shown = house.call(Method::GET, &format!("/v1/tracks/{track}"), json!({})).await?;
            if matches!(shown["status"].as_str(), Some("ready" | "failed")) {
                ended.insert(track, shown);
            } else {
                ensure!(last.elapsed() < ENDS_WITHIN, "stuck: {shown}");
            }
        }
        watch(house, &tracks, &mut aliases);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut ready = 0;
    for (track, shown) in &ended {
        let versions = aliases.get(track).map_or(0, BTreeSet::len);
        if shown["status"] == "ready" {
            ready += 1;
            let alias = house.alias(track).context("ready without an alias")?;
            let version = shown["version"].as_str().context("ready without a version")?;
            ensure!(
                alias.contains(version) && versions == 1,
                "{track} was published {versions} times: {shown}\n{alias}"
            );
        } else {
            ensure!(shown["reason"].is_string() && versions == 0, "failed without a reason, or published: {shown}");
        }
    }
    let jobs = house.call(Method::GET, "/v1/jobs?limit=1000", json!({})).await?;
    let jobs = jobs["jobs"].as_array().context("no jobs")?.clone();
    ensure!(jobs.len() == tracks.len(), "{} jobs of {} tracks", jobs.len(), tracks.len());
    let losses: u64 = jobs.iter().filter_map(|job| job["losses"].as_u64()).sum();
    ensure!(jobs.iter().all(|job| matches!(job["state"].as_str(), Some("done" | "failed"))), "{jobs:?}");
    // Songs that are none too many for the time: chaos delays them and costs no track.
    ensure!(ready == tracks.len(), "{ready} of {} are ready: {ended:?}", tracks.len());
    eprintln!(
        "{ready} of {} tracks ready, {kills} kills, {losses} workers lost with a job, {:?} from the last kill to the end",
        tracks.len(),
        last.elapsed()
    );
    Ok(())
}

/// Notes what listeners are given at this moment.
fn watch(house: &House, tracks: &[String], aliases: &mut BTreeMap<String, BTreeSet<String>>) {
    for track in tracks {
        if let Some(alias) = house.alias(track) {
            aliases.entry(track.clone()).or_default().insert(alias);
        }
    }
}
