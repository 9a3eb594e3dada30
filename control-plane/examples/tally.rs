//! How many facts a second the tally counts: from a log that is full of them, through rule, sums and kept files, into SQLite.
//!
//!     cargo run --release -p segue-control-plane --example tally -- [facts] [listeners]
//!
//! Listeners hear one of a hundred tracks each, in step: the facts of a batch are of as many plays as they can be, which is the dearest
//! case. One line of JSON; the facts that the sums have are compared with those that were written.
#![allow(clippy::expect_used, missing_docs)]

use std::time::{Duration, Instant};

use segue_config::Secret;
use segue_control_plane::{
    AccessConfig, AuditConfig, Control, ControlConfig, ControlInputs, DatabaseConfig, FactsConfig, HttpConfig,
    JobsConfig, ObjectsConfig, PoliciesConfig, TicketsConfig, TokensConfig, UploadsConfig, WebhooksConfig,
};
use segue_events::{EventLog, FactDraft, LogOptions};

const TOKEN: &str = "the token of a tally that is measured";
const TRACKS: u64 = 100;
const UA: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";

/// A tally that is slower than this is broken.
const WITHIN: Duration = Duration::from_secs(600);

fn config(folder: &std::path::Path) -> ControlConfig {
    ControlConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        database: DatabaseConfig::Sqlite(folder.join("control.db")),
        redis: None,
        objects: ObjectsConfig {
            endpoint: "http://127.0.0.1:9".to_owned(),
            public_endpoint: None,
            region: "us-east-1".to_owned(),
            bucket: "media".to_owned(),
            access_key: Secret::literal("x"),
            secret_key: Secret::literal("x"),
            create_bucket: false,
        },
        edge_base_url: "http://127.0.0.1:9".to_owned(),
        keys: vec![("k1".to_owned(), Secret::literal("a signing secret of at least thirty-two bytes"))],
        tokens: TokensConfig { admin: Secret::literal(TOKEN), worker: None, edge: None },
        access: AccessConfig::default(),
        audit: AuditConfig::default(),
        webhooks: WebhooksConfig::default(),
        uploads: UploadsConfig::default(),
        tickets: TicketsConfig::default(),
        jobs: JobsConfig::default(),
        http: HttpConfig::default(),
        policies: PoliciesConfig::default(),
        facts: FactsConfig::default(),
        fluvio: None,
    }
}

fn write(log: &EventLog, facts: u64, listeners: u64) {
    for number in 0..facts {
        let (listener, segment) = (number % listeners, number / listeners);
        let (track, sid) = (format!("track{:07}", listener % TRACKS), format!("session-{listener}"));
        let file = format!("a128/seg-{segment:05}.m4s");
        let draft = FactDraft {
            track: &track,
            version: Some("9f86d081884c7d65-1"),
            file: &file,
            pos_ms: Some(segment * 6000),
            media_ms: Some(6000),
            sid: &sid,
            status: 200,
            bytes: 96_000,
            ttfb_ms: 3,
            ua: Some(UA),
            ..FactDraft::default()
        };
        log.note(draft).settle(true, 96_000).expect("the log has room");
    }
}

#[tokio::main]
async fn main() {
    let given: Vec<u64> = std::env::args().skip(1).map(|text| text.parse().expect("a number")).collect();
    let facts = given.first().copied().unwrap_or(200_000);
    let listeners = given.get(1).copied().unwrap_or(20_000).max(1);
    let folder = tempfile::tempdir().expect("a folder");
    let log = EventLog::open(&folder.path().join("events"), "bench", LogOptions::default()).expect("a log");
    write(&log, facts, listeners);
    let inputs = ControlInputs { listener: None, events: Some(std::sync::Arc::clone(&log)) };
    let began = Instant::now();
    let control = Control::start(config(folder.path()), inputs).await.expect("a control plane");
    while log.facts().acknowledged() < log.facts().end() {
        assert!(began.elapsed() < WITHIN, "the tally stands still");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let client = reqwest::Client::new();
    let url = format!("http://{}/v1/stats", control.addr());
    let stats: serde_json::Value =
        client.get(url).bearer_auth(TOKEN).send().await.expect("an answer").json().await.expect("sums");
    assert_eq!(stats["facts"].as_u64(), Some(facts), "{stats}");
    assert_eq!(stats["plays"].as_u64(), Some(listeners.min(facts)), "{stats}");
    let kept: u64 = std::fs::read_dir(folder.path().join("control.db-facts"))
        .expect("kept facts")
        .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
        .sum();
    control.shutdown().await;
    let rate = facts as f64 / seconds;
    println!(
        "{}",
        serde_json::json!({
            "facts": facts, "listeners": listeners, "seconds": (seconds * 1000.0).round() / 1000.0, "facts_per_second": rate.round(),
            "kept_bytes_per_fact": (kept as f64 / facts as f64 * 10.0).round() / 10.0,
        })
    );
}
