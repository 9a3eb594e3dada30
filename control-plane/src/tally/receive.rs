//! Facts and denials of edges in other processes, which post batches of their logs.
//!
//! Invariants: a batch is counted in one transaction with the position that it moves, and the answer comes after the
//! commit. A batch counts only where it begins at the position that is stored: one that comes twice (an answer that was
//! lost) or from elsewhere counts nothing, and its edge is told where to go on. Ids are looked at besides, so that even a
//! log that came back from a copy counts no fact twice.

use super::{count, publish};
use crate::bus::Topic;
use crate::clock;
use crate::state::Parts;
use crate::store::edges::{self, LogName};
use crate::store::{StoreError, Write, plays, transaction};

/// Where a batch belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'a> {
    pub(crate) log: LogName<'a>,
    pub(crate) from: u64,
    pub(crate) next: u64,
    /// The edge has nothing from before `from` any more.
    pub(crate) first: bool,
}

/// Counts facts; gives the position to go on from.
pub(crate) async fn facts(parts: &Parts, batch: Received<'_>, records: &[String]) -> Result<u64, StoreError> {
    let (position, told) = transaction!(parts.store, |tx| {
        plays::begin(tx).await?;
        if let Some(elsewhere) = elsewhere(tx, batch).await? {
            return Ok((elsewhere, None));
        }
        let told = count::count_facts(parts, tx, records, batch.next).await?;
        publish::store(parts, tx, told.plays()).await?;
        edges::set_position(tx, batch.log, batch.next, clock::now_ms()).await?;
        Ok::<_, StoreError>((batch.next, Some(told)))
    })?;
    if let Some(told) = told {
        told.tell(parts);
    }
    Ok(position)
}

/// Counts denials; gives the position to go on from.
pub(crate) async fn denials(parts: &Parts, batch: Received<'_>, records: &[String]) -> Result<u64, StoreError> {
    let (position, told) = transaction!(parts.store, |tx| {
        plays::begin(tx).await?;
        if let Some(elsewhere) = elsewhere(tx, batch).await? {
            return Ok((elsewhere, false));
        }
        count::count_denials(parts, tx, records, batch.next).await?;
        edges::set_position(tx, batch.log, batch.next, clock::now_ms()).await?;
        Ok::<_, StoreError>((batch.next, true))
    })?;
    if told {
        for record in records {
            parts.bus.tell_json(Topic::Denials, record.as_str());
        }
    }
    Ok(position)
}

/// The position that is stored, where it is not the one that the batch begins at.
async fn elsewhere(tx: &mut Write, batch: Received<'_>) -> Result<Option<u64>, StoreError> {
    let stored = edges::position(tx, batch.log).await?;
    if let Some(stored) = stored.filter(|stored| *stored < batch.from && batch.first) {
        let LogName { edge, stream, .. } = batch.log;
        tracing::error!(edge, stream, bytes = batch.from - stored, "records were lost before they were counted");
        return Ok(None);
    }
    Ok(stored.filter(|stored| *stored != batch.from))
}
