//! Uploads, whole and in parts, by clients that are not ours (curl, boto3, the page) against object stores of which one is not ours either,
//! and by the command.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::Method;
use segue_testkit::{Segue, python, songs};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::browser::node;
use crate::roles::{ADMIN, Role, WORKER, objects};

/// Three parts: 5, 5 and 2 MiB.
const SIZE: usize = 12 << 20;

const ACCESS: &str = "access";
const SECRET: &str = "secret-of-the-tests";

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testkit/uploads/clients.py")
}

/// A control plane over a store, and what clients need to know of both.
struct Bench {
    dir: tempfile::TempDir,
    control: Role,
    store: String,
    http: reqwest::Client,
}

impl Bench {
    async fn start(store: &str, ttl: &str) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("segue-uploads-").tempdir()?;
        std::fs::write(dir.path().join("long.wav"), (0..SIZE).map(|at| (at / 997 % 251) as u8).collect::<Vec<_>>())?;
        let config = json!({
            "listen": "127.0.0.1:0", "edge": { "base_url": "http://edge.test" },
            "database": { "url": format!("sqlite://{}", dir.path().join("segue.db").display()) },
            "objects": {
                "endpoint": store, "region": "us-east-1", "bucket": "media", "create_bucket": true,
                "access_key": ACCESS, "secret_key": SECRET,
            },
            "keys": { "k1": "0123456789abcdef0123456789abcdef" }, "tokens": { "admin": ADMIN, "worker": WORKER },
            "uploads": { "multipart_above": "6MiB", "part_size": "5MiB", "ttl": ttl }, "jobs": { "sweep": "100ms" },
        });
        let control = Role::start(dir.path(), "control", "control", &config).await?;
        Ok(Self { dir, control, store: store.to_owned(), http: reqwest::Client::new() })
    }

    fn file(&self) -> String {
        self.dir.path().join("long.wav").display().to_string()
    }

    /// Runs a client and reads its line.
    async fn client(&self, args: &[&str]) -> anyhow::Result<Value> {
        let output = Command::from(python()?)
            .arg(script())
            .args(args)
            .envs([("CONTROL", self.control.url()?.as_str()), ("TOKEN", ADMIN), ("STORE", &self.store)])
            .envs([("ACCESS", ACCESS), ("SECRET", SECRET)])
            .kill_on_drop(true)
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stdout);
        let (errors, log) = (String::from_utf8_lossy(&output.stderr), std::fs::read_to_string(&self.control.log)?);
        ensure!(output.status.success(), "{args:?}: {said}\n{errors}\n{log}");
        Ok(serde_json::from_str(said.trim()).unwrap_or_default())
    }

    /// Claims every job that there is, and holds the objects of all of them against the file.
    async fn jobs_have_the_file(&self, jobs: usize) -> anyhow::Result<()> {
        for _ in 0..jobs {
            let claim = json!({ "worker": "w", "instance": "i", "wait_ms": 0 });
            let url = format!("{}/v1/worker/claim", self.control.url()?);
            let offer = self.http.post(url).bearer_auth(WORKER).json(&claim).send().await?;
            ensure!(offer.status() == 200, "fewer than {jobs} jobs were queued");
            let offer: Value = offer.json().await?;
            let key = offer["source"]["key"].as_str().context("no key")?.to_owned();
            self.client(&["object", &key, &self.file()]).await?;
        }
        Ok(())
    }

    /// Every client, whole and in parts.
    async fn all_clients(&self) -> anyhow::Result<()> {
        for client in ["curl", "boto3"] {
            let added = self.client(&[client, &self.file()]).await?;
            ensure!(added["tracks"].as_array().map(Vec::len) == Some(2), "{client}: {added}");
            self.jobs_have_the_file(2).await?;
        }
        let page = format!("{}/#token={ADMIN}", self.control.url()?);
        node("upload.test.mjs", &[("SEGUE_PAGE", &page), ("SEGUE_FILE", &self.file())]).await?;
        self.jobs_have_the_file(1).await
    }
}

