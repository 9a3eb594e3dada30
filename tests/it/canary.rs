//! A canary among two thousand sessions on two edges: its share, who is in it, and the way on to everybody and back.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, ensure};
use reqwest::Method;
use segue_testkit::songs;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::roles::{ADMIN, House};
use crate::rollout::{config, done, ready_made};

const SESSIONS: usize = 2_000;
/// Requests at once: as many as two cores answer without a queue.
const AT_ONCE: usize = 8;

/// The house with a policy whose first version lets the tests' listeners in and whose second does not, and a ticket for each session.
async fn begin() -> anyhow::Result<(Arc<House>, Arc<Vec<String>>, String)> {
    let house = Arc::new(House::start().await?);
    let track = house.add(&songs::tone(8.0, "canary.wav")?).await?;
    let file = ready_made("country").await?;
    let file = file.to_str().context("path")?;
    // The tests' addresses have no country.
    let lenient = config(&house, "lenient.json", &json!({ "allow": ["DE"], "unknown": "allow" }))?;
    let strict = config(&house, "strict.json", &json!({ "allow": ["DE"] }))?;
    for (version, settings) in [("1", &lenient), ("2", &strict)] {
        done(&house, &["push", "country", file, "--version", version, "--config", settings, "--wait", "60s"]).await?;
    }
    done(&house, &["activate", "country", "1", "--wait", "60s"]).await?;
    let mut minting = JoinSet::new();
    for worker in 0..AT_ONCE {
        let (house, track) = (Arc::clone(&house), track.clone());
        minting.spawn(async move {
            let mut tickets = Vec::new();
            for number in (worker..SESSIONS).step_by(AT_ONCE) {
                tickets.push(house.ticket(&track, &format!("listener-{number}")).await?);
            }
            anyhow::Ok(tickets)
        });
    }
    let mut tickets = Vec::new();
    while let Some(some) = minting.join_next().await {
        tickets.extend(some??);
    }
    Ok((house, Arc::new(tickets), track))
}

/// The sessions, by their place, that the second version decides about. Each is asked twice on each edge, and all of it must agree.
async fn refused(house: &Arc<House>, tickets: &Arc<Vec<String>>) -> anyhow::Result<BTreeSet<usize>> {
    let mut asking = JoinSet::new();
    for worker in 0..AT_ONCE {
        let (house, tickets) = (Arc::clone(house), Arc::clone(tickets));
        asking.spawn(async move {
            let mut refused = BTreeSet::new();
            for (place, ticket) in tickets.iter().enumerate().skip(worker).step_by(AT_ONCE) {
                let mut said = Vec::new();
                for edge in [0, 1, 0, 1] {
                    said.push(house.status(edge, ticket).await?);
                }
                match said[..] {
                    [200, 200, 200, 200] => {}
                    [451, 451, 451, 451] => _ = refused.insert(place),
                    _ => anyhow::bail!("session {place} is not on one side: {said:?}"),
                }
            }
            anyhow::Ok(refused)
        });
    }
    let mut all = BTreeSet::new();
    while let Some(some) = asking.join_next().await {
        all.extend(some??);
    }
    Ok(all)
}

#[allow(clippy::cast_precision_loss, reason = "some thousands")]
fn percent(refused: &BTreeSet<usize>) -> f64 {
    refused.len() as f64 * 100.0 / SESSIONS as f64
}

async fn history(house: &House) -> anyhow::Result<Vec<(String, Value, Value)>> {
    let lines = house.call(Method::GET, "/v1/policies/country/history", json!({})).await?;
    let lines = lines["history"].as_array().context("no history")?.clone();
    let line = |line: &Value| {
        (line["act"].as_str().unwrap_or_default().to_owned(), line["version"].clone(), line["percent"].clone())
    };
    Ok(lines.iter().map(line).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_meets_its_share_of_two_thousand_sessions_and_is_widened_by_command() -> anyhow::Result<()> {
    let (house, tickets, _) = begin().await?;
    ensure!(refused(&house, &tickets).await?.is_empty(), "nobody is tried yet");

    done(&house, &["canary", "country", "2", "--percent", "10", "--wait", "60s"]).await?;
    let tenth = refused(&house, &tickets).await?;
    ensure!((8.0..=12.0).contains(&percent(&tenth)), "{} % instead of 10", percent(&tenth));
    ensure!(refused(&house, &tickets).await? == tenth, "asked again, others are in it");

    done(&house, &["canary", "country", "2", "--percent", "30", "--wait", "60s"]).await?;
    let third = refused(&house, &tickets).await?;
    ensure!((27.0..=33.0).contains(&percent(&third)), "{} % instead of 30", percent(&third));
    ensure!(tenth.is_subset(&third), "{} that were in it are not any more", tenth.difference(&third).count());
    println!("of {SESSIONS} sessions {} % at 10 %, {} % at 30 %", percent(&tenth), percent(&third));

    done(&house, &["activate", "country", "2", "--note", "it went well", "--wait", "60s"]).await?;
    ensure!(refused(&house, &tickets).await?.len() == SESSIONS, "it decides for everybody");
    done(&house, &["rollback", "country", "--note", "it did not", "--wait", "60s"]).await?;
    ensure!(refused(&house, &tickets).await?.is_empty(), "the former rule is back");

    let said = history(&house).await?;
    let step = |act: &str, version: &str, percent: Option<f64>| {
        (act.to_owned(), json!(version), percent.map_or(Value::Null, |percent| json!(percent)))
    };
    let expected = [
        step("rollback", "1", None),
        step("activate", "2", None),
        step("canary", "2", Some(30.0)),
        step("canary", "2", Some(10.0)),
        step("activate", "1", None),
    ];
    ensure!(said.get(..5) == Some(&expected[..]), "{said:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_by_the_page() -> anyhow::Result<()> {
    let (house, tickets, _) = begin().await?;
    let file = house.dir.path().join("tickets.json");
    std::fs::write(&file, serde_json::to_string(&*tickets)?)?;
    let page = format!("{}/#token={ADMIN}", house.control.url()?);
    let edges = format!("{} {}", house.edge_url(0)?, house.edge_url(1)?);
    let variables =
        [("SEGUE_PAGE", page.as_str()), ("SEGUE_EDGES", &edges), ("SEGUE_TICKETS", file.to_str().context("path")?)];
    crate::browser::node("canary.test.mjs", &variables).await
}
