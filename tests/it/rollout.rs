//! Policies swapped by command and by page, on edges in processes of their own, while listeners listen.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, ensure};
use reqwest::Method;
use segue_testkit::songs;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::roles::{ADMIN, House};

/// A ready-made policy, built as `make policies` builds it; who comes later finds it built.
pub(crate) async fn ready_made(name: &str) -> anyhow::Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("the target folder")?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/build");
    let built = Command::new(script).arg(name).env("CARGO_TARGET_DIR", target).output().await?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Ok(target.join("policies").join(format!("{name}.wasm")))
}

/// `segue policy …` against the house; what it said, and its status.
pub(crate) async fn segue(house: &House, arguments: &[&str]) -> anyhow::Result<Output> {
    let control = house.control.url()?;
    let mut command = Command::new(crate::SEGUE);
    command.arg("policy").args(arguments).env("SEGUE_CONTROL", control).env("SEGUE_TOKEN", ADMIN);
    Ok(command.kill_on_drop(true).output().await?)
}

/// The same where it must go well; its one value of JSON.
pub(crate) async fn done(house: &House, arguments: &[&str]) -> anyhow::Result<Value> {
    let output = segue(house, &[arguments, &["--json"]].concat()).await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{arguments:?}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&said).with_context(|| format!("one value: {said}"))
}

pub(crate) fn config(house: &House, name: &str, config: &Value) -> anyhow::Result<String> {
    let path = house.dir.path().join(name);
    std::fs::write(&path, config.to_string())?;
    Ok(path.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_pushed_tried_activated_and_rolled_back_by_command() -> anyhow::Result<()> {
    let house = House::start().await?;
    let track = house.add(&songs::tone(8.0, "swapped.wav")?).await?;
    let file = ready_made("country").await?;
    let file = file.to_str().context("path")?;
    // The tests' addresses have no country: the one lets them in, the other does not.
    let lenient = config(&house, "lenient.json", &json!({ "allow": ["DE"], "unknown": "allow" }))?;
    let strict = config(&house, "strict.json", &json!({ "allow": ["DE"] }))?;

    let pushed =
        done(&house, &["push", "country", file, "--version", "1", "--config", &lenient, "--wait", "60s"]).await?;
    ensure!(pushed["edges"]["on"].as_array().is_some_and(|on| on.len() == 2), "both edges have it ready: {pushed}");
    ensure!(pushed["uploaded"]["vectors"].as_u64() >= Some(5), "its vectors were run: {pushed}");
    done(&house, &["activate", "country", "1", "--wait", "60s"]).await?;
    done(&house, &["push", "country", file, "--version", "2", "--config", &strict, "--wait", "60s"]).await?;
    done(&house, &["shadow", "country", "2", "--wait", "60s"]).await?;

    // A shadow is asked and not heeded.
    let path = house.ticket(&track, "listener").await?;
    for edge in [0, 1] {
        for _ in 0..20 {
            house.answers(edge, &path, 200).await?;
        }
    }
    let diff = loop {
        let diff = done(&house, &["diff", "country"]).await?;
        if diff["requests"].as_i64() >= Some(40) {
            break diff;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    ensure!(diff["newly_denied"] == diff["requests"] && diff["agree"] == 0, "it would deny all of them: {diff}");
    let words = segue(&house, &["diff", "country"]).await?;
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    ensure!(words.contains("would newly deny") && words.contains("country (deny)"), "{words}");

    // A canary of every session is what activation is, but for its name: then a rollback ends it.
    done(&house, &["canary", "country", "2", "--percent", "100", "--wait", "60s"]).await?;
    for edge in [0, 1] {
        house.answers(edge, &path, 451).await?;
    }
    let back = done(&house, &["rollback", "country", "--wait", "60s"]).await?;
    ensure!(back["done"] == "end-canary" && back["active"] == "1", "{back}");
    for edge in [0, 1] {
        house.answers(edge, &path, 200).await?;
    }

    let active = done(&house, &["activate", "country", "2", "--note", "the new licence", "--wait", "60s"]).await?;
    ensure!(active["edges"]["on"] == json!(["e1", "e2"]), "{active}");
    for edge in [0, 1] {
        house.answers(edge, &path, 451).await?;
    }
    let back = done(&house, &["rollback", "country", "--wait", "60s"]).await?;
    ensure!(back["version"] == "1" && back["from"] == "2", "{back}");
    for edge in [0, 1] {
        house.answers(edge, &path, 200).await?;
    }
    let shown = done(&house, &["show", "country", "--history", "50"]).await?;
    let acts: Vec<&str> =
        shown["history"].as_array().context("history")?.iter().filter_map(|line| line["act"].as_str()).collect();
    let expected =
        ["rollback", "activate", "end-canary", "canary", "shadow", "push", "upload", "activate", "push", "upload"];
    ensure!(acts == expected, "{acts:?}");

    // What is refused says why, and nothing else happens.
    let none = house.dir.path().join("none.wasm");
    std::fs::write(&none, "no WebAssembly")?;
    let refused = segue(&house, &["push", "country", none.to_str().context("path")?]).await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        refused.status.code() == Some(1) && said.contains("not WebAssembly") && said.contains("not-wasm"),
        "{said}"
    );
    done(&house, &["activate", "country", "--none", "--wait", "60s"]).await?;
    done(&house, &["delete", "country"]).await?;
    let all = house.call(Method::GET, "/v1/policies", json!({})).await?;
    ensure!(all["policies"] == json!([]), "{all}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_swapped_by_the_page() -> anyhow::Result<()> {
    let segue = crate::start().await?;
    let file = ready_made("country").await?;
    let file = file.to_str().context("path")?;
    crate::browser::node("policies.test.mjs", &[("SEGUE_PAGE", &segue.ready().page), ("SEGUE_POLICY", file)]).await
}
