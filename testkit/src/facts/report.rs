//! The books: facts against the players' diaries, and the tally's sums against both.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Kills;
use super::house::{Fact, House, Sums};
use super::origin::{SEGMENT_MS, VERSION, file};
use super::player::{Diary, Got};

/// Violations that are told one by one.
const SHOWN: usize = 40;
/// A run must have completed so many segments a player to have shown anything.
const LEAST_EACH: u64 = 5;

/// What a run came to.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Players.
    pub players: u64,
    /// Segments that came whole.
    pub completed: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Facts in the edges' logs.
    pub facts: u64,
    /// Facts that the death of an edge left to its next start.
    pub recovered: u64,
    /// Edges that were killed, and tallies.
    pub kills: (u64, u64),
    /// How long the sink was away, in seconds.
    pub away_s: u64,
    /// Requests that were under way at an edge when it was killed.
    pub in_flight_at_kills: u64,
    /// Requests that their players left.
    pub left: u64,
    /// Requests that broke off.
    pub broken: u64,
    /// Facts of requests that did not come whole: request, session, file, bytes, whether the kernel had taken all.
    pub extras: Vec<(u64, String, String, u64, bool)>,
    /// Plays by the diaries, which are those of the tally.
    pub plays: u64,
    /// Distinct seconds, likewise.
    pub seconds: u64,
    /// What is wrong.
    pub violations: Vec<String>,
    /// Where the logs are, if something is.
    pub dir: Option<PathBuf>,
}

impl Report {
    pub(super) fn of(diaries: &[Diary], facts: &[Fact], kills: &Kills) -> Self {
        let mut report = Self {
            players: diaries.len() as u64,
            completed: diaries.iter().map(|diary| diary.whole.len() as u64).sum(),
            bytes: diaries.iter().flat_map(|diary| diary.whole.values()).map(|got| got.bytes).sum(),
            facts: facts.len() as u64,
            recovered: facts.iter().filter(|fact| fact.recovered).count() as u64,
            kills: (kills.edges, kills.tally),
            away_s: kills.away.as_secs(),
            in_flight_at_kills: kills.in_flight,
            left: diaries.iter().map(|diary| diary.left.len() as u64).sum(),
            broken: diaries.iter().map(|diary| diary.broken.len() as u64).sum(),
            ..Self::default()
        };
        report.violations.extend(diaries.iter().flat_map(|diary| diary.wrong.clone()));
        let ids: BTreeSet<&str> = facts.iter().map(|fact| fact.id.as_str()).collect();
        if ids.len() != facts.len() {
            report.violations.push(format!("{} facts share their ids", facts.len() - ids.len()));
        }
        report.match_up(diaries, facts);
        let bound = report.in_flight_at_kills + report.left;
        if report.extras.len() as u64 > bound {
            let said =
                format!("{} extra facts, and {bound} requests were in flight at a kill or left", report.extras.len());
            report.violations.push(said);
        }
        if report.broken > report.in_flight_at_kills {
            let said =
                format!("{} requests broke off, of which only {} at kills", report.broken, report.in_flight_at_kills);
            report.violations.push(said);
        }
        if report.completed < LEAST_EACH * report.players {
            report.violations.push(format!("only {} segments were completed: the run shows nothing", report.completed));
        }
        report
    }

