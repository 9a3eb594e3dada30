//! HTTP origins that speak for themselves: variants, directives of both sides, validation, invalidation (RFC 9111, 5861).
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{Answer, Behaviour, House, TRACK, house, house_with, patient_house_with, ticket};
use tokio::sync::Notify;

fn target(file: &str) -> String {
    format!("/p/{}/hls/{TRACK}/{file}", ticket())
}

/// An answer with these lines, on a connection that goes on.
fn reply(status: &str, lines: &str, body: &str) -> Behaviour {
    Behaviour::Reply(format!("HTTP/1.1 {status}\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len()))
}

fn ok(lines: &str, body: &str) -> Behaviour {
    reply("200 OK", lines, body)
}

fn then(first: Behaviour, then: Behaviour) -> Behaviour {
    Behaviour::First(1, Box::new(first), Box::new(then))
}

async fn ask(house: &House, file: &str, headers: &str) -> Answer {
    house.client().await.request("GET", &target(file), headers).await
}

/// Asks until the answer is this, for as long as a slow machine may need.
async fn until(house: &House, file: &str, body: &[u8]) -> Answer {
    for _ in 0..600 {
        let answer = house.get(file).await;
        if answer.body == body {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{file} never became {:?}", String::from_utf8_lossy(body));
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_are_told_apart_by_what_the_origin_names() {
    let house = house().await;
    let vary = "Cache-Control: max-age=600\r\nVary: Accept-Language\r\n";
    house.origin.track("t.txt", then(ok(vary, "german"), ok(vary, "english")));
    let german = ask(&house, "t.txt", "Accept-Language: de\r\n").await;
    assert_eq!((german.body.as_slice(), german.header("vary")), (b"german".as_slice(), Some("Accept-Language")));
    assert!(house.origin.last_head().to_ascii_lowercase().contains("accept-language: de"));
    let english = ask(&house, "t.txt", "Accept-Language: en\r\n").await;
    assert_eq!(
        (english.body.as_slice(), english.cache_status().as_str()),
        (b"english".as_slice(), "segue; fwd=vary-miss; stored")
    );
    for (language, body) in [("de", "german"), ("EN", "english"), ("de", "german")] {
        let hit = ask(&house, "t.txt", &format!("Accept-Language: {language}\r\n")).await;
        assert_eq!((hit.body.as_slice(), hit.cache_status().as_str()), (body.as_bytes(), "segue; hit; detail=memory"));
    }
    assert_eq!(house.origin.count("t.txt"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_another_variant_gets_its_own() {
    let house = Arc::new(patient_house_with(|_| {}).await);
    let vary = "Cache-Control: max-age=600\r\nVary: X-Who\r\n";
    let gate = Arc::new(Notify::new());
    // The first answer is slow; what it is of is known when its head comes.
    let slow = Behaviour::Later(Arc::clone(&gate), Box::new(ok(vary, "first")));
    house.origin.track("t.txt", then(slow, ok(vary, "second")));
    let asked = |who: &'static str| {
        let house = Arc::clone(&house);
        tokio::spawn(async move { ask(&house, "t.txt", &format!("X-Who: {who}\r\n")).await })
    };
    let one = asked("one");
    while house.origin.count("t.txt") == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (same, other) = (asked("one"), asked("two"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    gate.notify_one();
    assert_eq!(one.await.unwrap().body, b"first");
    assert_eq!(same.await.unwrap().body, b"first");
    assert_eq!(other.await.unwrap().body, b"second");
    assert_eq!(house.origin.count("t.txt"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_of_one_url_are_bounded() {
    let house = house().await;
    house.origin.track("t.txt", ok("Cache-Control: max-age=600\r\nVary: X-Who\r\n", "body"));
    for who in 0..40 {
        ask(&house, "t.txt", &format!("X-Who: {who}\r\n")).await;
    }
    assert_eq!(house.origin.count("t.txt"), 40);
    ask(&house, "t.txt", "X-Who: 39\r\n").await;
    assert_eq!(house.origin.count("t.txt"), 40, "the youngest is there");
    ask(&house, "t.txt", "X-Who: 0\r\n").await;
    assert_eq!(house.origin.count("t.txt"), 41, "the oldest made room");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coding_goes_to_those_alone_who_accept_it() {
    let house = house().await;
    let coded = ok("Cache-Control: max-age=600\r\nContent-Encoding: gzip\r\n", "zipped");
    house.origin.track("t.json", then(coded, ok("Cache-Control: max-age=600\r\n", "plain")));
    let zipped = ask(&house, "t.json", "Accept-Encoding: gzip\r\n").await;
    assert_eq!((zipped.body.as_slice(), zipped.header("content-encoding")), (b"zipped".as_slice(), Some("gzip")));
    let plain = ask(&house, "t.json", "").await;
    assert_eq!((plain.body.as_slice(), plain.header("content-encoding")), (b"plain".as_slice(), None));
    house.origin.track("list.m3u8", ok("", "#EXTM3U\n"));
    ask(&house, "list.m3u8", "Accept-Encoding: gzip\r\n").await;
    assert!(
        house.origin.last_head().to_ascii_lowercase().contains("accept-encoding: identity"),
        "the edge reads these"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_an_http_origin_may_ask_for_more_or_less() {
    let house = house().await;
    house.origin.track("a.txt", ok("Cache-Control: max-age=600\r\nAge: 100\r\nETag: \"v1\"\r\n", "body"));
    let cached = "Cache-Control: only-if-cached\r\n";
    let absent = ask(&house, "a.txt", cached).await;
    assert_eq!((absent.status, absent.reason().as_str()), (504, "not-cached"));
    let miss = house.get("a.txt").await;
    assert_eq!(miss.cache_status(), "segue; fwd=miss; stored");
    assert!(miss.header("age").is_some_and(|age| age.starts_with("10")), "{}", miss.head);
    assert_eq!(ask(&house, "a.txt", cached).await.status, 200);
    for (directive, count, status) in [
        ("max-age=300", 1, "segue; hit; detail=memory"),
        ("min-fresh=300", 1, "segue; hit; detail=memory"),
        ("max-age=50", 2, "segue; fwd=request; stored"),
        ("min-fresh=550", 3, "segue; fwd=request; stored"),
        ("no-cache", 4, "segue; fwd=request; stored"),
        ("no-store", 4, "segue; hit; detail=memory"),
    ] {
        let answer = ask(&house, "a.txt", &format!("Cache-Control: {directive}\r\n")).await;
        assert_eq!((answer.status, answer.cache_status().as_str()), (200, status), "{directive}");
        assert_eq!(house.origin.count("a.txt"), count, "{directive}");
    }
    ask(&house, "b.txt", "Cache-Control: no-store\r\n").await;
    house.origin.track("b.txt", ok("Cache-Control: max-age=600\r\n", "body"));
    ask(&house, "b.txt", "Cache-Control: no-store\r\n").await;
    assert_eq!(house.get("b.txt").await.cache_status(), "segue; fwd=miss; stored", "nothing of it was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_cannot_bust_a_cache_that_does_not_heed_them() {
    let house = house_with(|config| config.cache.client_directives = Some(false)).await;
    house.origin.track("a.txt", ok("Cache-Control: max-age=600\r\n", "body"));
    for headers in ["", "Cache-Control: no-cache\r\n", "Cache-Control: max-age=0\r\n", "Pragma: no-cache\r\n"] {
        assert_eq!(ask(&house, "a.txt", headers).await.status, 200);
    }
    assert_eq!(house.origin.count("a.txt"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_one_client_reaches_it_alone_and_by_one_request() {
    let house = house().await;
    for (file, lines) in [
        ("private.txt", "Cache-Control: private, max-age=600\r\n"),
        ("nostore.txt", "Cache-Control: no-store\r\n"),
        ("cookie.txt", "Cache-Control: max-age=600\r\nSet-Cookie: a=b\r\n"),
        ("any.txt", "Cache-Control: max-age=600\r\nVary: *\r\n"),
        ("teapot.txt", ""),
    ] {
        let status = if file == "teapot.txt" { "418 Teapot" } else { "200 OK" };
        house.origin.track(file, then(reply(status, lines, "first"), reply(status, lines, "second")));
        for (body, count) in [("first", 1), ("second", 2)] {
            let answer = house.get(file).await;
            assert_eq!((answer.body.as_slice(), house.origin.count(file)), (body.as_bytes(), count), "{file}");
        }
    }
    house.origin.track("list.txt", ok("Cache-Control: max-age=600, private=\"x-a\"\r\nX-A: 1\r\nX-B: 2\r\n", "body"));
    let first = house.get("list.txt").await;
    assert_eq!((first.header("x-a"), first.header("x-b")), (Some("1"), Some("2")));
    let second = house.get("list.txt").await;
    assert_eq!((second.header("x-a"), second.header("x-b")), (None, Some("2")));
    assert_eq!(house.origin.count("list.txt"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_go_on_but_for_those_of_the_connection() {
    let house = house().await;
    let lines = "Cache-Control: public, max-age=600\r\nContent-Language: de\r\nContent-Disposition: inline\r\n\
                 Link: </a>; rel=next\r\nLink: </b>; rel=prev\r\nX-Own: 1\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n";
    house.origin.track("a.txt", ok(lines, "body"));
    for _ in 0..2 {
        let answer = ask(&house, "a.txt", "X-Client: 1\r\nConnection: keep-alive, X-Drop\r\nX-Drop: 1\r\n").await;
        for (name, value) in [
            ("content-language", Some("de")),
            ("content-disposition", Some("inline")),
            ("x-own", Some("1")),
            ("cache-control", Some("public, max-age=600")),
            ("x-hop", None),
            ("keep-alive", None),
        ] {
            assert_eq!(answer.header(name), value, "{}", answer.head);
        }
        assert_eq!(answer.head.to_ascii_lowercase().matches("\r\nlink:").count(), 2, "{}", answer.head);
    }
    let seen = house.origin.last_head().to_ascii_lowercase();
    assert!(seen.contains("x-client: 1") && seen.contains("via: 1.1 segue"), "{seen}");
    assert!(!seen.contains("x-drop") && !seen.contains("ticket"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_and_absences_are_kept_with_their_bodies() {
    let house = house().await;
    house.origin.track("moved.txt", reply("301 Moved", "Location: /hls/x/y\r\n", "gone there"));
    house.origin.track("gone.txt", reply("410 Gone", "Cache-Control: max-age=600\r\n", "gone"));
    house.origin.track("found.txt", reply("302 Found", "Cache-Control: max-age=600\r\nLocation: /z\r\n", "look there"));
    house.origin.track("later.txt", reply("302 Found", "Location: /z\r\n", "not for long"));
    for (file, status, body, count) in [
        ("moved.txt", 301, "gone there", 2),
        ("gone.txt", 410, "gone", 1),
        ("found.txt", 302, "look there", 1),
        ("later.txt", 302, "not for long", 2),
    ] {
        for _ in 0..2 {
            let answer = ask(&house, file, "Range: bytes=0-0\r\nIf-None-Match: *\r\n").await;
            assert_eq!((answer.status, answer.body.as_slice()), (status, body.as_bytes()), "{file}: {}", answer.head);
        }
        let seen = house.origin.count(file);
        assert!(seen <= count, "{file}: {seen} requests");
    }
    assert!(house.facts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_304_renews_what_is_told() {
    let house = house().await;
    let first = ok("Cache-Control: no-cache\r\nETag: \"v1\"\r\nX-A: old\r\nX-B: kept\r\n", "body");
    let renewed = Behaviour::Reply("HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\nX-A: new\r\n\r\n".to_owned());
    house.origin.track("a.txt", then(first, renewed));
    assert_eq!(house.get("a.txt").await.header("x-a"), Some("old"));
    let renewed = house.get("a.txt").await;
    assert_eq!((renewed.status, renewed.body.as_slice()), (200, b"body".as_slice()));
    assert_eq!((renewed.header("x-a"), renewed.header("x-b")), (Some("new"), Some("kept")));
    assert_eq!(renewed.cache_status(), "segue; fwd=stale; fwd-status=304; stored");
    assert!(house.origin.last_head().to_ascii_lowercase().contains("if-none-match: \"v1\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_304_of_another_state_is_not_believed() {
    let house = house().await;
    let other = Behaviour::Reply("HTTP/1.1 304 Not Modified\r\nETag: \"v2\"\r\n\r\n".to_owned());
    let later = then(ok("Cache-Control: no-cache\r\nETag: \"v1\"\r\n", "old"), other);
    house.origin.track("a.txt", Behaviour::First(2, Box::new(later), Box::new(ok("ETag: \"v2\"\r\n", "new"))));
    assert_eq!(house.get("a.txt").await.body, b"old");
    assert_eq!(house.get("a.txt").await.body, b"new");
    assert_eq!(house.origin.count("a.txt"), 3, "the whole was asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_is_served_at_once_while_one_request_renews_it() {
    let house = patient_house_with(|_| {}).await;
    let gate = Arc::new(Notify::new());
    let first = ok("Cache-Control: max-age=1, stale-while-revalidate=600\r\n", "old");
    let newer = Behaviour::Later(Arc::clone(&gate), Box::new(ok("Cache-Control: max-age=600\r\n", "new")));
    house.origin.track("a.txt", then(first, newer));
    assert_eq!(house.get("a.txt").await.body, b"old");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for _ in 0..5 {
        let stale = house.get("a.txt").await;
        assert_eq!(
            (stale.body.as_slice(), stale.cache_status().as_str()),
            (b"old".as_slice(), "segue; hit; detail=stale-while-revalidate")
        );
        assert!(stale.header("age").is_some_and(|age| age != "0"));
    }
    gate.notify_one();
    let new = until(&house, "a.txt", b"new").await;
    assert_eq!(new.cache_status(), "segue; hit; detail=memory");
    assert_eq!(house.origin.count("a.txt"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_origin_is_covered_only_where_it_allows_it() {
    let house = house().await;
    for (file, lines, status) in [
        ("open.txt", "Cache-Control: max-age=1, stale-if-error=600\r\nETag: \"v1\"\r\n", 200),
        ("shut.txt", "Cache-Control: max-age=1, must-revalidate\r\nETag: \"v1\"\r\n", 503),
        ("short.txt", "Cache-Control: max-age=1, stale-if-error=0\r\n", 503),
    ] {
        house.origin.track(file, then(ok(lines, "body"), Behaviour::Status(503)));
        assert_eq!(house.get(file).await.status, 200, "{file}");
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let answer = house.get(file).await;
        assert_eq!(answer.status, status, "{file}: {}", answer.head);
        if status == 200 {
            assert_eq!(answer.cache_status(), "segue; hit; detail=stale-if-error");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_seen_in_all_that_it_names() {
    let house = house_with(|config| config.origins.get_mut("default").unwrap().methods = vec!["*".to_owned()]).await;
    let kept = "Cache-Control: max-age=600\r\nVary: X-Who\r\n";
    for file in ["a.txt", "b.txt", "c.txt", "d.txt"] {
        house.origin.track(file, ok(kept, "old"));
        for who in ["one", "two"] {
            assert_eq!(ask(&house, file, &format!("X-Who: {who}\r\n")).await.body, b"old");
        }
    }
    let authority = house.origin.addr;
    let lines = format!("Location: b.txt\r\nContent-Location: http://{authority}/hls/{TRACK}/c.txt\r\n");
    house.origin.track("a.txt", reply("201 Created", &lines, ""));
    let posted = house.client().await.request("POST", &target("a.txt"), "Content-Length: 0\r\n").await;
    assert_eq!(posted.status, 201);
    for (file, body) in [("a.txt", "new"), ("b.txt", "new"), ("c.txt", "new"), ("d.txt", "old")] {
        house.origin.track(file, ok(kept, "new"));
        for who in ["one", "two"] {
            assert_eq!(ask(&house, file, &format!("X-Who: {who}\r\n")).await.body, body.as_bytes(), "{file} {who}");
        }
    }
    house.origin.track("d.txt", reply("500 No", "", ""));
    house.client().await.request("POST", &target("d.txt"), "Content-Length: 0\r\n").await;
    assert_eq!(ask(&house, "d.txt", "X-Who: one\r\n").await.body, b"old", "a failure changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_go_through_are_nobody_elses() {
    let house = house_with(|config| {
        config.origins.get_mut("default").unwrap().methods = vec!["*".to_owned()];
    })
    .await;
    let basic = "Authorization: Basic eDp5\r\n";
    house.origin.track("mine.txt", then(ok("Cache-Control: max-age=600\r\n", "mine"), ok("", "theirs")));
    assert_eq!(ask(&house, "mine.txt", basic).await.body, b"mine");
    assert!(house.origin.last_head().contains("Basic eDp5"));
    assert_eq!(house.get("mine.txt").await.body, b"theirs");
    house.origin.track("all.txt", ok("Cache-Control: max-age=600, public\r\n", "all"));
    assert_eq!(ask(&house, "all.txt", basic).await.body, b"all");
    assert_eq!(house.get("all.txt").await.cache_status(), "segue; hit; detail=memory");
}
