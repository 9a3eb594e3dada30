//! Counting one batch in one transaction.
//!
//! A batch reads what it touches at its beginning and writes it at its end, each in a few statements: the cost of a fact is that of its play's
//! row. Sums are the difference that the batch made: what its facts say of themselves, and what its plays come to now less what they came to
//! before.

use std::collections::{BTreeMap, HashMap, HashSet};

use segue_events::{Denial, Fact, Position};

use super::seen::Seen;
use super::{PlayEvent, publish};
use crate::bus::Topic;
use crate::clock;
use crate::kept::Kind;
use crate::plays::rule::{self, Delivery, GAP_MAX_MS, Play};
use crate::plays::sums::Sums;
use crate::state::Parts;
use crate::store::plays::{self, Heard, Session};
use crate::store::sums::{self, HOUSE, Key, TOTAL};
use crate::store::{StoreError, Write, transaction};

const HOUR_MS: i64 = 3_600_000;

/// Bytes of what becomes a key, with a prefix of ours: the database holds 191. Facts of our edges stay below
/// (`segue_events::bounds`); a batch that one of somebody else's is in must not come back for ever.
const KEY_MAX: usize = 180;

/// The hour that a time is in.
pub(crate) fn hour(ts: i64) -> i64 {
    ts.div_euclid(HOUR_MS).saturating_mul(HOUR_MS)
}

/// What a committed batch has to tell.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Facts that were new, as they were read.
    facts: Vec<String>,
    plays: Vec<PlayEvent>,
}

impl Counted {
    pub(super) fn plays(&self) -> &[PlayEvent] {
        &self.plays
    }

    pub(super) fn tell(self, parts: &Parts) {
        for fact in self.facts {
            parts.bus.tell_json(Topic::Facts, fact);
        }
        for event in &self.plays {
            parts.bus.tell(Topic::Plays, event);
        }
    }
}

/// Counts facts and stores the position after them.
pub(super) async fn facts(parts: &Parts, records: &[String], next: Position) -> Result<Counted, StoreError> {
    transaction!(parts.store, |tx| {
        plays::begin(tx).await?;
        let told = count_facts(parts, tx, records, next.0).await?;
        publish::store(parts, tx, told.plays()).await?;
        plays::set_offset(tx, "facts", next.0).await?;
        Ok(told)
    })
}

/// Counts facts that were not counted before, and keeps them; `before` is the position after them, for the log.
pub(super) async fn count_facts(
    parts: &Parts,
    tx: &mut Write,
    records: &[String],
    before: u64,
) -> Result<Counted, StoreError> {
    let now = clock::now_ms();
    let read: Vec<(Fact, &String)> =
        records.iter().filter_map(|record| Some((read(record, before)?, record))).collect();
    let mut seen = Seen::load(tx, read.iter().map(|(fact, _)| fact.id.as_str())).await?;
    let mut new = Vec::with_capacity(read.len());
    for (fact, record) in read {
        match seen.first(&fact.id) {
            Some(true) => new.push((fact, record)),
            Some(false) => {}
            None => tracing::error!(id = fact.id, before, "a fact's id is none of this version; it is passed over"),
        }
    }
    seen.store(tx, now).await?;
    let kept: Vec<(i64, &str)> = new.iter().map(|(fact, record)| (ts(fact), record.as_str())).collect();
    parts.kept.append(tx, Kind::Facts, &kept, now).await?;
    let plays = Batch::count(tx, new.iter().map(|(fact, _)| fact)).await?;
    let facts =
        if parts.bus.is_followed() { new.iter().map(|(_, record)| (*record).clone()).collect() } else { Vec::new() };
    Ok(Counted { facts, plays })
}

fn read(record: &str, before: u64) -> Option<Fact> {
    let fact: Fact = serde_json::from_str(record)
        .inspect_err(|error| tracing::error!(%error, before, "a record is no fact of this version; it is passed over"))
        .ok()?;
    let keys = [Some(&fact.id), Some(&fact.track), Some(&fact.sid), fact.sub.as_ref()];
    if keys.into_iter().flatten().any(|key| key.len() > KEY_MAX) {
        tracing::error!(before, "a record names a track, session or listener at too great length; it is passed over");
        return None;
    }
    Some(fact)
}

fn ts(fact: &Fact) -> i64 {
    i64::try_from(fact.ts).unwrap_or(0)
}

