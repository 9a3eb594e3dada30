//! The way out of a log: parcels of records, in order, until the sink has them.
//!
//! Invariants: the log is the spool. A position is acknowledged after the sink said that it has everything before it,
//! so neither a lost answer nor the death of this process loses a record; what was in doubt is sent again. One parcel of
//! a log is under way at a time, so that the records of a session leave in their order.
//!
//! On failure: the parcel is offered again after a growing pause. Meanwhile the log takes what comes, within its
//! bound; nothing here is on a request's way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::{Log, LogError, Parcel, Pauses, Position, Sink, SinkError};

/// What became of the records of one log, since the process began.
#[derive(Debug, Default)]
pub struct Shipped {
    records: AtomicU64,
    lost_bytes: AtomicU64,
    /// By reason word; a failure is followed by a pause, so a lock will do.
    failures: Mutex<BTreeMap<&'static str, u64>>,
}

impl Shipped {
    /// Records that the sink has.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Bytes of log that went before the sink had them: the log was at its bound, or damaged.
    #[must_use]
    pub fn lost_bytes(&self) -> u64 {
        self.lost_bytes.load(Ordering::Relaxed)
    }

    /// Parcels that were not taken, by reason word.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<&'static str, u64> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failed(&self, kind: &'static str) {
        *self.failures.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }
}

/// What stops a parcel.
#[derive(Debug, thiserror::Error)]
enum ShipError {
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("event log: {0}")]
    Log(#[from] LogError),
}

impl ShipError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Sink(error) => error.kind(),
            Self::Log(error) => error.kind(),
        }
    }
}

/// Ships `log`, called `stream`, until `stop`; and then for as long as it goes well and there is something left.
pub async fn ship<S: Sink>(log: &Log, stream: &'static str, sink: &mut S, shipped: &Shipped, stop: &CancellationToken) {
    let mut pauses = Pauses::default();
    let mut way = Way { log, stream, at: None };
    loop {
        match way.step(sink, shipped, stop).await {
            Ok(true) => {
                if pauses.over() {
                    tracing::info!(stream, sink = S::KIND, "records are handed over again");
                }
            }
            Ok(false) => return,
            Err(error) => {
                shipped.failed(error.kind());
                let (pause, first) = pauses.take();
                if first {
                    let reason = error.kind();
                    tracing::warn!(stream, sink = S::KIND, reason, %error, "records stay in the local log; trying on");
                }
                if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
            }
        }
    }
}

/// One log on its way.
struct Way<'a> {
    log: &'a Log,
    stream: &'static str,
    /// Where to go on; `None`: the sink is to be asked.
    at: Option<Position>,
}

impl Way<'_> {
    /// Hands one parcel over, or waits for one. `false`: it is over.
    async fn step<S: Sink>(
        &mut self,
        sink: &mut S,
        shipped: &Shipped,
        stop: &CancellationToken,
    ) -> Result<bool, ShipError> {
        let log = self.log;
        // The first parcel of a process is empty: it asks where to go on.
        let Some(from) = self.at else {
            let from = log.start();
            let next = sink.take(Parcel { log, from, next: from, records: &[] }).await?;
            self.went(next);
            return Ok(true);
        };
        let batch = match log.read(from, S::MOST.records) {
            // The sink knows more than this log holds: it came back from an older copy.
            Err(error @ LogError::Ahead { .. }) => {
                self.at = None;
                return Err(error.into());
            }
            batch => batch?,
        };
        if batch.skipped > 0 {
            shipped.lost_bytes.fetch_add(batch.skipped, Ordering::Relaxed);
            tracing::error!(
                stream = self.stream,
                bytes = batch.skipped,
                "records were lost before they were handed over"
            );
        }
        if batch.next == from {
            return Ok(stop.run_until_cancelled(log.changed(from)).await.is_some());
        }
        let mut bytes = 0;
        let fits = batch.records.iter().take_while(|(_, record)| {
            bytes += record.len() + 1;
            bytes <= S::MOST.bytes
        });
        let count = fits.count().max(1).min(batch.records.len());
        let records = batch.records.get(..count).unwrap_or_default();
        let whole = count == batch.records.len();
        let next = if whole { batch.next } else { records.last().map_or(batch.next, |(after, _)| *after) };
        // Bytes that were passed over alone (padding, damage) need nobody's consent.
        let went = if records.is_empty() { next } else { sink.take(Parcel { log, from, next, records }).await? };
        if went == next {
            shipped.records.fetch_add(records.len() as u64, Ordering::Relaxed);
        }
        self.went(went);
        Ok(true)
    }

    /// The sink has everything before `at`. What lies past the log's end is of another log, and acknowledges nothing.
    fn went(&mut self, at: Position) {
        if at <= self.log.end() {
            self.log.acknowledge(at);
        }
        self.at = Some(at.max(self.log.start()));
    }
}

#[cfg(test)]
mod tests;
