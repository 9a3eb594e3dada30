//! HTTP as clients see it: conditions, ranges, methods, CORS, keep-alive, bounds of the request head.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use segue_signing::SnapshotDoc;

use support::{Behaviour, TRACK, house, house_with, pattern, ticket, versioned};

fn target(file: &str) -> String {
    format!("/p/{}/hls/{TRACK}/{file}", ticket())
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_cut_from_a_miss_and_from_a_hit() {
    let house = house().await;
    let file = versioned("a128/seg-00000.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(300_000)));
    let mut client = house.client().await;
    for (range, first, last) in [
        ("bytes=100000-199999", 100_000, 199_999),
        ("bytes=0-0", 0, 0),
        ("bytes=-5", 299_995, 299_999),
        ("bytes=299990-", 299_990, 299_999),
    ] {
        let part = client.request("GET", &target(&file), &format!("Range: {range}\r\n")).await;
        assert_eq!(part.status, 206, "{range}: {}", part.head);
        assert_eq!(part.header("content-range"), Some(format!("bytes {first}-{last}/300000").as_str()));
        assert_eq!(part.body, pattern(300_000)[first..=last], "{range}");
    }
    let outside = client.request("GET", &target(&file), "Range: bytes=300000-\r\n").await;
    assert_eq!((outside.status, outside.header("content-range")), (416, Some("bytes */300000")));
    assert_eq!(outside.reason(), "range-not-satisfiable");
    let several = client.request("GET", &target(&file), "Range: bytes=0-1,5-6\r\n").await;
    assert_eq!((several.status, several.body.len()), (200, 300_000));
    let changed = client.request("GET", &target(&file), "Range: bytes=0-1\r\nIf-Range: \"v0\"\r\n").await;
    assert_eq!((changed.status, changed.body.len()), (200, 300_000));
    let same = client.request("GET", &target(&file), "Range: bytes=0-1\r\nIf-Range: \"v1\"\r\n").await;
    assert_eq!((same.status, same.body.len()), (206, 2));
    assert_eq!(house.origin.count(&file), 1, "one keep-alive connection, one fill");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_head() {
    let house = house().await;
    let file = versioned("a128/seg-00000.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(1_000)));
    let mut client = house.client().await;
    let head = client.request("HEAD", &target(&file), "").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("1000")));
    let known = client.request("GET", &target(&file), "If-None-Match: \"v1\"\r\n").await;
    assert_eq!((known.status, known.header("etag")), (304, Some("\"v1\"")));
    let since = "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    assert_eq!(client.request("GET", &target(&file), since).await.status, 304);
    assert_eq!(client.request("GET", &target(&file), "If-Match: \"v0\"\r\n").await.status, 412);
    let get = client.get(&target(&file)).await;
    assert_eq!((get.status, get.body.len()), (200, 1_000));
    let statuses: Vec<_> = house.facts_when(3).await.iter().map(|fact| fact["status"].clone()).collect();
    assert_eq!(statuses, [304, 304, 200], "a HEAD and a 412 deliver nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_and_preflights() {
    let house = house().await;
    let mut client = house.client().await;
    let headers = "Origin: https://player.example\r\nAccess-Control-Request-Method: GET\r\n";
    let preflight = client.request("OPTIONS", &format!("/hls/{TRACK}/master.m3u8"), headers).await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, Some("*")));
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("Authorization"));
    let post = client.request("POST", &target("master.m3u8"), "Content-Length: 0\r\n").await;
    assert_eq!((post.status, post.reason().as_str()), (405, "method-not-allowed"));
    assert_eq!(post.header("allow"), Some("GET, HEAD, OPTIONS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_is_allowed_goes_through_without_its_ticket() {
    let house = house_with(|config| {
        config.origins.get_mut("default").unwrap().methods = vec!["GET".to_owned(), "POST".to_owned()];
    })
    .await;
    house.origin.track("form?x=1", Behaviour::Serve(b"taken".to_vec()));
    let mut client = house.client().await;
    let headers = format!("Authorization: Bearer {}\r\nCookie: segue=x; other=y\r\nContent-Length: 0\r\n", ticket());
    let answer = client.request("POST", &format!("/hls/{TRACK}/form?x=1&ticket=abc"), &headers).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"taken".as_slice()), "{}", answer.head);
    let seen = house.origin.last_head().to_ascii_lowercase();
    assert!(seen.starts_with("post /hls/abcdefgh2345/form?x=1 http/1.1"), "{seen}");
    assert!(!seen.contains("authorization") && !seen.contains("cookie") && !seen.contains("ticket"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_two_readers_could_read_in_two_ways_are_refused() {
    let house = house().await;
    for (path, reason) in [
        (format!("/hls/{TRACK}/../other/x.m4s"), "path-dot-segment"),
        (format!("/hls/{TRACK}/%2e%2e/other/x.m4s"), "path-dot-segment"),
        (format!("/hls/{TRACK}//x.m4s"), "path-empty-segment"),
        (format!("/hls/{TRACK}/a%2fb.m4s"), "path-encoded-slash"),
        (format!("/hls/{TRACK}/a%5cb.m4s"), "path-backslash"),
        (format!("/hls/{TRACK}/a%00.m4s"), "path-nul"),
        (format!("/hls/{TRACK}/a%zz.m4s"), "path-broken-escape"),
    ] {
        let answer = house.client().await.get(&format!("/p/{}{path}", ticket())).await;
        assert_eq!((answer.status, answer.reason().as_str()), (400, reason), "{path}");
    }
    let long = format!("/hls/{TRACK}/{}", "a".repeat(4_000));
    let answer = house.client().await.get(&long).await;
    assert_eq!((answer.status, answer.reason().as_str()), (414, "path-too-long"));
}

#[tokio::test(flavor = "multi_thread")]
async fn request_heads_are_bounded_in_bytes_and_time() {
    let house = house_with(|config| {
        config.connections.head_timeout = Duration::from_millis(300);
    })
    .await;
    let long = house.client().await.get(&format!("/p/{}/hls/{TRACK}/x.m4s", "t".repeat(100_000))).await;
    assert_eq!((long.status, long.reason().as_str()), (414, "target-too-long"));
    let header = format!("Authorization: Bearer {}\r\n", "t".repeat(100_000));
    let flood = house.client().await.request("GET", "/hls/x/y.m4s", &header).await;
    assert_eq!((flood.status, flood.reason().as_str()), (431, "headers-too-long"));
    let mut slow = house.client().await;
    slow.send(b"GET /hls/x/y HT").await;
    let answer = tokio::time::timeout(Duration::from_secs(3), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        slow.send(b"TP/1.1\r\n").await;
        slow.answer(false).await
    });
    assert_eq!(answer.await.unwrap().reason(), "head-too-slow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_let_go() {
    let house = house_with(|config| config.connections.write_timeout = Duration::from_millis(300)).await;
    let file = versioned("a128/seg-00000.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(12_000_000)));
    let mut client = house.client().await;
    client.send(format!("GET {} HTTP/1.1\r\nHost: e\r\n\r\n", target(&file)).as_bytes()).await;
    client.head().await;
    let facts = house.facts_when(1).await;
    assert_eq!(facts.len(), 1, "the answer ended by its time-out");
    assert_eq!(facts[0]["complete"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_come_in_one_packet_are_all_answered_in_order() {
    let house = house().await;
    house.origin.track("a.jpg", Behaviour::Serve(b"first".to_vec()));
    house.origin.track("b.jpg", Behaviour::Serve(b"second".to_vec()));
    let mut client = house.client().await;
    let mut both = String::new();
    for file in ["a.jpg", "nothing.jpg", "b.jpg"] {
        both.push_str(&format!("GET {} HTTP/1.1\r\nHost: e\r\n\r\n", target(file)));
    }
    client.send(both.as_bytes()).await;
    assert_eq!(client.answer(false).await.body, b"first");
    assert_eq!(client.answer(false).await.status, 404);
    assert_eq!(client.answer(false).await.body, b"second");
}

/// A request with `Content-Length: 0` takes Pingora's way, one without the connection's own.
#[tokio::test(flavor = "multi_thread")]
async fn a_hit_says_the_same_on_either_way() {
    let house = house().await;
    let file = versioned("a128/seg-00000.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(5_000)));
    let mut client = house.client().await;
    assert_eq!(client.get(&target(&file)).await.header("cache-status"), Some("segue; fwd=miss; stored"));
    for (headers, status) in [
        ("", 200),
        ("Range: bytes=10-19\r\n", 206),
        ("If-None-Match: \"v1\"\r\n", 304),
        ("Range: bytes=5000-\r\n", 416),
    ] {
        for method in ["GET", "HEAD"] {
            let direct = client.request(method, &target(&file), headers).await;
            let through = client.request(method, &target(&file), &format!("{headers}Content-Length: 0\r\n")).await;
            let lines = |head: &str| {
                let kept = |line: &&str| !line.starts_with("age:") && !line.starts_with("date:");
                let head = head.to_ascii_lowercase();
                let mut lines: Vec<_> = head.lines().filter(kept).map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(lines(&direct.head), lines(&through.head), "{method} {headers}");
            assert!(direct.header("date").is_some(), "{method} {headers}");
            assert_eq!(direct.body, through.body, "{method} {headers}");
            let expected = if method == "HEAD" && matches!(status, 206 | 416) { 200 } else { status };
            assert_eq!(direct.status, expected, "{method} {headers}");
            client = house.client().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_come_in_pieces_or_together_are_hits_all_the_same() {
    let house = house().await;
    let file = versioned("a128/seg-00000.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(700)));
    let mut client = house.client().await;
    client.get(&target(&file)).await;
    let one = format!("GET {} HTTP/1.1\r\nHost: e\r\n\r\n", target(&file));
    let miss = format!("GET {} HTTP/1.1\r\nHost: e\r\n\r\n", target("nothing.jpg"));
    let all = format!("{one}{one}{miss}{one}");
    for piece in [all.len(), 1_000, 333, 100] {
        for bytes in all.as_bytes().chunks(piece) {
            client.send(bytes).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for status in [200, 200, 404, 200] {
            let answer = client.answer(false).await;
            assert_eq!(answer.status, status, "{piece}");
            assert!(status == 404 || answer.body == pattern(700), "{piece}");
        }
    }
    assert_eq!(house.facts_when(13).await.len(), 13, "one miss and twelve hits, each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_idles_is_let_go_after_hits_too() {
    let house = house_with(|config| config.connections.idle_timeout = Duration::from_millis(300)).await;
    house.origin.track("a.jpg", Behaviour::Serve(b"first".to_vec()));
    let mut client = house.client().await;
    for _ in 0..5 {
        assert_eq!(client.get(&target("a.jpg")).await.status, 200);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert!(tokio::time::timeout(Duration::from_secs(3), client.is_closed()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_0_client_gets_a_whole_answer_and_a_closed_connection() {
    let house = house().await;
    house.origin.track("a.jpg", Behaviour::Serve(b"first".to_vec()));
    let mut client = house.client().await;
    client.send(format!("GET {} HTTP/1.0\r\n\r\n", target("a.jpg")).as_bytes()).await;
    let answer = client.answer(false).await;
    assert_eq!((answer.body.as_slice(), answer.header("connection")), (b"first".as_slice(), Some("close")));
    assert!(client.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_gets_an_answer_and_harms_nobody() {
    let house = house().await;
    house.origin.track("a.jpg", Behaviour::Serve(b"first".to_vec()));
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET /hls/a/b HTTP/9.9\r\n\r\n",
        b"GET /hls/a/b HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\nHost: e\r\n\r\n",
        b"GET /hls/\xff\xfe/b HTTP/1.1\r\nHost: e\r\n\r\n",
        b"GET http://elsewhere/hls/a/b HTTP/1.1\r\nHost: e\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: e\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        b"GET /hls/a/b HTTP/1.1\r\nHost: e\r\nRange: bytes=9999999999999999999999-\r\n\r\n",
    ] {
        let mut client = house.client().await;
        client.send(nonsense).await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
        let head = tokio::time::timeout(Duration::from_secs(5), client.head()).await.unwrap();
        assert!(head.is_empty() || head.starts_with("HTTP/1.1 4"), "{:?}: {head}", nonsense.escape_ascii().to_string());
    }
    assert_eq!(house.get("a.jpg").await.body, b"first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_body_is_sent_from_its_file_byte_for_byte() {
    let house = house_with(|config| config.admin_listen = Some("127.0.0.1:0".parse().unwrap())).await;
    let (small, large) = (versioned("a128/seg-00000.m4s"), versioned("a128/seg-00001.m4s"));
    house.origin.track(&small, Behaviour::Serve(pattern(40_000)));
    house.origin.track(&large, Behaviour::Serve(pattern(3_000_000)));
    let mut client = house.client().await;
    for round in 0..20 {
        for (file, length) in [(&small, 40_000), (&large, 3_000_000)] {
            let whole = client.get(&target(file)).await;
            assert_eq!((whole.status, whole.body.len()), (200, length), "round {round}");
            assert!(whole.body == pattern(length), "round {round}: other bytes");
            let part = client.request("GET", &target(file), "Range: bytes=3001-39000\r\n").await;
            assert_eq!(part.status, 206);
            assert!(part.body == pattern(length)[3001..=39_000], "round {round}: another part");
        }
    }
    let mut admin = support::Client::connect(house.edge.admin_addr().unwrap()).await;
    let metrics = String::from_utf8(admin.get("/metrics").await.body).unwrap();
    assert!(metrics.contains("\nsegue_cache_files 2\n"), "{metrics}");
    // Let go by a purge while a client reads: what waits in its socket stays what it was.
    let mut slow = house.client().await;
    slow.send(format!("GET {} HTTP/1.1\r\nHost: e\r\n\r\n", target(&large)).as_bytes()).await;
    let head = slow.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    house.origin.track(&large, Behaviour::Serve(vec![0; 3_000_000]));
    let purges = [(TRACK.to_owned(), 1)].into();
    house.snapshots.send(Arc::new(SnapshotDoc { revision: 1, purges, ..SnapshotDoc::default() })).unwrap();
    while client.get(&target(&large)).await.body.iter().any(|byte| *byte != 0) {
        tokio::task::yield_now().await;
    }
    let (body, whole) = slow.body(3_000_000).await;
    assert!(whole && body == pattern(3_000_000), "the old answer, whole");
}
