//! One fill for all, and origins that misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{Behaviour, TRACK, house, house_with, pattern, ticket, versioned};
use tokio::sync::Notify;

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_then_a_hit() {
    let house = house().await;
    let file = versioned("a128/seg-00000.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(100_000)));
    let miss = house.get(&file).await;
    assert_eq!((miss.status, miss.whole), (200, true), "{}", miss.head);
    assert_eq!(miss.body, pattern(100_000));
    assert_eq!(miss.header("cache-status"), Some("segue; fwd=miss; stored"));
    assert_eq!(miss.header("content-type"), Some("audio/mp4"));
    assert_eq!(miss.header("cache-control"), Some("private, max-age=3600"));
    let hit = house.get(&file).await;
    assert_eq!(hit.body, pattern(100_000));
    assert_eq!(hit.cache_status(), "segue; hit; detail=memory");
    assert_eq!(hit.header("age"), Some("0"));
    assert_eq!(hit.header("etag"), Some("\"v1\""));
    assert_eq!(house.origin.count(&file), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_cold_clients_make_one_request() {
    let house = Arc::new(house().await);
    let file = versioned("a128/seg-00001.m4s");
    let gate = Arc::new(Notify::new());
    house.origin.track(&file, Behaviour::Gated(pattern(200_000), 50_000, Arc::clone(&gate)));
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = house.client().await;
        let request = format!("GET /p/{}/hls/{TRACK}/{file} HTTP/1.1\r\nHost: edge\r\n\r\n", ticket());
        client.send(request.as_bytes()).await;
        clients.push(client);
    }
    // All of them have the first part while the origin still holds back the rest.
    for client in &mut clients {
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let (first, whole) = client.body(50_000).await;
        assert!(whole);
        assert_eq!(first, pattern(200_000)[..50_000]);
    }
    gate.notify_one();
    for client in &mut clients {
        let (rest, whole) = client.body(150_000).await;
        assert!(whole);
        assert_eq!(rest, pattern(200_000)[50_000..]);
    }
    assert_eq!(house.origin.count(&file), 1);
    let facts = house.facts_when(200).await;
    let coalesced = facts.iter().filter(|fact| fact["cache"] == "coalesced").count();
    let misses = facts.iter().filter(|fact| fact["cache"] == "miss").count();
    assert_eq!((facts.len(), misses, coalesced), (200, 1, 199));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_leaves_harms_nobody() {
    let house = house().await;
    let file = versioned("a128/seg-00002.m4s");
    let gate = Arc::new(Notify::new());
    house.origin.track(&file, Behaviour::Gated(pattern(80_000), 10, Arc::clone(&gate)));
    let request = format!("GET /p/{}/hls/{TRACK}/{file} HTTP/1.1\r\nHost: edge\r\n\r\n", ticket());
    let mut leader = house.client().await;
    leader.send(request.as_bytes()).await;
    leader.head().await;
    let mut follower = house.client().await;
    follower.send(request.as_bytes()).await;
    follower.head().await;
    drop(leader);
    gate.notify_one();
    let (body, whole) = follower.body(80_000).await;
    assert!(whole);
    assert_eq!(body, pattern(80_000));
    assert_eq!(house.origin.count(&file), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_stalls_nobody() {
    let house = house().await;
    let file = versioned("a128/seg-00003.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(8_000_000)));
    let request = format!("GET /p/{}/hls/{TRACK}/{file} HTTP/1.1\r\nHost: edge\r\n\r\n", ticket());
    let mut sleeper = house.client().await;
    sleeper.send(request.as_bytes()).await;
    sleeper.head().await;
    let reader = tokio::time::timeout(Duration::from_secs(5), house.get(&file)).await.unwrap();
    assert_eq!(reader.body, pattern(8_000_000));
    assert_eq!(house.origin.count(&file), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_body_is_cut_and_never_cached() {
    let house = house().await;
    let file = versioned("a128/seg-00004.m4s");
    let cut = Behaviour::Truncate(pattern(90_000), 60_000);
    house.origin.track(&file, Behaviour::First(1, Box::new(cut), Box::new(Behaviour::Serve(pattern(90_000)))));
    let broken = house.get(&file).await;
    assert!(!broken.whole && broken.body.len() < 90_000, "{} of 90000", broken.body.len());
    let good = house.get(&file).await;
    assert_eq!((good.whole, good.body), (true, pattern(90_000)));
    assert_eq!(house.origin.count(&file), 2);
    let facts = house.facts_when(2).await;
    assert_eq!(facts.len(), 2);
    assert_eq!((&facts[0]["complete"], &facts[1]["complete"]), (&false.into(), &true.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_gets_a_length_and_a_cut_one_an_error() {
    let house = house().await;
    house.origin.track("cover.jpg", Behaviour::Chunked(pattern(3_000)));
    house.origin.track("cut.jpg", Behaviour::ChunkedCut(pattern(3_000)));
    let good = house.get("cover.jpg").await;
    assert_eq!((good.status, good.header("content-length")), (200, Some("3000")));
    assert_eq!((good.body, good.head.contains("image/jpeg")), (pattern(3_000), true));
    let cut = house.get("cut.jpg").await;
    assert_eq!((cut.status, cut.reason().as_str()), (502, "origin-broken"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_body_than_declared_gives_the_declared_bytes_alone() {
    let house = house().await;
    let file = versioned("a128/seg-00005.m4s");
    let mut raw = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec();
    raw.extend_from_slice(b" and more");
    house.origin.track(&file, Behaviour::Raw(raw));
    let answer = house.get(&file).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_is_a_504_before_the_body_and_a_cut_within() {
    let house = house().await;
    house.origin.track("silent.jpg", Behaviour::Silent);
    let silent = house.get("silent.jpg").await;
    assert_eq!((silent.status, silent.reason().as_str()), (504, "origin-timeout"));
    let file = versioned("a128/seg-00006.m4s");
    house.origin.track(&file, Behaviour::Stall(pattern(50_000), 20_000));
    let stalled = house.get(&file).await;
    assert_eq!((stalled.status, stalled.whole), (200, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_down_is_retried() {
    let house = house().await;
    let busy = Box::new(Behaviour::Status(503));
    house.origin.track("cover.jpg", Behaviour::First(2, busy, Box::new(Behaviour::Serve(pattern(10)))));
    assert_eq!(house.get("cover.jpg").await.status, 200);
    assert_eq!(house.origin.count("cover.jpg"), 3);
    house.origin.track("down.jpg", Behaviour::Status(503));
    let down = house.get("down.jpg").await;
    assert_eq!((down.status, down.body.as_slice()), (503, b"no".as_slice()), "an HTTP origin's own word, in the end");
    assert_eq!(house.origin.count("down.jpg"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_object_is_remembered_briefly() {
    let house = house_with(|config| config.cache.ttl.missing = Duration::from_millis(200)).await;
    let absent = house.get("nothing.jpg").await;
    assert_eq!((absent.status, absent.body.as_slice()), (404, b"no".as_slice()), "an HTTP origin's own word");
    assert_eq!(house.get("nothing.jpg").await.status, 404);
    assert_eq!(house.origin.count("nothing.jpg"), 1);
    tokio::time::sleep(Duration::from_millis(250)).await;
    house.origin.track("nothing.jpg", Behaviour::Serve(pattern(1)));
    assert_eq!(house.get("nothing.jpg").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_is_renewed_by_one_condition_and_served_stale_while_the_origin_fails() {
    let house = house_with(|config| {
        config.cache.ttl.master = Duration::from_millis(50);
        config.cache.stale_while_revalidate = Duration::ZERO;
    })
    .await;
    house.origin.track("master.m3u8", Behaviour::Serve(b"#EXTM3U\n".to_vec()));
    let first = house.get("master.m3u8").await;
    assert_eq!(first.header("cache-control"), Some("private, no-cache"));
    tokio::time::sleep(Duration::from_millis(80)).await;
    let renewed = house.get("master.m3u8").await;
    assert_eq!(renewed.body, b"#EXTM3U\n");
    assert!(house.origin.last_head().to_ascii_lowercase().contains("if-none-match: \"v1\""));
    assert_eq!(house.origin.count("master.m3u8"), 2);
    house.origin.track("master.m3u8", Behaviour::Status(500));
    tokio::time::sleep(Duration::from_millis(80)).await;
    let stale = house.get("master.m3u8").await;
    assert_eq!((stale.status, stale.body.as_slice()), (200, b"#EXTM3U\n".as_slice()));
    assert_eq!(stale.cache_status(), "segue; hit; detail=stale-if-error");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_larger_than_the_bound_passes_with_its_ranges() {
    let house = house_with(|config| config.cache.max_object = 1_000).await;
    let file = versioned("a128/seg-00007.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(400_000)));
    let whole = house.get(&file).await;
    assert_eq!((whole.status, whole.whole, whole.body), (200, true, pattern(400_000)));
    let mut client = house.client().await;
    let target = format!("/p/{}/hls/{TRACK}/{file}", ticket());
    let part = client.request("GET", &target, "Range: bytes=1000-1999\r\n").await;
    assert_eq!((part.status, part.header("content-range")), (206, Some("bytes 1000-1999/400000")));
    assert_eq!(part.body, pattern(400_000)[1000..2000]);
    let facts = house.facts_when(2).await;
    // Whichever was settled first.
    let part = facts.iter().find(|fact| fact["status"] == 206).unwrap();
    assert_eq!((&part["cache"], &part["range"]), (&"bypass".into(), &serde_json::json!([1000, 1999, 400_000])));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_private_is_not_kept() {
    let house = house().await;
    house.origin.track("me.json", Behaviour::ServeWith(pattern(10), "Cache-Control: private\r\n"));
    assert_eq!(house.get("me.json").await.body, pattern(10));
    assert_eq!(house.get("me.json").await.header("cache-status"), Some("segue; fwd=bypass"));
    assert!(house.origin.count("me.json") >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_an_answer_in_flight_end() {
    let house = house().await;
    let file = versioned("a128/seg-00008.m4s");
    let gate = Arc::new(Notify::new());
    house.origin.track(&file, Behaviour::Gated(pattern(30_000), 10_000, Arc::clone(&gate)));
    let mut client = house.client().await;
    let request = format!("GET /p/{}/hls/{TRACK}/{file} HTTP/1.1\r\nHost: edge\r\n\r\n", ticket());
    client.send(request.as_bytes()).await;
    client.head().await;
    let mut idle = house.client().await;
    assert_eq!(idle.get("/nowhere").await.status, 404);
    let addr = house.edge.addr();
    let stopping = tokio::spawn(house.edge.shutdown());
    assert!(idle.is_closed().await, "an idle connection ends at once");
    gate.notify_one();
    let (body, whole) = client.body(30_000).await;
    assert!(whole);
    assert_eq!(body, pattern(30_000));
    tokio::time::timeout(Duration::from_secs(3), stopping).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_object_does_not_wait_for_a_silent_or_broken_origin() {
    let house = house_with(|config| {
        config.cache.ttl.master = Duration::from_millis(50);
        config.cache.stale_while_revalidate = Duration::ZERO;
    })
    .await;
    for broken in [Behaviour::Silent, Behaviour::ChunkedCut(b"#EXTM3U and more".to_vec())] {
        let file = if matches!(broken, Behaviour::Silent) { "master.m3u8" } else { "other.m3u8" };
        house.origin.track(file, Behaviour::Serve(b"#EXTM3U\n".to_vec()));
        assert_eq!(house.get(file).await.status, 200);
        house.origin.track(file, broken);
        tokio::time::sleep(Duration::from_millis(80)).await;
        for bound in [Duration::from_millis(1_800), Duration::from_millis(500)] {
            let started = std::time::Instant::now();
            let stale = house.get(file).await;
            assert_eq!((stale.status, stale.body.as_slice()), (200, b"#EXTM3U\n".as_slice()));
            assert_eq!(stale.cache_status(), "segue; hit; detail=stale-if-error");
            assert!(started.elapsed() < bound, "{file} took {:?}", started.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_304_without_directives_keeps_the_lifetime() {
    let house = house().await;
    let first = Behaviour::ServeWith(pattern(10), "Cache-Control: max-age=1\r\n");
    house.origin.track("cover.jpg", Behaviour::First(1, Box::new(first), Box::new(Behaviour::Serve(pattern(10)))));
    house.get("cover.jpg").await;
    for count in [2, 3] {
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert_eq!(house.get("cover.jpg").await.body, pattern(10));
        assert_eq!(house.origin.count("cover.jpg"), count, "one second, again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_that_a_change_overtook_is_not_kept() {
    let house = house_with(|config| {
        config.origins.get_mut("default").unwrap().methods = vec!["GET".to_owned(), "DELETE".to_owned()];
    })
    .await;
    let gate = Arc::new(Notify::new());
    let old = Behaviour::Gated(pattern(500), 10, Arc::clone(&gate));
    let changed =
        Behaviour::First(1, Box::new(Behaviour::Serve(Vec::new())), Box::new(Behaviour::Serve(b"new".to_vec())));
    house.origin.track("a.jpg", Behaviour::First(1, Box::new(old), Box::new(changed)));
    let target = format!("/p/{}/hls/{TRACK}/a.jpg", ticket());
    let mut reader = house.client().await;
    reader.send(format!("GET {target} HTTP/1.1\r\nHost: edge\r\n\r\n").as_bytes()).await;
    reader.head().await;
    let headers = "X-Amz-Copy-Source: /elsewhere\r\n";
    assert_eq!(house.client().await.request("DELETE", &target, headers).await.status, 200);
    assert!(!house.origin.last_head().to_ascii_lowercase().contains("x-amz-"), "{}", house.origin.last_head());
    let asked_again = house.get("a.jpg").await;
    assert_eq!(asked_again.body, b"new");
    gate.notify_one();
    assert_eq!(reader.body(500).await, (pattern(500), true));
    assert_eq!(house.get("a.jpg").await.body, b"new", "the old fill has put nothing over it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_player_tells_of_itself_is_not_part_of_the_object() {
    let house = house().await;
    house.origin.track("a.jpg", Behaviour::Serve(pattern(5)));
    for query in ["?CMCD=bl%3D1", "?CMCD=bl%3D2", ""] {
        assert_eq!(house.get(&format!("a.jpg{query}")).await.status, 200);
    }
    assert_eq!(house.origin.count("a.jpg"), 1);
}
