//! One edge's limiter under load, for `make limits-proof`: it asks at a steady pace, and writes down when it was let through.
//!
//! `limits load URL RATE BURST LOAD SECONDS FILE` asks LOAD times a second; FILE gets the moments of admission as
//! little-endian nanoseconds since the epoch, standard output one line of JSON. Waits are counted from the check on, and
//! beside them how late this process' own timers were: what a wait lies beyond its bound is the machine's. `limits cost
//! [URL]` measures a check.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measuring tool: what goes wrong ends it")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use segue_config::Secret;
use segue_proxy::limit::{LimitConfig, Limiter, LimitsConfig, Per, RedisConfig, Verdict};

/// What a waiting request may wait in these measurements.
const MAX_WAIT: Duration = Duration::from_millis(50);

/// How late timers of this process were at the most, told by a task that does nothing but sleep.
async fn noise(worst: Arc<AtomicU64>) {
    loop {
        let due = Instant::now() + MAX_WAIT;
        tokio::time::sleep_until(due.into()).await;
        worst.fetch_max(u64::try_from(due.elapsed().as_micros()).unwrap(), Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Seen {
    admitted: Vec<u64>,
    refused: u64,
    waits: Vec<Duration>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["load", url, rate, burst, load, seconds, file] => {
            let limit = LimitConfig {
                max_wait: MAX_WAIT,
                ..LimitConfig::new(rate.parse().unwrap(), burst.parse().unwrap(), Per::Track)
            };
            load_for(limiter(limit, Some(url)).await, load.parse().unwrap(), seconds.parse().unwrap(), file).await;
        }
        ["cost"] => cost(limiter(LimitConfig::new(1e6, 1_000_000, Per::Track), None).await, "embedded").await,
        ["cost", url] => cost(limiter(LimitConfig::new(1e6, 1_000_000, Per::Track), Some(url)).await, "leased").await,
        _ => panic!("limits load URL RATE BURST LOAD SECONDS FILE | limits cost [URL]"),
    }
}

async fn limiter(limit: LimitConfig, url: Option<&str>) -> Arc<Limiter> {
    let limits = LimitsConfig { classes: BTreeMap::from([("tracks".to_owned(), limit)]), ..LimitsConfig::default() };
    let Some(url) = url else { return Limiter::embedded(&limits) };
    let redis = RedisConfig { edges: 3, ..RedisConfig::new(Secret::literal(url)) };
    let limiter = Limiter::shared(&limits, &redis, "proof").unwrap();
    while !limiter.is_shared() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    limiter
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

async fn load_for(limiter: Arc<Limiter>, load: f64, seconds: f64, file: &str) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    // Ten of them, so that one wakes every five milliseconds.
    let worst = Arc::new(AtomicU64::new(0));
    for number in 0..10 {
        let worst = Arc::clone(&worst);
        tokio::spawn(async move {
            tokio::time::sleep(MAX_WAIT / 10 * number).await;
            noise(worst).await;
        });
    }
    let started = Instant::now();
    let mut asked = 0_u64;
    while started.elapsed().as_secs_f64() < seconds {
        let due = (started.elapsed().as_secs_f64() * load) as u64;
        for _ in asked..due {
            let (before, began) = (now(), Instant::now());
            match limiter.check("tracks", b"hot") {
                Verdict::Admitted => seen.lock().unwrap().admitted.push(before),
                Verdict::Refused(_) => seen.lock().unwrap().refused += 1,
                Verdict::Wait(pending) => {
                    let (limiter, seen) = (Arc::clone(&limiter), Arc::clone(&seen));
                    tokio::spawn(async move {
                        let verdict = limiter.wait(pending).await;
                        let mut seen = seen.lock().unwrap();
                        seen.waits.push(began.elapsed());
                        match verdict {
                            Verdict::Admitted => seen.admitted.push(now()),
                            _ => seen.refused += 1,
                        }
                    });
                }
            }
        }
        asked = due;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(MAX_WAIT * 4).await;
    let (calls, tokens) = limiter.drawn();
    let mut seen = seen.lock().unwrap();
    let bytes: Vec<u8> = seen.admitted.iter().flat_map(|moment| moment.to_le_bytes()).collect();
    std::fs::File::create(file).unwrap().write_all(&bytes).unwrap();
    seen.waits.sort();
    let at = |part: usize| seen.waits.get(seen.waits.len() * part / 1_000).or(seen.waits.last());
    let ms = |wait: Option<&Duration>| wait.map_or(0.0, |wait| wait.as_secs_f64() * 1e3);
    println!(
        "{{\"asked\":{asked},\"admitted\":{},\"refused\":{},\"waited\":{},\"wait_p50_ms\":{:.3},\"wait_p99_ms\":{:.3},\"wait_max_ms\":{:.3},\"noise_max_ms\":{:.3},\"calls\":{calls},\"tokens\":{tokens}}}",
        seen.admitted.len(),
        seen.refused,
        seen.waits.len(),
        ms(at(500)),
        ms(at(990)),
        ms(seen.waits.last()),
        worst.load(Ordering::Relaxed) as f64 / 1e3,
    );
}

/// A check as the hit path makes it: by class name, with the clock read inside of it.
async fn cost(limiter: Arc<Limiter>, name: &str) {
    const CHECKS: u32 = 200_000;
    let keys: Vec<String> = (0..64).map(|n| format!("abcdefgh{n:04}")).collect();
    let mut best = f64::MAX;
    for _ in 0..20 {
        let (mut spent, mut others) = (0_u32, 0_u32);
        let started = Instant::now();
        for n in 0..CHECKS {
            let key = keys.get(n as usize % keys.len()).unwrap();
            match limiter.check("tracks", key.as_bytes()) {
                Verdict::Admitted => spent += 1,
                _ => others += 1,
            }
        }
        let each = started.elapsed().as_secs_f64() * 1e9 / f64::from(CHECKS);
        if spent > CHECKS / 10 * 9 {
            best = best.min(each);
        }
        println!("{{\"name\":\"{name}\",\"ns\":{each:.1},\"admitted\":{spent},\"others\":{others}}}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("{{\"name\":\"{name}\",\"best_ns\":{best:.1}}}");
}
