//! Policies swapped in the middle of a song: three edges under load, one control plane, five versions of one policy that are activated one after
//! another, of which one traps and one never comes back.
//!
//! Purpose: to find a request that failed without its version's doing, that saw two versions, or that was judged by a version that
//! was not active; and to measure what a swap costs: until it is in force everywhere, in waiting, in CPU time.
//!
//! Invariants: the choices follow from one seed, which is printed; the clock decides what meets what. `judge.rs` has the rules.
//!
//! On failure: [`Report::violations`] says what is wrong, and logs are kept in the folder that [`Report::dir`] names.

mod house;
mod judge;
mod load;
mod versions;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::soak::random::Random;
use house::{Act, EDGES, House};
use load::{Clock, Got, Load, Record};
pub use versions::Version;

/// Sessions that play at once.
const SESSIONS: usize = 60;
/// Connections of the load that has a rate, over all edges.
const CONNECTIONS: usize = 60;
/// Connections of the load that has none.
const FULL_CONNECTIONS: usize = 24;
/// Before anything is measured.
const SETTLE: Duration = Duration::from_secs(2);
/// Between the swaps of a pair's second half.
const PAIR_EVERY: Duration = Duration::from_millis(500);

/// Requests a second beside which the CPU time of swaps is taken: so few that those of requests vary by less than swaps cost.
const SLOPE_RATE: u64 = 300;

/// What a run is to be like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The command under test.
    pub segue: PathBuf,
    /// Requests a second, over all edges.
    pub rate: u64,
    /// Activations among all five versions, at that rate.
    pub activations: usize,
    /// Pairs of runs with and without swaps.
    pub pairs: usize,
    /// How long each half of a pair is.
    pub half: Duration,
    /// How often CPU time is taken at each number of swaps a second.
    pub slopes: usize,
    /// How long edges are loaded with all that they answer.
    pub full: Duration,
    /// What all choices follow from.
    pub seed: u64,
}

/// How long requests took, and how many there were.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Took {
    /// Requests that were served.
    pub requests: u64,
    /// Milliseconds.
    pub p50_ms: f64,
    /// Milliseconds.
    pub p99_ms: f64,
    /// Milliseconds.
    pub max_ms: f64,
}

/// One stretch of a pair, or of the measurement of CPU time.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Stretch {
    /// Activations in it.
    pub swaps: usize,
    /// Its length.
    pub seconds: f64,
    /// CPU time of all edges.
    pub edges_cpu_s: f64,
    /// CPU time of the control plane.
    pub control_cpu_s: f64,
    /// How its requests fared.
    pub took: Took,
}

/// Activations under one kind of load.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Swaps {
    /// Activations.
    pub activations: usize,
    /// Requests a second that were answered.
    pub per_second: f64,
    /// From the call to the first request that shows the version, for each activation and edge; in milliseconds, sorted.
    pub in_force_ms: Vec<f64>,
    /// From the call to its answer, which says that every edge stands on it; in milliseconds, sorted.
    pub answered_ms: Vec<f64>,
    /// Answers that did not say so within their time.
    pub unanswered: usize,
    /// Segments, from the moment at which they were due.
    pub took: Took,
}

/// What came out.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    /// See [`Settings`].
    pub seed: u64,
    /// See [`Settings`].
    pub rate: u64,
    /// Processors of the machine.
    pub cores: usize,
    /// Requests in all.
    pub requests: u64,
    /// Let through, by version.
    pub served: BTreeMap<&'static str, u64>,
    /// Refused by a version's own rule.
    pub denied: BTreeMap<&'static str, u64>,
    /// Refused since the version that was active traps or loops, and fails closed.
    pub failed: u64,
    /// Explained by nothing.
    pub unexplained: u64,
    /// At the rate.
    pub swaps: Swaps,
    /// Under all the load that edges take.
    pub full: Option<Swaps>,
    /// Without swaps, and with them.
    pub pairs: Vec<(Stretch, Stretch)>,
    /// By number of swaps a second.
    pub slopes: Vec<Stretch>,
    /// What is wrong.
    pub violations: Vec<String>,
    /// Where the logs lie, if anything is.
    pub dir: Option<PathBuf>,
}

