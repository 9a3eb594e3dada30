//! Several ranges in one request (RFC 9110, section 14.6).
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{Answer, Behaviour, TRACK, house, pattern, ticket, versioned};
use tokio::sync::Notify;

fn target(file: &str) -> String {
    format!("/p/{}/hls/{TRACK}/{file}", ticket())
}

/// The parts of a multipart body: their `Content-Range` and bytes.
fn parts(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    let kind = answer.header("content-type").unwrap();
    let boundary = format!("--{}", kind.strip_prefix("multipart/byteranges; boundary=").unwrap());
    let mut found = Vec::new();
    let mut rest = answer.body.as_slice();
    let find = |bytes: &[u8], needle: &[u8]| bytes.windows(needle.len()).position(|window| window == needle);
    while let Some(at) = find(rest, boundary.as_bytes()) {
        rest = &rest[at + boundary.len()..];
        if rest.starts_with(b"--") {
            return found;
        }
        let end = find(rest, b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        assert!(head.contains("Content-Type: audio/mp4"), "{head}");
        let range = head.lines().find_map(|line| line.strip_prefix("Content-Range: ")).unwrap().to_owned();
        rest = &rest[end + 4..];
        let length = find(rest, format!("\r\n{boundary}").as_bytes()).unwrap();
        found.push((range, rest[..length].to_vec()));
    }
    panic!("no end: {:?}", String::from_utf8_lossy(rest));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_come_as_parts_from_a_miss_and_from_a_hit() {
    let house = house().await;
    let file = versioned("a/seg-00000.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(1_000)));
    let mut client = house.client().await;
    for _ in 0..2 {
        let answer = client.request("GET", &target(&file), "Range: bytes=900-,0-1,5-9,8-12\r\n").await;
        assert_eq!((answer.status, answer.header("content-range")), (206, None), "{}", answer.head);
        let wanted: Vec<_> = [(0, 1), (5, 12), (900, 999)]
            .iter()
            .map(|(first, last)| (format!("bytes {first}-{last}/1000"), pattern(1_000)[*first..=*last].to_vec()))
            .collect();
        assert_eq!(parts(&answer), wanted);
    }
    assert_eq!(house.origin.count(&file), 1);
    let facts = house.facts_when(2).await;
    for fact in facts {
        assert_eq!((&fact["status"], &fact["range"]), (&206.into(), &serde_json::json!([900, 999, 1_000])));
        assert_eq!(fact["complete"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_that_runs_gives_its_parts_too() {
    let house = house().await;
    let file = versioned("a/seg-00000.m4s");
    let gate = Arc::new(Notify::new());
    house.origin.track(&file, Behaviour::Gated(pattern(5_000), 100, Arc::clone(&gate)));
    let mut client = house.client().await;
    let request = format!("GET {} HTTP/1.1\r\nHost: e\r\nRange: bytes=4000-4009,0-9\r\n\r\n", target(&file));
    client.send(request.as_bytes()).await;
    while house.origin.count(&file) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gate.notify_one();
    let answer = client.answer(false).await;
    let bytes: Vec<_> = parts(&answer).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(bytes, [pattern(5_000)[4_000..4_010].to_vec(), pattern(5_000)[..10].to_vec()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_absurd_sets_are_answered_as_the_standard_allows() {
    let house = house().await;
    let file = versioned("a/seg-00000.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(1_000)));
    let many = (0..40).map(|n| format!("{}-{}", n * 10, n * 10 + 1)).collect::<Vec<_>>().join(",");
    for (headers, status, length) in [
        ("Range: bytes=0-1,5-9\r\nIf-Range: \"v0\"\r\n".to_owned(), 200, Some(1_000)),
        ("Range: bytes=0-1,5-9\r\nIf-Range: \"v1\"\r\n".to_owned(), 206, None),
        (format!("Range: bytes={many}\r\n"), 200, Some(1_000)),
        ("Range: bytes=0-499,500-999\r\n".to_owned(), 206, Some(1_000)),
        ("Range: bytes=5-9,9999-\r\n".to_owned(), 206, Some(5)),
        ("Range: bytes=2000-,3000-4000\r\n".to_owned(), 416, None),
        ("Range: bytes=0-1,nonsense\r\n".to_owned(), 200, Some(1_000)),
    ] {
        let answer = house.client().await.request("GET", &target(&file), &headers).await;
        assert_eq!(answer.status, status, "{headers}");
        if let Some(length) = length {
            assert_eq!(answer.body.len(), length, "{headers}");
        }
    }
}
