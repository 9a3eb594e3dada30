//! TLS as clients see it: versions, names, resumption, certificates that change, and how a connection ends.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::Duration;

use rustls::HandshakeKind;
use segue_proxy::TlsConfig;
use support::tls::{Pair, Secured, Trust, secured, secured_with};
use support::{Behaviour, Client, TRACK, house_with, pattern, ticket, versioned};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn target(file: &str) -> String {
    format!("/p/{}/hls/{TRACK}/{file}", ticket())
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_every_size_are_whole_in_both_versions() {
    let Secured { house, pair, .. } = secured().await;
    let sizes = [1_000, 16_384, 32_768, 70_000, 200_000, 5_000_000];
    for size in sizes {
        house.origin.track(&versioned(&format!("a128/seg-{size}.m4s")), Behaviour::Serve(pattern(size)));
    }
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let trust = Trust::with(&[&pair], &[version]);
        let mut client = trust.client(house.edge.addr(), "edge.example").await;
        for size in sizes {
            // A miss in the first round, then hits.
            for _ in 0..3 {
                let answer = client.get(&target(&versioned(&format!("a128/seg-{size}.m4s")))).await;
                assert_eq!((answer.status, answer.whole), (200, true), "{}", answer.head);
                assert!(answer.body == pattern(size), "{size}");
            }
        }
    }
    let facts = house.facts_when(sizes.len() * 6).await;
    assert_eq!(facts.len(), sizes.len() * 6);
    assert!(facts.iter().all(|fact| fact["complete"] == true));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_one_record_are_all_answered() {
    let Secured { house, pair, .. } = secured().await;
    house.origin.track("a.jpg", Behaviour::Serve(b"first".to_vec()));
    let mut client = Trust::new(&[&pair]).client(house.edge.addr(), "edge.example").await;
    client.get(&target("a.jpg")).await;
    let one = format!("GET {} HTTP/1.1\r\nHost: e\r\n\r\n", target("a.jpg"));
    let miss = format!("GET {} HTTP/1.1\r\nHost: e\r\n\r\n", target("nothing.jpg"));
    client.send(format!("{one}{miss}{one}").as_bytes()).await;
    for status in [200, 404, 200] {
        assert_eq!(client.answer(false).await.status, status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_resumed_and_without_early_data() {
    let Secured { house, pair, .. } = secured().await;
    house.origin.track("a.jpg", Behaviour::Serve(b"first".to_vec()));
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let trust = Trust::with(&[&pair], &[version]);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut client = trust.client(house.edge.addr(), "edge.example").await;
            assert_eq!(client.get(&target("a.jpg")).await.status, 200);
            assert_eq!(client.stream.get_ref().1.handshake_kind(), Some(kind), "{version:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_chooses_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second, wild] =
        [&["edge.example"][..], &["radio.example", "www.radio.example"], &["*.cdn.example"]].map(Pair::new);
    let files = [(&first, "first"), (&second, "second"), (&wild, "wild")];
    let files = files.map(|(pair, name)| pair.write(dir.path(), name));
    let house = house_with(|config| {
        config.tls = Some(TlsConfig { certificates: files.to_vec(), ..TlsConfig::new(files[0].clone()) });
    })
    .await;
    for (name, pair) in
        [("edge.example", &first), ("radio.example", &second), ("www.radio.example", &second), ("a.cdn.example", &wild)]
    {
        let stream = Trust::new(&[pair]).connect(house.edge.addr(), name).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], pair.cert, "{name}");
    }
    for name in ["a.b.cdn.example", "cdn.example", "elsewhere.example"] {
        let refused = Trust::new(&[&first, &second, &wild]).connect(house.edge.addr(), name).await;
        assert!(refused.unwrap_err().to_string().contains("not valid for name"), "{name} was shown the first one");
    }
}

/// New connections all the while: none of them fails, and from some moment on each sees the new certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_under_load_and_never_by_a_bad_one() {
    let Secured { house, pair, dir } = secured().await;
    house.origin.track("a.jpg", Behaviour::Serve(b"first".to_vec()));
    let next = Pair::new(&["edge.example"]);
    let mut trust = Trust::new(&[&pair, &next]);
    // A resumed session remembers the certificate of its first handshake.
    trust.0.resumption = rustls::client::Resumption::disabled();
    let mut kept = trust.client(house.edge.addr(), "edge.example").await;
    let shown = async || {
        let mut client = trust.client(house.edge.addr(), "edge.example").await;
        assert_eq!(client.get(&target("a.jpg")).await.status, 200);
        client.stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    assert_eq!(shown().await, pair.cert);
    assert!(house.metric("segue_tls_certificate_expires_seconds").await > 1e9);

    // The certificate without its key: the old pair stays, and somebody is told.
    next.write_cert(dir.path(), "edge");
    house.metric_reaches("segue_tls_reload_failures_total", 1.0).await;
    assert_eq!(shown().await, pair.cert);

    next.write(dir.path(), "edge");
    let replaced = async {
        while shown().await != next.cert {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), replaced).await.expect("the new certificate is shown");
    assert_eq!(house.metric("segue_tls_reloads_total").await, 1.0);
    assert_eq!(kept.get(&target("a.jpg")).await.status, 200, "a connection outlives its certificate");

    std::fs::write(dir.path().join("edge.key"), "no key").unwrap();
    assert!(!house.edge.reload_certificates(), "asked for, at once");
    assert_eq!(shown().await, next.cert);
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_come_to_nothing_are_counted_by_reason() {
    let Secured { house, pair, .. } = secured_with(|config| {
        config.tls.as_mut().unwrap().handshake_timeout = Duration::from_millis(500);
    })
    .await;
    let failures = |reason: &str| format!("segue_tls_handshake_failures_total{{reason=\"{reason}\"}}");
    let mut silent = Client::connect(house.edge.addr()).await;
    assert!(silent.is_closed().await);
    assert_eq!(house.metric(&failures("timeout")).await, 1.0);
    let mut plain = Client::connect(house.edge.addr()).await;
    plain.send(b"GET / HTTP/1.1\r\nHost: e\r\n\r\n").await;
    let mut alert = Vec::new();
    let _ = plain.stream.read_to_end(&mut alert).await;
    assert!(!alert.starts_with(b"HTTP"));
    house.metric_reaches(&failures("not-tls"), 1.0).await;
    let stranger = Pair::new(&["edge.example"]);
    assert!(Trust::new(&[&stranger]).connect(house.edge.addr(), "edge.example").await.is_err());
    house.metric_reaches(&failures("refused-by-client"), 1.0).await;
    assert!(Trust::new(&[&pair]).speaking("gopher").connect(house.edge.addr(), "edge.example").await.is_err());
    house.metric_reaches(&failures("incompatible"), 1.0).await;
    drop(Client::connect(house.edge.addr()).await);
    house.metric_reaches(&failures("gone"), 1.0).await;
    assert!(Trust::new(&[&pair]).connect(house.edge.addr(), "edge.example").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_let_go_and_its_fact_is_not_complete() {
    let Secured { house, pair, .. } =
        secured_with(|config| config.connections.write_timeout = Duration::from_millis(500)).await;
    let file = versioned("a128/seg-00000.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(12_000_000)));
    let mut client = Trust::new(&[&pair]).client(house.edge.addr(), "edge.example").await;
    client.send(format!("GET {} HTTP/1.1\r\nHost: e\r\n\r\n", target(&file)).as_bytes()).await;
    client.head().await;
    let facts = house.facts_when(1).await;
    assert_eq!((facts.len(), &facts[0]["complete"]), (1, &serde_json::Value::Bool(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_says_goodbye() {
    let Secured { house, pair, .. } = secured().await;
    house.origin.track("a.jpg", Behaviour::Serve(b"first".to_vec()));
    let mut client = Trust::new(&[&pair]).client(house.edge.addr(), "edge.example").await;
    assert_eq!(client.get(&target("a.jpg")).await.status, 200);
    house.edge.shutdown().await;
    // Without `close_notify` this would be an error: an end that nobody vouches for.
    assert_eq!(client.stream.read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_and_tls_are_served_beside_each_other() {
    let Secured { house, pair, .. } = secured_with(|config| {
        config.tls.as_mut().unwrap().listen = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    house.origin.track("a.jpg", Behaviour::Serve(b"first".to_vec()));
    assert_eq!(house.get("a.jpg").await.body, b"first");
    let beside = house.edge.tls_addr().unwrap();
    let mut client = Trust::new(&[&pair]).client(beside, "edge.example").await;
    assert_eq!(client.get(&target("a.jpg")).await.body, b"first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_head_is_refused_over_tls_too() {
    let Secured { house, pair, .. } = secured().await;
    let mut client = Trust::new(&[&pair]).client(house.edge.addr(), "edge.example").await;
    client.send(b"GET / HTTP/1.1\r\n\r\n").await;
    let answer = client.answer(false).await;
    assert_eq!((answer.status, answer.reason().as_str()), (400, "host-missing"));
    assert_eq!(client.stream.read(&mut [0; 16]).await.unwrap(), 0, "and the end is vouched for");
    client.stream.shutdown().await.unwrap();
}
