//! The column of production, whole: two control planes behind a balancer, MariaDB, Redis, an S3 server that is not ours, two workers
//! and two edges, each a process of its own, by the configuration files of `deploy/examples` (`column/parts.rs`). A song is added
//! by the command, plays through both edges, and is counted; then each part dies and comes back.

mod parts;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use reqwest::{Client, StatusCode};
use segue_testkit::{Player, songs};
use serde_json::{Value, json};

use crate::roles::Role;
pub(crate) use parts::{Findings, free_port, ill};
use parts::{Parts, Settings, doctor};

/// From what was done to what comes of it, on a machine that builds something else beside.
const WITHIN: Duration = Duration::from_secs(60);

/// Every role ends within 30 s of SIGTERM (`TimeoutStopSec` of its unit is 45).
const ENDS_WITHIN: Duration = Duration::from_secs(30);

const SECONDS: f64 = 62.0;

struct House {
    parts: Parts,
    controls: Vec<Role>,
    workers: Vec<Role>,
    edges: Vec<Role>,
    http: Client,
}

impl House {
    async fn start() -> anyhow::Result<Self> {
        // The doctor looks at what a role is about to stand on, so each is asked before its role starts.
        let mut parts = Parts::start().await?;
        let ports = [free_port()?, free_port()?];
        let store = parts.store.url();
        let edge = format!("http://127.0.0.1:{}", ports[0]);
        let mut control = Settings::of("control")?;
        control.set("listen", "127.0.0.1:0")?;
        control.set("objects.endpoint", &store)?;
        control.set("objects.public_endpoint", &store)?;
        control.set("edge.base_url", &edge)?;
        let mut controls = Vec::new();
        for name in ["control-1", "control-2"] {
            control.set("facts.dir", &parts.path(&format!("kept-{name}")))?;
            controls.push(parts.role("control", name, &control, &[]).await?);
        }
        let api = parts.balance(controls.iter().filter_map(Role::addr).collect()).await?;

        let mut workers = Vec::new();
        for name in ["w1", "w2"] {
            let mut worker = Settings::of("transcode")?;
            worker.set("control.url", &api)?;
            worker.set("objects.endpoint", &store)?;
            worker.set("transcode.work_dir", &parts.path(&format!("work-{name}")))?;
            // Two on one host are named apart.
            let name_it = [("SEGUE_TRANSCODE_NAME", name)];
            doctor(&parts, "transcode", &worker).await?.all_is_well(&["ffmpeg.cage", "transcode.work_dir"])?;
            workers.push(parts.role("transcode", name, &worker, &name_it).await?);
        }
        let mut edges = Vec::new();
        for (name, port) in ["edge-1", "edge-2"].into_iter().zip(ports) {
            let mut edge = Settings::of("edge")?;
            edge.set("name", name)?;
            edge.set("listen", &format!("127.0.0.1:{port}"))?;
            edge.set("admin_listen", "127.0.0.1:0")?;
            edge.set("origin.endpoint", &store)?;
            edge.set("control.url", &api)?;
            edge.set("snapshot.dir", &parts.path(name))?;
            edge.set("cache.dir", &parts.path(&format!("cache-{name}")))?;
            edge.set("events.dir", &parts.path(&format!("{name}/facts")))?;
            doctor(&parts, "edge", &edge).await?.all_is_well(&["connections.max", "cache.dir"])?;
            edges.push(parts.role("edge", name, &edge, &[]).await?);
        }
        let http = Client::builder().timeout(Duration::from_secs(30)).pool_max_idle_per_host(0).build()?;
        parts.api = api;
        let house = Self { parts, controls, workers, edges, http };
        house.answers(0, "/hls/nothing/master.m3u8", 401).await?;
        doctor(&house.parts, "control", &control).await?.all_is_well(&[])?;
        Ok(house)
    }

    /// The last line that the command says, as JSON.
    async fn segue(&self, args: &[&str]) -> anyhow::Result<Value> {
        let output = self.parts.segue(args).await?;
        let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{args:?}: {said}{told}\n{}", self.logs());
        serde_json::from_str(said.lines().last().unwrap_or_default()).with_context(|| format!("{args:?}: {said}"))
    }

    /// Adds a song by the command; gives its track, and the path that a player opens on any edge.
    async fn add(&self, seconds: f64, name: &str) -> anyhow::Result<(String, String)> {
        let song = songs::tone(seconds, name)?;
        let added = self.segue(&["track", "add", "--json", song.to_str().context("no text")?]).await?;
        ensure!(added["status"] == "ready", "{added}\n{}", self.logs());
        let track = added["track"].as_str().context("no track")?.to_owned();
        Ok((track.clone(), self.ticket(&track).await?))
    }

