//! The soak: a real edge under mixed load, in front of an origin that misbehaves, and every answer held against the truth.
//!
//! Purpose: to find a wrong byte, a failure without a cause, a purge that did not hold, or a bound that did not. Clients
//! ask for hits, misses, ranges, HEADs and conditions with every carrier of a ticket; objects change, tracks are purged,
//! and the edge is ended by `kill -9` and started again on what it left.
//!
//! Invariants: the choices follow from one seed, which is printed; what is right follows from path and version alone;
//! a run that did not exercise what it is for is a failed run. Two runs of one seed choose alike, but the clock and the
//! scheduler decide what meets what.
//!
//! On failure: [`Report::violations`] says what was asked, what came, and why it is wrong; the edge's log is kept in the
//! folder that [`Report::dir`] names.

mod client;
mod edge;
mod judge;
mod origin;
pub(crate) mod random;
mod report;
mod truth;
pub(crate) mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;

use edge::EdgeProcess;
use origin::Origin;
pub use report::Report;
use report::Tally;
use truth::{World, track_name};

/// Sessions of each track.
const SESSIONS: usize = 4;
/// How often memory and disk are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// Kills are so far apart, or a quarter of the run where that is shorter.
const KILL_EVERY: Duration = Duration::from_secs(30);
/// Runs shorter than this need not have met everything.
const FULL_AFTER: Duration = Duration::from_secs(30);

/// What a soak is to be like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The command under test.
    pub segue: PathBuf,
    /// How long to load it.
    pub length: Duration,
    /// Clients at once.
    pub clients: u64,
    /// What all choices follow from.
    pub seed: u64,
    /// Makes the checker's truth differ from what the origin serves in one byte of some objects: the run must then fail.
    pub planted: bool,
}

/// What all parts of a run share.
struct Run {
    world: Arc<World>,
    edge: EdgeProcess,
    tickets: Vec<Vec<String>>,
    tally: Tally,
    seed: u64,
    until: Instant,
    kill_every: Duration,
}

/// Runs a soak to its end.
///
/// # Errors
/// When it cannot be run at all. What it finds is in the report.
pub async fn run(settings: &Settings) -> anyhow::Result<Report> {
    let dir = tempfile::Builder::new().prefix("segue-soak-").tempdir()?;
    let world = Arc::new(World::new(settings.planted));
    let origin = Origin::start(Arc::clone(&world), settings.seed).await?;
    let edge = EdgeProcess::start(&settings.segue, dir.path(), origin.address).await?;
    let mut tickets = Vec::new();
    for track in 0..world.tracks() {
        tickets.push(edge.tickets(&track_name(track), SESSIONS).await?);
    }
    let began = Instant::now();
    let run = Arc::new(Run {
        world,
        edge,
        tickets,
        tally: Tally::default(),
        seed: settings.seed,
        until: began + settings.length,
        kill_every: KILL_EVERY.min(settings.length / 4),
    });
    let mut parts = JoinSet::new();
    for number in 0..settings.clients {
        let run = Arc::clone(&run);
        parts.spawn(async move {
            client::run(run, number).await;
            Ok(())
        });
    }
    parts.spawn(client::disturb(Arc::clone(&run)));
    parts.spawn(watch(Arc::clone(&run)));
    while let Some(ended) = parts.join_next().await {
        ended.context("a part of the soak panicked")??;
    }
    if settings.length >= FULL_AFTER && !settings.planted {
        run.tally.demand_everything(&origin.asked);
    }
    let mut report = Report::of(&run, &origin.asked, settings, began.elapsed());
    if !report.violations.is_empty() {
        report.dir = Some(dir.keep());
    }
    Ok(report)
}

/// Holds memory and disk against their bounds, and sees whether the edge ended by itself.
async fn watch(run: Arc<Run>) -> anyhow::Result<()> {
    let mut progress = Instant::now();
    while Instant::now() < run.until {
        tokio::time::sleep(WATCH_EVERY).await;
        if let Some(memory) = run.edge.memory().await {
            run.tally.memory(memory);
        }
        let (cache, events) = run.edge.disk_use();
        run.tally.disk(cache, events);
        if let Some(status) = run.edge.has_ended().await {
            run.tally.violation(format!("the edge ended by itself, {status}\n{}", run.edge.log()));
            anyhow::bail!("the edge ended by itself, {status}\n{}", run.edge.log());
        }
        if progress.elapsed() >= Duration::from_secs(10) {
            progress = Instant::now();
            eprintln!("soak: {}", run.tally.line());
        }
    }
    Ok(())
}
