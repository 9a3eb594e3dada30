//! What was played, exported and loaded as docs/analytics.md says, is what the API counts.

use std::path::Path;

use anyhow::{Context, ensure};
use reqwest::Method;
use segue_events::{FluvioConfig, FluvioSink};
use segue_testkit::{Player, Segue, python, songs};
use serde_json::Value;
use tokio::process::Command;

use crate::SEGUE;

/// Runs the command against a demo and gives what it says.
async fn segue(demo: &Segue, args: &[&str], folder: &Path) -> anyhow::Result<String> {
    let output = Command::new(SEGUE)
        .args(args)
        .arg("--dir")
        .arg(demo.dir())
        .arg("--json")
        .current_dir(folder)
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "segue {args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

fn today() -> anyhow::Result<String> {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let output = std::process::Command::new("date").args(["-u", "+%F", "-d", &format!("@{seconds}")]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A house with two songs, three listeners and two refusals.
async fn played() -> anyhow::Result<(Segue, Vec<String>)> {
    let demo = crate::start().await?;
    let mut tracks = Vec::new();
    for (name, seconds) in [("one.wav", 40.0), ("two.wav", 20.0)] {
        tracks.push(demo.add(&songs::tone(seconds, name)?).await?.id);
    }
    let calm = std::time::Duration::from_millis(500);
    Player::new(&demo.ticket(&tracks[0], "whole").await?)?.play_whole().await?;
    Player::new(&demo.ticket(&tracks[0], "begun").await?)?.play_first(2).await?;
    Player::new(&demo.ticket(&tracks[1], "whole").await?)?.play_whole().await?;
    let refused = demo.ticket(&tracks[1], "whole").await?.replace("/p/", "/p/x");
    for _ in 0..2 {
        ensure!(!reqwest::get(&refused).await?.status().is_success(), "a ticket that is none was taken");
    }
    demo.stats_when(&tracks[0], calm, |stats| stats.plays == 2).await?;
    demo.stats_when(&tracks[1], calm, |stats| stats.plays == 1).await?;
    for _ in 0..100 {
        let house: Value = demo.call(Method::GET, "/v1/stats", None).await?;
        if house["denials"]["total"] == 2 {
            return Ok((demo, tracks));
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    anyhow::bail!("the refusals were not counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_load_into_duckdb_and_come_to_the_sums_of_the_api() -> anyhow::Result<()> {
    let mut python = Command::from(python()?);
    let day = today()?;
    let (demo, tracks) = played().await?;
    let folder = tempfile::tempdir()?;
    for (kind, format, out) in [
        ("facts", "parquet", "facts.parquet"),
        ("facts", "ndjson", "facts.ndjson"),
        ("plays", "parquet", "plays.parquet"),
        ("denials", "ndjson", "denials.ndjson"),
        ("denials", "parquet", "denials.parquet"),
    ] {
        let args = ["events", "export", "--day", &day, "--kind", kind, "--format", format, "--out", out];
        let said: Value = serde_json::from_str(&segue(&demo, &args, folder.path()).await?)?;
        ensure!(said["rows"] == said["counted"] && said["rows"].as_u64() > Some(0), "{kind} as {format}: {said}");
    }
    ensure!(today()? == day, "midnight passed meanwhile");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let loaded = python
        .arg("-B")
        .arg(root.join("testkit/analytics/load.py"))
        .arg(root.join("docs/analytics.md"))
        .current_dir(folder.path())
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8(loaded.stdout)?;
    ensure!(loaded.status.success(), "{said}{}", String::from_utf8_lossy(&loaded.stderr));
    let blocks: Vec<Value> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let block =
        |name: &str| blocks.iter().find(|block| block["block"] == name).with_context(|| format!("no block {name:?}"));

    let mut sorted = tracks.clone();
    sorted.sort();
    let mut facts = Vec::new();
    let mut plays = Vec::new();
    for track in &sorted {
        let stats: Value = demo.call(Method::GET, &format!("/v1/tracks/{track}/stats"), None).await?;
        facts.push((
            track.clone(),
            stats["facts"].as_f64(),
            stats["bytes"].as_f64(),
            stats["cache"]["ratio"].as_f64(),
            stats["listeners"].as_f64(),
        ));
        plays.push((
            track.clone(),
            stats["plays"].as_f64(),
            stats["qualified"].as_f64(),
            stats["seconds"].as_f64(),
            stats["deciles"][4].as_f64(),
        ));
    }
    let numbers = |row: &Value| {
        let rounded = |at: usize| row[at].as_f64().map(|number| (number * 10_000.0).round() / 10_000.0);
        (row[0].as_str().unwrap_or_default().to_owned(), rounded(1), rounded(2), rounded(3), rounded(4))
    };
    for name in ["facts per track, from Parquet", "facts per track, from JSON lines"] {
        let rows: Vec<_> = block(name)?["rows"].as_array().context("rows")?.iter().map(numbers).collect();
        ensure!(rows == facts, "{name}: {rows:?}, and the API says {facts:?}");
    }
    let rows: Vec<_> =
        block("plays per track, from Parquet")?["rows"].as_array().context("rows")?.iter().map(numbers).collect();
    ensure!(rows == plays, "{rows:?}, and the API says {plays:?}");
    let house: Value = demo.call(Method::GET, "/v1/stats", None).await?;
    for row in block("denials by reason, from JSON lines")?["rows"].as_array().context("rows")? {
        let reason = row[0].as_str().context("a reason")?;
        ensure!(row[1] == house["denials"]["by_reason"][reason], "{row}, and the API says {}", house["denials"]);
    }
    ensure!(house["listeners"] == 2 && house["plays"] == 3, "{house}");
    block("how quick answers began, exactly")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_told_and_counted_again_after_a_restart() -> anyhow::Result<()> {
    let (mut demo, tracks) = played().await?;
    let folder = tempfile::tempdir()?;
    let filter = format!("track={}", tracks[1]);
    let said = segue(&demo, &["events", "tail", "--from", "1h", "--filter", &filter], folder.path()).await?;
    let lines: Vec<Value> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let stats: Value = demo.call(Method::GET, &format!("/v1/tracks/{}/stats", tracks[1]), None).await?;
    ensure!(
        lines.len() as u64 == stats["facts"].as_u64().unwrap_or(0) && !lines.is_empty(),
        "{} lines: {stats}",
        lines.len()
    );
    ensure!(
        lines.iter().all(|line| line["topic"] == "fact" && line["event"]["track"] == tracks[1].as_str()),
        "{lines:?}"
    );
    let said = segue(&demo, &["events", "tail", "--from", "0", "--limit", "3"], folder.path()).await?;
    ensure!(said.lines().count() == 3, "{said}");
    let said = segue(&demo, &["events", "tail", "--from", "2h", "--topic", "denials"], folder.path()).await?;
    ensure!(said.lines().count() == 2, "{said}");

    let sums = async |demo: &Segue| -> anyhow::Result<Value> {
        let house: Value = demo.call(Method::GET, "/v1/stats", None).await?;
        let mut all: Vec<Value> =
            vec![house["plays"].clone(), house["bytes"].clone(), house["denials"].clone(), house["seconds"].clone()];
        for track in &tracks {
            let mut stats: Value = demo.call(Method::GET, &format!("/v1/tracks/{track}/stats"), None).await?;
            // The moment, and plays that the clock ends.
            for moment in ["now", "ended"] {
                stats[moment] = Value::Null;
            }
            all.push(stats);
        }
        Ok(Value::Array(all))
    };
    let before = sums(&demo).await?;
    demo.stop().await?;
    let config = demo.dir().join("config/control.toml");
    let output = Command::new(SEGUE).args(["control", "--recount", "--config"]).arg(&config).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(told["facts"].as_u64() > Some(0) && told["denials"] == 2 && told["from_ms"].is_null(), "{told}");
    demo.restart().await?;
    let after = sums(&demo).await?;
    ensure!(after == before, "{before}\nbecame {after}");
    Ok(())
}

/// Both consumers of docs/analytics.md, on a real cluster. Wants `SEGUE_TEST_FLUVIO`, the address of its controller, and says so without it.
#[tokio::test(flavor = "multi_thread")]
async fn the_consumers_count_each_fact_once() -> anyhow::Result<()> {
    let Ok(cluster) = std::env::var("SEGUE_TEST_FLUVIO") else {
        eprintln!(
            "SKIPPED: the consumers of docs/analytics.md were NOT run: SEGUE_TEST_FLUVIO does not name a Fluvio cluster"
        );
        return Ok(());
    };
    let prefix = format!("test-consumers-{}-", std::process::id());
    let config = FluvioConfig { prefix: prefix.clone(), partitions: 1, ..FluvioConfig::new(&cluster) };
    let record = |n: u64| {
        let fact = serde_json::json!({
            "v": 1, "id": format!("e-b-{}", n % 40), "ts": 1, "edge": "e", "track": format!("t{}", n % 2), "file": "f", "kind": "segment",
            "sid": "s", "status": 200, "ttfb_ms": 1, "cache": "miss", "bytes": 10, "complete": true,
        });
        ("s".to_owned(), fact.to_string())
    };
    // Ten of them come twice.
    let records: Vec<(String, String)> = (0..50).map(record).collect();
    FluvioSink::new(&config, "segments").publish(&records).await?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut in_python = Command::from(python()?);
    in_python.arg("-B").arg(root.join("docs/examples/consume.py")).args([
        "--cluster",
        &cluster,
        "--topic",
        &format!("{prefix}segments"),
        "--from-beginning",
        "--limit",
        "50",
    ]);
    let built = Path::new(SEGUE).parent().context("no folder")?.join("examples/consume");
    ensure!(
        built.is_file(),
        "there is no {}: cargo build --release -p segue-events --example consume",
        built.display()
    );
    let mut in_rust = Command::new(built);
    in_rust.args([&cluster, &prefix]);
    for mut consumer in [in_python, in_rust] {
        let output =
            tokio::time::timeout(std::time::Duration::from_secs(60), consumer.kill_on_drop(true).output()).await??;
        let said = String::from_utf8(output.stdout)?;
        ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let counted: Vec<Value> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let each = |track: &str| serde_json::json!({ "track": track, "facts": 20, "bytes": 200 });
        ensure!(counted == [each("t0"), each("t1")], "{said}");
    }
    Ok(())
}
