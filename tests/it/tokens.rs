//! `segue token`: made, listed, rotated and revoked by the command, as a person or a script does it.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::roles::{self, ADMIN, Role, control_plane, objects, s3};

/// What the command says on standard output, each line as JSON.
async fn segue(control: &str, token: &str, args: &[&str]) -> anyhow::Result<Vec<Value>> {
    let said = roles::segue(control, token, &[args, &["--json"]].concat()).await?;
    said.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[tokio::test]
async fn a_token_is_made_rotated_and_revoked_by_the_command() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let store = s3(&format!("http://{}", objects(&dir.path().join("objects")).await?));
    let mut config = control_plane(dir.path(), &store, &json!({ "admin": ADMIN }));
    config["access"] = json!({ "failures": 100, "trusted_proxies": ["10.0.0.0/8", "192.0.2.1"] });
    let control = Role::start(dir.path(), "control", "control", &config).await?;
    let url = control.url()?;
    let made = segue(&url, ADMIN, &["token", "new", "a script", "--scope", "read,play", "--expires", "1h"]).await?;
    let made = made.last().context("nothing was said")?;
    let id = made["token"]["id"].as_str().context("no id")?.to_owned();
    let first = made["secret"].as_str().context("no secret")?.to_owned();
    ensure!(made["token"]["scopes"] == json!(["play", "read"]) && made["token"]["expires_at"].is_i64(), "{made}");
    ensure!(segue(&url, &first, &["track", "list"]).await?.is_empty(), "there are no tracks, and it may see that");
    let refused = segue(&url, &first, &["token", "list"]).await.err().context("it may list tokens")?;
    ensure!(refused.to_string().contains("lacks the scope `admin`"), "{refused}");
    let rotated = segue(&url, ADMIN, &["token", "rotate", &id, "--overlap", "0s"]).await?;
    let second = rotated.last().and_then(|told| told["secret"].as_str()).context("no secret")?.to_owned();
    ensure!(segue(&url, &first, &["track", "list"]).await.is_err(), "the first secret is over");
    segue(&url, &second, &["track", "list"]).await?;
    let listed = segue(&url, ADMIN, &["token", "list"]).await?;
    let names: Vec<&str> = listed.iter().filter_map(|token| token["name"].as_str()).collect();
    ensure!(names.len() == 2 && names.contains(&"a script") && names.contains(&"bootstrap-admin"), "{names:?}");
    segue(&url, ADMIN, &["token", "revoke", &id]).await?;
    ensure!(segue(&url, &second, &["track", "list"]).await.is_err(), "it is revoked");
    Ok(())
}
