//! The edge in front of a real S3 protocol server (`s3s-fs`) that checks every SigV4 signature.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use segue_config::Secret;
use segue_proxy::{EdgeConfig, Endpoint, OriginConfig, RouteConfig};
use support::{TRACK, house_with, pattern, ticket, versioned};

const ACCESS: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

async fn s3(root: &Path) -> SocketAddr {
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    builder.set_auth(SimpleAuth::from_single(ACCESS, SECRET));
    let service = builder.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service.clone()));
        }
    });
    addr
}

fn origin(addr: SocketAddr, secret: &str) -> OriginConfig {
    let endpoint = Endpoint::parse(&format!("http://{addr}")).unwrap();
    OriginConfig::s3(endpoint, "us-east-1", "media", Secret::literal(ACCESS), Secret::literal(secret))
}

fn put(root: &Path, key: &str, body: &[u8]) {
    let path = root.join("media").join(key);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, body).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_hold_for_every_kind_of_key() {
    let root = tempfile::tempdir().unwrap();
    let addr = s3(root.path()).await;
    let house = house_with(|config| {
        *config = EdgeConfig { keys: config.keys.clone(), ..EdgeConfig::minimal(origin(addr, SECRET)) };
    })
    .await;
    let files = [
        ("a128/seg-00000.m4s", "a128/seg-00000.m4s"),
        ("two words.m4s", "two%20words.m4s"),
        ("plus+plus.m4s", "plus+plus.m4s"),
        ("plus+escaped.m4s", "plus%2Bescaped.m4s"),
        ("Größe-日本.m4s", "Gr%C3%B6%C3%9Fe-%E6%97%A5%E6%9C%AC.m4s"),
        ("a=b&c,d;e@f.m4s", "a=b&c,d;e@f.m4s"),
        ("100%.m4s", "100%25.m4s"),
        ("q?x.m4s", "q%3Fx.m4s"),
        ("~!*'().m4s", "~!*'().m4s"),
    ];
    for (file, raw) in files {
        put(root.path(), &format!("hls/{TRACK}/{file}"), file.as_bytes());
        let answer = house.get(raw).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, file.as_bytes()), "{raw}: {}", answer.head);
        assert!(answer.header("etag").is_some(), "S3's own entity tag");
        assert_eq!(answer.header("content-type"), Some("audio/mp4"));
    }
    let absent = house.get("absent.m4s").await;
    assert_eq!((absent.status, absent.reason().as_str()), (404, "not-found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_fits_a_bucket_that_exists_already() {
    let root = tempfile::tempdir().unwrap();
    let addr = s3(root.path()).await;
    let house = house_with(|config| {
        let mut origin = origin(addr, SECRET);
        origin.prefix = "archive/".to_owned();
        config.origins.insert("old".to_owned(), origin);
        let path = "/music/{track}/".to_owned();
        let prefix = Some("audio/{track}/hls/".to_owned());
        config.routes.insert(0, RouteConfig { host: None, path, origin: "old".to_owned(), prefix, playlist: None });
        config.tickets.required = false;
    })
    .await;
    put(root.path(), "archive/audio/t1/hls/seg 1.m4s", &pattern(70_000));
    let answer = house.client().await.get("/music/t1/seg%201.m4s").await;
    assert_eq!((answer.status, answer.body), (200, pattern(70_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_our_failure_and_a_large_object_passes_by_ranges() {
    let root = tempfile::tempdir().unwrap();
    let addr = s3(root.path()).await;
    put(root.path(), &format!("hls/{TRACK}/big.m4s"), &pattern(3_000_000));
    let wrong = house_with(|config| {
        *config = EdgeConfig { keys: config.keys.clone(), ..EdgeConfig::minimal(origin(addr, "another secret")) };
    })
    .await;
    let answer = wrong.get("big.m4s").await;
    assert_eq!((answer.status, answer.reason().as_str()), (502, "origin-refused"));
    let house = house_with(|config| {
        *config = EdgeConfig { keys: config.keys.clone(), ..EdgeConfig::minimal(origin(addr, SECRET)) };
        config.cache.max_object = 1_000_000;
    })
    .await;
    let target = format!("/p/{}/hls/{TRACK}/big.m4s", ticket());
    let part = house.client().await.request("GET", &target, "Range: bytes=2000000-2000009\r\n").await;
    assert_eq!((part.status, part.header("content-range")), (206, Some("bytes 2000000-2000009/3000000")));
    assert_eq!(part.body, pattern(3_000_000)[2_000_000..2_000_010]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_growing_playlist_past_its_time_is_asked_for_before_it_is_served() {
    let root = tempfile::tempdir().unwrap();
    let addr = s3(root.path()).await;
    let house = house_with(|config| {
        *config = EdgeConfig { keys: config.keys.clone(), ..EdgeConfig::minimal(origin(addr, SECRET)) };
        config.cache.ttl.growing = Duration::from_millis(1);
        config.cache.stale_while_revalidate = Duration::from_secs(600);
    })
    .await;
    let grows = [
        (versioned("a128/live.m3u8"), "#EXTINF:6.000,\nseg.m4s\n"),
        (versioned("early.m3u8"), "#EXT-X-STREAM-INF:BANDWIDTH=140800,CODECS=\"mp4a.40.2\"\na128/live.m3u8\n"),
    ];
    for (file, step) in grows {
        for grown in 1..=5 {
            let text = format!("#EXTM3U\n{}", step.repeat(grown));
            put(root.path(), &format!("hls/{TRACK}/{file}"), text.as_bytes());
            let answer = house.get(&file).await;
            assert_eq!(String::from_utf8_lossy(&answer.body), text, "{}", answer.head);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
