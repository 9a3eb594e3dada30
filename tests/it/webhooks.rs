//! A webhook as its receiver sees it: checked by the library of Standard Webhooks, and sent again after a `kill -9` in between.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::Method;
use segue_testkit::python;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::roles::{ADMIN, Role, control_plane, objects, s3};

const RECEIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testkit/webhooks/receiver.py");

/// How long a line of the receiver may take: a killed holder of the duty is waited for.
const WITHIN: Duration = Duration::from_secs(40);

async fn call(url: &str, method: Method, path: &str, body: Value) -> anyhow::Result<Value> {
    let request = reqwest::Client::new().request(method, format!("{url}{path}")).bearer_auth(ADMIN).json(&body);
    let response = request.send().await?;
    let status = response.status();
    let text = response.text().await?;
    ensure!(status.is_success(), "{path}: {status} {text}");
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

#[tokio::test]
async fn a_receiver_checks_it_with_a_library_and_gets_it_again_after_a_kill() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let store = s3(&format!("http://{}", objects(&dir.path().join("objects")).await?));
    let mut config = control_plane(dir.path(), &store, &json!({ "admin": ADMIN }));
    config["webhooks"] = json!({ "allow": ["127.0.0.1"] });
    let mut control = Role::start(dir.path(), "control", "control", &config).await?;
    let mut receiver = Command::from(python()?)
        .arg("-B")
        .arg(RECEIVER)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(receiver.stdout.take().context("no output")?).lines();
    let mut said = async || -> anyhow::Result<Value> {
        let line = tokio::time::timeout(WITHIN, lines.next_line()).await.context("it says nothing")??;
        Ok(serde_json::from_str(&line.context("it ended")?)?)
    };
    let port = said().await?["port"].as_u64().context("no port")?;
    let wish = json!({ "url": format!("http://127.0.0.1:{port}/hook"), "events": ["track.failed"] });
    let made = call(&control.url()?, Method::POST, "/v1/webhooks", wish).await?;
    let secret = format!("{}\n", made["secret"].as_str().context("no secret")?);
    receiver.stdin.as_mut().context("no input")?.write_all(secret.as_bytes()).await?;

    let created = call(&control.url()?, Method::POST, "/v1/tracks", json!({ "filename": "a.mp3", "size": 1 })).await?;
    let track = created["track"]["track"].as_str().context("no track")?;
    call(&control.url()?, Method::DELETE, &format!("/v1/tracks/{track}/upload"), json!({})).await?;
    let first = said().await?;
    ensure!(first["verified"] == true && first["forged"] == false, "{first}");
    ensure!(first["payload"]["type"] == "track.failed" && first["payload"]["data"]["track"] == track, "{first}");
    // It has it, and nobody heard so.
    control.kill().await?;
    control.restart().await?;
    let again = said().await?;
    ensure!(again == first, "{again} after {first}");
    let id = made["webhook"]["id"].as_str().context("no id")?;
    let path = format!("/v1/webhooks/{id}/deliveries");
    for _ in 0..200 {
        let all = call(&control.url()?, Method::GET, &path, json!({})).await?;
        if all["deliveries"][0]["state"] == "delivered" {
            ensure!(
                all["deliveries"][0]["id"] == first["id"] && all["deliveries"].as_array().map(Vec::len) == Some(1),
                "{all}"
            );
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("it was never noted: {}", call(&control.url()?, Method::GET, &path, json!({})).await?)
}