    /// Each call is another listener.
    async fn ticket(&self, track: &str) -> anyhow::Result<String> {
        let said = self.segue(&["track", "play", track, "--json"]).await?;
        Ok(url::Url::parse(said["url"].as_str().context("no URL")?)?.path().to_owned())
    }

    fn url(&self, edge: usize, path: &str) -> anyhow::Result<String> {
        Ok(format!("{}{path}", self.edges[edge].url()?))
    }

    /// Asks until an edge answers with this status.
    async fn answers(&self, edge: usize, path: &str, status: u16) -> anyhow::Result<()> {
        let (url, begun) = (self.url(edge, path)?, Instant::now());
        loop {
            let last = self.http.get(&url).send().await.map(|answer| answer.status());
            if last.as_ref().is_ok_and(|last| *last == status) {
                return Ok(());
            }
            ensure!(begun.elapsed() < WITHIN, "{path}: {last:?}, not {status}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Takes every segment of every rendition from an edge; gives their bytes.
    async fn take_all(&self, edge: usize, path: &str) -> anyhow::Result<u64> {
        let player = Player::new(&self.url(edge, path)?)?;
        let mut bytes = 0;
        for rendition in player.renditions().await? {
            bytes += player.get(&rendition.init).await?.len() as u64;
            for (segment, _) in &rendition.segments {
                bytes += player.get(segment).await.with_context(|| self.logs())?.len() as u64;
            }
        }
        Ok(bytes)
    }

    /// ffmpeg plays every rendition from an edge to its end, and finds nothing to complain about.
    async fn decodes(&self, edge: usize, path: &str, seconds: f64) -> anyhow::Result<()> {
        let url = self.url(edge, path)?;
        let said = tokio::task::spawn_blocking(move || {
            songs::ffmpeg(&["-v", "warning", "-stats", "-xerror", "-i", &url, "-map", "0:a", "-f", "null", "-"])
        });
        let said = said.await??;
        let time = said.rsplit_once("time=").and_then(|(_, rest)| rest.split_whitespace().next()).context("no time")?;
        let decoded = time.split(':').try_fold(0.0, |sum, part| part.parse::<f64>().map(|part| sum * 60.0 + part))?;
        ensure!((decoded - seconds).abs() < 0.2, "{decoded} s were decoded of {seconds}:\n{said}");
        Ok(())
    }

    /// Waits until the sums of a track are these.
    async fn counted(&self, track: &str, plays: u64, bytes: Option<u64>) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let last = self.call("GET", &format!("/v1/tracks/{track}/stats")).await;
            if let Ok((StatusCode::OK, stats)) = &last {
                let all = stats["plays"] == plays && stats["qualified"] == plays && stats["listeners"] == plays;
                if all && bytes.is_none_or(|bytes| stats["bytes"] == bytes) {
                    return Ok(());
                }
            }
            ensure!(begun.elapsed() < WITHIN, "not {plays} plays of {bytes:?} bytes: {last:?}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// One call of the API through the balancer, and no second one.
    async fn call(&self, method: &str, path: &str) -> anyhow::Result<(StatusCode, Value)> {
        let request = self.http.request(method.parse()?, format!("{}{path}", self.parts.api));
        let answer = request.bearer_auth(self.parts.secret("SEGUE_TOKEN")?).json(&json!({})).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Asks until the API answers with this status; gives the answer.
    async fn api_answers(&self, path: &str, status: u16) -> anyhow::Result<Value> {
        let begun = Instant::now();
        loop {
            let last = self.call("GET", path).await;
            match last {
                Ok((said, answer)) if said == status => return Ok(answer),
                last => ensure!(begun.elapsed() < WITHIN, "{path}: {last:?}, not {status}\n{}", self.logs()),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn logs(&self) -> String {
        let tail = |role: &Role| {
            let log = std::fs::read_to_string(&role.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("== {}\n{}", role.log.display(), lines[lines.len().saturating_sub(20)..].join("\n"))
        };
        self.controls.iter().chain(&self.workers).chain(&self.edges).map(tail).collect::<Vec<_>>().join("\n")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_column_of_production_plays_counts_and_outlives_each_of_its_parts() -> anyhow::Result<()> {
    let mut house = House::start().await?;
    let (track, first) = house.add(SECONDS, "column.flac").await?;
    for edge in [0, 1] {
        house.answers(edge, &first, 200).await?;
    }
    let second = house.ticket(&track).await?;
    house.decodes(0, &first, SECONDS).await?;
    house.decodes(1, &second, SECONDS).await?;
    house.counted(&track, 2, None).await?;

    redis_dies(&mut house, &track).await?;
    mariadb_dies(&mut house, &track).await?;
    the_store_goes(&mut house, &track).await?;
    a_control_plane_dies(&mut house).await?;
    an_edge_dies(&mut house).await?;
    all_end_in_time(house).await
}

/// Listeners hear on; limits are each edge's own meanwhile.
async fn redis_dies(house: &mut House, track: &str) -> anyhow::Result<()> {
    let path = house.ticket(track).await?;
    house.parts.redis.kill().await?;
    for edge in [0, 1] {
        house.take_all(edge, &path).await?;
    }
    let told = house.parts.doctor_again("edge-1").await?;
    ill(&told, "redis", "Redis runs")?;
    house.parts.redis.start().await?;
    house.take_all(0, &path).await?;
    house.parts.doctor_again("edge-1").await?.is_well("redis")
}

/// Listeners hear on; the API says that it is its database; afterwards every play is there.
async fn mariadb_dies(house: &mut House, track: &str) -> anyhow::Result<()> {
    let path = house.ticket(track).await?;
    house.parts.mariadb.kill().await?;
    for edge in [0, 1] {
        house.take_all(edge, &path).await?;
    }
    let (status, said) = house.call("GET", "/v1/tracks").await?;
    ensure!(status.is_server_error() && said["error"].is_string() && said["detail"].is_string(), "{status} {said}");
    house.parts.mariadb.start().await?;
    house.api_answers("/v1/tracks", 200).await?;
    // Two before, one while Redis was away, this one.
    house.counted(track, 4, None).await
}

/// What is cached plays on; what is not is refused in words; afterwards it plays.
async fn the_store_goes(house: &mut House, track: &str) -> anyhow::Result<()> {
    let (other, cold) = house.add(8.0, "cold.flac").await?;
    let warm = house.ticket(track).await?;
    house.take_all(0, &warm).await?;
    house.parts.store.shut().await?;
    house.take_all(0, &warm).await?;
    let refused = house.http.get(house.url(1, &cold)?).send().await?;
    let (status, said) = (refused.status(), refused.text().await?);
    let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    ensure!(matches!(status.as_u16(), 502..=504) && said["message"].is_string(), "{status} {said}");
    let (status, said) = house.call("DELETE", &format!("/v1/tracks/{other}/upload")).await?;
    ensure!(status == 409, "what needs no store works: {status} {said}");
    ill(&house.parts.doctor_again("edge-1").await?, "origin", "endpoint")?;
    ill(&house.parts.doctor_again("w1").await?, "objects", "endpoint")?;
    ill(&house.parts.doctor_again("control-1").await?, "objects", "endpoint")?;
    house.parts.store.open().await?;
    house.answers(1, &cold, 200).await?;
    house.take_all(1, &cold).await.map(drop)
}

/// The balancer goes on with the other one, which does all that a control plane does.
async fn a_control_plane_dies(house: &mut House) -> anyhow::Result<()> {
    house.controls[0].kill().await?;
    let (track, path) = house.add(8.0, "one-control.flac").await?;
    house.answers(0, &path, 200).await?;
    let bytes = house.take_all(0, &path).await?;
    // No half minute was delivered in time, but half of the track, and more.
    house.counted(&track, 1, Some(bytes)).await?;
    house.controls[0].restart().await
}

/// Its listeners go on at the other one; it comes back with what was on its disk, and nothing that it delivered is lost.
async fn an_edge_dies(house: &mut House) -> anyhow::Result<()> {
    let (track, path) = house.add(9.0, "one-edge.flac").await?;
    house.answers(0, &path, 200).await?;
    let mut bytes = house.take_all(0, &path).await?;
    house.edges[0].kill().await?;
    house.answers(1, &path, 200).await?;
    bytes += house.take_all(1, &path).await?;
    house.edges[0].restart().await?;
    house.answers(0, &path, 200).await?;
    bytes += house.take_all(0, &path).await?;
    house.counted(&track, 1, Some(bytes)).await
}

/// In the order in which an operator would: nobody waits for somebody who is gone.
async fn all_end_in_time(mut house: House) -> anyhow::Result<()> {
    let roles = house.edges.iter_mut().chain(&mut house.workers).chain(&mut house.controls);
    for role in roles {
        let begun = Instant::now();
        let status = role.stop(ENDS_WITHIN).await?;
        println!("{} ended in {:?}", role.log.display(), begun.elapsed());
        ensure!(status.success(), "{}: {status}", role.log.display());
        let log = std::fs::read_to_string(&role.log)?;
        ensure!(!log.contains("panicked"), "{log}");
    }
    house.parts.end().await
}
