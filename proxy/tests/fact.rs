//! What is recorded of what was delivered, and the path that a request takes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use segue_config::Secret;
use segue_proxy::limit::{LimitConfig, Per};
use segue_signing::{Claims, mint};
use support::{Behaviour, Client, TRACK, VERSION, claims, house, house_with, key, pattern, ticket, versioned};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

fn playlist() -> Behaviour {
    let mut text = "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXT-X-MAP:URI=\"init.mp4\"\n".to_owned();
    for n in 0..3 {
        text.push_str(&format!("#EXTINF:5.994667,\nseg-0000{n}.m4s\n"));
    }
    text.push_str("#EXT-X-ENDLIST\n");
    Behaviour::Serve(text.into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_play_leaves_one_fact_for_each_segment_with_its_place() {
    let house = house().await;
    house.origin.track(&versioned("a128/index.m3u8"), playlist());
    house.origin.track(&versioned("a128/init.mp4"), Behaviour::Serve(pattern(700)));
    for n in 0..3 {
        house.origin.track(&versioned(&format!("a128/seg-0000{n}.m4s")), Behaviour::Serve(pattern(90_000)));
    }
    let mut client = house.client().await;
    let files = ["index.m3u8", "init.mp4", "seg-00000.m4s", "seg-00001.m4s", "seg-00001.m4s"];
    for file in files {
        let target = format!("/p/{}/hls/{TRACK}/{}", ticket(), versioned(&format!("a128/{file}")));
        let headers = "User-Agent: player/1\r\nCMCD-Request: bl=2000,su\r\n";
        assert_eq!(client.request("GET", &target, headers).await.status, 200);
    }
    let facts = house.facts_when(4).await;
    let told: Vec<_> = facts
        .iter()
        .map(|fact| {
            (
                fact["file"].as_str().unwrap(),
                fact["pos_ms"].as_u64(),
                fact["media_ms"].as_u64(),
                fact["cache"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("a128/init.mp4", None, None, "miss"),
            ("a128/seg-00000.m4s", Some(0), Some(5_995), "miss"),
            ("a128/seg-00001.m4s", Some(5_995), Some(5_995), "miss"),
            ("a128/seg-00001.m4s", Some(5_995), Some(5_995), "hit-memory"),
        ]
    );
    let last = &facts[3];
    assert_eq!((&last["track"], &last["version"], &last["kind"]), (&TRACK.into(), &VERSION.into(), &"segment".into()));
    assert_eq!(
        (&last["sid"], &last["sub"], &last["ua"]),
        (&"device-1".into(), &"listener-1".into(), &"player/1".into())
    );
    assert_eq!((&last["status"], &last["bytes"], &last["complete"]), (&200.into(), &90_000.into(), &true.into()));
    assert_eq!(last["cmcd"], serde_json::json!({"bl": 2000, "su": true}));
    assert_eq!(last["ip_hash"].as_str().unwrap().len(), 28);
    assert_ne!(facts[2]["id"], facts[3]["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_restarts_in_mid_play_finds_the_places_again() {
    let house = house().await;
    house.origin.track(&versioned("a128/index.m3u8"), playlist());
    house.origin.track(&versioned("a128/seg-00002.m4s"), Behaviour::Serve(pattern(500)));
    assert_eq!(house.get(&versioned("a128/seg-00002.m4s")).await.status, 200);
    let facts = house.facts_when(1).await;
    assert_eq!((facts[0]["pos_ms"].as_u64(), facts[0]["media_ms"].as_u64()), (Some(11_989), Some(5_995)));
    assert_eq!(house.origin.count(&versioned("a128/index.m3u8")), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn playlists_of_other_names_are_found_through_the_master_and_none_at_all_is_remembered() {
    let house = house().await;
    house.origin.track("audio/seg-00001.m4s", Behaviour::Serve(pattern(500)));
    house.origin.track("audio/seg-00002.m4s", Behaviour::Serve(pattern(500)));
    house.origin.track("audio/list.m3u8", playlist());
    let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\naudio/list.m3u8\n";
    house.origin.track("master.m3u8", Behaviour::Serve(master.into()));
    assert_eq!(house.get("audio/seg-00001.m4s").await.status, 200);
    assert_eq!(house.facts_when(1).await[0]["pos_ms"], 5_995);
    house.origin.track("bare/seg-1.m4s", Behaviour::Serve(pattern(5)));
    house.origin.track("bare/seg-2.m4s", Behaviour::Serve(pattern(5)));
    house.get("bare/seg-1.m4s").await;
    house.get("bare/seg-2.m4s").await;
    let facts = house.facts_when(3).await;
    assert!(facts[1].get("pos_ms").is_none() && facts[2].get("pos_ms").is_none());
    assert_eq!(house.origin.count("bare/index.m3u8"), 1, "asked for once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_playlist_that_does_not_come_holds_nobody_up() {
    let house = house().await;
    house.origin.track(&versioned("a128/index.m3u8"), Behaviour::Silent);
    for file in ["a128/seg-00000.m4s", "a128/seg-00001.m4s"] {
        house.origin.track(&versioned(file), Behaviour::Serve(pattern(500)));
    }
    let timed = async |file: &str| {
        let started = Instant::now();
        assert_eq!(house.get(&versioned(file)).await.status, 200);
        started.elapsed()
    };
    let cold = timed("a128/seg-00000.m4s").await;
    assert!(cold < Duration::from_millis(950), "waited {cold:?}");
    let next = timed("a128/seg-00001.m4s").await;
    assert!(next < Duration::from_millis(400), "what was late is remembered, but this waited {next:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_playlist_that_failed_is_asked_for_again_soon() {
    let house = house().await;
    let playlist_file = versioned("a128/index.m3u8");
    house.origin.track(&playlist_file, Behaviour::Status(500));
    house.origin.track(&versioned("a128/seg-00001.m4s"), Behaviour::Serve(pattern(500)));
    house.get(&versioned("a128/seg-00001.m4s")).await;
    house.origin.track(&playlist_file, playlist());
    let started = Instant::now();
    loop {
        house.get(&versioned("a128/seg-00001.m4s")).await;
        let facts = house.facts();
        if facts.last().is_some_and(|fact| fact["pos_ms"] == 5_995) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(6), "{facts:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_asks_for_no_playlist() {
    let house = house().await;
    house.origin.track(&versioned("a128/seg-00000.m4s"), Behaviour::Serve(pattern(500)));
    let target = format!("/p/{}/hls/{TRACK}/{}", ticket(), versioned("a128/seg-00000.m4s"));
    assert_eq!(house.client().await.request("HEAD", &target, "").await.status, 200);
    assert_eq!(house.origin.count(&versioned("a128/index.m3u8")), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_playlist_speaks_of_its_own_track_and_the_fuller_one_stands() {
    let house = house().await;
    house.origin.track(&versioned("a128/index.m3u8"), playlist());
    let foreign = "#EXTM3U\n#EXTINF:9,\n/hls/othertrack/a/seg-0.m4s\n#EXTINF:9,\na128/seg-00002.m4s\n#EXT-X-ENDLIST\n";
    house.origin.track(&versioned("preview.m3u8"), Behaviour::Serve(foreign.into()));
    house.origin.track(&versioned("a128/seg-00002.m4s"), Behaviour::Serve(pattern(500)));
    house.origin.put("/hls/othertrack/a/seg-0.m4s", Behaviour::Serve(pattern(500)));
    for file in ["a128/index.m3u8", "preview.m3u8", "a128/seg-00002.m4s"] {
        assert_eq!(house.get(&versioned(file)).await.status, 200);
    }
    let all = Claims { path: "/hls/".to_owned(), ..claims() };
    let all = mint(&key(), &all).unwrap();
    assert_eq!(house.client().await.get(&format!("/p/{all}/hls/othertrack/a/seg-0.m4s")).await.status, 200);
    let facts = house.facts_when(2).await;
    assert_eq!(facts[0]["pos_ms"], 11_989);
    assert!(facts[1].get("pos_ms").is_none(), "{}", facts[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_shutdown_cuts_is_recorded_with_what_was_sent() {
    let house = house_with(|config| config.connections.drain = Duration::from_millis(100)).await;
    let file = versioned("a128/seg-00000.m4s");
    house.origin.track(&file, Behaviour::Stall(pattern(50_000), 20_000));
    let mut client = house.client().await;
    client.send(format!("GET /p/{}/hls/{TRACK}/{file} HTTP/1.1\r\nHost: e\r\n\r\n", ticket()).as_bytes()).await;
    client.head().await;
    client.body(20_000).await;
    let events = Arc::clone(&house.events);
    house.edge.shutdown().await;
    let batch = events.facts().read(events.facts().start(), 10).unwrap();
    let facts: Vec<serde_json::Value> =
        batch.records.iter().map(|(_, json)| serde_json::from_str(json).unwrap()).collect();
    assert_eq!(facts.len(), 1);
    assert_eq!((&facts[0]["complete"], &facts[0]["bytes"]), (&false.into(), &20_000.into()));
}

#[derive(Clone, Default)]
struct Steps(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Steps {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let metadata = attributes.metadata();
        if metadata.target().starts_with("segue_proxy") {
            self.0.lock().unwrap().push(metadata.file().unwrap_or_default().to_owned());
        }
    }
}

/// The numbered files of ARCHITECTURE.md's "life of one segment request" that a `miss` or a `hit` passes.
fn documented(course: &str) -> Vec<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../ARCHITECTURE.md")).unwrap();
    let section = text.split("## The life of one segment request").nth(1).unwrap().split("\n## ").next().unwrap();
    let item = |line: &str| {
        let (number, rest) = line.split_once(". `")?;
        number.parse::<u32>().ok()?;
        let (file, rest) = rest.split_once('`')?;
        let always = !rest.starts_with(" (on a ");
        (always || rest.starts_with(&format!(" (on a {course})"))).then(|| file.to_owned())
    };
    section.lines().filter_map(item).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traced_request_passes_the_files_that_the_architecture_lists_in_order() {
    let steps = Steps::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(steps.clone())).unwrap();
    let house = house_with(|config| {
        for (name, per) in [("address", Per::Address), ("tracks", Per::Track)] {
            config.limits.classes.insert(name.to_owned(), LimitConfig::new(10.0, 60, per));
        }
    })
    .await;
    house.origin.track(&versioned("a128/index.m3u8"), playlist());
    house.origin.track(&versioned("a128/seg-00000.m4s"), Behaviour::Serve(pattern(10)));
    house.get(&versioned("a128/index.m3u8")).await;
    let seen = || std::mem::take(&mut *steps.0.lock().unwrap());
    seen();
    assert!(documented("miss").len() >= 6, "ARCHITECTURE.md lists {:?}", documented("miss"));
    house.get(&versioned("a128/seg-00000.m4s")).await;
    assert_eq!(seen(), documented("miss"));
    house.get(&versioned("a128/seg-00000.m4s")).await;
    assert_eq!(seen(), documented("hit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_counts_and_can_purge() {
    let house = house_with(|config| {
        config.admin_listen = Some("127.0.0.1:0".parse().unwrap());
        config.admin_token = Some(Secret::literal("operator"));
    })
    .await;
    let file = versioned("a128/seg-00000.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(10)));
    house.get(&file).await;
    house.get(&file).await;
    let mut admin = Client::connect(house.edge.admin_addr().unwrap()).await;
    let ready = admin.get("/readyz").await;
    assert_eq!((ready.status, ready.body.as_slice()), (200, b"ready\n".as_slice()));
    // An answer is counted after its last byte, which the client may have before.
    let mut metrics = String::new();
    for _ in 0..200 {
        metrics = String::from_utf8(admin.get("/metrics").await.body).unwrap();
        if metrics.contains("segue_bytes_total 20\n") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for line in [
        "segue_requests_total{class=\"2xx\",cache=\"hit-memory\"} 1",
        "segue_requests_total{class=\"2xx\",cache=\"miss\"} 1",
        "segue_bytes_total 20",
        "segue_panics_total 0",
        "segue_fact_overflow_total{reason=\"log-full\"} 0",
        "segue_key_accepted_total{kid=\"k1\"} 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    let body = format!("{{\"track\":\"{TRACK}\"}}");
    let length = format!("Content-Length: {}\r\n", body.len());
    let mut purge = async |token: &str| {
        let head = format!("POST /purge HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n{length}\r\n{body}");
        admin.send(head.as_bytes()).await;
        admin.answer(false).await
    };
    assert_eq!(purge("wrong").await.status, 401);
    assert_eq!(house.get(&file).await.cache_status(), "segue; hit; detail=memory");
    assert_eq!(purge("operator").await.status, 200);
    assert_eq!(house.get(&file).await.header("cache-status"), Some("segue; fwd=miss; stored"));
    assert_eq!(house.origin.count(&file), 2);
    house.edge.shutdown().await;
}
