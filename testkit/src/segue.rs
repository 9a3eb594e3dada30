//! The system under test: `segue demo` as a child process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// From start to ready, on a machine that builds something else beside.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// From Ctrl-C to the end.
const ENDS_WITHIN: Duration = Duration::from_secs(40);
/// From upload to ready, for the short songs of tests.
const SONG_WITHIN: Duration = Duration::from_secs(180);

/// The one line that a demo prints once it is ready.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// The console, with its token.
    pub page: String,
    /// Where players go.
    pub edge: String,
    /// The API.
    pub control: String,
    /// The edge's metrics.
    pub admin: String,
    /// A token with every scope.
    pub token: String,
    /// The folder.
    pub dir: PathBuf,
}

/// A track as the API shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct Track {
    /// Its id.
    #[serde(rename = "track")]
    pub id: String,
    /// `uploading`, `queued`, `transcoding`, `ready`, `failed`.
    pub status: String,
    /// Why it failed, as a word.
    pub reason: Option<String>,
    /// Why it failed, in words.
    pub message: Option<String>,
    /// Its length in milliseconds.
    pub duration_ms: Option<u64>,
    /// The version that is published.
    pub version: Option<String>,
}

/// A track's sums.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Stats {
    /// Plays started.
    pub plays: u64,
    /// Plays that count.
    pub qualified: u64,
    /// Listeners told apart.
    pub listeners: u64,
    /// Bytes delivered.
    pub bytes: u64,
}

/// A running demo. Dropping it kills the process.
#[derive(Debug)]
pub struct Segue {
    bin: PathBuf,
    dir: PathBuf,
    variables: Vec<(String, String)>,
    _temporary: Option<TempDir>,
    child: Child,
    ready: Ready,
    http: reqwest::Client,
}

impl Segue {
    /// Starts one in a folder of its own that goes with it.
    ///
    /// # Errors
    /// When it is not ready within a minute; the error holds its log.
    pub async fn start(bin: impl AsRef<Path>) -> anyhow::Result<Self> {
        Self::start_with(bin, &[]).await
    }

