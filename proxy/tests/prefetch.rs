//! Segments that are fetched before they are asked for.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use segue_proxy::EdgeConfig;
use support::{Behaviour, Client, House, TRACK, house_with, pattern, ticket, versioned};
use tokio::sync::Notify;

const SEGMENTS: usize = 5;

fn file(name: &str) -> String {
    versioned(&format!("a128/{name}"))
}

fn segment(n: usize) -> String {
    file(&format!("seg-{n:05}.m4s"))
}

fn playlist(end: &str) -> Vec<u8> {
    let mut text = "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXT-X-MAP:URI=\"init.mp4\"\n".to_owned();
    for n in 0..SEGMENTS {
        text.push_str(&format!("#EXTINF:6,\nseg-{n:05}.m4s\n"));
    }
    (text + end).into_bytes()
}

async fn house(change: impl FnOnce(&mut EdgeConfig)) -> House {
    let house = house_with(|config| {
        config.admin_listen = Some("127.0.0.1:0".parse().unwrap());
        config.prefetch.segments = 2;
        change(config);
    })
    .await;
    house.origin.track(&file("index.m3u8"), Behaviour::Serve(playlist("#EXT-X-ENDLIST\n")));
    house.origin.track(&file("init.mp4"), Behaviour::Serve(pattern(700)));
    for n in 0..SEGMENTS {
        house.origin.track(&segment(n), Behaviour::Serve(pattern(10_000 + n)));
    }
    house
}

