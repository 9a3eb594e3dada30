//! Where records go when they leave the local log: a sink, which is one small trait.
//!
//! Invariants: a sink says yes ([`Sink::take`] gives a position) only for what it has for good; the log is
//! acknowledged up to there and no further. What it says no to stays in the log and is offered again, in order.
//! So every sink is at least once, and whoever reads behind it goes by the records' ids.

use std::future::Future;

use crate::{Log, Position};

/// A run of records on its way out of one log.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// The log that they are from.
    pub log: &'a Log,
    /// Where they begin.
    pub from: Position,
    /// Where they end.
    pub next: Position,
    /// Each record with the position after it. None at all: the process has just begun, and asks where to go on.
    pub records: &'a [(Position, String)],
}

/// How much a sink takes at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Records.
    pub records: usize,
    /// Bytes of all of them; one record is taken whatever its size.
    pub bytes: usize,
}

/// Takes the records of one log.
pub trait Sink: Send {
    /// The word in the configuration (`[events] kind`), the log and the metrics.
    const KIND: &'static str;
    /// The largest parcel.
    const MOST: Most;

    /// Takes a parcel and gives the position to go on from: `next` once all of it is there for good, or another one
    /// where the other side knows better. Must end by itself, within a bound.
    ///
    /// # Errors
    /// When it is not known that all of it is there. The same records are offered again.
    fn take(&mut self, parcel: Parcel<'_>) -> impl Future<Output = Result<Position, SinkError>> + Send;
}

/// Why a parcel was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SinkError {
    kind: &'static str,
    message: String,
}

impl SinkError {
    /// `kind` is a reason word, the label of the metric; `message` a sentence for operators.
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The reason word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }
}
