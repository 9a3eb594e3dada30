//! Origins that give something else than the object: never kept as good, and never taken for it by a client.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::Duration;

use segue_config::Secret;
use segue_proxy::{EdgeConfig, Endpoint, OriginConfig};
use support::{Behaviour, House, Origin, TRACK, house, house_with, pattern, versioned};

/// An edge in front of an S3 origin that does what it is told.
async fn bucket(change: impl FnOnce(&mut EdgeConfig)) -> (House, Origin) {
    let origin = Origin::start().await;
    let endpoint = Endpoint::parse(&format!("http://{}", origin.addr)).unwrap();
    let secret = || Secret::literal("secret");
    let mut s3 = OriginConfig::s3(endpoint, "us-east-1", "media", secret(), secret());
    s3.read_timeout = Duration::from_secs(1);
    let house = house_with(|config| {
        config.origins.insert("default".to_owned(), s3);
        change(config);
    })
    .await;
    (house, origin)
}

fn key(file: &str) -> String {
    format!("/media/hls/{TRACK}/{file}")
}

fn reply(lines: &str, body: &str) -> Behaviour {
    Behaviour::Reply(format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len()))
}

fn first(behaviour: Behaviour, then: Behaviour) -> Behaviour {
    Behaviour::First(1, Box::new(behaviour), Box::new(then))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_and_a_stall_in_the_body_are_cut_and_never_kept() {
    let house = house().await;
    for (file, broken) in [
        (versioned("a/seg-00000.m4s"), Behaviour::Reset(pattern(90_000), 50_000)),
        (versioned("a/seg-00001.m4s"), Behaviour::Stall(pattern(90_000), 50_000)),
        (versioned("a/seg-00002.m4s"), Behaviour::Truncate(pattern(90_000), 89_999)),
    ] {
        house.origin.track(&file, first(broken, Behaviour::Serve(pattern(90_000))));
        let broken = house.get(&file).await;
        assert!(broken.status == 502 || !broken.whole, "{file}: {}", broken.head);
        let good = house.get(&file).await;
        assert_eq!((good.whole, good.body), (true, pattern(90_000)), "{file}");
        assert_eq!(house.origin.count(&file), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_ends_at_the_bound() {
    let house = house_with(|config| config.cache.max_object = 100_000).await;
    house.origin.track("endless.jpg", Behaviour::Endless);
    let endless = house.get("endless.jpg").await;
    assert_eq!((endless.status, endless.reason().as_str()), (502, "origin-broken"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_or_a_confirmation_that_nobody_asked_for_is_no_object() {
    for (name, answer) in [
        ("part", "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-3/10\r\nContent-Length: 4\r\n\r\nabcd"),
        ("confirmation", "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n"),
        ("no range", "HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let house = house().await;
        house.origin.track("a.jpg", Behaviour::Reply(answer.to_owned()));
        let (s3, origin) = bucket(|_| {}).await;
        origin.put(&key("a.jpg"), Behaviour::Reply(answer.to_owned()));
        for house in [house, s3] {
            let answer = house.get("a.jpg").await;
            assert_eq!((answer.status, answer.reason().as_str()), (502, "origin-not-an-object"), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_document_under_200_is_no_segment() {
    let (house, origin) = bucket(|_| {}).await;
    let error = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>";
    let file = versioned("a/seg-00000.m4s");
    for lines in ["Content-Type: application/xml\r\n", "Content-Type: application/octet-stream\r\n", ""] {
        origin.put(&key(&file), reply(lines, error));
        let answer = house.get(&file).await;
        assert_eq!((answer.status, answer.reason().as_str()), (502, "origin-not-an-object"), "{lines}");
    }
    origin.put(&key(&file), Behaviour::Serve(pattern(100)));
    assert_eq!(house.get(&file).await.body, pattern(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_document_is_no_large_object_either() {
    let (house, origin) = bucket(|config| config.cache.max_object = 1_000).await;
    let file = versioned("a/whole.m4a");
    origin.put(&key(&file), Behaviour::Serve(pattern(5_000)));
    assert_eq!(house.get(&file).await.body, pattern(5_000));
    let error = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code></Error>";
    origin.put(&key(&file), reply("Content-Type: application/xml\r\n", error));
    let answer = house.get(&file).await;
    assert_eq!((answer.status, answer.reason().as_str()), (502, "origin-not-an-object"));
    origin.put(&key(&file), Behaviour::Serve(pattern(5_000)));
    assert_eq!(house.get(&file).await.body, pattern(5_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coding_is_told_and_that_of_the_upload_is_not() {
    let (house, origin) = bucket(|_| {}).await;
    origin.put(&key("a.json"), reply("Content-Encoding: gzip,aws-chunked\r\n", "zipped"));
    assert_eq!(house.get("a.json").await.header("content-encoding"), Some("gzip"));
    origin.put(&key("b.json"), reply("Content-Encoding: aws-chunked\r\n", "plain"));
    assert_eq!(house.get("b.json").await.header("content-encoding"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_their_checksum_does_not_name_are_refused() {
    let (house, origin) = bucket(|config| config.origins.get_mut("default").unwrap().verify_etag = true).await;
    let file = versioned("a/seg-00000.m4s");
    for lines in [
        "x-amz-checksum-crc32: y/Q5Jg==\r\n",
        "x-amz-checksum-crc64nvme: rosUhgp5mIg=\r\n",
        "x-amz-checksum-sha256: FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=\r\n",
        "ETag: \"25f9e794323b453885f5181f1b624d0b\"\r\n",
    ] {
        origin.put(&key(&file), reply(lines, "123456780"));
        let broken = house.get(&file).await;
        assert!(broken.status == 502 || !broken.whole, "{lines}: {} {:?}", broken.head, broken.body);
    }
    assert!(origin.last_head().to_ascii_lowercase().contains("x-amz-checksum-mode: enabled"));
    let sums = "x-amz-checksum-crc32: y/Q5Jg==\r\nETag: \"25f9e794323b453885f5181f1b624d0b\"\r\n";
    origin.put(&key(&file), reply(sums, "123456789"));
    for _ in 0..2 {
        assert_eq!(house.get(&file).await.body, b"123456789");
    }
    assert_eq!(origin.count_path(&key(&file)), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changes_between_two_requests_is_one_or_the_other() {
    let house = house_with(|config| config.cache.max_object = 1_000).await;
    let file = versioned("a/seg-00000.m4s");
    // Too large for the cache: ranges are the origin's, and If-Range keeps a player from mixing two states.
    house.origin.track(&file, first(Behaviour::Serve(pattern(5_000)), reply("ETag: \"v2\"\r\n", &"x".repeat(5_000))));
    assert_eq!(house.get(&file).await.header("etag"), Some("\"v1\""));
    let target = format!("/p/{}/hls/{TRACK}/{file}", support::ticket());
    let headers = "Range: bytes=10-19\r\nIf-Range: \"v1\"\r\n";
    let changed = house.client().await.request("GET", &target, headers).await;
    assert_eq!((changed.status, changed.header("etag"), changed.body.len()), (200, Some("\"v2\""), 5_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_with_its_connection_is_served_and_not_kept() {
    let house = house().await;
    let (bucket, origin) = bucket(|_| {}).await;
    let answer = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nConnection: close\r\n\r\nwhole or not".to_vec();
    house.origin.track("a.jpg", Behaviour::Raw(answer.clone()));
    origin.put(&key("a.jpg"), Behaviour::Raw(answer));
    for house in [&house, &bucket] {
        for _ in 0..2 {
            let served = house.get("a.jpg").await;
            assert_eq!((served.status, served.body.as_slice()), (200, b"whole or not".as_slice()));
            assert_eq!(served.cache_status(), "segue; fwd=miss");
        }
    }
    assert_eq!((house.origin.count("a.jpg"), origin.count_path(&key("a.jpg"))), (2, 2));
}