    /// Each completed request has one fact, which says of it what its player says; each other fact is an extra.
    fn match_up(&mut self, diaries: &[Diary], facts: &[Fact]) {
        let mut whole: BTreeMap<u64, (&str, &Got)> = BTreeMap::new();
        let mut tried: BTreeSet<u64> = BTreeSet::new();
        for diary in diaries {
            whole.extend(diary.whole.iter().map(|(number, got)| (*number, (diary.sid.as_str(), got))));
            tried.extend(diary.broken.iter().chain(&diary.left));
        }
        let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
        for fact in facts {
            let Some(number) = fact.number() else {
                self.violations.push(format!("fact {} does not tell of which request it is: {}", fact.id, fact.cmcd));
                continue;
            };
            *seen.entry(number).or_default() += 1;
            if let Some((sid, got)) = whole.get(&number) {
                let is_right = fact.sid == *sid
                    && fact.track == got.track
                    && fact.file == file(got.segment)
                    && (fact.status, fact.bytes, fact.complete) == (200, got.bytes, true);
                if !is_right {
                    self.violations.push(format!("request {number} was {got:?} of {sid}, and its fact says {fact:?}"));
                }
            } else if tried.contains(&number) {
                self.extras.push((
                    number,
                    fact.sid.clone(),
                    format!("{VERSION}/{}", fact.file),
                    fact.bytes,
                    fact.complete,
                ));
            } else {
                self.violations.push(format!("fact {} tells of request {number}, which nobody made", fact.id));
            }
        }
        for (number, (sid, got)) in &whole {
            if seen.get(number) != Some(&1) {
                let count = seen.get(number).copied().unwrap_or(0);
                self.violations.push(format!("request {number} of {sid} completed {got:?}, and has {count} facts"));
            }
        }
        let twice = tried.iter().filter(|number| seen.get(*number).is_some_and(|count| *count > 1));
        self.violations.extend(twice.map(|number| format!("request {number} broke off, and has more than one fact")));
    }

    /// Waits until the tally has what it should have, and says where it does not come to that.
    pub(super) async fn compare(
        &mut self,
        house: &House,
        tracks: &[String],
        diaries: &[Diary],
        facts: &[Fact],
        within: Duration,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        for track in tracks {
            let heard = diaries.iter().filter_map(|diary| diary.heard().get(track.as_str()).map(BTreeSet::len));
            let (plays, segments) = heard.fold((0, 0), |(plays, all), segments| (plays + 1, all + segments as u64));
            self.plays += plays;
            self.seconds += segments * SEGMENT_MS / 1000;
            let bytes = facts.iter().filter(|fact| fact.track == *track).map(|fact| fact.bytes).sum();
            #[allow(clippy::cast_precision_loss, reason = "a few thousand segments")]
            let wanted = Sums { plays, seconds: (segments * SEGMENT_MS) as f64 / 1000.0, bytes };
            loop {
                let sums = house.sums(track).await?;
                if sums == wanted {
                    break;
                }
                if began.elapsed() > within {
                    self.violations
                        .push(format!("{track}: the tally has {sums:?}; players and facts come to {wanted:?}"));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        Ok(())
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (edges, tally) = self.kills;
        writeln!(f, "{} players completed {} segments, {} bytes", self.players, self.completed, self.bytes)?;
        writeln!(f, "{edges} edges and {tally} tallies killed with kill -9, the sink away for {} s", self.away_s)?;
        writeln!(
            f,
            "{} facts, {} of them recovered; {} requests in flight at kills, {} left by their players, {} broken off",
            self.facts, self.recovered, self.in_flight_at_kills, self.left, self.broken
        )?;
        writeln!(
            f,
            "{} plays and {} distinct seconds, counted and by the players' own record",
            self.plays, self.seconds
        )?;
        writeln!(f, "{} extra facts:", self.extras.len())?;
        for (number, sid, file, bytes, complete) in &self.extras {
            let complete = if *complete { "complete" } else { "cut short" };
            writeln!(f, "  request {number} of {sid}: {file}, {bytes} bytes, {complete}")?;
        }
        for violation in self.violations.iter().take(SHOWN) {
            writeln!(f, "VIOLATION: {violation}")?;
        }
        if self.violations.len() > SHOWN {
            writeln!(f, "and {} more", self.violations.len() - SHOWN)?;
        }
        if let Some(dir) = &self.dir {
            writeln!(f, "the logs are in {}", dir.display())?;
        }
        write!(
            f,
            "{}",
            if self.is_clean() { "every completed segment has one fact; the books agree" } else { "FAILED" }
        )
    }
}
