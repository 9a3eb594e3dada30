//! The ways in which a Redis is reached, and the ways in which it fails: password, TLS, cluster, failover, slowness, return.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/redis.rs"]
mod server;
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use segue_proxy::limit::{
    Kinds, LimitConfig, Limiter, LimitsConfig, OnExcess, OnOutage, Per, RedisConfig, StreamsConfig, Verdict,
};
use server::{Cluster, Server, Wire, edge, until};
use support::{Behaviour, house_with, pattern, versioned, with_admin};

/// What an edge needs of Redis: these commands on its own keys.
const ACL: &str = "+evalsha +eval +time +get +set +del +hset +hgetall +pexpire +zadd +zcard +zrangebyscore \
                   +zremrangebyscore +zremrangebyrank";

fn classes(limit: LimitConfig) -> LimitsConfig {
    LimitsConfig {
        classes: BTreeMap::from([("tracks".to_owned(), limit)]),
        streams: BTreeMap::from([("home".to_owned(), streams())]),
    }
}

fn streams() -> StreamsConfig {
    StreamsConfig { max_wait: Duration::from_secs(1), ..StreamsConfig::new(1, OnExcess::RefuseNewest) }
}

/// A class whose requests wait for as long as a crowded machine may take.
fn patient(rate: f64, burst: u32) -> LimitConfig {
    LimitConfig { max_wait: Duration::from_secs(1), ..LimitConfig::new(rate, burst, Per::Track) }
}

async fn settled(limiter: &Limiter, verdict: Verdict) -> bool {
    let verdict = match verdict {
        Verdict::Wait(pending) => limiter.wait(pending).await,
        verdict => verdict,
    };
    matches!(verdict, Verdict::Admitted)
}

async fn admitted(limiter: &Limiter, key: &str) -> bool {
    settled(limiter, limiter.check("tracks", key.as_bytes())).await
}

async fn plays(limiter: &Limiter, listener: &str, sid: &str) -> bool {
    settled(limiter, limiter.session("home", listener.as_bytes(), sid.as_bytes(), None)).await
}

/// Both sorts of limits are held in Redis: a second edge finds what the first one took.
async fn is_shared_by_two(config: &RedisConfig) {
    let limits = classes(patient(0.001, 5));
    let (one, two) = (edge(&limits, config).await, edge(&limits, config).await);
    let mut count = 0;
    for _ in 0..10 {
        count += usize::from(admitted(&one, "a").await) + usize::from(admitted(&two, "a").await);
    }
    assert!((4..=5).contains(&count), "{count} of a bucket of five");
    assert!(plays(&one, "anna", "kitchen").await && !plays(&two, "anna", "car").await);
    assert_eq!((one.drawn().0 > 0, one.seated() > 0), (true, true), "the words are Redis'");
    one.close().await;
    two.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_and_a_user_with_few_rights_are_enough() {
    let server = Server::start(&["--requirepass", "hunter2"]).await;
    is_shared_by_two(&server.config("redis://:hunter2@127.0.0.1:PORT/")).await;
    let limits = classes(patient(1.0, 5));
    let refused = Limiter::shared(&limits, &server.config("redis://:wrong@127.0.0.1:PORT/"), "edge").unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!refused.is_shared());
    refused.close().await;

    let mut user = vec!["-a", "hunter2", "acl", "setuser", "segue", "reset", "on", ">sesame", "~segue:*"];
    user.extend(ACL.split_whitespace());
    let said = server.cli(&user);
    assert!(said.contains("OK"), "{said}");
    // What the first two took is not to be missed by these.
    server.cli(&["-a", "hunter2", "flushall"]);
    is_shared_by_two(&server.config("redis://segue:sesame@127.0.0.1:PORT/")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_with_an_authority_of_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    certificate(dir.path());
    let (cert, key) = (at("cert.pem"), at("key.pem"));
    let tls = ["--port", "0", "--tls-port", "PORT", "--tls-cert-file", &cert, "--tls-key-file", &key];
    let more = ["--tls-ca-cert-file", &cert, "--tls-auth-clients", "no", "--requirepass", "hunter2"];
    let server = Server::start(&[&tls[..], &more[..]].concat()).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = server.config("rediss://:hunter2@localhost:PORT/");
    let ca = Some(std::fs::read(at("cert.pem")).unwrap());
    is_shared_by_two(&RedisConfig { ca, timeout: Duration::from_secs(1), ..url.clone() }).await;
    // Without it the certificate is a stranger's.
    let stranger = Limiter::shared(&classes(patient(1.0, 5)), &url, "edge").unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!stranger.is_shared());
    stranger.close().await;
}

