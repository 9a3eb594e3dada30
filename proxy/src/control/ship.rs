//! Handing facts and denials over: batches of the local log, in order, until the control plane has them.
//!
//! Invariants: the log is the spool. A batch is acknowledged there after the control plane answered, which it does after
//! its commit; what it has already it does not count again, and says where to go on. So nothing is lost or counted twice
//! by an answer that does not arrive, or by the death of either side. A log is known by a name of its own, which lies
//! beside it: a folder that is made anew is another log.
//!
//! On failure: the batch is sent again after a growing pause. Meanwhile the log takes what comes, within its bound.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use segue_events::{EventLog, Log, LogError, Position};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::client::{Client, ControlError, Pauses, send};
use crate::edge::Shared;

/// Records of one batch: what the control plane counts in one transaction of some hundred milliseconds.
const BATCH: usize = 500;
/// Bytes of one batch, so that it is sent in a moment on a thin line.
const BATCH_BYTES: usize = 1 << 20;
const WITHIN: Duration = Duration::from_secs(40);
const ANSWER_MAX: usize = 4096;
/// The name of the file that names the log.
const NAME_FILE: &str = "log-name";

/// What stops a batch.
#[derive(Debug, thiserror::Error)]
enum ShipError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("event log: {0}")]
    Log(#[from] LogError),
    #[error("the name of the event log: {0}")]
    Name(#[from] io::Error),
}

#[derive(Deserialize)]
struct Answer {
    position: u64,
}

/// One of the two logs on its way.
struct Stream<'a> {
    shared: &'a Shared,
    client: &'a Client,
    dir: &'a Path,
    log: &'a Log,
    stream: &'static str,
}

/// Ships both logs until `stop`, and then for as long as it goes well and there is something left.
pub(super) async fn run(shared: &Shared, client: &Client, events: &EventLog, dir: &Path, stop: &CancellationToken) {
    // Made before both ask for it. Where it cannot be, every batch says so.
    let _made = name(dir);
    let facts = Stream { shared, client, dir, log: events.facts(), stream: "facts" };
    let denials = Stream { shared, client, dir, log: events.denials(), stream: "denials" };
    tokio::join!(facts.run(stop), denials.run(stop));
}

impl Stream<'_> {
    async fn run(&self, stop: &CancellationToken) {
        let mut pauses = Pauses::new();
        let mut at = None;
        loop {
            match self.step(&mut at, stop).await {
                Ok(true) => {
                    if pauses.over() {
                        tracing::info!(stream = self.stream, "facts are handed over again");
                    }
                }
                Ok(false) => return,
                Err(error) => {
                    self.shared.standing.ship_failures.add(1);
                    let (pause, first) = pauses.take();
                    if first {
                        tracing::warn!(stream = self.stream, %error, "facts stay in the local log; trying on");
                    }
                    // Whatever the control plane made of it, it says at the next batch.
                    if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Hands one batch over, or waits for one. `false`: it is over.
    async fn step(&self, at: &mut Option<Position>, stop: &CancellationToken) -> Result<bool, ShipError> {
        // The first batch of a process is empty: it asks where to go on.
        let Some(from) = *at else {
            let from = self.log.start();
            *at = Some(self.hand_over(from, from, &[]).await?);
            return Ok(true);
        };
        let batch = match self.log.read(from, BATCH) {
            // The folder came back from an older copy, and with it the name.
            Err(LogError::Ahead { .. }) => {
                rename(self.dir)?;
                *at = None;
                return Ok(true);
            }
            batch => batch?,
        };
        if batch.skipped > 0 {
            tracing::error!(
                stream = self.stream,
                bytes = batch.skipped,
                "records were lost before they were handed over"
            );
        }
        if batch.next == from {
            return Ok(stop.run_until_cancelled(self.log.changed(from)).await.is_some());
        }
        let mut bytes = 0;
        let fits = batch.records.iter().take_while(|(_, record)| {
            bytes += record.len() + 1;
            bytes <= BATCH_BYTES
        });
        let count = fits.count().max(1).min(batch.records.len());
        let taken = batch.records.get(..count).unwrap_or_default();
        let whole = count == batch.records.len();
        let next = if whole { batch.next } else { taken.last().map_or(batch.next, |(after, _)| *after) };
        let next = self.hand_over(from, next, taken).await?;
        *at = Some(next);
        Ok(true)
    }

    /// Posts a batch; gives the place to go on from.
    async fn hand_over(
        &self,
        from: Position,
        next: Position,
        records: &[(Position, String)],
    ) -> Result<Position, ShipError> {
        let mut body = String::with_capacity(records.iter().map(|(_, record)| record.len() + 1).sum());
        for (_, record) in records {
            body.push_str(record);
            body.push('\n');
        }
        let (from_, next_) = (from.0.to_string(), next.0.to_string());
        let name = name(self.dir)?;
        let first = if from <= self.log.start() { "true" } else { "false" };
        let query = [
            ("edge", self.shared.config.name.as_str()),
            ("log", &name),
            ("stream", self.stream),
            ("from", &from_),
            ("next", &next_),
            ("first", first),
        ];
        let request = self.client.post("/v1/edge/facts").query(&query).body(body);
        let (_, answer) = send(request.header("content-type", "application/x-ndjson"), WITHIN, ANSWER_MAX).await?;
        let Answer { position } =
            serde_json::from_slice(&answer).map_err(|error| ControlError::Answer(error.to_string()))?;
        let position = Position(position);
        if position == next {
            self.shared.standing.shipped.add(records.len() as u64);
        }
        if position > self.log.end() {
            // It knows a log of this name that went further: this one came back from an older copy.
            tracing::warn!(
                stream = self.stream,
                "the event log is older than what was handed over; it gets a new name"
            );
            rename(self.dir)?;
            return Ok(self.log.start());
        }
        self.log.acknowledge(position);
        Ok(position.max(self.log.start()))
    }
}

/// The name of the log in `dir`, made at the first use.
fn name(dir: &Path) -> io::Result<String> {
    match std::fs::read_to_string(dir.join(NAME_FILE)) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        Ok(_) => rename(dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => rename(dir),
        Err(error) => Err(error),
    }
}

/// Gives the log in `dir` a new name.
fn rename(dir: &Path) -> io::Result<String> {
    let mut random = [0u8; 12];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = dir.join(format!("{NAME_FILE}.part"));
    let mut file = std::fs::File::create(&part)?;
    file.write_all(name.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(part, dir.join(NAME_FILE))?;
    Ok(name)
}