/// What a run has gathered.
struct Run {
    house: House,
    clock: Arc<Clock>,
    random: Random,
    tickets: Vec<String>,
    acts: Vec<Act>,
    records: Vec<Record>,
}

/// Runs the proof to its end.
///
/// # Errors
/// When it cannot be run at all. What it finds is in the report.
pub async fn run(settings: &Settings) -> anyhow::Result<Report> {
    let dir = tempfile::Builder::new().prefix("segue-swaps-").tempdir()?;
    let house = House::start(&settings.segue, dir.path()).await?;
    let tickets = house.tickets(SESSIONS).await?;
    house.warm(&tickets[0]).await?;
    house.publish().await?;
    let clock = Clock::new();
    let first = house.activate(&clock, Version::V1).await?;
    let random = Random::of_part(settings.seed, "swaps", 0);
    let mut run = Run { house, clock, random, tickets, acts: vec![first], records: Vec::new() };

    let paced = run.among_all(Some(settings.rate), Until::Activations(settings.activations)).await?;
    let full = match settings.full {
        Duration::ZERO => None,
        full => Some(run.among_all(None, Until::Time(full)).await?),
    };
    // From here on what a swap does to edges is measured, and the control plane has no machine of its own here as it has elsewhere.
    run.house.control_steps_back()?;
    let mut pairs = Vec::new();
    for number in 0..settings.pairs {
        // Turn about, so that whatever drifts falls on both alike.
        let mut halves = Vec::new();
        for swaps in if number % 2 == 0 { [false, true] } else { [true, false] } {
            let every = swaps.then_some(PAIR_EVERY);
            halves.push((swaps, run.stretch(settings.rate, settings.half, every).await?));
        }
        halves.sort_by_key(|(swaps, _)| *swaps);
        pairs.push((halves[0].1, halves[1].1));
    }
    let mut slopes = Vec::new();
    for _ in 0..settings.slopes {
        for every in [None, Some(400), Some(200), Some(100)] {
            slopes.push(run.stretch(SLOPE_RATE, settings.half, every.map(Duration::from_millis)).await?);
        }
    }
    let counts = run.house.counts().await?;
    let (facts, _) = run.house.facts().await?;
    let found = judge::judge(&run.acts, &run.records, &facts, &counts);
    let swaps = run.summary(&paced, &found);
    let mut report = Report {
        seed: settings.seed,
        rate: settings.rate,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        requests: run.records.len() as u64,
        served: found.served.clone(),
        denied: found.denied.clone(),
        failed: found.failed,
        unexplained: found.unexplained,
        full: full.map(|full| run.summary(&full, &found)),
        swaps,
        pairs,
        slopes,
        violations: found.violations,
        dir: None,
    };
    if !report.violations.is_empty() {
        report.dir = Some(dir.keep());
    }
    Ok(report)
}

/// When a part of the run is over.
#[derive(Clone, Copy)]
enum Until {
    Activations(usize),
    Time(Duration),
}

/// Which activations and records a part made, and how long it took.
struct Part {
    acts: std::ops::Range<usize>,
    records: std::ops::Range<usize>,
    seconds: f64,
}

impl Run {
    fn load(&self, rate: Option<u64>) -> anyhow::Result<Load> {
        let connections = if rate.is_some() { CONNECTIONS } else { FULL_CONNECTIONS };
        Load::start(&self.clock, &self.house.addresses(), &self.tickets, connections, rate)
    }

    /// Another version than the one that is active; one that fails only after one that does not.
    fn next(&mut self, only_sound: bool) -> Version {
        let active = self.acts.last().map_or(Version::V1, |act| act.version);
        let may = |version: &Version| *version != active && (version.is_sound() || (active.is_sound() && !only_sound));
        let versions: Vec<Version> = Version::ALL.into_iter().filter(may).collect();
        versions[self.random.place(versions.len())]
    }

