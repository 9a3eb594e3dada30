//! `segue doctor` of an edge and of a worker, before each thing that can be the matter: it says what, and what to do.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::column::{Findings, free_port, ill};
use crate::roles::{ADMIN, EDGE, Role, WORKER, control_plane, objects, s3};
use crate::uploads::moto;

/// What an edge and a worker stand on, and files for both.
struct Sick {
    dir: tempfile::TempDir,
    control: Role,
    store: String,
}

impl Sick {
    async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("segue-doctor-").tempdir()?;
        let store = format!("http://{}", objects(&dir.path().join("objects")).await?);
        let tokens = json!({ "admin": ADMIN, "worker": WORKER, "edge": EDGE });
        let config = control_plane(dir.path(), &s3(&store), &tokens);
        let control = Role::start(dir.path(), "control", "control", &config).await?;
        Ok(Self { dir, control, store })
    }

    fn edge(&self) -> anyhow::Result<Value> {
        let mut origin = s3(&self.store);
        origin["kind"] = json!("s3");
        Ok(json!({
            "name": "e1", "listen": "127.0.0.1:0", "origin": origin,
            "control": { "url": self.control.url()?, "token": EDGE },
            "snapshot": { "dir": self.dir.path().join("state").display().to_string() },
            "connections": { "max": 100 },
        }))
    }

    fn worker(&self) -> anyhow::Result<Value> {
        Ok(json!({
            "control": { "url": self.control.url()?, "token": WORKER }, "objects": s3(&self.store),
            "transcode": { "work_dir": self.dir.path().join("work").display().to_string() },
        }))
    }

    async fn examine(&self, config: &Value, variables: &[(&str, &str)]) -> anyhow::Result<Findings> {
        examine(self.dir.path(), config, variables).await
    }
}

async fn examine(dir: &Path, config: &Value, variables: &[(&str, &str)]) -> anyhow::Result<Findings> {
    let file = dir.join("examined.toml");
    std::fs::write(&file, toml::to_string(config)?)?;
    let mut command = Command::new(crate::SEGUE);
    command.args(["doctor", "--json", "--config"]).arg(&file).envs(variables.iter().copied());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(!said.contains("secret-of-the-tests") && !said.contains(EDGE), "a secret is told: {said}");
    Findings::read(&output)
}

