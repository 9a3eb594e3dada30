//! Policies swapped under load on edges in processes of their own: the short form of `make swaps-proof`, and a rule's first version.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use reqwest::Method;
use segue_testkit::form::{form, kind};
use segue_testkit::songs;
use segue_testkit::swaps::{Settings, quantile, run};
use serde_json::{Value, json};

use crate::roles::House;
use crate::rollout::{config, done, ready_made};

/// The bound is a second; beside other tests a process may not get its turn for a while.
const IN_FORCE_WITHIN_MS: f64 = 3_000.0;

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_explained_by_the_version_that_was_active() -> anyhow::Result<()> {
    let settings = Settings {
        segue: crate::SEGUE.into(),
        rate: 300,
        activations: 40,
        pairs: 0,
        half: Duration::from_secs(1),
        slopes: 0,
        full: Duration::from_secs(5),
        seed: 2026,
    };
    let report = run(&settings).await?;
    ensure!(report.violations.is_empty(), "{:#?}, logs in {:?}", report.violations, report.dir);
    ensure!(report.served.len() == 3 && report.denied.len() == 3 && report.failed > 0, "{report:?}");
    for swaps in [Some(&report.swaps), report.full.as_ref()].into_iter().flatten() {
        ensure!(swaps.unanswered == 0, "{} activations were not in force in time", swaps.unanswered);
        let longest = quantile(&swaps.in_force_ms, 1.0);
        ensure!(longest <= IN_FORCE_WITHIN_MS, "{longest} ms until a version was in force");
    }
    Ok(())
}

/// The statuses of requests to one edge, one after the other, with the moments of their beginning.
async fn asked(
    house: Arc<House>,
    edge: usize,
    path: String,
    over: Arc<AtomicBool>,
) -> anyhow::Result<Vec<(Instant, u16)>> {
    let mut all = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        all.push((began, house.status(edge, &path).await?));
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_edge_passes_by_a_rule_once_its_activation_is_answered() -> anyhow::Result<()> {
    let house = Arc::new(House::start().await?);
    let track = house.add(&songs::tone(8.0, "first.wav")?).await?;
    let path = house.ticket(&track, "listener").await?;
    for edge in [0, 1] {
        house.answers(edge, &path, 200).await?;
    }
    let file = ready_made("country").await?;
    let strict = config(&house, "strict.json", &json!({ "allow": ["DE"] }))?;
    // Checked and taken, and on no edge yet.
    let over = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = [0, 1]
        .into_iter()
        .map(|edge| tokio::spawn(asked(Arc::clone(&house), edge, path.clone(), Arc::clone(&over))))
        .collect();
    upload(&house, &std::fs::read(&file)?, &std::fs::read_to_string(&strict)?).await?;
    let answer = house.call(Method::POST, "/v1/policies/country/active", json!({ "version": "1" })).await?;
    let answered = Instant::now();
    let both = json!(["e1", "e2"]);
    ensure!(answer["edges"]["ready"] == both && answer["edges"]["on"] == both, "{answer}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    over.store(true, Ordering::Relaxed);
    for one in load {
        let all = one.await??;
        ensure!(
            all.iter().all(|(_, status)| matches!(status, 200 | 451)),
            "an activation refused what no rule refuses"
        );
        ensure!(all.first().is_some_and(|(_, status)| *status == 200), "it began before");
        let after = all.iter().filter(|(began, _)| *began >= answered);
        ensure!(after.clone().count() > 5, "too few requests after the answer to tell");
        ensure!(after.clone().all(|(_, status)| *status == 451), "served without the rule after the answer");
    }
    let shown = done(&house, &["show", "country", "--history", "9"]).await?;
    let lines = shown["history"].as_array().context("history")?;
    let acts: Vec<&str> = lines.iter().filter_map(|line| line["act"].as_str()).collect();
    ensure!(acts == ["activate", "push", "upload"], "{acts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_cannot_have_a_rules_first_version_is_named_and_lets_nobody_pass() -> anyhow::Result<()> {
    let mut house = House::start().await?;
    // Less than the policy's memory.
    house.add_edge("small", json!({ "policies": { "bounds": { "memory": "64KiB" } } })).await?;
    let track = house.add(&songs::tone(8.0, "small.wav")?).await?;
    let path = house.ticket(&track, "listener").await?;
    for edge in 0..3 {
        house.answers(edge, &path, 200).await?;
    }
    let lenient = json!({ "allow": ["DE"], "unknown": "allow" }).to_string();
    upload(&house, &std::fs::read(ready_made("country").await?)?, &lenient).await?;
    let answer = house.call(Method::POST, "/v1/policies/country/active", json!({ "version": "1" })).await?;
    ensure!(answer["edges"]["on"] == json!(["e1", "e2"]), "{answer}");
    let named = &answer["edges"]["not_ready"][0];
    ensure!(named["edge"] == "small" && named["problem"].is_string(), "{answer}");
    let statuses = [house.status(0, &path).await?, house.status(1, &path).await?, house.status(2, &path).await?];
    ensure!(statuses == [200, 200, 503], "{statuses:?}");
    house.call(Method::DELETE, "/v1/policies/country/active", json!({})).await?;
    house.answers(2, &path, 200).await?;
    Ok(())
}

async fn upload(house: &House, file: &[u8], config: &str) -> anyhow::Result<Value> {
    let form = form(&[("version", b"1"), ("config", config.as_bytes()), ("component", file)]);
    house.post("/v1/policies/country/versions", &kind(), form).await
}
