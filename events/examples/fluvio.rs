//! Facts into a local log and from there into Fluvio, as many as asked for: what an edge does, without the edge.
//!
//!     cargo run --release -p segue-events --example fluvio -- 127.0.0.1:9003 1000000 segue- [facts a second]
//!
//! Each fact is told apart by its id and weighs one byte, so that whoever counts bytes counts facts. Ends once the cluster has all of them,
//! whatever happens to it meanwhile.

#![allow(clippy::disallowed_methods)] // It sleeps on threads of its own, outside of any runtime.

use std::time::{Duration, Instant};

use segue_events::{EventLog, FactDraft, FluvioConfig, FluvioSink, LogOptions, Shipped, ship};
use tokio_util::sync::CancellationToken;

type Failed = Box<dyn std::error::Error>;

const TRACKS: u64 = 50;
const LISTENERS: u64 = 2000;
const UA: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";

fn deliver(log: &EventLog, number: u64) -> bool {
    let listener = number % LISTENERS;
    let segment = number / LISTENERS;
    let (track, sid) = (format!("track{:07}", listener % TRACKS), format!("session-{listener}"));
    let file = format!("a128/seg-{:05}.m4s", segment % 40);
    let draft = FactDraft {
        track: &track,
        version: Some("9f86d081884c7d65-1"),
        file: &file,
        pos_ms: Some(segment % 40 * 6000),
        media_ms: Some(6000),
        sid: &sid,
        status: 200,
        bytes: 1,
        ttfb_ms: 3,
        ua: Some(UA),
        ..FactDraft::default()
    };
    log.note(draft).settle(true, 1).is_some()
}

fn main() -> Result<(), Failed> {
    let given: Vec<String> = std::env::args().collect();
    let [_, endpoint, count, prefix, rate @ ..] = given.as_slice() else {
        return Err("give an address, a number of facts, and a prefix of topics".into());
    };
    let (count, rate): (u64, u64) = (count.parse()?, rate.first().map_or(Ok(u64::MAX), |rate| rate.parse())?);
    let config = FluvioConfig { prefix: prefix.clone(), ..FluvioConfig::new(endpoint) };
    let dir = std::env::temp_dir().join(format!("segue-fluvio-{}", std::process::id()));
    let log = EventLog::open(&dir, "feed", LogOptions::default())?;
    let (shipped, stop) = (Shipped::default(), CancellationToken::new());
    let mut sink = FluvioSink::new(&config, "segments");
    let began = Instant::now();
    std::thread::scope(|scope| -> Result<(), Failed> {
        let fed = scope.spawn(|| {
            let began = Instant::now();
            for number in 0..count {
                while !deliver(&log, number) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                let due = Duration::from_secs_f64(number as f64 / rate as f64);
                if let Some(early) = due.checked_sub(began.elapsed()).filter(|early| early.as_millis() > 5) {
                    std::thread::sleep(early);
                }
            }
            eprintln!("{count} facts in the log after {:?}", began.elapsed());
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shipping = scope.spawn({
            let (log, shipped, stop) = (&log, &shipped, &stop);
            let sink = &mut sink;
            move || runtime.block_on(ship(log.facts(), "facts", sink, shipped, stop))
        });
        fed.join().map_err(|_| "the feeder panicked")?;
        while log.facts().acknowledged() < log.facts().end() {
            std::thread::sleep(Duration::from_millis(50));
        }
        stop.cancel();
        shipping.join().map_err(|_| "the shipper panicked")?;
        Ok(())
    })?;
    let took = began.elapsed();
    println!(
        "{} facts in Fluvio after {took:?}: {:.0} a second, failures on the way {:?}, overflow {:?}",
        shipped.records(),
        shipped.records() as f64 / took.as_secs_f64(),
        shipped.failures(),
        log.overflow(),
    );
    drop(log);
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
