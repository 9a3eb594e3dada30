//! Every role in a process of its own: one control plane, one worker, two edges, and an S3 server.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reqwest::Method;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use segue_testkit::player::{Player, object_path};
use segue_testkit::songs;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use url::Url;

const WITHIN: Duration = Duration::from_secs(120);
pub(crate) const ADMIN: &str = "admin-token-of-the-tests";
pub(crate) const WORKER: &str = "worker-token-of-the-tests";
pub(crate) const EDGE: &str = "edge-token-of-the-tests";

/// A role's process; killed when it is dropped.
pub(crate) struct Role {
    config: PathBuf,
    role: &'static str,
    variables: Vec<(String, String)>,
    pub(crate) log: PathBuf,
    child: Child,
    addr: Option<SocketAddr>,
}

impl Role {
    pub(crate) async fn start(dir: &Path, role: &'static str, name: &str, config: &Value) -> anyhow::Result<Self> {
        Self::start_with(dir, role, name, &toml::to_string(config)?, Vec::new()).await
    }

    /// The same with a configuration as it is written, and variables of the environment.
    pub(crate) async fn start_with(
        dir: &Path,
        role: &'static str,
        name: &str,
        config: &str,
        variables: Vec<(String, String)>,
    ) -> anyhow::Result<Self> {
        let path = dir.join(format!("{name}.toml"));
        std::fs::write(&path, config)?;
        let log = dir.join(format!("{name}.log"));
        let child = spawn(role, &path, &log, &variables)?;
        let mut this = Self { config: path, role, variables, log, child, addr: None };
        this.ready(0).await?;
        Ok(this)
    }

    /// Ends it as systemd does, and gives its exit status.
    pub(crate) async fn stop(&mut self, within: Duration) -> anyhow::Result<std::process::ExitStatus> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.context("it has ended already")?, rustix::process::Signal::TERM)?;
        let ended = tokio::time::timeout(within, self.child.wait()).await;
        Ok(ended.with_context(|| format!("{} did not end within {within:?}", self.log.display()))??)
    }

    /// Waits for the word in the log behind `from`, and reads the address that stands there.
    async fn ready(&mut self, from: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let log = std::fs::read_to_string(&self.log)?;
            let said = log.get(from..).unwrap_or_default().lines().find(|line| line.contains(" is ready"));
            if let Some(line) = said {
                let addr = line.split_whitespace().find_map(|word| word.strip_prefix("addr="));
                self.addr = addr.map(str::parse).transpose()?;
                return Ok(());
            }
            ensure!(begun.elapsed() < WITHIN, "{} is not ready:\n{log}", self.role);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Starts again on what it left, at the address that it had.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        if let Some(addr) = self.addr {
            let mut config: toml::Table = std::fs::read_to_string(&self.config)?.parse()?;
            config.insert("listen".to_owned(), toml::Value::String(addr.to_string()));
            std::fs::write(&self.config, toml::to_string(&config)?)?;
        }
        let from = std::fs::read_to_string(&self.log)?.len();
        self.child = spawn(self.role, &self.config, &self.log, &self.variables)?;
        self.ready(from).await
    }

    pub(crate) fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    pub(crate) fn url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.addr.context("it said no address")?))
    }
}

fn spawn(role: &str, config: &Path, log: &Path, variables: &[(String, String)]) -> anyhow::Result<Child> {
    Command::new(crate::SEGUE)
        .args([role, "--config"])
        .arg(config)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::options().create(true).append(true).open(log)?)
        .kill_on_drop(true)
        .spawn()
        .context("cannot run segue")
}

/// How the S3 server at this URL is reached.
pub(crate) fn s3(store: &str) -> Value {
    json!({
        "endpoint": store, "region": "us-east-1", "bucket": "media", "access_key": "access",
        "secret_key": "secret-of-the-tests",
    })
}

/// A control plane that keeps everything under `dir` but its objects, and knows these tokens.
pub(crate) fn control_plane(dir: &Path, objects: &Value, tokens: &Value) -> Value {
    json!({
        "listen": "127.0.0.1:0", "edge": { "base_url": "http://edge.test" }, "objects": objects, "tokens": tokens,
        "database": { "url": format!("sqlite://{}", dir.join("segue.db").display()) },
        "keys": { "k1": "0123456789abcdef0123456789abcdef" },
    })
}

/// What the command says on standard output to whoever has this token; it must go well.
pub(crate) async fn segue(control: &str, token: &str, args: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(crate::SEGUE);
    command.args(args).args(["--control", control]).env("SEGUE_TOKEN", token);
    let done = command.output().await.context("cannot run segue")?;
    ensure!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8(done.stdout)?)
}

/// An S3 server over a folder, for as long as the test runs. It lets pages of other origins in, as an operator's bucket would.
pub(crate) async fn objects(root: &Path) -> anyhow::Result<SocketAddr> {
    std::fs::create_dir_all(root.join("media"))?;
    let files = s3s_fs::FileSystem::new(root).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single("access", "secret-of-the-tests"));
    let service = builder.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let answer = service_fn(move |request| open_to_pages(service.clone(), request));
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    Ok(addr)
}

