//! Counting again, from what is kept.
//!
//! An hour is counted again if all of its facts are still kept: as many as were counted in it, and so in every hour after it. Earlier hours stay
//! as they are, and so do the plays that began in them. All of it is one transaction: the sums are the old ones or the new ones, and a recount
//! that is cut off was none. The rest of the house waits meanwhile, so it is done while no control plane runs.
//!
//! Plays go by the lengths that tracks have now; what tracks were deleted is counted as of unknown length.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use segue_events::{Denial, Fact};

use super::count::{Batch, end_plays, hour};
use super::{BATCH, END_SLACK_MS};
use crate::clock;
use crate::kept::{self, Kept, Kind, Span};
use crate::store::sums::{self, HOUSE, TOTAL};
use crate::store::{Store, StoreError, Write, plays, transaction};

/// Facts that are counted at a time.
const FACTS: usize = 5000;

/// Pieces that wait between the files' reader and the count.
const PIECES: usize = 2;

/// What was counted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recounted {
    pub(crate) facts: u64,
    pub(crate) denials: u64,
    /// Hours from this on were counted again; `None`: all of them.
    pub(crate) from_ms: Option<i64>,
}

/// Counts again.
pub(crate) async fn recount(store: &Store, kept: &Kept) -> Result<Recounted, StoreError> {
    let from = first_whole_hour(store, kept).await?;
    let (facts, denials) = transaction!(store, |tx| {
        plays::begin(tx).await?;
        sums::wipe(tx, from).await?;
        let mut facts = 0;
        let mut pieces = pieces(kept, store, Kind::Facts, from).await?;
        while let Some(piece) = pieces.recv().await {
            let piece: Vec<Fact> =
                piece?.iter().map(|record| serde_json::from_str(record)).collect::<Result<_, serde_json::Error>>()?;
            facts += piece.len() as u64;
            Batch::count(tx, piece.iter()).await?;
        }
        let before = clock::now_ms() - END_SLACK_MS;
        while end_plays(tx, before, BATCH).await?.len() >= BATCH as usize {}
        sums::total_up(tx).await?;
        let denials = count_denials(tx, store, kept, from).await?;
        Ok::<_, StoreError>((facts, denials))
    })?;
    Ok(Recounted { facts, denials, from_ms: (from > i64::MIN).then_some(from) })
}

async fn count_denials(tx: &mut Write, store: &Store, kept: &Kept, from: i64) -> Result<u64, StoreError> {
    let mut counts = BTreeMap::new();
    let mut pieces = pieces(kept, store, Kind::Denials, from).await?;
    while let Some(piece) = pieces.recv().await {
        for record in piece? {
            let denial: Denial = serde_json::from_str(&record)?;
            let ts = i64::try_from(denial.ts).unwrap_or(0);
            *counts.entry((hour(ts), denial.reason)).or_insert(0) += 1;
        }
    }
    let kept_ones: i64 = counts.values().sum();
    // Denials of which some are kept no more stay as they were counted.
    let counted: HashMap<(i64, String), i64> = sums::denials_between(store, i64::MIN, i64::MAX)
        .await?
        .into_iter()
        .map(|(hour_ms, reason, count)| ((hour_ms, reason), count))
        .collect();
    counts.retain(|key, count| counted.get(key).is_none_or(|known| known < count));
    let more =
        counts.iter().map(|(key, count)| (key.clone(), count - counted.get(key).copied().unwrap_or(0))).collect();
    sums::add_denials(tx, &more).await?;
    Ok(u64::try_from(kept_ones).unwrap_or(0))
}

/// The first hour from which on every fact that was counted is kept.
async fn first_whole_hour(store: &Store, kept: &Kept) -> Result<i64, StoreError> {
    #[derive(serde::Deserialize)]
    struct Time {
        ts: i64,
    }
    let mut here: HashMap<i64, i64> = HashMap::new();
    let mut pieces = pieces(kept, store, Kind::Facts, i64::MIN).await?;
    while let Some(piece) = pieces.recv().await {
        for record in piece? {
            let Time { ts } = serde_json::from_str(&record)?;
            *here.entry(hour(ts)).or_insert(0) += 1;
        }
    }
    let counted = sums::hours(store, HOUSE, i64::MIN, i64::MAX).await?;
    let lacking = counted.iter().rev().find(|(hour_ms, sums)| {
        // Hours from before facts were counted by themselves have bytes and no facts.
        let known = here.get(hour_ms).copied().unwrap_or(0);
        known < sums.facts || sums.facts == 0 && (sums.bytes > 0 || sums.plays > 0)
    });
    Ok(lacking.map_or(i64::MIN, |(hour_ms, _)| hour(hour_ms + 3_600_000).max(TOTAL + 1)))
}

/// What is kept from `from` on, some records at a time, read by a thread of its own.
async fn pieces(
    kept: &Kept,
    store: &Store,
    kind: Kind,
    from: i64,
) -> Result<tokio::sync::mpsc::Receiver<Result<Vec<String>, StoreError>>, StoreError> {
    let span = Span { from_ms: from, to_ms: i64::MAX, position: 0, track: None };
    let shelved = Arc::new(kept::lines(kept, store, kind, span).await?);
    let (sender, receiver) = tokio::sync::mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let mut piece = Vec::new();
        let read = shelved.read(|_, record| {
            piece.push(record.to_owned());
            // The receiver goes away when counting failed; then there is nothing more to read for.
            piece.len() < FACTS || sender.blocking_send(Ok(std::mem::take(&mut piece))).is_ok()
        });
        let last = match read {
            Ok(()) => Ok(piece),
            Err(error) => Err(error.into()),
        };
        let _ = sender.blocking_send(last);
    });
    Ok(receiver)
}