/// A store whose clock is an hour behind, which has nothing.
async fn slow_clock() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let date = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let body = "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>none</Message></Error>";
    let answer = format!(
        "HTTP/1.1 404 Not Found\r\ndate: {}\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        httpdate::fmt_http_date(date),
        body.len()
    );
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut lines = BufReader::new(&mut client).lines();
                while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
                client.write_all(answer.as_bytes()).await?;
                client.shutdown().await
            });
        }
    });
    Ok(address)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_is_told_what_is_the_matter_and_what_to_do() -> anyhow::Result<()> {
    let sick = Sick::start().await?;
    sick.examine(&sick.edge()?, &[]).await?.all_is_well(&[])?;
    let gone = format!("http://127.0.0.1:{}", free_port()?);
    let with = |pointer: &str, value: Value| -> anyhow::Result<Value> {
        let mut config = sick.edge()?;
        *config.pointer_mut(pointer).context("no such setting")? = value;
        Ok(config)
    };

    ill(&sick.examine(&with("/origin/endpoint", json!(gone))?, &[]).await?, "origin", "check endpoint")?;
    // This store has no bucket, and says so; the other one says of any object that it is not there.
    let (_moto, empty) = moto().await?;
    ill(&sick.examine(&with("/origin/endpoint", json!(empty))?, &[]).await?, "origin", "bucket")?;
    ill(&sick.examine(&with("/origin/secret_key", json!("wrong"))?, &[]).await?, "origin", "both keys")?;
    let slow = format!("http://{}", slow_clock().await?);
    ill(&sick.examine(&with("/origin/endpoint", json!(slow))?, &[]).await?, "origin.clock", "NTP")?;
    ill(&sick.examine(&with("/control/url", json!(gone))?, &[]).await?, "control", "starts all the same")?;
    ill(&sick.examine(&with("/control/token", json!("wrong"))?, &[]).await?, "control", "")?;

    let mut redis = sick.edge()?;
    redis["redis"] = json!({ "url": gone.replace("http:", "redis:") });
    ill(&sick.examine(&redis, &[]).await?, "redis", "Redis runs")?;

    let mut keyless = sick.edge()?;
    for section in ["control", "snapshot"] {
        keyless.as_object_mut().context("no object")?.remove(section);
    }
    ill(&sick.examine(&keyless, &[]).await?, "keys", "[keys]")?;

    let mut taken = sick.edge()?;
    taken["listen"] = json!(sick.control.addr().context("no address")?);
    let told = sick.examine(&taken, &[]).await?;
    ensure!(told.of("listen")?["health"] == "doubtful" && told.succeeded, "{told:?}");
    let mut far = sick.edge()?;
    far["listen"] = json!("192.0.2.1:80");
    ill(&sick.examine(&far, &[]).await?, "listen", "this machine")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_told_what_is_the_matter_and_what_to_do() -> anyhow::Result<()> {
    let sick = Sick::start().await?;
    sick.examine(&sick.worker()?, &[]).await?.all_is_well(&["ffmpeg.cage", "transcode.work_dir"])?;
    let gone = format!("http://127.0.0.1:{}", free_port()?);
    let with = |pointer: &str, value: Value| -> anyhow::Result<Value> {
        let mut config = sick.worker()?;
        *config.pointer_mut(pointer).context("no such setting")? = value;
        Ok(config)
    };

    let told = sick.examine(&with("/objects/endpoint", json!(gone))?, &[]).await?;
    ill(&told, "objects", "check [objects] endpoint")?;
    let seen = told.of("objects")?["seen"].as_str().unwrap_or_default().to_owned();
    ensure!(seen.contains("refused"), "it says no more than that there is no answer: {seen}");
    let (_moto, empty) = moto().await?;
    ill(&sick.examine(&with("/objects/endpoint", json!(empty))?, &[]).await?, "objects", "bucket")?;
    ill(&sick.examine(&with("/objects/secret_key", json!("wrong"))?, &[]).await?, "objects", "both keys")?;
    let slow = format!("http://{}", slow_clock().await?);
    ill(&sick.examine(&with("/objects/endpoint", json!(slow))?, &[]).await?, "objects.clock", "NTP")?;
    ill(&sick.examine(&with("/control/url", json!(gone))?, &[]).await?, "control", "that the control plane runs")?;
    ill(&sick.examine(&with("/control/token", json!(EDGE))?, &[]).await?, "control", "scope `worker`")?;
    ill(&sick.examine(&sick.worker()?, &[("PATH", "/nowhere")]).await?, "ffmpeg", "install ffmpeg")?;
    let file = sick.dir.path().join("a-file");
    std::fs::write(&file, "")?;
    let blocked = with("/transcode/work_dir", json!(file.join("work").display().to_string()))?;
    ill(&sick.examine(&blocked, &[]).await?, "transcode.work_dir", "make it writable")
}

/// A store answers for an object in a bucket that is not there as for one that is not in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_is_told_that_there_is_no_bucket() -> anyhow::Result<()> {
    let (_moto, empty) = moto().await?;
    let dir = tempfile::Builder::new().prefix("segue-doctor-").tempdir()?;
    let mut config = json!({
        "listen": "127.0.0.1:0", "edge": { "base_url": "http://127.0.0.1:9" }, "objects": s3(&empty),
        "database": { "url": format!("sqlite://{}", dir.path().join("segue.db").display()) },
        "keys": { "k1": "0123456789abcdef0123456789abcdef" }, "tokens": { "admin": ADMIN },
    });
    ill(&examine(dir.path(), &config, &[]).await?, "objects", "create_bucket")?;
    config["objects"]["create_bucket"] = json!(true);
    let told = examine(dir.path(), &config, &[]).await?;
    told.is_well("objects")?;
    ensure!(told.succeeded, "{told:?}");
    let gone = format!("http://127.0.0.1:{}", free_port()?);
    config["objects"] = s3(&gone);
    ill(&examine(dir.path(), &config, &[]).await?, "objects", "check [objects] endpoint")
}

/// A secret that is named and not there is said before anything is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_there_is_named() -> anyhow::Result<()> {
    let sick = Sick::start().await?;
    for (mut config, pointer) in [(sick.edge()?, "/origin/secret_key"), (sick.worker()?, "/objects/secret_key")] {
        *config.pointer_mut(pointer).context("no such setting")? = json!("env:SEGUE_TEST_NOT_THERE");
        let file = sick.dir.path().join("keyless.toml");
        std::fs::write(&file, toml::to_string(&config)?)?;
        let output = Command::new(crate::SEGUE).args(["doctor", "--config"]).arg(&file).output().await?;
        let told = String::from_utf8_lossy(&output.stderr);
        let named = told.contains("SEGUE_TEST_NOT_THERE") && told.contains("secret_key");
        ensure!(!output.status.success() && named, "{told}");
    }
    Ok(())
}
