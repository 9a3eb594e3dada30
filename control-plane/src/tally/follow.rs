//! Following one log: from the stored position, batch by batch, with back-off.

use std::time::Duration;

use segue_events::{Log, LogError, Position};

use crate::state::Parts;
use crate::store::{StoreError, plays};

/// Records of one transaction: some hundred milliseconds of work at most, so that other writers get their turn.
const BATCH: usize = 2000;

/// Pause after a first failure; doubled up to the longest.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What stops a batch.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("event log: {0}")]
    Log(#[from] LogError),
    #[error("event log: it has records after position {0} and gives none")]
    Stuck(u64),
}

/// Reads `log` until shutdown. `count` counts records and stores the position, in one transaction.
pub(super) async fn run(
    parts: &Parts,
    name: &'static str,
    log: &Log,
    count: impl AsyncFn(&Parts, &[String], Position) -> Result<(), StoreError>,
) {
    let mut pause = PAUSE;
    loop {
        let stood_still = pause > PAUSE;
        let result = tokio::select! {
            () = parts.shutdown.cancelled() => return,
            result = read_on(parts, name, log, stood_still, &count) => result,
        };
        // `read_on` ends by failure alone. Whatever it had begun is rolled back.
        let Err(error) = result;
        let Progress { counted, error } = error;
        if counted {
            pause = PAUSE;
        }
        if pause == PAUSE {
            tracing::error!(log = name, %error, "the tally stands still; it tries on");
        }
        tokio::select! {
            () = parts.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// A failure, and whether anything was counted before it.
struct Progress {
    counted: bool,
    error: FollowError,
}

async fn read_on(
    parts: &Parts,
    name: &'static str,
    log: &Log,
    stood_still: bool,
    count: &impl AsyncFn(&Parts, &[String], Position) -> Result<(), StoreError>,
) -> Result<std::convert::Infallible, Progress> {
    let mut counted = false;
    let failed = |counted: bool, error: FollowError| Progress { counted, error };
    // Always from what is stored: after a failure nobody knows what a commit that was cut short did.
    let stored = plays::offset(&parts.store, name).await.map_err(|error| failed(counted, error.into()))?;
    let mut at = begin(name, log, stored);
    loop {
        let end = log.end();
        let batch = log.read(at, BATCH).map_err(|error| failed(counted, error.into()))?;
        if batch.skipped > 0 {
            tracing::error!(log = name, bytes = batch.skipped, "records were lost before they were counted");
        }
        if batch.next > at {
            let records: Vec<String> = batch.records.into_iter().map(|(_, record)| record).collect();
            count(parts, &records, batch.next).await.map_err(|error| failed(counted, error.into()))?;
            log.acknowledge(batch.next);
            at = batch.next;
            if stood_still && !counted {
                tracing::info!(log = name, "the tally counts again");
            }
            counted = true;
        } else if at < end {
            return Err(failed(counted, FollowError::Stuck(at.0)));
        } else {
            log.changed(at).await;
        }
    }
}

/// Where to begin. A stored position past the log's end belongs to a log that is no more: its folder was removed or
/// restored. Reading starts over then; facts that were counted are recognised by their
/// ids.
fn begin(name: &'static str, log: &Log, stored: Option<u64>) -> Position {
    match stored.map(Position) {
        None => log.start(),
        Some(at) if at > log.end() => {
            tracing::warn!(
                log = name,
                position = at.0,
                end = log.end().0,
                "the event log is not the one that was read before; reading it from its start"
            );
            log.start()
        }
        Some(at) => at,
    }
}