    async fn swap(&mut self, only_sound: bool) -> anyhow::Result<()> {
        let version = self.next(only_sound);
        let act = self.house.activate(&self.clock, version).await?;
        self.acts.push(act);
        Ok(())
    }

    /// Activations among all five versions, a little time between them.
    async fn among_all(&mut self, rate: Option<u64>, until: Until) -> anyhow::Result<Part> {
        let load = self.load(rate)?;
        let (acts, records, began) = (self.acts.len(), self.records.len(), self.clock.now());
        tokio::time::sleep(Duration::from_millis(500)).await;
        loop {
            let is_over = match until {
                Until::Activations(count) => self.acts.len() - acts >= count,
                Until::Time(time) => Duration::from_nanos(self.clock.now() - began) >= time,
            };
            if is_over {
                break;
            }
            self.swap(false).await?;
            tokio::time::sleep(Duration::from_millis(100 + self.random.below(200))).await;
        }
        // What follows begins with a version that answers.
        if self.acts.last().is_some_and(|act| !act.version.is_sound()) {
            self.swap(true).await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let seconds = (self.clock.now() - began) as f64 / 1e9;
        self.records.extend(load.stop()?);
        Ok(Part { acts: acts..self.acts.len(), records: records..self.records.len(), seconds })
    }

    /// So long at a rate, with a swap among the sound versions in each beat, or without any.
    async fn stretch(&mut self, rate: u64, length: Duration, every: Option<Duration>) -> anyhow::Result<Stretch> {
        let load = self.load(Some(rate))?;
        tokio::time::sleep(SETTLE).await;
        let (acts, began, (edges, control)) = (self.acts.len(), self.clock.now(), self.house.cpu()?);
        let end = tokio::time::Instant::now() + length;
        if let Some(every) = every {
            let mut beat = tokio::time::interval(every);
            beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while tokio::time::Instant::now() + every < end {
                beat.tick().await;
                self.swap(true).await?;
            }
        }
        tokio::time::sleep_until(end).await;
        let (ended, (edges_after, control_after)) = (self.clock.now(), self.house.cpu()?);
        let records = load.stop()?;
        let within = |record: &&Record| record.due >= began && record.due < ended;
        let took = Took::of(records.iter().filter(within));
        self.records.extend(records);
        Ok(Stretch {
            swaps: self.acts.len() - acts,
            seconds: (ended - began) as f64 / 1e9,
            edges_cpu_s: edges_after - edges,
            control_cpu_s: control_after - control,
            took,
        })
    }

    fn summary(&self, part: &Part, found: &judge::Findings) -> Swaps {
        let acts = &self.acts[part.acts.clone()];
        let seen = found.seen_after[part.acts.clone()].iter().flat_map(|edges: &[Option<u64>; EDGES]| edges.iter());
        let answered = acts.iter().filter(|act| act.all_on).map(|act| act.answered - act.called);
        let records = &self.records[part.records.clone()];
        Swaps {
            activations: acts.len(),
            per_second: records.len() as f64 / part.seconds,
            in_force_ms: sorted_ms(seen.flatten().copied()),
            answered_ms: sorted_ms(answered),
            unanswered: acts.iter().filter(|act| !act.all_on).count(),
            took: Took::of(records.iter()),
        }
    }
}

impl Took {
    fn of<'r>(records: impl Iterator<Item = &'r Record>) -> Self {
        let served = records.filter(|record| record.got == Got::Segment);
        let times = sorted_ms(served.map(|record| record.done.saturating_sub(record.due)));
        Self {
            requests: times.len() as u64,
            p50_ms: quantile(&times, 0.5),
            p99_ms: quantile(&times, 0.99),
            max_ms: quantile(&times, 1.0),
        }
    }
}

fn sorted_ms(times: impl Iterator<Item = u64>) -> Vec<f64> {
    let mut times: Vec<f64> = times.map(|time| (time as f64 / 1e3).round() / 1e3).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// Of sorted values; 0 of none.
#[must_use]
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    // Within the list by what follows.
    let place = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(place).copied().unwrap_or(0.0)
}