/// Counts denials by reason and hour and stores the position after them: rows of the database for hours and reasons
/// alone, however many denials there are.
pub(super) async fn denials(parts: &Parts, records: &[String], next: Position) -> Result<(), StoreError> {
    transaction!(parts.store, |tx| {
        plays::begin(tx).await?;
        count_denials(parts, tx, records, next.0).await?;
        plays::set_offset(tx, "denials", next.0).await
    })
}

/// Counts denials, and keeps them; `before` as above.
pub(super) async fn count_denials(
    parts: &Parts,
    tx: &mut Write,
    records: &[String],
    before: u64,
) -> Result<(), StoreError> {
    let mut counts = BTreeMap::new();
    let mut kept = Vec::with_capacity(records.len());
    for record in records {
        match serde_json::from_str::<Denial>(record) {
            Ok(denial) if denial.reason.len() > KEY_MAX => {
                tracing::error!(before, "a record names a reason at too great length; it is passed over");
            }
            Ok(denial) => {
                let ts = i64::try_from(denial.ts).unwrap_or(0);
                kept.push((ts, record.as_str()));
                *counts.entry((hour(ts), denial.reason)).or_insert(0) += 1;
            }
            Err(error) => {
                tracing::error!(%error, before, "a record is no denial of this version; it is passed over");
            }
        }
    }
    parts.kept.append(tx, Kind::Denials, &kept, clock::now_ms()).await?;
    sums::add_denials(tx, &counts).await
}

/// A play that the batch may change: as it was stored, and as it now is.
#[derive(Debug)]
struct Open {
    before: Option<Play>,
    now: Play,
}

/// What a batch touches.
#[derive(Debug, Default)]
pub(super) struct Batch {
    durations: HashMap<String, u64>,
    plays: HashMap<Session, Vec<Open>>,
    /// Stored plays that became part of another.
    gone: Vec<Play>,
    /// By track and hour; totals and the house are made of these at the end.
    sums: HashMap<Key, Sums>,
    heard: HashSet<Heard>,
    told: Vec<PlayEvent>,
}

