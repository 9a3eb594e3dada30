//! Counting one batch in one transaction.

use std::collections::{BTreeMap, HashMap, HashSet};

use segue_events::{Denial, Fact, Position};

use super::{PlayEvent, publish};
use crate::bus::Topic;
use crate::clock;
use crate::plays::rule::{self, Delivery, Play, Transition};
use crate::state::Parts;
use crate::store::plays::{self, Sums, TOTAL};
use crate::store::{StoreError, Write, transaction};

const HOUR_MS: i64 = 3_600_000;

/// The hour that a time is in.
pub(super) fn hour(ts: i64) -> i64 {
    ts.div_euclid(HOUR_MS) * HOUR_MS
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
        let told = count_facts(tx, records, next.0).await?;
        publish::store(parts, tx, told.plays()).await?;
        plays::set_offset(tx, "facts", next.0).await?;
        Ok(told)
    })
}

/// Counts facts that were not counted before; `before` is the position after them, for the log.
pub(super) async fn count_facts(tx: &mut Write, records: &[String], before: u64) -> Result<Counted, StoreError> {
    let mut batch = Batch::default();
    let now = clock::now_ms();
    for record in records {
        let fact: Fact = match serde_json::from_str(record) {
            Ok(fact) => fact,
            Err(error) => {
                tracing::error!(%error, before, "a record is no fact of this version; it is passed over");
                continue;
            }
        };
        if plays::first_seen(tx, &fact.id, now).await? {
            batch.count(tx, &fact).await?;
            batch.told.facts.push(record.clone());
        }
    }
    batch.store(tx).await
}

/// Counts denials by reason and hour and stores the position after them: rows of the database for hours and reasons
/// alone, however many denials there are.
pub(super) async fn denials(parts: &Parts, records: &[String], next: Position) -> Result<(), StoreError> {
    transaction!(parts.store, |tx| {
        plays::begin(tx).await?;
        count_denials(tx, records, next.0).await?;
        plays::set_offset(tx, "denials", next.0).await
    })
}

/// Counts denials; `before` as above.
pub(super) async fn count_denials(tx: &mut Write, records: &[String], before: u64) -> Result<(), StoreError> {
    let mut counts = BTreeMap::new();
    for record in records {
        match serde_json::from_str::<Denial>(record) {
            Ok(denial) => {
                let ts = i64::try_from(denial.ts).unwrap_or(0);
                *counts.entry((hour(ts), denial.reason)).or_insert(0) += 1;
            }
            Err(error) => {
                tracing::error!(%error, before, "a record is no denial of this version; it is passed over");
            }
        }
    }
    plays::add_denials(tx, &counts).await
}

/// A listener of a track: track, sid.
type Listener = (String, String);

/// What a batch touches, held in memory until it is written at its end: a session's segments follow one another, and
/// its play is read and written once.
#[derive(Debug, Default)]
struct Batch {
    durations: HashMap<String, Option<u64>>,
    plays: HashMap<Listener, Vec<Play>>,
    sums: BTreeMap<(String, i64), Sums>,
    /// Track, hour and listener that the database knows by now.
    heard: HashSet<(String, i64, String)>,
    told: Counted,
}

impl Batch {
    async fn count(&mut self, tx: &mut Write, fact: &Fact) -> Result<(), StoreError> {
        let ts = i64::try_from(fact.ts).unwrap_or(0);
        let bytes = i64::try_from(fact.bytes).unwrap_or(0);
        self.add(&fact.track, hour(ts), |sums| sums.bytes += bytes);
        let Some(delivery) = Delivery::of(fact) else { return Ok(()) };
        let duration = self.duration(tx, &fact.track).await?;
        let known = self.known(tx, &fact.track, &fact.sid).await?;
        let place = rule::belongs(known, delivery.ts, rule::gap_ms(duration));
        let before = place.map(|n| known.swap_remove(n));
        let step = rule::apply(before, &delivery, duration);
        if place.is_none() {
            self.end_earlier(&delivery);
        }
        let gained = i64::try_from(step.gained_ms).unwrap_or(0);
        self.add(&fact.track, hour(ts), |sums| sums.media_ms += gained);
        for transition in &step.transitions {
            self.transition(&step.play, *transition, delivery.ts);
        }
        self.listener(tx, &step.play, hour(ts)).await?;
        let key = (step.play.track.clone(), step.play.sid.clone());
        self.plays.entry(key).or_default().push(step.play);
        Ok(())
    }

    /// Adds to the sums of an hour and to the track's total.
    fn add(&mut self, track: &str, hour_ms: i64, what: impl Fn(&mut Sums)) {
        for hour_ms in [hour_ms, TOTAL] {
            what(self.sums.entry((track.to_owned(), hour_ms)).or_default());
        }
    }

    async fn duration(&mut self, tx: &mut Write, track: &str) -> Result<Option<u64>, StoreError> {
        if let Some(known) = self.durations.get(track) {
            return Ok(*known);
        }
        let duration = plays::duration_ms(tx, track).await?;
        self.durations.insert(track.to_owned(), duration);
        Ok(duration)
    }

    async fn known(&mut self, tx: &mut Write, track: &str, sid: &str) -> Result<&mut Vec<Play>, StoreError> {
        let key = (track.to_owned(), sid.to_owned());
        if !self.plays.contains_key(&key) {
            let known = plays::of_listener(tx, track, sid).await?;
            self.plays.insert(key.clone(), known);
        }
        Ok(self.plays.entry(key).or_default())
    }

    /// A new play of a listener: the ones before it that are over by its time have ended.
    fn end_earlier(&mut self, delivery: &Delivery<'_>) {
        let key = (delivery.track.to_owned(), delivery.sid.to_owned());
        let mut ended = Vec::new();
        for play in self.plays.entry(key).or_default() {
            if play.ends_ms < delivery.ts
                && let Some(transition) = rule::end(play)
            {
                ended.push((play.clone(), transition));
            }
        }
        for (play, transition) in ended {
            self.transition(&play, transition, play.ends_ms);
        }
    }

    /// Counts a transition into the hour in which its play started, so that no hour has more ends than beginnings.
    fn transition(&mut self, play: &Play, transition: Transition, ts: i64) {
        self.add(&play.track, hour(play.started_ms), |sums| match transition {
            Transition::Started => sums.plays += 1,
            Transition::Qualified => sums.qualified += 1,
            Transition::Quartile(quartile) => sums.count_quartile(quartile),
            Transition::Ended => sums.ended += 1,
        });
        self.told.plays.push(PlayEvent::new(play, transition, ts));
    }

    /// Counts a listener once per hour and once in all: by `sub` where the ticket names one, else by `sid`.
    async fn listener(&mut self, tx: &mut Write, play: &Play, hour_ms: i64) -> Result<(), StoreError> {
        let listener = match &play.sub {
            Some(sub) => format!("sub:{sub}"),
            None => format!("sid:{}", play.sid),
        };
        for hour_ms in [hour_ms, TOTAL] {
            let known = !self.heard.insert((play.track.clone(), hour_ms, listener.clone()));
            if !known && plays::first_heard(tx, &play.track, hour_ms, &listener).await? {
                self.sums.entry((play.track.clone(), hour_ms)).or_default().listeners += 1;
            }
        }
        Ok(())
    }

    async fn store(self, tx: &mut Write) -> Result<Counted, StoreError> {
        for play in self.plays.values().flatten() {
            plays::put(tx, play).await?;
        }
        for ((track, hour_ms), sums) in &self.sums {
            plays::add(tx, track, *hour_ms, sums).await?;
        }
        Ok(self.told)
    }
}
