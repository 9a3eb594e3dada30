//! Limits that several edges share through a real redis-server, which each test starts for itself.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/redis.rs"]
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use segue_config::Secret;
use segue_proxy::limit::{LimitConfig, Limiter, LimitsConfig, OnOutage, Per, RedisConfig, Verdict, Word};
use server::{Server, edge, until};

fn classes(limit: LimitConfig) -> LimitsConfig {
    LimitsConfig { classes: BTreeMap::from([("tracks".to_owned(), limit)]), ..LimitsConfig::default() }
}

/// A class whose requests wait for as long as a crowded machine may take.
fn patient(rate: f64, burst: u32) -> LimitConfig {
    LimitConfig { max_wait: Duration::from_secs(1), ..LimitConfig::new(rate, burst, Per::Track) }
}

fn patient_redis(server: &Server) -> RedisConfig {
    RedisConfig { timeout: Duration::from_secs(1), ..server.config("redis://127.0.0.1:PORT/") }
}

async fn check(limiter: &Limiter, key: &str) -> Verdict {
    match limiter.check("tracks", key.as_bytes()) {
        Verdict::Wait(pending) => limiter.wait(pending).await,
        verdict => verdict,
    }
}

async fn admitted(limiter: &Limiter, key: &str) -> bool {
    matches!(check(limiter, key).await, Verdict::Admitted)
}

/// Asks without a pause for a while; when each admitted request was admitted.
async fn press(limiter: Arc<Limiter>, pause: Duration, span: Duration) -> Vec<Instant> {
    let started = Instant::now();
    let mut moments = Vec::new();
    while started.elapsed() < span {
        let before = Instant::now();
        if admitted(&limiter, "hot").await {
            // When it was decided: the moment of asking, unless it waited.
            moments.push(if before.elapsed() > Duration::from_millis(1) { Instant::now() } else { before });
        }
        tokio::time::sleep(pause).await;
    }
    moments
}

/// How far the bucket of the whole limit was overdrawn.
fn excess(mut moments: Vec<Instant>, rate: f64, burst: f64) -> f64 {
    moments.sort();
    let (mut level, mut worst, mut last) = (burst, burst, moments.first().copied().unwrap());
    for moment in moments {
        level = (level + moment.duration_since(last).as_secs_f64() * rate).min(burst) - 1.0;
        last = moment;
        worst = worst.min(level);
    }
    -worst
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_edges_hold_one_limit_with_few_calls() {
    let server = Server::start(&[]).await;
    let (rate, burst) = (500.0, 500);
    let limits = classes(patient(rate, burst));
    let mut edges = Vec::new();
    for _ in 0..3 {
        edges.push(edge(&limits, &patient_redis(&server)).await);
    }
    let span = Duration::from_secs(4);
    let runs: Vec<_> =
        edges.iter().map(|edge| tokio::spawn(press(Arc::clone(edge), Duration::from_micros(200), span))).collect();
    let mut moments = Vec::new();
    for run in runs {
        moments.extend(run.await.unwrap());
    }
    let total = moments.len() as f64;
    let over = excess(moments, rate, f64::from(burst));
    assert!(over <= 0.5, "{over} tokens over the limit");
    // The bucket of Redis is smaller than the limit's by what is lent.
    let least = (f64::from(burst) - rate * 0.3 + rate * span.as_secs_f64()) * 0.85;
    assert!(total >= least, "{total} admitted, {least} are there");
    let calls: u64 = edges.iter().map(|edge| edge.drawn().0).sum();
    assert!(calls as f64 / total < 0.06, "{calls} calls for {total} requests");
    for edge in edges {
        edge.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_backends_keep_to_the_same_rules() {
    let server = Server::start(&[]).await;
    // Earns nothing while the test runs; a lease of what a bucket of 40 lends is one token.
    let limits = classes(patient(0.001, 40));
    for limiter in [Limiter::embedded(&limits), edge(&limits, &patient_redis(&server)).await] {
        for n in 0..40 {
            let verdict = check(&limiter, "a").await;
            let is_last_crumb = n == 39 && limiter.is_shared();
            assert!(matches!(verdict, Verdict::Admitted) || is_last_crumb, "{n}: {verdict:?}");
        }
        let Verdict::Refused(denied) = check(&limiter, "a").await else { panic!("the bucket is empty") };
        assert_eq!((denied.word, denied.quota), (Word::RateLimited, 40));
        assert!((1..=1_000).contains(&denied.retry_after()), "{denied:?}");
        assert!(admitted(&limiter, "b").await, "another key has its own");
        assert!(matches!(limiter.check("nothing", b"a"), Verdict::Admitted));
        limiter.replace(&LimitsConfig::default());
        assert!(admitted(&limiter, "a").await);
        limiter.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_dies_and_comes_back_empty_is_lived_with() {
    let mut server = Server::start(&[]).await;
    let limits = classes(patient(10.0, 30));
    let limiter = edge(&limits, &patient_redis(&server)).await;
    let spent = |limiter: Arc<Limiter>| async move {
        let mut count = 0;
        for _ in 0..200 {
            count += usize::from(admitted(&limiter, "hot").await);
        }
        count
    };
    assert!(spent(Arc::clone(&limiter)).await >= 25);
    for _ in 0..3 {
        server.kill();
        until("the breaker opens", || {
            let _ = limiter.check("tracks", b"another");
            !limiter.is_shared()
        })
        .await;
        let started = Instant::now();
        let local = spent(Arc::clone(&limiter)).await;
        assert!(started.elapsed() < Duration::from_secs(30), "nobody waits for who is away");
        let earned = started.elapsed().as_secs_f64() * 10.0;
        assert!(local as f64 <= 31.0 + earned, "{local} by this edge's share");
        server.restart().await;
        until("the edge comes back", || limiter.is_shared()).await;
    }
    limiter.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_outage_means_is_the_classes_choice() {
    let nobody = RedisConfig::new(Secret::literal("redis://127.0.0.1:1/"));
    for (on_outage, expected) in [(OnOutage::Open, 20), (OnOutage::Local, 5), (OnOutage::Closed, 0)] {
        let limit = LimitConfig { on_outage, ..LimitConfig::new(0.001, 5, Per::Track) };
        let limiter = Limiter::shared(&classes(limit), &nobody, "edge").unwrap();
        let mut count = 0;
        for _ in 0..20 {
            match check(&limiter, "a").await {
                Verdict::Admitted => count += 1,
                Verdict::Refused(denied) if on_outage == OnOutage::Closed => {
                    assert_eq!(denied.word, Word::LimitUnavailable);
                }
                _ => {}
            }
        }
        assert_eq!(count, expected, "{on_outage:?}");
        limiter.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_redis_holds_a_request_no_longer_than_its_bound() {
    let server = Server::start(&[]).await;
    let limits = classes(LimitConfig::new(1_000.0, 1_000, Per::Track));
    let limiter = edge(&limits, &server.config("redis://127.0.0.1:PORT/")).await;
    server.signal("-STOP");
    let mut waits = Vec::new();
    for n in 0..50 {
        let started = Instant::now();
        assert!(admitted(&limiter, &format!("cold-{n}")).await, "the edge's share is there");
        waits.push(started.elapsed());
    }
    waits.sort();
    // The configured 5 ms, and what a crowded machine adds.
    assert!(waits[25] < Duration::from_millis(100), "{:?}", waits[25]);
    until("silence opens the breaker", || !limiter.is_shared()).await;
    server.signal("-CONT");
    until("the edge comes back", || limiter.is_shared()).await;
    limiter.close().await;
}