impl Batch {
    /// Counts facts, each of which is new. Gives what became true of plays.
    pub(super) async fn count<'a>(
        tx: &mut Write,
        facts: impl Iterator<Item = &'a Fact> + Clone,
    ) -> Result<Vec<PlayEvent>, StoreError> {
        let mut batch = Self::load(tx, facts.clone().filter_map(Delivery::of)).await?;
        for fact in facts {
            batch.add(fact);
        }
        batch.store(tx).await
    }

    async fn load<'a>(tx: &mut Write, deliveries: impl Iterator<Item = Delivery<'a>>) -> Result<Self, StoreError> {
        let mut sessions = HashSet::new();
        let (mut from, mut to) = (i64::MAX, i64::MIN);
        for delivery in deliveries {
            (from, to) = (from.min(delivery.ts), to.max(delivery.ts));
            sessions.insert((delivery.track.to_owned(), delivery.sid.to_owned()));
        }
        let sessions: Vec<Session> = sessions.into_iter().collect();
        let tracks: HashSet<&String> = sessions.iter().map(|(track, _)| track).collect();
        let tracks: Vec<String> = tracks.into_iter().cloned().collect();
        let mut batch = Self { durations: plays::durations(tx, &tracks).await?, ..Self::default() };
        let (from, to) = (from.saturating_sub(GAP_MAX_MS), to.saturating_add(GAP_MAX_MS));
        for play in plays::of_sessions(tx, &sessions, from, to).await? {
            let session = (play.track.clone(), play.sid.clone());
            batch.plays.entry(session).or_default().push(Open { before: Some(play.clone()), now: play });
        }
        Ok(batch)
    }

    fn add(&mut self, fact: &Fact) {
        let hour_ms = hour(ts(fact));
        self.sums.entry((fact.track.clone(), hour_ms)).or_default().count_fact(fact);
        let Some(delivery) = Delivery::of(fact) else { return };
        let duration = self.durations.get(&fact.track).copied();
        let gap = rule::gap_ms(duration);
        let theirs = self.plays.entry((fact.track.clone(), fact.sid.clone())).or_default();
        let (near, far): (Vec<Open>, Vec<Open>) =
            std::mem::take(theirs).into_iter().partition(|open| rule::belongs(&open.now, delivery.ts, gap));
        let mut stored: Vec<Play> = Vec::new();
        let near = near.into_iter().map(|open| {
            stored.extend(open.before);
            open.now
        });
        let step = rule::apply(near.collect(), &delivery, duration);
        self.told.extend(step.transitions.iter().map(|one| PlayEvent::new(&step.play, *one, delivery.ts)));
        *theirs = far;
        // It goes by the name of one of those that it was made of.
        let own = stored.iter().position(|play| play.id == step.play.id).map(|n| stored.swap_remove(n));
        theirs.push(Open { before: own, now: step.play });
        self.gone.extend(stored);
        self.hear(fact, hour_ms);
    }

    /// Notes who listened, by `sub` where the ticket names one, else by `sid`, in the hour and in all; of a `sub` its session besides.
    fn hear(&mut self, fact: &Fact, hour_ms: i64) {
        let listeners = match &fact.sub {
            Some(sub) => [Some(format!("sub:{sub}")), Some(format!("ses:{}", fact.sid))],
            None => [Some(format!("sid:{}", fact.sid)), None],
        };
        for listener in listeners.into_iter().flatten() {
            for (track, hour_ms) in around(&fact.track, hour_ms) {
                self.heard.insert((track.to_owned(), hour_ms, listener.clone()));
            }
        }
    }

    async fn store(mut self, tx: &mut Write) -> Result<Vec<PlayEvent>, StoreError> {
        let mut changed = Vec::new();
        for open in self.plays.values().flatten().filter(|open| open.before.as_ref() != Some(&open.now)) {
            if let Some(before) = &open.before {
                take_off(&mut self.sums, before);
            }
            let key = (open.now.track.clone(), hour(open.now.first_ms));
            *self.sums.entry(key).or_default() += &Sums::of_play(&open.now);
            changed.push(&open.now);
        }
        for play in &self.gone {
            take_off(&mut self.sums, play);
        }
        let gone: Vec<String> = self.gone.into_iter().map(|play| play.id).collect();
        plays::delete(tx, &gone).await?;
        plays::put(tx, &changed).await?;
        let mut rows = spread(&self.sums);
        for (track, hour_ms, listener) in plays::first_heard(tx, &self.heard).await? {
            let sums = rows.entry((track, hour_ms)).or_default();
            sums.listeners += i64::from(!listener.starts_with("ses:"));
            sums.sessions += i64::from(!listener.starts_with("sub:"));
        }
        // In the order of the keys: transactions that run at the same time elsewhere take rows in the same order.
        let mut rows: Vec<(Key, Sums)> = rows.into_iter().filter(|(_, sums)| *sums != Sums::default()).collect();
        rows.sort_by(|one, other| one.0.cmp(&other.0));
        sums::add(tx, &rows).await?;
        Ok(self.told)
    }
}

fn take_off(sums: &mut HashMap<Key, Sums>, play: &Play) {
    *sums.entry((play.track.clone(), hour(play.first_ms))).or_default() -= &Sums::of_play(play);
}

/// The rows that a track's hour is part of.
fn around(track: &str, hour_ms: i64) -> [(&str, i64); 4] {
    [(track, hour_ms), (track, TOTAL), (HOUSE, hour_ms), (HOUSE, TOTAL)]
}

/// Adds tracks' hours up to all the rows that they are part of.
pub(super) fn spread(sums: &HashMap<Key, Sums>) -> HashMap<Key, Sums> {
    let mut rows: HashMap<Key, Sums> = HashMap::new();
    for ((track, hour_ms), sums) in sums {
        for (track, hour_ms) in around(track, *hour_ms) {
            *rows.entry((track.to_owned(), hour_ms)).or_default() += sums;
        }
    }
    rows
}

/// Ends the plays that were over before `before`, at most `limit`; gives them as they now are.
pub(super) async fn end_plays(tx: &mut Write, before: i64, limit: u32) -> Result<Vec<Play>, StoreError> {
    let mut over = plays::over(tx, before, limit).await?;
    let mut ends: HashMap<Key, Sums> = HashMap::new();
    for play in &mut over {
        if rule::end(play).is_some() {
            ends.entry((play.track.clone(), hour(play.first_ms))).or_default().ended += 1;
        }
    }
    plays::put(tx, &over.iter().collect::<Vec<_>>()).await?;
    let mut rows: Vec<(Key, Sums)> = spread(&ends).into_iter().collect();
    rows.sort_by(|one, other| one.0.cmp(&other.0));
    sums::add(tx, &rows).await?;
    Ok(over)
}
