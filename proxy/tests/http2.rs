//! HTTP/2 as clients see it: the same steps for each stream, bounds on what one connection may do, and its end.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, StatusCode};
use segue_proxy::RouteConfig;
use support::tls::{Pair, Secured, Trust, secured, secured_with};
use support::{Behaviour, House, TRACK, house_with, pattern, ticket, versioned};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// One connection, and the task that drives it to its end.
struct Http2 {
    requests: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Http2 {
    async fn over<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Self {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(4 << 20);
        let (requests, connection) = builder.handshake(stream).await.unwrap();
        Self { requests, driver: tokio::spawn(connection) }
    }

    async fn secured(house: &House, pair: &Pair) -> Self {
        let trust = Trust::new(&[pair]).speaking("h2");
        let stream = trust.connect(house.edge.addr(), "edge.example").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(stream).await
    }

    async fn get(&self, target: &str) -> Answer {
        self.request(Method::GET, "edge.example", target, &[]).await.unwrap()
    }

    async fn request(
        &self,
        method: Method,
        authority: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, h2::Error> {
        let mut request = Request::builder().method(method).uri(format!("https://{authority}{target}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut requests = self.requests.clone().ready().await?;
        let (answer, _) = requests.send_request(request.body(()).unwrap(), true)?;
        let (head, mut incoming) = answer.await?.into_parts();
        let mut body = Vec::new();
        while let Some(data) = incoming.data().await {
            let data = data?;
            let _ = incoming.flow_control().release_capacity(data.len());
            body.extend_from_slice(&data);
        }
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

impl Answer {
    fn reason(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["error"].as_str().unwrap_or_default().to_owned()
    }
}

fn target(file: &str) -> String {
    format!("/p/{}/hls/{TRACK}/{file}", ticket())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_of_one_connection_are_answered_side_by_side() {
    let Secured { house, pair, dir: _dir } = secured().await;
    let sizes: Vec<usize> = (0..24).map(|n| 500 + n * n * 1_700).collect();
    for size in &sizes {
        house.origin.track(&versioned(&format!("a128/seg-{size}.m4s")), Behaviour::Serve(pattern(*size)));
    }
    let client = Http2::secured(&house, &pair).await;
    for _miss_then_hit in 0..2 {
        let asked = sizes.iter().map(|size| {
            let (client, size) = (&client, *size);
            async move { (size, client.get(&target(&versioned(&format!("a128/seg-{size}.m4s")))).await) }
        });
        for (size, answer) in futures::future::join_all(asked).await {
            assert_eq!(answer.status, 200);
            assert!(answer.body == pattern(size), "{size}");
        }
    }
    let facts = house.facts_when(48).await;
    assert_eq!(facts.len(), 48);
    assert!(facts.iter().all(|fact| fact["complete"] == true));
    assert_eq!(house.metric("segue_http2_connections").await, 1.0);
    assert_eq!(house.metric("segue_http2_requests_total").await, 48.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_is_the_same_as_over_http_1() {
    let Secured { house, pair, dir: _dir } = secured_with(|config| {
        config.routes = vec![RouteConfig { host: Some("edge.example".to_owned()), ..RouteConfig::contract() }];
    })
    .await;
    let file = versioned("a128/seg-00000.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(5_000)));
    let client = Http2::secured(&house, &pair).await;
    let bare = format!("/hls/{TRACK}/{file}");
    let get = async |authority: &str, target: &str, headers: &[(&str, &str)]| {
        client.request(Method::GET, authority, target, headers).await.unwrap()
    };
    let none = get("edge.example", &bare, &[]).await;
    assert_eq!((none.status.as_u16(), none.reason().as_str()), (401, "ticket-missing"));
    let elsewhere = get("other.example", &target(&file), &[]).await;
    assert_eq!((elsewhere.status.as_u16(), elsewhere.reason().as_str()), (404, "no-route"));
    let cookie = format!("segue={}", ticket());
    let crumbs = get("edge.example:443", &bare, &[("cookie", "a=b"), ("cookie", &cookie), ("cookie", "c=d")]).await;
    assert_eq!(crumbs.status, 200, "cookies that come in several fields");
    let part = get("edge.example", &target(&file), &[("range", "bytes=10-19")]).await;
    assert_eq!((part.status.as_u16(), part.body.as_slice()), (206, &pattern(5_000)[10..20]));
    let known = get("edge.example", &target(&file), &[("if-none-match", "\"v1\"")]).await;
    assert_eq!((known.status.as_u16(), known.body.len()), (304, 0));
    let head = client.request(Method::HEAD, "edge.example", &target(&file), &[]).await.unwrap();
    assert_eq!((head.status.as_u16(), head.headers["content-length"].as_bytes()), (200, &b"5000"[..]));
    let preflight = client.request(Method::OPTIONS, "edge.example", &bare, &[("origin", "https://a")]).await.unwrap();
    assert_eq!(preflight.status, 204);
    let dots = get("edge.example", &format!("/p/{}/hls/{TRACK}/%2e%2e/x", ticket()), &[]).await;
    assert_eq!(dots.reason(), "path-dot-segment");
    let post = client.request(Method::POST, "edge.example", &target(&file), &[]).await.unwrap();
    assert_eq!(post.status, 405);
    let conflict = get("edge.example", &bare, &[("host", "other.example")]).await;
    assert_eq!(conflict.status, 400, "two hosts");
    let statuses: Vec<_> = house.facts_when(3).await.iter().map(|fact| fact["status"].clone()).collect();
    assert_eq!(statuses, [200, 206, 304]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_spoken_without_tls_to_whoever_knows_beforehand() {
    let house = house_with(|_| {}).await;
    house.origin.track("a.jpg", Behaviour::Serve(b"first".to_vec()));
    let client = Http2::over(TcpStream::connect(house.edge.addr()).await.unwrap()).await;
    assert_eq!(client.get(&target("a.jpg")).await.body, b"first");
    assert_eq!(client.get(&target("a.jpg")).await.body, b"first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_streams_end_and_tells_the_client() {
    let Secured { house, pair, dir: _dir } =
        secured_with(|config| config.connections.drain = Duration::from_secs(60)).await;
    house.origin.track("a.jpg", Behaviour::Serve(b"first".to_vec()));
    let gate = Arc::new(Notify::new());
    house.origin.track("slow.jpg", Behaviour::Gated(pattern(60_000), 10_000, Arc::clone(&gate)));
    let client = Http2::secured(&house, &pair).await;
    assert_eq!(client.get(&target("a.jpg")).await.status, 200);
    let House { origin, edge, .. } = house;
    let end = async {
        while origin.count("slow.jpg") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::join!(edge.shutdown(), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            gate.notify_one();
        });
    };
    let slow_target = target("slow.jpg");
    let (slow, ()) = tokio::join!(client.get(&slow_target), end);
    assert!(slow.status == 200 && slow.body == pattern(60_000), "what was asked for before is answered");
    let end = tokio::time::timeout(Duration::from_secs(60), client.driver).await.unwrap().unwrap();
    assert!(end.is_ok(), "a goodbye and no error: {end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_told_goodbye() {
    let Secured { house, pair, dir: _dir } =
        secured_with(|config| config.connections.idle_timeout = Duration::from_millis(300)).await;
    house.origin.track("a.jpg", Behaviour::Serve(b"first".to_vec()));
    let client = Http2::secured(&house, &pair).await;
    assert_eq!(client.get(&target("a.jpg")).await.status, 200);
    let end = tokio::time::timeout(Duration::from_secs(60), client.driver).await.unwrap().unwrap();
    assert!(end.is_ok(), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_resets_what_he_asks_for_loses_his_connection_and_nobody_else_does() {
    let Secured { house, pair, dir: _dir } = secured().await;
    house.origin.track("a.jpg", Behaviour::Serve(b"first".to_vec()));
    let calm = Http2::secured(&house, &pair).await;
    assert_eq!(calm.get(&target("a.jpg")).await.status, 200);
    let rapid = Http2::secured(&house, &pair).await;
    let mut lost = false;
    for _ in 0..20_000 {
        let Ok(mut requests) = rapid.requests.clone().ready().await else {
            lost = true;
            break;
        };
        let request = Request::get("https://edge.example/hls/x/y.m4s").body(()).unwrap();
        match requests.send_request(request, true) {
            // Dropping both halves resets the stream.
            Ok(_dropped) => {}
            Err(_) => {
                lost = true;
                break;
            }
        }
    }
    assert!(lost || rapid.driver.is_finished(), "20,000 resets and still welcome");
    assert_eq!(calm.get(&target("a.jpg")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_bounded() {
    let Secured { house, pair, dir: _dir } = secured().await;
    house.origin.track("a.jpg", Behaviour::Serve(b"first".to_vec()));
    let client = Http2::secured(&house, &pair).await;
    let long = "x".repeat(40_000);
    let flood = client.request(Method::GET, "edge.example", &target("a.jpg"), &[("a", &long), ("b", &long)]).await;
    assert!(flood.is_err() || flood.unwrap().status == 431);
    let other = Http2::secured(&house, &pair).await;
    assert_eq!(other.get(&target("a.jpg")).await.status, 200);
}
