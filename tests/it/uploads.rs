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
use crate::column::free_port;
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
    /// Access key and secret.
    keys: (&'static str, &'static str),
    http: reqwest::Client,
}

impl Bench {
    async fn start(store: &str, ttl: &str) -> anyhow::Result<Self> {
        Self::start_as((ACCESS, SECRET), store, ttl).await
    }

    async fn start_as(keys: (&'static str, &'static str), store: &str, ttl: &str) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("segue-uploads-").tempdir()?;
        std::fs::write(dir.path().join("long.wav"), (0..SIZE).map(|at| (at / 997 % 251) as u8).collect::<Vec<_>>())?;
        let config = json!({
            "listen": "127.0.0.1:0", "edge": { "base_url": "http://edge.test" },
            "database": { "url": format!("sqlite://{}", dir.path().join("segue.db").display()) },
            "objects": {
                "endpoint": store, "region": "us-east-1", "bucket": "media", "create_bucket": true,
                "access_key": keys.0, "secret_key": keys.1,
            },
            "keys": { "k1": "0123456789abcdef0123456789abcdef" }, "tokens": { "admin": ADMIN, "worker": WORKER },
            "uploads": { "multipart_above": "6MiB", "part_size": "5MiB", "ttl": ttl }, "jobs": { "sweep": "100ms" },
        });
        let control = Role::start(dir.path(), "control", "control", &config).await?;
        Ok(Self { dir, control, store: store.to_owned(), keys, http: reqwest::Client::new() })
    }

    fn file(&self) -> String {
        self.dir.path().join("long.wav").display().to_string()
    }

    /// Runs a client and reads its line.
    async fn client(&self, args: &[&str]) -> anyhow::Result<Value> {
        let control = self.control.url()?;
        let said = client(self.keys, &self.store, &[("CONTROL", &control), ("TOKEN", ADMIN)], args).await;
        said.with_context(|| std::fs::read_to_string(&self.control.log).unwrap_or_default())
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

/// Runs a client against a store and reads its line.
async fn client(
    (access, secret): (&str, &str),
    store: &str,
    variables: &[(&str, &str)],
    args: &[&str],
) -> anyhow::Result<Value> {
    let output = Command::from(python()?)
        .arg(script())
        .args(args)
        .envs(variables.iter().copied())
        .envs([("STORE", store), ("ACCESS", access), ("SECRET", secret)])
        .kill_on_drop(true)
        .output()
        .await?;
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{args:?}: {said}\n{errors}");
    Ok(serde_json::from_str(said.trim()).unwrap_or_default())
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

/// Of the shape that Garage makes keys in.
const GARAGE_KEYS: (&str, &str) =
    ("GK0123456789abcdef01234567", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");

/// A node of Garage with one bucket, in a process of its own.
async fn garage(program: &str, dir: &Path) -> anyhow::Result<(Child, String)> {
    let (api, rpc) = (free_port()?, free_port()?);
    let config = dir.join("garage.toml");
    let text = format!(
        "metadata_dir = \"{meta}\"\ndata_dir = \"{data}\"\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
         rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\nrpc_secret = \"{secret}\"\n\
         [s3_api]\ns3_region = \"us-east-1\"\napi_bind_addr = \"127.0.0.1:{api}\"\n",
        meta = dir.join("meta").display(),
        data = dir.join("data").display(),
        secret = GARAGE_KEYS.1,
    );
    std::fs::write(&config, text)?;
    let log = std::fs::File::create(dir.join("garage.log"))?;
    let child = Command::new(program)
        .arg("-c")
        .arg(&config)
        .args(["server", "--single-node", "--default-bucket"])
        .envs([("GARAGE_DEFAULT_ACCESS_KEY", GARAGE_KEYS.0), ("GARAGE_DEFAULT_SECRET_KEY", GARAGE_KEYS.1)])
        .env("GARAGE_DEFAULT_BUCKET", "media")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("SEGUE_TEST_GARAGE names {program}"))?;
    Ok((child, format!("http://127.0.0.1:{api}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_boto3_and_the_page_upload_to_garage() -> anyhow::Result<()> {
    let Ok(program) = std::env::var("SEGUE_TEST_GARAGE") else {
        eprintln!("SKIPPED: uploads to Garage were NOT tried: SEGUE_TEST_GARAGE does not name its program");
        return Ok(());
    };
    let dir = tempfile::Builder::new().prefix("segue-garage-").tempdir()?;
    let (_garage, store) = garage(&program, dir.path()).await?;
    // Up to half a minute: the bucket is made after the node has its layout.
    let mut allowed = Ok(Value::Null);
    for _ in 0..60 {
        allowed = client(GARAGE_KEYS, &store, &[], &["cors"]).await;
        if allowed.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let log = || std::fs::read_to_string(dir.path().join("garage.log")).unwrap_or_default();
    allowed.with_context(log)?;
    let bench = Bench::start_as(GARAGE_KEYS, &store, "24h").await?;
    bench.all_clients().await.with_context(log)
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