async fn open_to_pages(
    service: S3Service,
    request: http::Request<Incoming>,
) -> anyhow::Result<http::Response<s3s::Body>> {
    let mut response = if request.method() == Method::OPTIONS {
        http::Response::new(s3s::Body::empty())
    } else {
        service.call(request.map(s3s::Body::from)).await.map_err(|error| anyhow::anyhow!("{error:?}"))?
    };
    for (name, value) in [("origin", "*"), ("methods", "PUT"), ("headers", "*")] {
        let name = http::HeaderName::try_from(format!("access-control-allow-{name}"))?;
        response.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    Ok(response)
}

/// The whole house.
pub(crate) struct House {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) control: Role,
    _worker: Role,
    /// What every edge is configured with.
    edge: Value,
    edges: Vec<Role>,
    http: reqwest::Client,
}

impl House {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("segue-roles-").tempdir()?;
        let path = |name: &str| dir.path().join(name).display().to_string();
        let s3 = s3(&format!("http://{}", objects(&dir.path().join("objects")).await?));
        let config = control_plane(dir.path(), &s3, &json!({ "admin": ADMIN, "worker": WORKER, "edge": EDGE }));
        let control = Role::start(dir.path(), "control", "control", &config).await?;
        let follow = |token: &str| json!({ "url": control.url().unwrap_or_default(), "token": token });
        let config = json!({
            "control": follow(WORKER), "objects": s3, "transcode": { "work_dir": path("work"), "name": "w1" },
        });
        let worker = Role::start(dir.path(), "transcode", "worker", &config).await?;
        let mut origin = s3.clone();
        origin["kind"] = json!("s3");
        let edge = json!({ "listen": "127.0.0.1:0", "origin": origin, "control": follow(EDGE), "snapshot": { "dir": path("state") } });
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build()?;
        let mut house = Self { dir, control, _worker: worker, edge, edges: Vec::new(), http };
        for name in ["e1", "e2"] {
            house.add_edge(name, json!({})).await?;
        }
        Ok(house)
    }

    /// One more edge, with these sections beside what all of them have.
    pub(crate) async fn add_edge(&mut self, name: &str, sections: Value) -> anyhow::Result<()> {
        let mut config = self.edge.clone();
        config["name"] = json!(name);
        let facts = self.dir.path().join(format!("facts-{name}"));
        config["events"] = json!({ "kind": "control", "dir": facts });
        for (key, value) in sections.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        self.edges.push(Role::start(self.dir.path(), "edge", name, &config).await?);
        Ok(())
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Value) -> anyhow::Result<Value> {
        let request = self.http.request(method, format!("{}{path}", self.control.url()?)).bearer_auth(ADMIN);
        let response = request.json(&body).send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// A call whose body is no JSON.
    pub(crate) async fn post(&self, path: &str, kind: &str, body: Vec<u8>) -> anyhow::Result<Value> {
        let request = self.http.post(format!("{}{path}", self.control.url()?)).bearer_auth(ADMIN);
        let response = request.header("Content-Type", kind).body(body).send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    pub(crate) async fn add(&self, song: &Path) -> anyhow::Result<String> {
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
        let begun = Instant::now();
        loop {
            let track = self.call(Method::GET, &format!("/v1/tracks/{id}"), json!({})).await?;
            match track["status"].as_str() {
                Some("ready") => return Ok(id),
                Some("failed") => bail!("{track}"),
                _ => ensure!(begun.elapsed() < WITHIN, "{track}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The path that a listener's player opens, on whichever edge.
    pub(crate) async fn ticket(&self, track: &str, sid: &str) -> anyhow::Result<String> {
        let answer = self.call(Method::POST, &format!("/v1/tracks/{track}/tickets"), json!({ "sid": sid })).await?;
        Ok(Url::parse(answer["url"].as_str().context("no url")?)?.path().to_owned())
    }

    /// A player of this path on an edge.
    fn player(&self, edge: usize, path: &str) -> anyhow::Result<Player> {
        Player::new(&format!("{}{path}", self.edges[edge].url()?))
    }

    pub(crate) fn edge_url(&self, edge: usize) -> anyhow::Result<String> {
        self.edges[edge].url()
    }

    /// What an edge answers, asked once.
    pub(crate) async fn status(&self, edge: usize, path: &str) -> anyhow::Result<u16> {
        Ok(self.http.get(format!("{}{path}", self.edge_url(edge)?)).send().await?.status().as_u16())
    }

    /// Asks until the edge answers with this status: it has just started, or is to hear of a change.
    pub(crate) async fn answers(&self, edge: usize, path: &str, status: u16) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        loop {
            let last = self.http.get(format!("{}{path}", self.edges[edge].url()?)).send().await?.status();
            if last == status {
                return Ok(begun.elapsed());
            }
            let log = || std::fs::read_to_string(&self.edges[edge].log).unwrap_or_default();
            ensure!(begun.elapsed() < WITHIN, "still {last}, not {status}:\n{}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Takes these segments of the first rendition, and its init segment; gives the bytes.
async fn listen(player: &Player, segments: std::ops::Range<usize>) -> anyhow::Result<u64> {
    let rendition = player.renditions().await?.into_iter().next().context("no rendition")?;
    let mut bytes = player.get(&rendition.init).await?.len() as u64;
    for (segment, _) in rendition.segments.get(segments).context("too few segments")? {
        bytes += player.get(segment).await?.len() as u64;
    }
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_song_plays_through_two_edges_and_every_fact_is_counted_once_whoever_dies() -> anyhow::Result<()> {
    let mut house = House::start().await?;
    let track = house.add(&songs::tone(62.0, "minute.wav")?).await?;
    let (one, two) = (house.ticket(&track, "one").await?, house.ticket(&track, "two").await?);
    for edge in [0, 1] {
        house.answers(edge, &one, 200).await?;
    }

    // One listener goes from one edge to the other in mid-song: still one play.
    let mut bytes = listen(&house.player(0, &one)?, 0..4).await?;
    bytes += listen(&house.player(1, &one)?, 4..10).await?;

    // The control plane dies; the edges go on, and one of them dies and starts again from the snapshot on its disk.
    house.control.kill().await?;
    bytes += listen(&house.player(0, &two)?, 0..3).await?;
    house.edges[0].kill().await?;
    house.edges[0].restart().await?;
    house.answers(0, &two, 200).await?;
    bytes += listen(&house.player(0, &two)?, 3..7).await?;
    house.control.restart().await?;
    // While facts are on their way, the other edge dies as well.
    bytes += listen(&house.player(1, &two)?, 7..9).await?;
    house.edges[1].kill().await?;
    house.edges[1].restart().await?;

    let begun = Instant::now();
    let mut stats = Value::Null;
    let mut calm = 0;
    while calm < 20 {
        ensure!(begun.elapsed() < WITHIN, "{bytes} bytes were delivered, and the sums stay at {stats}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        stats = house.call(Method::GET, &format!("/v1/tracks/{track}/stats"), json!({})).await?;
        ensure!(stats["bytes"].as_u64() <= Some(bytes), "counted twice: {bytes} delivered, {stats}");
        calm = if stats["bytes"].as_u64() == Some(bytes) { calm + 1 } else { 0 };
    }
    ensure!(stats["plays"] == 2 && stats["qualified"] == 2 && stats["listeners"] == 2, "{stats}");

    let edges = house.call(Method::GET, "/v1/edges", json!({})).await?;
    let names: Vec<_> = edges["edges"].as_array().context("no edges")?.iter().map(|edge| &edge["edge"]).collect();
    ensure!(names == ["e1", "e2"], "{edges}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_a_purge_and_a_new_key_reach_edges_in_other_processes() -> anyhow::Result<()> {
    let house = House::start().await?;
    let track = house.add(&songs::tone(8.0, "guarded.wav")?).await?;
    let (good, bad) = (house.ticket(&track, "good").await?, house.ticket(&track, "bad").await?);
    for (edge, path) in [(0, &good), (1, &good), (0, &bad), (1, &bad)] {
        house.answers(edge, path, 200).await?;
    }
    let revoked = house.call(Method::POST, "/v1/revocations", json!({ "sid": "bad", "note": "stolen" })).await?;
    for edge in [0, 1] {
        let took = house.answers(edge, &bad, 403).await?;
        println!("edge {edge} heard of the revocation within {took:?} of the answer");
        house.answers(edge, &good, 200).await?;
    }
    let id = revoked["id"].as_str().context("no id")?;
    house.call(Method::DELETE, &format!("/v1/revocations/{id}"), json!({})).await?;
    house.answers(0, &bad, 200).await?;

    // The alias changes under the edges' feet: a purge shows the new bytes at once.
    let alias = house.dir.path().join("objects/media/hls").join(&track).join("master.m3u8");
    let changed = std::fs::read_to_string(&alias)? + "# changed\n";
    std::fs::write(&alias, &changed)?;
    house.call(Method::POST, &format!("/v1/tracks/{track}/purge"), json!({})).await?;
    let url = format!("{}{good}", house.edges[1].url()?);
    let begun = Instant::now();
    while house.http.get(&url).send().await?.text().await? != changed {
        ensure!(begun.elapsed() < Duration::from_secs(60), "the old bytes are still served");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // A new key signs at once here, so that edges meet a ticket of it as soon as they can.
    let key = house.call(Method::POST, "/v1/keys", json!({ "not_before": 1 })).await?;
    let fresh = house.ticket(&track, "fresh").await?;
    house.answers(0, &fresh, 200).await?;
    house.call(Method::DELETE, &format!("/v1/keys/{}", key["kid"].as_str().context("no kid")?), json!({})).await?;
    house.answers(1, &fresh, 401).await?;
    house.answers(1, &good, 200).await?;
    let path = object_path(&Url::parse(&url)?);
    ensure!(path.starts_with("/hls/"), "{path}");
    Ok(())
}
