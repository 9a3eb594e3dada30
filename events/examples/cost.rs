//! What a fact costs: nanoseconds for noting and settling one, alone and with as many threads as there are cores; and how
//! many a second go from the log through the shipping loop.
//!
//!     cargo run --release -p segue-events --example cost [directory]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use segue_events::{
    CacheState, DenialDraft, EventLog, FactDraft, Kind, LogError, LogOptions, Most, Parcel, Position, Shipped, Sink,
    SinkError, ship,
};
use tokio_util::sync::CancellationToken;

const FACTS: u32 = 1_000_000;

fn draft(number: u64) -> FactDraft<'static> {
    FactDraft {
        track: "k3v9x2m4q7wz",
        version: Some("9f86d081884c7d65-1"),
        file: "a256/seg-00042.m4s",
        kind: Kind::Segment,
        pos_ms: Some(number % 40 * 6000),
        media_ms: Some(6000),
        sid: "q1Jk0xT9mYt3eZr5Lw8vNg",
        sub: Some("listener-20418"),
        status: 200,
        bytes: 196_608,
        ttfb_ms: 3,
        cache: CacheState::HitMemory,
        policy: Some("geo@1.4.2"),
        ua: Some(
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
        ),
        ip_hash: Some("c29tZS1oYXNoLW9m"),
        ..FactDraft::default()
    }
}

fn settled(log: &EventLog, number: u64) {
    log.note(draft(number)).settle(true, 196_608);
}

fn denied(log: &EventLog, _number: u64) {
    log.deny(DenialDraft {
        track: Some("k3v9x2m4q7wz"),
        path: "/hls/k3v9x2m4q7wz/9f86d081884c7d65-1/a256/seg-00042.m4s",
        reason: "expired",
        status: 401,
        ua: draft(0).ua,
        ..DenialDraft::default()
    });
}

/// Runs `work` over a log that a consumer keeps up with, and prints what one fact cost in wall time of a thread.
fn measure(dir: &Path, name: &str, threads: u32, work: fn(&EventLog, u64)) -> Result<(), LogError> {
    let log = EventLog::open(&dir.join(name), "edge-1", LogOptions::default())?;
    for number in 0..10_000 {
        work(&log, number);
    }
    let started = Instant::now();
    let cpu: u64 = std::thread::scope(|scope| {
        let workers = (0..threads).map(|_| {
            let log = Arc::clone(&log);
            scope.spawn(move || {
                let before = cpu_ns();
                (0..u64::from(FACTS / threads)).for_each(|number| work(&log, number));
                cpu_ns().saturating_sub(before)
            })
        });
        let workers: Vec<_> = workers.collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).sum()
    });
    let each = started.elapsed().as_nanos() as f64 / f64::from(FACTS) * f64::from(threads);
    let cpu = cpu as f64 / f64::from(FACTS);
    println!("{name:>16}: {cpu:>6.0} ns of CPU a fact, {each:>6.0} ns a fact and thread, {threads} thread(s)");
    let overflow = log.overflow();
    if overflow != segue_events::Overflow::default() {
        println!("                  {overflow:?}");
    }
    let (mut position, mut read, started) = (Position(0), 0, Instant::now());
    loop {
        let batch = log.facts().read(position, 1000)?;
        if batch.records.is_empty() {
            break;
        }
        (position, read) = (batch.next, read + batch.records.len());
        log.facts().acknowledge(position);
    }
    if read > 0 {
        let each = started.elapsed() / u32::try_from(read).unwrap_or(u32::MAX);
        println!("{:>16}: {:>6} ns a fact, {} bytes each", "read back", each.as_nanos(), position.0 / read as u64);
    }
    Ok(())
}

/// CPU time of this thread (proc(5), schedstat), which other processes do not lengthen.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// Takes everything at once.
struct Nowhere;

impl Sink for Nowhere {
    const KIND: &'static str = "nowhere";
    const MOST: Most = Most { records: 4000, bytes: 2 << 20 };

    async fn take(&mut self, parcel: Parcel<'_>) -> Result<Position, SinkError> {
        Ok(parcel.next)
    }
}

/// How many facts a second leave the log.
fn shipping(dir: &Path) -> Result<(), LogError> {
    let log = EventLog::open(&dir.join("shipping"), "edge-1", LogOptions::default())?;
    (0..u64::from(FACTS)).for_each(|number| settled(&log, number));
    let (shipped, stop, started) = (Shipped::default(), CancellationToken::new(), Instant::now());
    stop.cancel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|source| LogError::Io { action: "make a runtime for", path: dir.to_owned(), source })?;
    runtime.block_on(ship(log.facts(), "facts", &mut Nowhere, &shipped, &stop));
    let rate = shipped.records() as f64 / started.elapsed().as_secs_f64();
    println!("{:>16}: {rate:>6.0} facts a second through log and shipping, {} facts", "ship", shipped.records());
    Ok(())
}

/// What the slowest of many cost: a file's end, a page fault, a descheduled thread.
fn spread(dir: &Path) -> Result<(), LogError> {
    let log = EventLog::open(&dir.join("spread"), "edge-1", LogOptions::default())?;
    let mut took: Vec<Duration> = (0..u64::from(FACTS) / 2)
        .map(|number| {
            let started = Instant::now();
            log.note(draft(number)).settle(true, 196_608);
            started.elapsed()
        })
        .collect();
    took.sort_unstable();
    for (name, part) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        let index = ((took.len() - 1) as f64 * part) as usize;
        println!("{name:>16}: {:>6} ns for one", took[index].as_nanos());
    }
    Ok(())
}

fn main() -> Result<(), LogError> {
    let given = std::env::args().nth(1);
    let temporary = std::env::temp_dir().join(format!("segue-cost-{}", std::process::id()));
    let dir = given.as_ref().map_or(temporary.as_path(), Path::new);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    measure(dir, "note+settle", 1, settled)?;
    measure(dir, "note+settle all", cores, settled)?;
    measure(dir, "deny", 1, denied)?;
    shipping(dir)?;
    spread(dir)?;
    if given.is_none() {
        std::fs::remove_dir_all(dir).map_err(|source| LogError::Io {
            action: "remove",
            path: dir.to_owned(),
            source,
        })?;
    }
    Ok(())
}