fn certificate(dir: &Path) {
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(dir)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_serves_and_fails_over() {
    let mut cluster = Cluster::start().await;
    let config = cluster.config();
    is_shared_by_two(&config).await;
    // Only Redis lets anybody through.
    let limits = classes(LimitConfig { on_outage: OnOutage::Closed, ..patient(0.001, 5) });
    let (one, two) = (edge(&limits, &config).await, edge(&limits, &config).await);
    // Keys of every node, the one that dies among them.
    let spent: Vec<_> = (0..24).map(|n| format!("spent-{n}")).collect();
    for key in &spent {
        while admitted(&one, key).await {}
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.nodes[0].kill();
    let said = cluster.nodes[3].cli(&["cluster", "failover", "takeover"]);
    assert!(said.contains("OK"), "{said}");
    until("the replica leads", || cluster.nodes[3].cli(&["info", "replication"]).contains("role:master")).await;
    let started = Instant::now();
    let mut round = 0;
    loop {
        let mut count = 0;
        for n in 0..24 {
            count += usize::from(admitted(&two, &format!("fresh-{round}-{n}")).await);
        }
        if count == 24 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{count} of 24 keys are served after the failover");
        round += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut more = 0;
    for key in &spent {
        while admitted(&two, key).await {
            more += 1;
        }
    }
    assert!(more <= 30, "{more} more from 24 buckets that were spent");
    one.close().await;
    two.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_promoted_goes_on_with_what_was_spent() {
    let (mut first, second) = (Server::start(&[]).await, Server::start(&[]).await);
    second.cli(&["replicaof", "127.0.0.1", &first.port.to_string()]);
    until("the replica follows", || second.cli(&["info", "replication"]).contains("master_link_status:up")).await;
    let wire = Wire::to(&first).await;
    let limits = classes(patient(0.001, 40));
    let limiter = edge(&limits, &wire.config()).await;
    let spend = async || {
        let mut count = 0;
        for _ in 0..60 {
            count += u32::from(admitted(&limiter, "hot").await);
        }
        count
    };
    let spent = spend().await;
    assert!((35..=40).contains(&spent), "{spent} of 40");
    assert!(plays(&limiter, "anna", "kitchen").await);
    // What the first one wrote last may be on its way.
    let names = || second.cli(&["keys", "segue:*"]);
    until("the replica has it", || names().contains(":limit:") && names().contains(":streams:")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    wire.lead_to(&second);
    second.cli(&["replicaof", "no", "one"]);
    first.kill();
    // A heartbeat finds it gone.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    until("the edge comes back", || limiter.is_shared()).await;
    // Keys come back within half a second; what this edge's own share held was spent with the rest.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let more = spend().await;
    assert!(more <= 5, "{more} more of a bucket that is spent");
    let other = edge(&limits, &wire.config()).await;
    assert!(!plays(&other, "anna", "car").await, "the place is taken there too");
    limiter.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_redis_keeps_nobody_waiting_and_its_tokens_are_spent() {
    let server = Server::start(&[]).await;
    let wire = Wire::to(&server).await;
    let limit = LimitConfig::new(100.0, 100, Per::Track);
    let limiter = edge(&classes(limit), &wire.config()).await;
    wire.slow_down(Duration::from_millis(150));
    let mut waits = Vec::new();
    for n in 0..20 {
        let started = Instant::now();
        assert!(admitted(&limiter, &format!("cold-{n}")).await, "the edge's share is there");
        waits.push(started.elapsed());
    }
    waits.sort();
    assert!(waits[10] < Duration::from_millis(100), "the bound is 5 ms, and the machine's own: {waits:?}");
    assert!(limiter.is_shared(), "slow is not away");
    until("what was drawn has come", || limiter.drawn().1 >= 20).await;
    limiter.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_is_not_run_over() {
    const KEYS: usize = 1_000;
    let mut server = Server::start(&[]).await;
    let config = RedisConfig { timeout: Duration::from_secs(1), ..server.config("redis://127.0.0.1:PORT/") };
    let limiter = edge(&classes(LimitConfig::new(1_000.0, 1_000, Per::Track)), &config).await;
    server.kill();
    until("the breaker opens", || {
        let _ = limiter.check("tracks", b"another");
        !limiter.is_shared()
    })
    .await;
    let keys: Vec<_> = (0..KEYS).map(|n| format!("key-{n}")).collect();
    server.restart().await;
    let mut away = Instant::now();
    while !limiter.is_shared() {
        away = Instant::now();
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let before = limiter.drawn().0;
    // All keys at once, over and over; each that is back makes a call or two in a round.
    let (mut may_be_back, mut rounds) = (0.0, 0);
    while away.elapsed() < Duration::from_millis(600) {
        for key in &keys {
            let _ = limiter.check("tracks", key.as_bytes());
        }
        rounds += 1;
        let share = (away.elapsed().as_secs_f64() / 0.5).min(1.0);
        may_be_back += share * KEYS as f64;
        let calls = (limiter.drawn().0 - before) as f64;
        assert!(calls <= may_be_back * 1.2 + 50.0, "{calls} calls after {share} of the spread and {rounds} rounds");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(limiter.drawn().0 - before >= KEYS as u64 / 2, "and they do come");
    limiter.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_says_how_its_redis_is() {
    let mut server = Server::start(&[]).await;
    let redis = RedisConfig { timeout: Duration::from_secs(1), ..server.config("redis://127.0.0.1:PORT/") };
    let house = house_with(|config| {
        with_admin(config);
        config.redis = Some(redis);
        config.limits = classes(patient(1_000.0, 1_000));
    })
    .await;
    let file = versioned("a128/seg-00001.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(100)));
    house.metric_reaches("segue_redis_up", 1.0).await;
    assert_eq!(house.get(&file).await.status, 200);
    assert_eq!(house.metric("segue_redis_edges").await, 1.0);
    house.metric_reaches("segue_redis_calls_total", 1.0).await;
    house.metric_reaches("segue_redis_seat_calls_total", 1.0).await;
    server.kill();
    house.metric_reaches("segue_redis_outages_total", 1.0).await;
    assert_eq!(house.metric("segue_redis_up").await, 0.0);
    assert!(house.metric("segue_redis_errors_total").await + house.metric("segue_redis_timeouts_total").await >= 1.0);
    assert_eq!(house.get(&file).await.status, 200, "by this edge's share");
    server.restart().await;
    house.metric_reaches("segue_redis_up", 1.0).await;
    house.edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_waits_for_several_classes_no_longer_than_for_one() {
    let server = Server::start(&[]).await;
    let redis = RedisConfig { timeout: Duration::from_secs(5), ..server.config("redis://127.0.0.1:PORT/") };
    let house = house_with(|config| {
        with_admin(config);
        config.redis = Some(redis);
        let per = |per| LimitConfig { apply: Kinds::segments(), per, ..patient(1_000.0, 1_000) };
        for (name, per_) in [("addresses", Per::Address), ("sessions", Per::Session), ("tracks", Per::Track)] {
            config.limits.classes.insert(name.to_owned(), per(per_));
        }
        config.limits.streams.insert("home".to_owned(), streams());
    })
    .await;
    let file = versioned("a128/seg-00001.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(100)));
    house.metric_reaches("segue_redis_up", 1.0).await;
    let mut client = house.client().await;
    server.signal("-STOP");
    let started = Instant::now();
    let answer = client.get(&format!("/p/{}/hls/{}/{file}", support::ticket(), support::TRACK)).await;
    let waited = started.elapsed();
    server.signal("-CONT");
    assert_eq!(answer.status, 200);
    // Four classes, a second each.
    assert!(waited >= Duration::from_millis(900) && waited < Duration::from_millis(2_500), "{waited:?}");
    for class in ["addresses", "sessions", "tracks"] {
        assert_eq!(house.metric(&format!("segue_limit_late_total{{sort=\"rate\",class=\"{class}\"}}")).await, 1.0);
    }
    assert_eq!(house.metric("segue_limit_late_total{sort=\"streams\",class=\"home\"}").await, 1.0);
    house.edge.shutdown().await;
}
