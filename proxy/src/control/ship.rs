//! The control plane as a [`Sink`]: parcels of facts and denials, posted and counted before the answer.
//!
//! Invariants: the answer comes after the commit; what the control plane has already it does not count again, and says
//! where to go on. So nothing is lost or counted twice by an answer that does not arrive, or by the death of either
//! side. A log is known by a name of its own, which lies beside it: a folder that is made anew is another log.
//!
//! On failure: the same parcel is posted again; whatever the control plane made of it, it says then.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use segue_events::{Most, Parcel, Position, Sink, SinkError};
use serde::Deserialize;

use super::client::{Client, ControlError, send};

const WITHIN: Duration = Duration::from_secs(40);
const ANSWER_MAX: usize = 4096;
/// The name of the file that names the log.
const NAME_FILE: &str = "log-name";

#[derive(Deserialize)]
struct Answer {
    position: u64,
}

/// One of an edge's two logs on its way to the control plane.
#[derive(Debug)]
pub(crate) struct ControlSink {
    client: Arc<Client>,
    edge: String,
    /// The folder of both logs, which has their name.
    dir: PathBuf,
    stream: &'static str,
}

impl ControlSink {
    /// The sinks of facts and of denials.
    pub(crate) fn both(client: &Arc<Client>, edge: &str, dir: &Path) -> [Self; 2] {
        // Made before both ask for it. Where it cannot be, every parcel says so.
        let _made = name(dir);
        ["facts", "denials"].map(|stream| Self {
            client: Arc::clone(client),
            edge: edge.to_owned(),
            dir: dir.to_owned(),
            stream,
        })
    }
}

impl Sink for ControlSink {
    const KIND: &'static str = "control";
    /// What the control plane counts in one transaction of some hundred milliseconds, and takes in one body.
    const MOST: Most = Most { records: 500, bytes: 1 << 20 };

    async fn take(&mut self, parcel: Parcel<'_>) -> Result<Position, SinkError> {
        let Parcel { log, from, next, records } = parcel;
        let mut body = String::with_capacity(records.iter().map(|(_, record)| record.len() + 1).sum());
        for (_, record) in records {
            body.push_str(record);
            body.push('\n');
        }
        let named = |error: io::Error| SinkError::new("log-name", format!("the name of the event log: {error}"));
        let (from_, next_) = (from.0.to_string(), next.0.to_string());
        let name = name(&self.dir).map_err(named)?;
        let first = if from <= log.start() { "true" } else { "false" };
        let query = [
            ("edge", self.edge.as_str()),
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
        if Position(position) > log.end() {
            // It knows a log of this name that went further: this one came back from an older copy.
            let stream = self.stream;
            tracing::warn!(stream, "the event log is older than what was handed over; it gets a new name");
            rename(&self.dir).map_err(named)?;
            return Ok(log.start());
        }
        Ok(Position(position))
    }
}

impl From<ControlError> for SinkError {
    fn from(error: ControlError) -> Self {
        Self::new(error.kind(), error.to_string())
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
