//! The tally: from facts to plays, exactly once.
//!
//! Facts and denials are read from a log by position. One transaction counts a batch and moves the position that is stored beside
//! the sums; the log is told that it may forget the batch only after the commit. A crash anywhere in between leads to
//! the same batch being read again from the stored position. Beyond that, it is noted for a while which facts were counted, by their ids,
//! so that a log which delivers twice (a restored one, a remote edge that posts again) counts once as
//! well. What was counted is kept beside the database ([`crate::kept`]), and can be counted again from there ([`recount`]). Denials are counted by the position alone: whoever has no ticket causes them, and must not fill the database;
//! a log that was restored from a copy counts the copy's denials again.
//!
//! Invariants: what is told to followers (transitions, facts) was committed. On failure the transaction is rolled
//! back, nothing is acknowledged, and the same batch is tried again with a growing pause; the log keeps what comes in
//! meanwhile, within its bound. A failure is logged when it begins and when it is over.

mod count;
pub(crate) mod fluvio;
mod follow;
pub(crate) mod publish;
mod receive;
mod recount;
mod seen;

use std::sync::Arc;
use std::time::Duration;

use segue_events::EventLog;
use serde::Serialize;

use crate::bus::Topic;
use crate::clock;
use crate::duty;
use crate::plays::rule::{Play, Transition};
use crate::state::{Parts, Shared};
use crate::store::leases::Held;
use crate::store::{StoreError, plays, transaction};

pub(crate) use count::hour;
pub(crate) use receive::{Received, denials as receive_denials, facts as receive_facts};
pub(crate) use recount::{Recounted, recount};

/// How often plays that are over, and ids that are old, are looked for.
const SWEEP: Duration = Duration::from_secs(2);

/// A play is taken for ended this long after its end, so that facts which are still on their way find it open.
const END_SLACK_MS: i64 = 2000;

/// Ids, and who listened in which hour, are known for a week: longer than any log holds records that may come again.
pub(crate) const SEEN_MS: i64 = 7 * 24 * 3600 * 1000;

/// Plays that one transaction ends; a sweep that finds more goes on at once.
const BATCH: u32 = 1000;

/// Ids that one sweep forgets: five thousand a second, more than one tally counts.
const FORGET: u32 = 10_000;

/// Reads the facts of an edge in this process until shutdown.
pub(crate) async fn facts(parts: Shared, events: Arc<EventLog>) {
    follow::run(&parts, "facts", events.facts(), async |parts, records, next| {
        count::facts(parts, records, next).await.map(|counted| counted.tell(parts))
    })
    .await;
}

/// Reads its denials.
pub(crate) async fn denials(parts: Shared, events: Arc<EventLog>) {
    follow::run(&parts, "denials", events.denials(), async |parts, records, next| {
        count::denials(parts, records, next).await?;
        for record in records {
            parts.bus.tell_json(Topic::Denials, record.as_str());
        }
        Ok(())
    })
    .await;
}

/// Ends plays by the wall clock, and forgets old ids, until shutdown: the duty of one control plane among all.
pub(crate) async fn sweep(parts: Shared) {
    duty::keep(&parts, "tally", |parts, held| Box::pin(end_plays_on(parts, held))).await;
}

async fn end_plays_on(parts: Shared, held: Held) {
    let mut failing = false;
    loop {
        let result = end_plays(&parts, &held, clock::now_ms() - END_SLACK_MS).await;
        match (&result, failing) {
            (Err(error), false) => tracing::warn!(%error, "plays cannot be ended; trying on"),
            (Ok(_), true) => tracing::info!("plays are ended again"),
            _ => {}
        }
        failing = result.is_err();
        if matches!(result, Ok(true)) {
            continue;
        }
        tokio::time::sleep(SWEEP).await;
    }
}

/// Ends the plays that were over before `before`, and forgets what is old. `true`: there may be more.
async fn end_plays(parts: &Parts, held: &Held, before: i64) -> Result<bool, StoreError> {
    let now = clock::now_ms();
    let plays_before = now - i64::from(parts.kept.plays_days()) * 24 * 3_600_000;
    let ended = transaction!(parts.store, |tx| {
        held.check(tx).await?;
        plays::begin(tx).await?;
        let ended = count::end_plays(tx, before, BATCH).await?;
        let ended: Vec<PlayEvent> =
            ended.iter().map(|play| PlayEvent::new(play, Transition::Ended, play.ends_ms)).collect();
        publish::store(parts, tx, &ended).await?;
        plays::prune(tx, now - SEEN_MS, hour(now - SEEN_MS), plays_before, FORGET).await?;
        Ok::<Vec<PlayEvent>, StoreError>(ended)
    })?;
    for event in &ended {
        parts.bus.tell(Topic::Plays, event);
    }
    Ok(ended.len() >= BATCH as usize)
}

/// A transition, as followers of `plays` get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct PlayEvent {
    #[serde(rename = "type")]
    kind: &'static str,
    track: String,
    play: String,
    /// Time of the fact that brought it about, ms since the epoch.
    ts: i64,
    /// Share of the track that was passed: 25, 50, 75 or 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    quartile: Option<u8>,
}

impl PlayEvent {
    fn new(play: &Play, transition: Transition, ts: i64) -> Self {
        let (kind, quartile) = match transition {
            Transition::Started => ("started", None),
            Transition::Qualified => ("qualified", None),
            Transition::Quartile(quartile) => ("quartile", Some(25 * quartile)),
            Transition::Ended => ("ended", None),
        };
        Self { kind, track: play.track.clone(), play: play.id.clone(), ts, quartile }
    }
}

#[cfg(test)]
mod tests;
