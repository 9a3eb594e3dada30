//! Playlists whose ticket travels in the query: the three modes, on the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use segue_proxy::PlaylistMode;
use segue_signing::{Claims, mint};
use support::{Answer, Behaviour, Client, House, TRACK, claims, house_with, key, pattern, ticket, versioned};

const MASTER: &str =
    "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-STREAM-INF:BANDWIDTH=128000\n0123456789abcdef-1/a128/index.m3u8\n";
const MEDIA: &str = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:6\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:6,\nseg-00000.m4s\n#EXTINF:6,\nseg-00001.m4s\n#EXT-X-ENDLIST\n";
const ESCAPING: &str = "#EXTM3U\n#EXTINF:6,\n/hls/abcdefgh2345/0123456789abcdef-1/a128/seg-00000.m4s\n#EXT-X-ENDLIST\n";

async fn house(mode: PlaylistMode) -> House {
    let house = house_with(|config| {
        config.tickets.playlist = mode;
        config.admin_listen = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    house.origin.track("master.m3u8", Behaviour::Serve(MASTER.into()));
    house.origin.track(&media(), Behaviour::Serve(MEDIA.into()));
    for (name, length) in [("init.mp4", 700), ("seg-00000.m4s", 9_000), ("seg-00001.m4s", 8_000)] {
        house.origin.track(&versioned(&format!("a128/{name}")), Behaviour::Serve(pattern(length)));
    }
    house
}

fn media() -> String {
    versioned("a128/index.m3u8")
}

fn listener(sid: &str) -> String {
    mint(&key(), &Claims { sid: Some(sid.to_owned()), ..claims() }).unwrap()
}

async fn with_query(house: &House, method: &str, file: &str, ticket: &str, headers: &str) -> Answer {
    house.client().await.request(method, &format!("/hls/{TRACK}/{file}?ticket={ticket}"), headers).await
}

async fn metric(house: &House, name: &str) -> String {
    let text = Client::connect(house.edge.admin_addr().unwrap()).await.get("/metrics").await.body;
    let text = String::from_utf8(text).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_default().to_owned()
}

/// All objects that a player asks for, by the URIs that it was given; `ticket` stands for the variable.
async fn play(house: &House, master: &str, ticket: &str) -> Vec<(u16, usize)> {
    let mut answers = Vec::new();
    let mut open = vec![url::Url::parse(&format!("http://edge{master}")).unwrap()];
    while let Some(url) = open.pop() {
        let target = &url[url::Position::BeforePath..];
        let answer = house.client().await.get(target).await;
        answers.push((answer.status, answer.body.len()));
        let text = String::from_utf8(answer.body).unwrap_or_default().replace("{$ticket}", ticket);
        for line in text.lines().filter(|line| text.starts_with("#EXTM3U") && !line.is_empty()) {
            let uri = if line.starts_with('#') { line.split("URI=\"").nth(1) } else { Some(line) };
            open.extend(uri.map(|uri| url.join(uri.split('"').next().unwrap()).unwrap()));
        }
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_that_follows_the_uris_gets_everything_in_every_mode() {
    let ticket = ticket();
    for (mode, by_query) in [(PlaylistMode::Define, true), (PlaylistMode::Rewrite, true), (PlaylistMode::Path, false)] {
        let house = house(mode).await;
        let in_query = play(&house, &format!("/hls/{TRACK}/master.m3u8?ticket={ticket}"), &ticket).await;
        let whole = in_query.len() == 5 && in_query.iter().all(|(status, _)| *status == 200);
        assert_eq!(whole, by_query, "{mode:?}: {in_query:?}");
        let in_path = play(&house, &format!("/p/{ticket}/hls/{TRACK}/master.m3u8"), "").await;
        assert!(in_path.len() == 5 && in_path.iter().all(|(status, _)| *status == 200), "{mode:?}: {in_path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn define_gives_every_listener_the_same_bytes_and_etag() {
    let house = house(PlaylistMode::Define).await;
    let first = with_query(&house, "GET", &media(), &listener("one"), "").await;
    let wanted = MEDIA
        .replace(
            "VERSION:7\n#EXT-X-TARGETDURATION:6\n",
            "VERSION:11\n#EXT-X-TARGETDURATION:6\n#EXT-X-DEFINE:QUERYPARAM=\"ticket\"\n",
        )
        .replace("init.mp4", "init.mp4?ticket={$ticket}")
        .replace(".m4s", ".m4s?ticket={$ticket}");
    assert_eq!((first.status, String::from_utf8(first.body.clone()).unwrap()), (200, wanted));
    assert_eq!(first.header("cache-control"), Some("private, max-age=3600"));
    assert_eq!((first.header("last-modified"), first.header("accept-ranges")), (None, Some("none")));
    let etag = first.header("etag").unwrap().to_owned();
    assert_ne!(etag, "\"v1\"", "other bytes than the object's");
    for headers in ["", "Range: bytes=0-9\r\n"] {
        let second = with_query(&house, "GET", &media(), &listener("two"), headers).await;
        assert_eq!((second.status, &second.body, second.header("etag")), (200, &first.body, Some(etag.as_str())));
        assert_eq!(second.header("cache-status"), Some("segue; hit; detail=memory"));
    }
    let known = format!("If-None-Match: {etag}\r\n");
    assert_eq!(with_query(&house, "GET", &media(), &listener("two"), &known).await.status, 304);
    let theirs = "If-None-Match: \"v1\"\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    assert_eq!(with_query(&house, "GET", &media(), &listener("two"), theirs).await.status, 200);
    let head = with_query(&house, "HEAD", &media(), &listener("two"), "").await;
    assert_eq!(head.header("content-length"), Some(first.body.len().to_string().as_str()));
    let plain = house.get(&media()).await;
    assert_eq!(
        (plain.body.as_slice(), plain.header("etag")),
        (MEDIA.as_bytes(), Some("\"v1\"")),
        "a ticket in the path needs no help"
    );
    assert_eq!(house.origin.count(&media()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_defined_outlives_a_renewal() {
    let house = house_with(|config| config.tickets.playlist = PlaylistMode::Define).await;
    house.origin.track("live.m3u8", Behaviour::ServeWith(MEDIA.into(), "Cache-Control: max-age=0\r\n"));
    let first = with_query(&house, "GET", "live.m3u8", &ticket(), "").await;
    let second = with_query(&house, "GET", "live.m3u8", &ticket(), "").await;
    assert_eq!((second.status, &second.body, second.header("etag")), (200, &first.body, first.header("etag")));
    assert!(house.origin.last_head().to_ascii_lowercase().contains("if-none-match: \"v1\""), "it was renewed");
    assert_eq!(house.origin.count("live.m3u8"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rewrite_gives_each_listener_a_playlist_that_nobody_else_may_keep() {
    let house = house(PlaylistMode::Rewrite).await;
    let (one, two) = (listener("one"), listener("two"));
    let first = with_query(&house, "GET", &media(), &one, "").await;
    let wanted =
        MEDIA.replace("init.mp4", &format!("init.mp4?ticket={one}")).replace(".m4s", &format!(".m4s?ticket={one}"));
    assert_eq!((first.status, String::from_utf8(first.body.clone()).unwrap()), (200, wanted));
    assert_eq!((first.header("cache-control"), first.header("last-modified")), (Some("private, no-store"), None));
    let etag = first.header("etag").unwrap().to_owned();
    let known = format!("If-None-Match: {etag}\r\n");
    let second = with_query(&house, "GET", &media(), &two, &known).await;
    assert_eq!(second.status, 200, "one listener's state is not another's");
    assert!(!String::from_utf8(second.body).unwrap().contains(&one));
    assert_eq!(with_query(&house, "GET", &media(), &one, &known).await.status, 304);
    let part = with_query(&house, "GET", &media(), &one, "Range: bytes=0-9\r\n").await;
    assert_eq!((part.status, &part.body), (200, &first.body));
    let head = with_query(&house, "HEAD", &media(), &one, "").await;
    assert_eq!(head.header("content-length"), Some(first.body.len().to_string().as_str()));
    let target = format!("/hls/{TRACK}/{}", media());
    let bearer = house.client().await.request("GET", &target, &format!("Authorization: Bearer {one}\r\n")).await;
    assert_eq!(bearer.body, first.body, "for players that send the header with the playlist alone");
    let cookie = house.client().await.request("GET", &target, &format!("Cookie: segue={one}\r\n")).await;
    assert_eq!(cookie.body, MEDIA.as_bytes(), "no script reads a cookie out of a playlist");
    assert_eq!(house.get(&media()).await.body, MEDIA.as_bytes(), "relative URIs inherit the path");
    assert_eq!(house.origin.count(&media()), 1, "one object for all of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn uris_that_escape_a_ticket_in_the_path_are_counted_and_can_be_rewritten() {
    let file = versioned("a128/escaping.m3u8");
    let path = house(PlaylistMode::Path).await;
    path.origin.track(&file, Behaviour::Serve(ESCAPING.into()));
    assert_eq!(path.get(&media()).await.body, MEDIA.as_bytes());
    assert_eq!(metric(&path, "segue_playlist_escapes_total").await, "0");
    for _ in 0..2 {
        assert_eq!(path.get(&file).await.body, ESCAPING.as_bytes());
    }
    assert_eq!(metric(&path, "segue_playlist_escapes_total").await, "1");
    let rewrite = house(PlaylistMode::Rewrite).await;
    rewrite.origin.track(&file, Behaviour::Serve(ESCAPING.into()));
    let ticket = ticket();
    let played = play(&rewrite, &format!("/p/{ticket}/hls/{TRACK}/{file}"), "").await;
    assert_eq!(played.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_of_the_request_is_ours_and_no_other() {
    for mode in [PlaylistMode::Define, PlaylistMode::Rewrite] {
        let house = house(mode).await;
        let text = "#EXTM3U\n#EXTINF:6,\nhttps://edge/a.ts\n#EXTINF:6,\nhttps://other.example/b.ts\n#EXT-X-ENDLIST\n";
        house.origin.track("abs.m3u8", Behaviour::Serve(text.into()));
        let body = with_query(&house, "GET", "abs.m3u8", &ticket(), "").await.body;
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains("https://edge/a.ts?ticket=") && body.contains("https://other.example/b.ts\n"), "{body}");
        let target = format!("/hls/{TRACK}/abs.m3u8?ticket={}", ticket());
        let mut client = house.client().await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: other.example\r\n\r\n").as_bytes()).await;
        let body = String::from_utf8(client.answer(false).await.body).unwrap();
        assert!(body.contains("https://edge/a.ts\n") && body.contains("https://other.example/b.ts?ticket="), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn playlists_that_are_not_for_the_cache_are_rewritten_all_the_same() {
    for mode in [PlaylistMode::Define, PlaylistMode::Rewrite] {
        let house = house(mode).await;
        house.origin.track("mine.m3u8", Behaviour::ServeWith(MEDIA.into(), "Cache-Control: private\r\n"));
        for _ in 0..2 {
            let range = "Range: bytes=0-9\r\nIf-None-Match: \"v1\"\r\n";
            let answer = with_query(&house, "GET", "mine.m3u8", &ticket(), range).await;
            let status = answer.cache_status();
            assert!(
                answer.status == 200 && ["segue; fwd=miss", "segue; fwd=bypass"].contains(&status.as_str()),
                "{status}"
            );
            assert_eq!(String::from_utf8(answer.body).unwrap().matches("?ticket=").count(), 3);
        }
        house.origin.track("mine.m3u8", Behaviour::Truncate(MEDIA.into(), 40));
        let cut = with_query(&house, "GET", "mine.m3u8", &ticket(), "").await;
        assert_eq!((cut.status, cut.reason().as_str()), (502, "origin-broken"));
        house.origin.track("mine.m3u8", Behaviour::Status(404));
        assert_eq!(with_query(&house, "GET", "mine.m3u8", &ticket(), "").await.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rewritten_is_an_honest_failure() {
    let house = house(PlaylistMode::Rewrite).await;
    let long = format!("#EXTM3U\n{}\n", "a".repeat(70_000));
    house.origin.track("long.m3u8", Behaviour::Serve(long.clone().into()));
    house.origin.track("packed.m3u8", Behaviour::ServeWith(MEDIA.into(), "Content-Encoding: gzip\r\n"));
    house.origin.track("page.m3u8", Behaviour::Serve("<html>".into()));
    for (file, reason) in [("long.m3u8", "line-too-long"), ("packed.m3u8", "playlist-encoded")] {
        for _ in 0..2 {
            let answer = with_query(&house, "GET", file, &ticket(), "").await;
            assert_eq!((answer.status, answer.reason().as_str()), (502, reason));
        }
    }
    let page = with_query(&house, "GET", "page.m3u8", &ticket(), "").await;
    assert_eq!((page.status, page.body.as_slice()), (200, b"<html>".as_slice()), "no playlist at all");
    let target = format!("/p/{}/hls/{TRACK}/packed.m3u8", ticket());
    assert_eq!(house.client().await.get(&target).await.status, 502, "nor is it passed on half understood");
    let refused = with_query(&house, "GET", &media(), "x.y.z", "").await;
    assert_eq!((refused.status, refused.reason().as_str()), (401, "ticket-malformed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_have_a_mode_of_its_own() {
    let house = house_with(|config| {
        config.tickets.playlist = PlaylistMode::Rewrite;
        config.routes[0].playlist = Some(PlaylistMode::Define);
    })
    .await;
    house.origin.track("master.m3u8", Behaviour::Serve(MASTER.into()));
    let body = with_query(&house, "GET", "master.m3u8", &ticket(), "").await.body;
    assert!(String::from_utf8(body).unwrap().ends_with("index.m3u8?ticket={$ticket}\n"));
}