/// `moto`, in a process of its own.
pub(crate) async fn moto() -> anyhow::Result<(Child, String)> {
    let mut child = Command::from(python()?)
        .arg(script())
        .arg("moto")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().context("no standard output")?;
    let mut lines = BufReader::new(stdout).lines();
    let url =
        tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await.context("moto does not start")??;
    Ok((child, url.context("moto ended")?))
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_boto3_and_the_page_upload_to_s3s_fs() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let store = format!("http://{}", objects(dir.path()).await?);
    Bench::start(&store, "24h").await?.all_clients().await
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_boto3_and_the_page_upload_to_a_server_that_is_not_ours() -> anyhow::Result<()> {
    let (_moto, store) = moto().await?;
    let bench = Bench::start(&store, "24h").await?;
    bench.all_clients().await?;
    // This store lists tags: a part that is other than its sender was told is found out.
    let word = bench.client(&["mismatch", &bench.file()]).await?;
    ensure!(word == "part-mismatch", "{word}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_nobody_knows_goes_from_the_bucket() -> anyhow::Result<()> {
    let (_moto, store) = moto().await?;
    let bench = Bench::start(&store, "1s").await?;
    let orphan = bench.client(&["orphan"]).await?;
    ensure!(bench.client(&["unfinished"]).await? == json!([orphan]), "it stands there");
    for _ in 0..100 {
        if bench.client(&["unfinished"]).await? == json!([]) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("it stays: {}", std::fs::read_to_string(&bench.control.log)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_goes_on_with_what_was_broken_off() -> anyhow::Result<()> {
    let variables = [("SEGUE_UPLOADS_MULTIPART_ABOVE", "6MiB"), ("SEGUE_UPLOADS_PART_SIZE", "5MiB")];
    let segue = Segue::start_with(crate::SEGUE, &variables).await?;
    // 11.3 MiB of samples.
    let song = songs::tone(67.0, "command.wav")?;
    let bytes = std::fs::read(&song)?;
    let sha256: String = sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(&bytes))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut body = json!({
        "filename": "command.wav", "size": bytes.len(), "sha256": sha256, "fingerprint": format!("sha256:{sha256}"),
    });
    let begun: Value = segue.call(Method::POST, "/v1/tracks", Some(body.clone())).await?;
    let put = begun["upload"]["urls"][1]["url"].as_str().context("no URL of the second part")?;
    let part = bytes.get(5 << 20..10 << 20).context("the song is too short")?.to_vec();
    ensure!(reqwest::Client::new().put(put).body(part).send().await?.status() == 200, "the second part");

    let add = Command::new(crate::SEGUE)
        .args(["track", "add", "--json", "--dir"])
        .arg(segue.dir())
        .arg(&song)
        .kill_on_drop(true)
        .output()
        .await?;
    let (said, told) = (String::from_utf8_lossy(&add.stdout), String::from_utf8_lossy(&add.stderr));
    ensure!(add.status.success(), "{said}\n{told}");
    ensure!(told.contains("1 of 3 parts are there"), "{told}");
    let said: Value = serde_json::from_str(said.trim())?;
    ensure!((&said["track"], &said["status"]) == (&begun["track"]["track"], &json!("ready")), "{said}");

    // What arrives is held against the digest that was declared, whole or in parts.
    body["sha256"] = json!("0".repeat(64));
    body["fingerprint"] = json!("another");
    let other: Value = segue.call(Method::POST, "/v1/tracks", Some(body)).await?;
    let track = other["track"]["track"].as_str().context("no track")?;
    for (url, part) in other["upload"]["urls"].as_array().context("no URLs")?.iter().zip(bytes.chunks(5 << 20)) {
        let put = reqwest::Client::new().put(url["url"].as_str().context("no URL")?).body(part.to_vec());
        ensure!(put.send().await?.status() == 200, "a part");
    }
    let _: Value = segue.call(Method::POST, &format!("/v1/tracks/{track}/uploaded"), Some(json!({}))).await?;
    let failed = segue.settled(track).await?;
    ensure!(failed.reason.as_deref() == Some("checksum-mismatch"), "{failed:?}");
    Ok(())
}