/// begun, used, wasted, dropped
async fn counts(house: &House) -> [u64; 4] {
    let text = Client::connect(house.edge.admin_addr().unwrap()).await.get("/metrics").await.body;
    let text = String::from_utf8(text).unwrap();
    ["", "_used", "_wasted", "_dropped"].map(|name| {
        let name = format!("segue_prefetches{name}_total ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap()
    })
}

/// How often the origin was asked: init, then each segment.
fn asked(house: &House) -> Vec<usize> {
    let segments = (0..SEGMENTS).map(|n| house.origin.count(&segment(n)));
    std::iter::once(house.origin.count(&file("init.mp4"))).chain(segments).collect()
}

async fn until(what: &str, is: impl AsyncFn() -> bool) {
    for _ in 0..6_000 {
        if is().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come about within a minute");
}

async fn until_running(house: &House, count: u64) {
    until("the fills' end", async || {
        let text = Client::connect(house.edge.admin_addr().unwrap()).await.get("/metrics").await.body;
        String::from_utf8(text).unwrap().contains(&format!("segue_fills_running {count}\n"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_playlist_draws_its_opening_and_a_segment_the_next_ones_never_past_the_end() {
    let house = house(|_| {}).await;
    house.get(&file("index.m3u8")).await;
    until("the opening", async || asked(&house) == [1, 1, 1, 0, 0, 0]).await;
    until_running(&house, 0).await;
    assert_eq!(counts(&house).await, [3, 0, 0, 0]);
    let hit = house.get(&segment(0)).await;
    assert!(hit.cache_status() == "segue; hit; detail=memory" && hit.body == pattern(10_000), "{}", hit.head);
    until("the next one", async || asked(&house) == [1, 1, 1, 1, 0, 0]).await;
    until_running(&house, 0).await;
    assert_eq!(counts(&house).await, [4, 1, 0, 0]);
    for n in [3, 4] {
        house.get(&segment(n)).await;
        until_running(&house, 0).await;
    }
    assert_eq!(asked(&house), [1, 1, 1, 1, 1, 1], "the last one has none behind it");
    for n in 0..SEGMENTS {
        assert_eq!(house.get(&segment(n)).await.body, pattern(10_000 + n));
    }
    house.get(&file("init.mp4")).await;
    let [begun, used, wasted, dropped] = counts(&house).await;
    assert_eq!((begun, used, wasted, dropped), (begun, begun, 0, 0), "all that was fetched ahead was asked for");
    assert_eq!(asked(&house), [1; SEGMENTS + 1], "each object was fetched once");
    let facts = house.facts_when(3 + SEGMENTS + 1).await;
    assert_eq!(facts.len(), 3 + SEGMENTS + 1, "one for each answer to a listener, none for a prefetch");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_what_is_on_its_way_joins_it() {
    let house = house(|_| {}).await;
    let gate = Arc::new(Notify::new());
    house.origin.track(&segment(1), Behaviour::Gated(pattern(10_001), 10, Arc::clone(&gate)));
    house.get(&file("index.m3u8")).await;
    until("the opening", async || asked(&house)[..3] == [1, 1, 1]).await;
    let mut client = house.client().await;
    client
        .send(format!("GET /p/{}/hls/{TRACK}/{} HTTP/1.1\r\nHost: edge\r\n\r\n", ticket(), segment(1)).as_bytes())
        .await;
    let head = client.head().await;
    assert!(head.contains("segue; fwd=miss;") && head.contains("; collapsed"), "{head}");
    assert_eq!(counts(&house).await[1], 1);
    gate.notify_one();
    assert_eq!(client.body(10_001).await, (pattern(10_001), true));
    assert_eq!(house.origin.count(&segment(1)), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_drawn_by_a_refusal_a_head_or_where_it_is_off() {
    let house = house(|_| {}).await;
    let path = format!("/hls/{TRACK}/{}", file("index.m3u8"));
    assert_eq!(house.client().await.get(&path).await.status, 401);
    let head = house.client().await.request("HEAD", &format!("/p/{}{path}", ticket()), "").await;
    assert_eq!(head.status, 200);
    until_running(&house, 0).await;
    assert_eq!(house.client().await.get(&path).await.status, 401, "what is at hand is refused the same way");
    assert_eq!((counts(&house).await, asked(&house)), ([0; 4], vec![0; SEGMENTS + 1]));
    let off = self::house(|config| config.prefetch.segments = 0).await;
    off.get(&file("index.m3u8")).await;
    off.get(&segment(0)).await;
    until_running(&off, 0).await;
    assert_eq!((counts(&off).await, asked(&off)), ([0; 4], vec![0, 1, 0, 0, 0, 0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_come_first() {
    let house = house(|config| {
        for origin in config.origins.values_mut() {
            origin.concurrency = 4;
        }
    })
    .await;
    house.origin.track(&file("index.m3u8"), Behaviour::Serve(playlist("#EXT-X-ENDLIST\n")));
    let gate = Arc::new(Notify::new());
    let mut listeners = Vec::new();
    for n in 0..3 {
        let name = format!("slow-{n}.jpg");
        house.origin.track(&name, Behaviour::Gated(pattern(100), 10, Arc::clone(&gate)));
        let mut client = house.client().await;
        client.send(format!("GET /p/{}/hls/{TRACK}/{name} HTTP/1.1\r\nHost: edge\r\n\r\n", ticket()).as_bytes()).await;
        client.head().await;
        listeners.push(client);
    }
    house.get(&file("index.m3u8")).await;
    until("the drop", async || counts(&house).await == [0, 0, 0, 3]).await;
    assert_eq!(asked(&house), [0; SEGMENTS + 1], "three of four turns are taken by listeners");
    let answer = house.get(&segment(2)).await;
    assert_eq!((answer.status, counts(&house).await), (200, [0, 0, 0, 5]));
    for mut client in listeners {
        gate.notify_one();
        assert_eq!(client.body(100).await, (pattern(100), true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_run_at_once_than_the_bound() {
    let house = house(|config| config.prefetch.concurrency = 1).await;
    let gate = Arc::new(Notify::new());
    house.origin.track(&file("init.mp4"), Behaviour::Gated(pattern(700), 10, Arc::clone(&gate)));
    house.get(&file("index.m3u8")).await;
    until("the drops", async || counts(&house).await == [1, 0, 0, 2]).await;
    gate.notify_one();
    until_running(&house, 0).await;
    assert_eq!(asked(&house), [1, 0, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_wasted_and_the_listener_tries_again() {
    let house = house(|_| {}).await;
    let cut = Behaviour::Truncate(pattern(10_000), 500);
    house.origin.track(&segment(0), Behaviour::First(1, Box::new(cut), Box::new(Behaviour::Serve(pattern(10_000)))));
    house.get(&file("index.m3u8")).await;
    until("the failure", async || counts(&house).await[..3] == [3, 0, 1]).await;
    until_running(&house, 0).await;
    let answer = house.get(&segment(0)).await;
    assert_eq!((answer.status, answer.body), (200, pattern(10_000)));
    assert_eq!(house.origin.count(&segment(0)), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_playlist_that_goes_on_only_the_init_segment_is_sure() {
    let house = house(|_| {}).await;
    house.origin.track(&file("index.m3u8"), Behaviour::Serve(playlist("")));
    house.get(&file("index.m3u8")).await;
    until("the init segment", async || counts(&house).await == [1, 0, 0, 0]).await;
    until_running(&house, 0).await;
    assert_eq!(asked(&house), [1, 0, 0, 0, 0, 0]);
}
