//! How many sessions a listener plays at once: one process by itself, and several edges through a real redis-server.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/redis.rs"]
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use segue_proxy::limit::{Limiter, LimitsConfig, OnExcess, OnOutage, RedisConfig, StreamsConfig, Verdict, Word};
use server::{Server, edge, until};

const ANNA: &[u8] = b"anna";

fn class(max: u32, on_excess: OnExcess) -> StreamsConfig {
    StreamsConfig { max_wait: Duration::from_secs(1), ..StreamsConfig::new(max, on_excess) }
}

fn limits(class: StreamsConfig) -> LimitsConfig {
    LimitsConfig { streams: BTreeMap::from([("home".to_owned(), class)]), ..LimitsConfig::default() }
}

fn patient(server: &Server) -> RedisConfig {
    RedisConfig { timeout: Duration::from_secs(1), ..server.config("redis://127.0.0.1:PORT/") }
}

async fn asks(limiter: &Limiter, sid: &str, ticket_age: Option<Duration>) -> Result<(), Word> {
    let verdict = match limiter.session("home", ANNA, sid.as_bytes(), ticket_age) {
        Verdict::Wait(pending) => limiter.wait(pending).await,
        verdict => verdict,
    };
    match verdict {
        Verdict::Admitted => Ok(()),
        Verdict::Refused(denied) => Err(denied.word),
        Verdict::Wait(_) => panic!("a wait ends in a word"),
    }
}

async fn plays(limiter: &Limiter, sid: &str) -> Result<(), Word> {
    asks(limiter, sid, None).await
}

fn given(limiter: &Limiter, sid: &str, media: Duration) {
    limiter.given("home", ANNA, sid.as_bytes(), media);
}

/// One process twice, and three edges that share a Redis: the same rules.
async fn both(limits: &LimitsConfig, server: &Server) -> Vec<Vec<Arc<Limiter>>> {
    let one = Limiter::embedded(limits);
    let mut edges = Vec::new();
    for _ in 0..3 {
        edges.push(edge(limits, &patient(server)).await);
    }
    vec![vec![Arc::clone(&one), Arc::clone(&one), one], edges]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_is_refused_wherever_it_asks_until_the_media_has_played() {
    let server = Server::start(&[]).await;
    let class = StreamsConfig { grace: Duration::from_millis(600), ..class(1, OnExcess::RefuseNewest) };
    for edges in both(&limits(class), &server).await {
        let [a, b, c] = &edges[..] else { panic!("three") };
        assert_eq!(plays(a, "kitchen").await, Ok(()));
        assert_eq!(plays(b, "car").await, Err(Word::TooManyStreams));
        assert_eq!(plays(b, "kitchen").await, Ok(()), "the same session on another edge");
        // Half of a buffer from here, half from there: two seconds in all.
        let began = Instant::now();
        for edge in [a, b] {
            given(edge, "kitchen", Duration::from_secs(1));
        }
        loop {
            match plays(c, "car").await {
                Ok(()) => break,
                Err(word) => assert_eq!(word, Word::TooManyStreams),
            }
            assert!(began.elapsed() < Duration::from_secs(60), "the place never became free");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(2_400), "free after {took:?}, with two seconds of media and the grace");
        for edge in edges {
            edge.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_is_stopped_on_every_edge_and_comes_back_with_a_new_ticket() {
    let server = Server::start(&[]).await;
    for edges in both(&limits(class(2, OnExcess::StopOldest)), &server).await {
        let [a, b, c] = &edges[..] else { panic!("three") };
        for (edge, sid) in [(a, "kitchen"), (b, "desk"), (c, "car")] {
            assert_eq!(plays(edge, sid).await, Ok(()));
            given(edge, sid, Duration::from_secs(60));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // An edge that never saw it asks; the one where it played hears of it, behind.
        assert_eq!(plays(b, "kitchen").await, Err(Word::StreamStopped));
        let stopped = Instant::now();
        while plays(a, "kitchen").await.is_ok() {
            assert!(stopped.elapsed() < Duration::from_secs(60), "the edge never heard of it");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!((plays(b, "desk").await, plays(a, "car").await), (Ok(()), Ok(())), "who plays goes on");
        let old = Some(Duration::from_secs(3_600));
        assert_eq!(asks(a, "kitchen", old).await, Err(Word::StreamStopped), "an old ticket");
        assert_eq!(asks(a, "kitchen", Some(Duration::ZERO)).await, Ok(()), "a new one");
        assert_eq!(plays(c, "desk").await, Err(Word::StreamStopped), "now the second is the oldest");
        for edge in edges {
            edge.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_stands_in_front_of_a_segment() {
    let server = Server::start(&[]).await;
    let limiter = edge(&limits(class(1, OnExcess::RefuseNewest)), &patient(&server)).await;
    assert_eq!(plays(&limiter, "kitchen").await, Ok(()));
    for _ in 0..1_000 {
        assert!(matches!(limiter.session("home", ANNA, b"kitchen", None), Verdict::Admitted), "at once");
        given(&limiter, "kitchen", Duration::from_millis(100));
    }
    assert!(limiter.seated() <= 2, "{} calls for a thousand segments", limiter.seated());
    // Whoever knocks in vain makes few calls as well.
    for _ in 0..500 {
        assert_eq!(plays(&limiter, "car").await, Err(Word::TooManyStreams));
    }
    assert!(limiter.seated() <= 12, "{} calls", limiter.seated());
    limiter.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_stops_nobody_who_plays_and_ends_as_the_class_says() {
    for (on_outage, newcomer) in [
        (OnOutage::Local, Err(Word::TooManyStreams)),
        (OnOutage::Open, Ok(())),
        (OnOutage::Closed, Err(Word::LimitUnavailable)),
    ] {
        let mut server = Server::start(&[]).await;
        let limits = limits(StreamsConfig { on_outage, ..class(1, OnExcess::RefuseNewest) });
        let (one, two) = (edge(&limits, &patient(&server)).await, edge(&limits, &patient(&server)).await);
        assert_eq!(plays(&one, "kitchen").await, Ok(()));
        given(&one, "kitchen", Duration::from_secs(600));
        server.kill();
        until("both see it", || !one.is_shared() && !two.is_shared()).await;
        assert_eq!(plays(&one, "kitchen").await, Ok(()), "{on_outage:?}: who plays goes on");
        assert_eq!(plays(&one, "car").await, newcomer, "{on_outage:?}");
        // Empty again: the edge where the session plays says so, and the other one hears it from Redis.
        server.restart().await;
        until("both are back", || one.is_shared() && two.is_shared()).await;
        let back = Instant::now();
        until("the session is told of again", || server.cli(&["keys", "segue:streams:*"]).contains("segue")).await;
        tokio::time::sleep(Duration::from_millis(700).saturating_sub(back.elapsed())).await;
        assert_eq!(plays(&two, "car").await, Err(Word::TooManyStreams), "{on_outage:?}");
        assert_eq!(plays(&one, "kitchen").await, Ok(()));
        one.close().await;
        two.close().await;
    }
}
