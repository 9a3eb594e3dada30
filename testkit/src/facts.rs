//! The facts' soak: players over three edges, edges and tally ended by `kill -9`, the sink away for a while; then the
//! books are checked.
//!
//! Purpose: every segment that a player got whole has exactly one fact, and plays, distinct seconds and bytes as they
//! were counted are those of the players' own record.
//!
//! How a fact is known: each request carries its number as CMCD (a custom key), so that a fact tells of which request it
//! is. A request that broke off, at a kill or because its player left, may have a fact, one at most; those are the extras, and they are
//! listed.
//!
//! Invariants: a player asks for a segment until it has it, so that what was in flight at a kill changes no distinct
//! second. The choices follow from one seed, which is printed; the clock decides what meets what.
//!
//! On failure: [`Report::violations`] says what is wrong; logs and databases are kept in the folder that [`Report::dir`] names.

mod house;
pub(crate) mod origin;
mod player;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;

use crate::soak::random::Random;
use house::{EDGES, House};
use player::{Crowd, Diary};
pub use report::Report;

/// Tracks that are played; each has [`origin::SEGMENTS`].
pub(crate) const TRACKS: usize = 8;
/// Between two kills.
const KILL_EVERY: Duration = Duration::from_secs(12);
/// After the last player stopped, facts have so long to be counted.
const SETTLE: Duration = Duration::from_secs(90);

/// What a run is to be like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The command under test.
    pub segue: PathBuf,
    /// How long the players play.
    pub length: Duration,
    /// How many of them.
    pub players: u64,
    /// How long the sink is away, in the middle.
    pub away: Duration,
    /// What all choices follow from.
    pub seed: u64,
    /// The controller of a Fluvio cluster: facts go through it in place of straight to the control plane.
    pub fluvio: Option<String>,
}

/// Runs the soak to its end.
///
/// # Errors
/// When it cannot be run at all. What it finds is in the report.
pub async fn run(settings: &Settings) -> anyhow::Result<Report> {
    let dir = tempfile::Builder::new().prefix("segue-facts-").tempdir()?;
    let mut house = House::start(settings, dir.path()).await?;
    let tracks = house.tracks(TRACKS).await?;
    let tickets = house.tickets(settings.players).await?;
    let crowd = Arc::new(Crowd::new(house.addresses(), tracks.clone(), settings.seed, settings.length));
    let mut players = JoinSet::new();
    for (number, ticket) in (0..).zip(tickets) {
        players.spawn(player::play(Arc::clone(&crowd), number, ticket));
    }
    let kills = disturb(settings, &mut house, &crowd).await?;
    let mut diaries: Vec<Diary> = Vec::new();
    while let Some(diary) = players.join_next().await {
        diaries.push(diary.context("a player panicked")??);
    }
    let waited = house.drained(SETTLE).await;
    let facts = house.facts().await?;
    let mut report = Report::of(&diaries, &facts, &kills);
    if let Err(error) = waited {
        report.violations.push(format!("{error:#}"));
    }
    report.compare(&house, &tracks, &diaries, &facts, SETTLE).await?;
    house.stop().await?;
    if !report.violations.is_empty() {
        report.dir = Some(dir.keep());
    }
    Ok(report)
}

/// What was done to the house.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Kills {
    pub(crate) edges: u64,
    pub(crate) tally: u64,
    /// Requests that were under way at an edge when it was killed.
    pub(crate) in_flight: u64,
    pub(crate) away: Duration,
}

/// Kills edges and tally, one after the other, and takes the sink away once, for as long as the players play.
async fn disturb(settings: &Settings, house: &mut House, crowd: &Crowd) -> anyhow::Result<Kills> {
    let mut random = Random::of_part(settings.seed, "kills", 0);
    let (mut kills, began) = (Kills::default(), Instant::now());
    let away_from = settings.length.saturating_sub(settings.away) / 2;
    let mut away_since = None;
    let every = KILL_EVERY.min(settings.length / 12);
    loop {
        tokio::time::sleep(every / 2 + every * u32::try_from(random.below(1000)).unwrap_or(0) / 1000).await;
        if began.elapsed() >= settings.length {
            break;
        }
        let is_over = away_since.is_some_and(|since: Instant| since.elapsed() >= settings.away);
        if is_over && kills.away.is_zero() {
            kills.away = away_since.map_or(Duration::ZERO, |since| since.elapsed());
            house.restart_tally().await?;
        } else if away_since.is_none() && began.elapsed() >= away_from {
            house.kill_tally().await?;
            kills.tally += 1;
            away_since = Some(Instant::now());
        }
        let tally_is_up = away_since.is_none() || !kills.away.is_zero();
        if tally_is_up && random.per_mille(250) {
            house.kill_tally().await?;
            kills.tally += 1;
            house.restart_tally().await?;
        } else {
            let edge = random.place(EDGES);
            let before = crowd.under_way(edge);
            house.kill_edge(edge).await?;
            kills.in_flight += before.until(crowd.under_way(edge));
            kills.edges += 1;
            house.restart_edge(edge).await?;
        }
    }
    if kills.away.is_zero()
        && let Some(since) = away_since
    {
        kills.away = since.elapsed();
        house.restart_tally().await?;
    }
    Ok(kills)
}
