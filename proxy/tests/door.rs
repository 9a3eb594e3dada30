//! The door: who a client is behind proxies, how many may come, and what is no request at all.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::Duration;

use segue_proxy::{ClientConfig, EdgeConfig, ForwardedHeader, ProxyProtocol, TlsConfig};
use support::tls::{Pair, Trust};
use support::{Behaviour, Client, House, TRACK, claims, house_with, key, ticket, with_admin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn target(file: &str) -> String {
    format!("/p/{}/hls/{TRACK}/{file}", ticket())
}

/// A ticket that opens for one address alone: it shows whom the edge takes its client for.
fn bound_to(ip: &str) -> String {
    let ticket = segue_signing::mint(&key(), &segue_signing::Claims { ip: Some(ip.to_owned()), ..claims() }).unwrap();
    format!("/p/{ticket}/hls/{TRACK}/a.jpg")
}

async fn door(change: impl FnOnce(&mut EdgeConfig)) -> House {
    let house = house_with(|config| {
        with_admin(config);
        change(config);
    })
    .await;
    house.origin.track("a.jpg", Behaviour::Serve(b"first".to_vec()));
    house
}

fn trusting(blocks: &[&str]) -> ClientConfig {
    let trusted_proxies = blocks.iter().map(|block| block.parse().unwrap()).collect();
    ClientConfig { trusted_proxies, ..ClientConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_with_a_reason_and_an_end() {
    let house = door(|_| {}).await;
    let many = format!("GET / HTTP/1.1\r\nHost: e\r\n{}\r\n", "a: b\r\n".repeat(300));
    for (request, status, reason) in [
        ("GET\r\n\r\n", 400, "malformed-head"),
        ("\x16\x03\x01\x02\0\x01\0\x01\u{7f}\x03\x03", 400, "malformed-head"),
        ("GET /hls/a/b\r\n\r\n", 400, "malformed-head"),
        ("GET /hls/a/b HTTP/9.9\r\nHost: e\r\n\r\n", 505, "http-version"),
        ("GET /hls/a b HTTP/1.1\r\nHost: e\r\n\r\n", 505, "http-version"),
        ("GET /a HTTP/1.1\r\nHost: e\r\nA: b\r\n folded\r\n\r\n", 400, "malformed-head"),
        ("GET /a HTTP/1.1\r\nHost: e\r\nA : b\r\n\r\n", 400, "malformed-head"),
        ("GET /a HTTP/1.1\r\nHost: e\r\nA: \0\r\n\r\n", 400, "malformed-head"),
        ("GET /a HTTP/1.1\r\nHost: e\r\nA: b\rc\r\n\r\n", 400, "malformed-head"),
        ("GET /a\x01 HTTP/1.1\r\nHost: e\r\n\r\n", 400, "malformed-head"),
        ("GET /a HTTP/1.1\nHost: e\n\n", 400, "bare-line-feed"),
        ("GET /a HTTP/1.1\r\nHost: e\nX: GET /b HTTP/1.1\r\n\r\n", 400, "bare-line-feed"),
        ("GET /a HTTP/1.1\r\n\r\n", 400, "host-missing"),
        ("GET /a HTTP/1.1\r\nHost: e\r\nHost: e\r\n\r\n", 400, "host-repeated"),
        ("GET /a HTTP/1.1\r\nHost: e, f\r\n\r\n", 400, "host-malformed"),
        ("GET http://elsewhere/a HTTP/1.1\r\nHost: e\r\n\r\n", 400, "host-malformed"),
        ("GET ftp://e/a HTTP/1.1\r\nHost: e\r\n\r\n", 400, "malformed-target"),
        ("GET * HTTP/1.1\r\nHost: e\r\n\r\n", 400, "malformed-target"),
        ("CONNECT e:443 HTTP/1.1\r\nHost: e:443\r\n\r\n", 405, "method-not-allowed"),
        ("GET /a HTTP/1.1\r\nHost: e\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "framing-ambiguous"),
        ("GET /a HTTP/1.1\r\nHost: e\r\nContent-Length: 0x5\r\n\r\n", 400, "framing-ambiguous"),
        (
            "POST /a HTTP/1.1\r\nHost: e\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "framing-ambiguous",
        ),
        ("POST /a HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked, x\r\n\r\n", 400, "framing-ambiguous"),
        (many.as_str(), 431, "too-many-headers"),
    ] {
        let mut client = house.client().await;
        // Whatever stands behind it is never taken for a request.
        client.send(format!("{request}GET {} HTTP/1.1\r\nHost: e\r\n\r\n", target("a.jpg")).as_bytes()).await;
        let answer = client.answer(false).await;
        assert_eq!((answer.status, answer.reason().as_str()), (status, reason), "{request:?}: {}", answer.head);
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.is_closed().await, "{request:?}");
    }
    assert_eq!(house.metric("segue_refusals_total{reason=\"host-missing\",class=\"4xx\"}").await, 1.0);
    assert_eq!(house.metric("segue_panics_total").await, 0.0);
    assert_eq!(house.get("a.jpg").await.body, b"first");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_and_an_old_version_are_requests() {
    let house = door(|_| {}).await;
    let mut client = house.client().await;
    client.send(format!("GET http://e{} HTTP/1.1\r\nHost: e\r\n\r\n", target("a.jpg")).as_bytes()).await;
    assert_eq!(client.answer(false).await.body, b"first");
    client.send(format!("GET {} HTTP/1.0\r\n\r\n", target("a.jpg")).as_bytes()).await;
    assert_eq!(client.answer(false).await.body, b"first");
}

/// A body that is cut into two requests elsewhere is one body here.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_in_a_body() {
    let house = door(|_| {}).await;
    let hidden = format!("GET {} HTTP/1.1\r\nHost: e\r\n\r\n", target("a.jpg"));
    for request in [
        format!("POST /hls/x/y HTTP/1.1\r\nHost: e\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!(
            "POST /hls/x/y HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n{:x};a=\"b\"\r\n{hidden}\r\n0\r\n\r\n",
            hidden.len()
        ),
        format!("POST /hls/x/y HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n{hidden}"),
    ] {
        let mut client = house.client().await;
        client.send(request.as_bytes()).await;
        client.stream.shutdown().await.unwrap();
        let mut all = Vec::new();
        let _ = client.stream.read_to_end(&mut all).await;
        let all = String::from_utf8_lossy(&all);
        assert!(!all.contains("first") && !all.contains(" 200 "), "{request}: {all}");
    }
    assert_eq!(house.metric("segue_panics_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_in_all_and_by_address() {
    let refused = |reason: &str| format!("segue_connections_refused_total{{reason=\"{reason}\"}}");
    let house = door(|config| config.connections.max_per_address = Some(3)).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = house.client().await;
        assert_eq!(client.get(&target("a.jpg")).await.status, 200);
        held.push(client);
    }
    assert!(house.client().await.is_closed().await);
    assert_eq!(house.metric(&refused("address")).await, 1.0);
    held.pop();
    // A place that was given back is had again, as soon as the edge has seen the client leave.
    let served = async { while house.get("a.jpg").await.status != 200 {} };
    tokio::time::timeout(Duration::from_secs(60), served).await.unwrap();

    let house = door(|config| config.connections.max = 2).await;
    let mut first = house.client().await;
    assert_eq!(first.get(&target("a.jpg")).await.status, 200);
    house.metric_reaches("segue_connections", 1.0).await;
    // A quarter of two, and still one for each.
    assert!(house.client().await.is_closed().await);
    assert_eq!(house.metric(&refused("address")).await, 1.0);
    assert_eq!(first.get(&target("a.jpg")).await.status, 200, "who is served goes on being served");

    let house = door(|config| (config.connections.max, config.connections.max_per_address) = (1, Some(1))).await;
    let mut first = house.client().await;
    assert_eq!(first.get(&target("a.jpg")).await.status, 200);
    assert!(house.client().await.is_closed().await);
    assert_eq!(house.metric(&refused("max")).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_names_its_client() {
    let house = door(|config| config.client = trusting(&["127.0.0.0/8", "10.0.0.0/8"])).await;
    let mut client = house.client().await;
    for (header, ip, status) in [
        ("X-Forwarded-For: 198.51.100.7\r\n", "198.51.100.7", 200),
        ("X-Forwarded-For: 203.0.113.66, 198.51.100.7, 10.1.1.1\r\n", "198.51.100.7", 200),
        ("X-Forwarded-For: 198.51.100.7, 203.0.113.66\r\n", "198.51.100.7", 403),
        ("X-Forwarded-For: 2001:db8::7\r\n", "2001:db8::/64", 200),
        ("Forwarded: for=198.51.100.7\r\n", "198.51.100.7", 403),
        ("", "127.0.0.1", 200),
    ] {
        for (kind, extra) in [("direct", ""), ("through Pingora", "Content-Length: 0\r\n")] {
            let answer = client.request("GET", &bound_to(ip), &format!("{header}{extra}")).await;
            assert_eq!(answer.status, status, "{kind} {header}: {}", answer.reason());
            client = house.client().await;
        }
    }
    let house = door(|config| {
        config.client = ClientConfig { header: ForwardedHeader::Forwarded, ..trusting(&["127.0.0.1/32"]) };
    })
    .await;
    let forwarded = "Forwarded: for=\"[2001:db8::7]:99\";proto=https\r\nX-Forwarded-For: 192.0.2.1\r\n";
    assert_eq!(house.client().await.request("GET", &bound_to("2001:db8::7"), forwarded).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_does() {
    let house = door(|config| {
        config.client = ClientConfig { proxy_protocol: ProxyProtocol::Any, ..trusting(&["10.0.0.0/8"]) };
    })
    .await;
    let spoofed = "X-Forwarded-For: 198.51.100.7\r\n";
    assert_eq!(house.client().await.request("GET", &bound_to("198.51.100.7"), spoofed).await.status, 403);
    assert_eq!(house.client().await.request("GET", &bound_to("127.0.0.1"), spoofed).await.status, 200);
    let mut client = house.client().await;
    client.send(b"PROXY TCP4 198.51.100.7 192.0.2.1 1 2\r\n").await;
    client.send(format!("GET {} HTTP/1.1\r\nHost: e\r\n\r\n", bound_to("198.51.100.7")).as_bytes()).await;
    assert_eq!(client.answer(false).await.status, 505, "no request, from somebody who is no proxy");
}

fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend_from_slice(&[command, family, 0, u8::try_from(body.len()).unwrap()]);
    header.extend_from_slice(body);
    header
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_protocol_names_the_client_of_a_connection() {
    let house = door(|config| {
        config.client = ClientConfig { proxy_protocol: ProxyProtocol::Any, ..trusting(&["127.0.0.1/32"]) };
    })
    .await;
    let with_tlv = [&[198, 51, 100, 7, 192, 0, 2, 1, 0, 1, 0, 2][..], &[4, 0, 1, 0]].concat();
    for (header, ip) in [
        (b"PROXY TCP4 198.51.100.7 192.0.2.1 1 2\r\n".to_vec(), "198.51.100.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n".to_vec(), "2001:db8::7"),
        (binary(0x21, 0x11, &with_tlv), "198.51.100.7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (binary(0x20, 0, &[]), "127.0.0.1"),
    ] {
        let request = format!("GET {} HTTP/1.1\r\nHost: e\r\n\r\n", bound_to(ip));
        let whole = [&header[..], request.as_bytes()].concat();
        // In one packet, and in pieces of which one holds the end of the header and the beginning of the request.
        for piece in [whole.len(), 7] {
            let mut client = house.client().await;
            for bytes in whole.chunks(piece) {
                client.send(bytes).await;
                tokio::task::yield_now().await;
            }
            let answer = client.answer(false).await;
            assert_eq!(answer.status, 200, "{ip}: {}", answer.reason());
            assert_eq!(client.get(&bound_to(ip)).await.status, 200, "{ip}: for all requests of the connection");
        }
    }
    let refused = "segue_connections_refused_total{reason=\"proxy-header\"}";
    for nothing in
        [&b"GET / HTTP/1.1\r\nHost: e\r\n\r\n"[..], b"PROXY TCP9 a b c d\r\n", b"\r\n\r\n\0\r\nQUIT\n\x99\x11\0\0"]
    {
        let mut client = house.client().await;
        client.send(nothing).await;
        assert!(client.is_closed().await);
    }
    assert_eq!(house.metric(refused).await, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_header_comes_before_tls() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::new(&["edge.example"]);
    let files = pair.write(dir.path(), "edge");
    let house = door(|config| {
        config.tls = Some(TlsConfig::new(files));
        config.client = ClientConfig { proxy_protocol: ProxyProtocol::V2, ..trusting(&["127.0.0.1/32"]) };
    })
    .await;
    let mut tcp = TcpStream::connect(house.edge.addr()).await.unwrap();
    tcp.write_all(&binary(0x21, 0x11, &[198, 51, 100, 7, 192, 0, 2, 1, 0, 1, 0, 2])).await.unwrap();
    let mut client = Client::over(Trust::new(&[&pair]).over(tcp, "edge.example").await.unwrap());
    assert_eq!(client.get(&bound_to("198.51.100.7")).await.status, 200);
}

/// Each household behind a proxy has its own bound, and the proxy none.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_by_who_is_behind_the_proxy() {
    let house = door(|config| {
        config.connections.max_per_address = Some(1);
        config.client = ClientConfig { proxy_protocol: ProxyProtocol::V1, ..trusting(&["127.0.0.1/32"]) };
    })
    .await;
    let come = async |ip: &str| {
        let mut client = house.client().await;
        client.send(format!("PROXY TCP6 {ip} 2001:db8::1 1 2\r\n").as_bytes()).await;
        let answer = client.get(&target("a.jpg")).await;
        (client, answer.status)
    };
    let (_one, first) = come("2001:db8:0:1::1").await;
    let (_two, other) = come("2001:db8:0:2::1").await;
    let (_three, neighbour) = come("2001:db8:0:1::2").await;
    assert_eq!((first, other, neighbour), (200, 200, 0), "one /64 is one household");
}
