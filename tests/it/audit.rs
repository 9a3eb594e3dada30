//! `segue audit`: what people did with the command is found again.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::roles::{ADMIN, Role, control_plane, objects, s3, segue};

#[tokio::test]
async fn what_was_done_by_the_command_is_found_by_it() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let store = s3(&format!("http://{}", objects(&dir.path().join("objects")).await?));
    let mut config = control_plane(dir.path(), &store, &json!({ "admin": ADMIN }));
    config["audit"] = json!({ "days": 30, "rows": 1000 });
    let mut control = Role::start(dir.path(), "control", "control", &config).await?;
    let url = control.url()?;
    let secret = segue(&url, ADMIN, &["token", "new", "a script", "--scope", "read,play"]).await?;
    segue(&url, ADMIN, &["key", "rotate"]).await?;
    segue(&url, ADMIN, &["revoke", "--sub", "somebody"]).await?;
    let table = segue(&url, ADMIN, &["audit"]).await?;
    let lines: Vec<&str> = table.lines().collect();
    ensure!(lines.len() == 4 && lines[0].starts_with("WHEN "), "{table}");
    ensure!(lines[3].contains("tokens.create") && lines[3].contains("name=\"a script\""), "{table}");
    ensure!(lines[2].contains("keys.rotate") && lines[2].contains(" 201 "), "{table}");
    ensure!(lines[1].contains("revocations.add") && lines[1].contains("sub=somebody"), "{table}");
    ensure!(!table.contains(secret.trim()), "a secret is told");
    let one = segue(&url, ADMIN, &["audit", "--operation", "keys.rotate", "--from", "-1h", "--json"]).await?;
    let one: Value = serde_json::from_str(one.trim())?;
    ensure!(one["actor"] == "bootstrap-admin" && one["address"] == "127.0.0.1", "{one}");
    ensure!(segue(&url, ADMIN, &["audit", "--to", "-1h", "--json"]).await?.is_empty(), "nothing happened before");
    ensure!(segue(&url, ADMIN, &["audit", "--count", "1", "--json"]).await?.lines().count() == 1, "one was asked for");

    // A change under which the control plane dies has its record: without an end.
    let mut stream = tokio::net::TcpStream::connect(control.addr().context("no address")?).await?;
    let head = format!("DELETE /v1/keys/none?at=1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let head =
        format!("POST /v1/keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\ncontent-length: 9\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await?;
    let begun = async || segue(&url, ADMIN, &["audit", "--operation", "keys.add", "--json"]).await;
    for _ in 0..200 {
        if !begun().await?.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    control.kill().await?;
    control.restart().await?;
    let cut: Value = serde_json::from_str(begun().await?.trim()).context("one record")?;
    ensure!(cut["status"].is_null() && cut["ended_ms"].is_null() && cut["actor"] == "bootstrap-admin", "{cut}");
    let before: Value =
        serde_json::from_str(segue(&url, ADMIN, &["audit", "--operation", "keys.retire", "--json"]).await?.trim())?;
    ensure!(before["status"] == 404 && before["resource"] == "keys/none" && before["summary"]["at"] == "1", "{before}");
    Ok(())
}
