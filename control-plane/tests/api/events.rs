//! Server-sent events, and the tally from an edge's log to the stats, over restarts.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use reqwest::StatusCode;
use segue_events::{DenialDraft, EventLog, FactDraft, Kind, LogOptions};
use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::house::{ADMIN, House, config};

/// A stream of events: name and data.
pub(crate) struct Follower {
    bytes: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Follower {
    pub(crate) async fn new(house: &House, query: &str) -> Self {
        let response =
            house.client.get(house.url(&format!("/v1/events{query}"))).bearer_auth(ADMIN).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { bytes: response.bytes_stream().boxed(), text: String::new() }
    }

    pub(crate) async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    block.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_owned())
                };
                let event = field("event:").zip(field("data:"));
                self.text = rest.to_owned();
                if let Some((name, data)) = event {
                    return (name, serde_json::from_str(&data).unwrap());
                }
                continue;
            }
            let more = tokio::time::timeout(Duration::from_secs(10), self.bytes.next()).await.expect("no event came");
            self.text.push_str(std::str::from_utf8(&more.expect("the stream ended").unwrap()).unwrap());
        }
    }
}

fn open(folder: &std::path::Path) -> Arc<EventLog> {
    EventLog::open(&folder.join("events"), "edge1", LogOptions::default()).unwrap()
}

fn deliver(events: &EventLog, track: &str, sid: &str, segment: u64) {
    let file = format!("v/a64/seg-{segment:05}.m4s");
    let draft = FactDraft {
        track,
        file: &file,
        kind: Kind::Segment,
        pos_ms: Some(segment * 6000),
        media_ms: Some(6000),
        sid,
        status: 200,
        bytes: 100,
        ..FactDraft::default()
    };
    events.note(draft).settle(true, 100).expect("the log took it");
}

async fn ready(house: &House, duration_ms: u64) -> String {
    let (track, _) = house.add("a.mp3", b"x").await;
    let claimed = house.claim().await.unwrap();
    assert_eq!(house.complete(&claimed, duration_ms).await.0, StatusCode::OK);
    track
}

async fn stats(house: &House, track: &str, until: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/v1/tracks/{track}/stats");
    for _ in 0..400 {
        let (_, stats) = house.get(&path).await;
        if until(&stats) {
            return stats;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the stats never came: {}", house.get(&path).await.1);
}

#[tokio::test]
async fn a_track_is_followed_from_upload_to_play() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let events = open(folder.path());
    let house = House::with_events(config(folder.path(), &bucket), Some(Arc::clone(&events))).await;
    let mut all = Follower::new(&house, "").await;
    let mut plays = Follower::new(&house, "?topics=plays,denials").await;
    let track = ready(&house, 60_000).await;
    let mut statuses = Vec::new();
    while statuses.last().is_none_or(|status| status != "ready") {
        let (name, data) = all.next().await;
        match name.as_str() {
            "track" => statuses.push(data["status"].as_str().unwrap().to_owned()),
            "job" => assert!(data["job"].is_string()),
            other => panic!("unexpected event {other}"),
        }
    }
    statuses.dedup();
    assert_eq!(statuses, ["uploading", "queued", "transcoding", "ready"]);

    for segment in 0..5 {
        deliver(&events, &track, "s1", segment);
    }
    let mut told = Vec::new();
    for _ in 0..4 {
        let (name, data) = plays.next().await;
        assert_eq!((name.as_str(), &data["track"]), ("play", &json!(track)));
        told.push((data["type"].as_str().unwrap().to_owned(), data["quartile"].as_u64()));
    }
    let named = |kind: &str, quartile| (kind.to_owned(), quartile);
    assert_eq!(
        told,
        [named("started", None), named("quartile", Some(25)), named("qualified", None), named("quartile", Some(50))]
    );
    let (name, fact) = all.next().await;
    assert_eq!((name.as_str(), &fact["sid"]), ("fact", &json!("s1")), "facts are followed as well");

    events.deny(DenialDraft { path: "/hls/x/master.m3u8", reason: "expired", status: 401, ..DenialDraft::default() });
    let (name, denial) = plays.next().await;
    assert_eq!((name.as_str(), &denial["reason"]), ("denial", &json!("expired")));
    let (_, denials) = house.get("/v1/denials").await;
    assert_eq!((&denials["hourly"][0]["reason"], &denials["hourly"][0]["count"]), (&json!("expired"), &json!(1)));
    house.control.shutdown().await;
}

#[tokio::test]
async fn plays_are_counted_once_whatever_a_listener_does() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let events = open(folder.path());
    let house = House::with_events(config(folder.path(), &bucket), Some(Arc::clone(&events))).await;
    let track = ready(&house, 60_000).await;
    // One listener plays it all, seeks back and forth, and fetches segments twice; another stops after two.
    for segment in [0, 1, 2, 3, 9, 4, 4, 2, 5, 6, 7, 8, 9, 0, 1] {
        deliver(&events, &track, "s1", segment);
    }
    deliver(&events, &track, "s2", 0);
    deliver(&events, &track, "s2", 1);
    let counted = stats(&house, &track, |stats| stats["bytes"] == 1700).await;
    assert_eq!((&counted["plays"], &counted["qualified"], &counted["listeners"]), (&json!(2), &json!(1), &json!(2)));
    assert_eq!((&counted["seconds"], &counted["quartiles"]), (&json!(72.0), &json!([1, 1, 1, 1])));
    assert_eq!(
        counted["hourly"].as_array().unwrap().iter().map(|hour| hour["plays"].as_i64().unwrap()).sum::<i64>(),
        2
    );
    let (_, list) = house.get("/v1/tracks").await;
    assert_eq!((&list["tracks"][0]["plays"], &list["tracks"][0]["qualified"]), (&json!(2), &json!(1)));
    house.control.shutdown().await;
}

#[tokio::test]
async fn restarts_count_nothing_twice_and_lose_nothing() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut sent = 0;
    let mut track = String::new();
    for round in 0..4u64 {
        let events = open(folder.path());
        let house = House::with_events(config(folder.path(), &bucket), Some(Arc::clone(&events))).await;
        if track.is_empty() {
            track = ready(&house, 3_600_000).await;
        }
        for segment in 0..50 {
            deliver(&events, &track, &format!("s{round}"), segment);
            sent += 1;
        }
        if round < 3 {
            // Ended while the tally is somewhere in the middle.
            tokio::time::sleep(Duration::from_millis(round * 7)).await;
            house.control.shutdown().await;
            continue;
        }
        let counted = stats(&house, &track, |stats| stats["bytes"] == sent * 100).await;
        assert_eq!((&counted["plays"], &counted["qualified"]), (&json!(4), &json!(4)));
        assert_eq!(counted["seconds"], json!(4.0 * 300.0));
        house.control.shutdown().await;
    }
}