    /// The same with variables of the environment, which go over its configuration.
    ///
    /// # Errors
    /// As [`Segue::start`].
    pub async fn start_with(bin: impl AsRef<Path>, variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: Vec<(String, String)> = variables.iter().map(owned).collect();
        let temporary = tempfile::Builder::new().prefix("segue-test-").tempdir()?;
        let dir = temporary.path().join("demo");
        let (child, ready) = spawn(bin.as_ref(), &dir, &variables).await?;
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(60))
            .build()?;
        Ok(Self { bin: bin.as_ref().to_owned(), dir, variables, _temporary: Some(temporary), child, ready, http })
    }

    /// What it said when it was ready.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        log(&self.dir)
    }

    /// Ends it as a power cut would: `kill -9`, and the wait for the kernel's word that it is gone.
    ///
    /// # Errors
    /// When the process cannot be killed.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot kill the demo")
    }

    /// Starts it again on what it left, after [`Segue::kill`] or [`Segue::stop`].
    ///
    /// # Errors
    /// As [`Segue::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        (self.child, self.ready) = spawn(&self.bin, &self.dir, &self.variables).await?;
        Ok(())
    }

    /// Ends it as Ctrl-C does, and gives its exit status.
    ///
    /// # Errors
    /// When it has not ended within its bound.
    pub async fn stop(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        let Some(pid) =
            self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw)
        else {
            bail!("the demo has ended already");
        };
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        tokio::time::timeout(ENDS_WITHIN, self.child.wait())
            .await
            .context("the demo did not end after Ctrl-C")?
            .map_err(Into::into)
    }

    /// A call of the API that must succeed.
    ///
    /// # Errors
    /// When it is refused, with what was said.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<T> {
        let response = self.request(method, path, body).send().await?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            bail!("{path}: {status}: {text}");
        }
        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))
    }

    /// A call of the API, not yet sent.
    pub fn request(&self, method: Method, path: &str, body: Option<Value>) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.ready.control)).bearer_auth(&self.ready.token);
        match body {
            Some(body) => request.json(&body),
            None => request,
        }
    }

    /// Creates a track for a file and uploads it; the job is queued when this returns.
    ///
    /// # Errors
    /// When any step is refused.
    pub async fn upload(&self, file: &Path) -> anyhow::Result<String> {
        let bytes = tokio::fs::read(file).await.with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let created: Value = self
            .call(
                Method::POST,
                "/v1/tracks",
                Some(json!({ "filename": name, "size": bytes.len(), "multipart": false })),
            )
            .await?;
        let id = created["track"]["track"].as_str().context("no track id")?.to_owned();
        let mut put = self.http.put(created["upload"]["url"].as_str().context("no upload url")?);
        for (name, value) in created["upload"]["headers"].as_object().context("no upload headers")? {
            if !name.eq_ignore_ascii_case("content-length") {
                put = put.header(name, value.as_str().context("a header is not text")?);
            }
        }
        let response = put.header("content-length", bytes.len()).body(bytes).send().await?;
        if !response.status().is_success() {
            bail!("the upload was refused: {} {}", response.status(), response.text().await?);
        }
        let _: Value = self.call(Method::POST, &format!("/v1/tracks/{id}/uploaded"), Some(json!({}))).await?;
        Ok(id)
    }

    /// Waits until a track is `ready` or `failed`.
    ///
    /// # Errors
    /// When it is neither within its bound.
    pub async fn settled(&self, id: &str) -> anyhow::Result<Track> {
        let started = Instant::now();
        loop {
            let track: Track = self.call(Method::GET, &format!("/v1/tracks/{id}"), None).await?;
            if track.status == "ready" || track.status == "failed" {
                return Ok(track);
            }
            if started.elapsed() > SONG_WITHIN {
                bail!("{id} is still {} after {SONG_WITHIN:?}\n{}", track.status, self.log());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Uploads a song and waits until it can be played.
    ///
    /// # Errors
    /// When it fails, with the reason.
    pub async fn add(&self, file: &Path) -> anyhow::Result<Track> {
        let id = self.upload(file).await?;
        let track = self.settled(&id).await?;
        if track.status != "ready" {
            bail!("{}: {:?} {:?}\n{}", file.display(), track.reason, track.message, self.log());
        }
        Ok(track)
    }

    /// A playback URL for a listener's session.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn ticket(&self, track: &str, sid: &str) -> anyhow::Result<String> {
        let answer: Value =
            self.call(Method::POST, &format!("/v1/tracks/{track}/tickets"), Some(json!({ "sid": sid }))).await?;
        Ok(answer["url"].as_str().context("no url")?.to_owned())
    }

    /// A track's sums.
    ///
    /// # Errors
    /// When the call is refused.
    pub async fn stats(&self, track: &str) -> anyhow::Result<Stats> {
        self.call(Method::GET, &format!("/v1/tracks/{track}/stats"), None).await
    }

    /// Waits until a track's sums satisfy `enough` and have not moved for the length of `calm`.
    ///
    /// # Errors
    /// When that has not come about within 30 s.
    pub async fn stats_when(
        &self,
        track: &str,
        calm: Duration,
        enough: impl Fn(&Stats) -> bool,
    ) -> anyhow::Result<Stats> {
        let started = Instant::now();
        let (mut last, mut since) = (self.stats(track).await?, Instant::now());
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let stats = self.stats(track).await?;
            if stats != last {
                (last, since) = (stats, Instant::now());
            } else if since.elapsed() >= calm && enough(&last) {
                return Ok(last);
            }
            if started.elapsed() > Duration::from_secs(30) {
                bail!("the sums stayed at {last:?}\n{}", self.log());
            }
        }
    }
}

async fn spawn(bin: &Path, dir: &Path, variables: &[(String, String)]) -> anyhow::Result<(Child, Ready)> {
    std::fs::create_dir_all(dir)?;
    let log_file = File::options().create(true).append(true).open(dir.join("demo.log"))?;
    let mut child = Command::new(bin)
        .args(["demo", "--port", "0", "--json", "--dir"])
        .arg(dir)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {}", bin.display()))?;
    let stdout = child.stdout.take().context("no standard output")?;
    let first = async { BufReader::new(stdout).lines().next_line().await };
    let line = tokio::time::timeout(READY_WITHIN, first).await;
    let Ok(Ok(Some(line))) = line else {
        child.kill().await?;
        bail!("the demo was not ready within {READY_WITHIN:?}\n{}", log(dir));
    };
    Ok((child, serde_json::from_str(&line).with_context(|| format!("not the ready line: {line}"))?))
}

fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("demo.log")).unwrap_or_else(|error| format!("no log: {error}"))
}
