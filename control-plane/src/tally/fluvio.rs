//! Facts and denials by way of Fluvio: each partition from the offset that is stored, batch by batch.
//!
//! Invariants: the offset of a partition moves in the transaction that counts what lies before it, and only from where
//! the batch begins, under the lease of whoever has the duty: of two tallies on one database the later one counts nothing. No offset is left out
//! ([`FluvioReader`]); what comes twice, since an edge sent again what it was not sure of, is known by its id. Of denials, which have no
//! ids here, what an edge sends again counts again.
//!
//! On failure: whatever was begun is rolled back, the connection is given up, and reading goes on from what is stored after a growing pause.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use segue_events::{FluvioConfig, FluvioError, FluvioReader, Pauses};

use super::{count, publish};
use crate::bus::Topic;
use crate::duty;
use crate::state::{Parts, Shared};
use crate::store::leases::Held;
use crate::store::{Lost, StoreError, plays, transaction};

/// Records of one transaction: some hundred milliseconds of work at most, so that other writers get their turn.
const BATCH: usize = 2000;
/// Between two looks at partitions that had nothing new.
const LOOK: Duration = Duration::from_millis(100);
/// After this long the cluster is asked anew how many partitions there are and who leads them.
const RENEW: Duration = Duration::from_secs(300);

/// A partition that ends before what was read of it has so long to come to itself, before it is taken for another one.
const BEHIND: Duration = Duration::from_secs(60);

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Facts,
    Denials,
}

impl Stream {
    /// Its topic, behind the prefix.
    fn topic(self) -> &'static str {
        match self {
            Self::Facts => "segments",
            Self::Denials => "denials",
        }
    }
}

/// What stops a batch.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fluvio(#[from] FluvioError),
    #[error("another tally counts {0} into this database")]
    Elsewhere(String),
    #[error("{0} ends before what was read of it")]
    Behind(String),
}

impl Lost for ReadError {
    fn lost(&self) -> bool {
        matches!(self, Self::Store(error) if error.lost())
    }
}

/// Reads both topics until shutdown: the duty of one control plane among all.
pub(crate) async fn run(parts: Shared) {
    tokio::join!(
        duty::keep(&parts, "fluvio-facts", |parts, held| Box::pin(go_on(parts, held, Stream::Facts))),
        duty::keep(&parts, "fluvio-denials", |parts, held| Box::pin(go_on(parts, held, Stream::Denials))),
    );
}

async fn go_on(parts: Shared, held: Held, stream: Stream) {
    let Some(config) = parts.fluvio.clone() else { return };
    let topic = config.topic(stream.topic());
    let mut pauses = Pauses::default();
    let mut behind = BTreeMap::new();
    loop {
        let mut counted = false;
        let result = read_on(&parts, &held, &config, stream, &mut counted, &mut behind).await;
        if counted && pauses.over() {
            tracing::info!(topic, "the tally counts again");
        }
        let Err(error) = result else { continue };
        let (pause, first) = pauses.take();
        if first {
            tracing::error!(topic, %error, "the tally stands still; it tries on");
        }
        tokio::time::sleep(pause).await;
    }
}

/// Reads on one connection, for [`RENEW`] or until something fails.
async fn read_on(
    parts: &Parts,
    held: &Held,
    config: &FluvioConfig,
    stream: Stream,
    counted: &mut bool,
    behind: &mut BTreeMap<String, Instant>,
) -> Result<(), ReadError> {
    let began = Instant::now();
    let mut reader = FluvioReader::connect(config, stream.topic()).await?;
    let mut partitions = Vec::new();
    for number in 0..reader.partitions() {
        let name = format!("fluvio/{}/{number}", reader.topic());
        let at = plays::offset(&parts.store, &name).await?.unwrap_or(0);
        partitions.push(Partition { number, name, at });
    }
    while began.elapsed() < RENEW {
        let mut idle = true;
        for partition in &mut partitions {
            let before = partition.at;
            partition.step(parts, held, &mut reader, stream, behind).await?;
            idle &= partition.at == before;
        }
        *counted = true;
        if idle {
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

/// A partition, and the offset that is stored of it.
struct Partition {
    number: u32,
    name: String,
    at: u64,
}

impl Partition {
    /// Counts what comes at a time.
    async fn step(
        &mut self,
        parts: &Parts,
        held: &Held,
        reader: &mut FluvioReader,
        stream: Stream,
        behind: &mut BTreeMap<String, Instant>,
    ) -> Result<(), ReadError> {
        let fetched = reader.fetch(self.number, self.at).await?;
        if fetched.lost > 0 {
            let (log, records) = (&self.name, fetched.lost);
            tracing::error!(log, records, "records were gone before they were counted: the topic keeps them too short");
        }
        if fetched.anew {
            let since = *behind.entry(self.name.clone()).or_insert_with(Instant::now);
            if since.elapsed() < BEHIND {
                return Err(ReadError::Behind(self.name.clone()));
            }
            let (log, position) = (&self.name, self.at);
            tracing::warn!(log, position, "the topic is not the one that was read before; reading it from its start");
        }
        behind.remove(&self.name);
        let mut records = fetched.records.into_iter();
        loop {
            let batch: Vec<(u64, String)> = records.by_ref().take(BATCH).collect();
            // Where records are gone the offset moves alone.
            let next = batch.last().map_or(fetched.next, |(offset, _)| offset + 1);
            if next != self.at {
                let batch: Vec<String> = batch.into_iter().map(|(_, record)| record).collect();
                self.count(parts, held, stream, &batch, next).await?;
            }
            if next == fetched.next {
                return Ok(());
            }
        }
    }

    async fn count(
        &mut self,
        parts: &Parts,
        held: &Held,
        stream: Stream,
        batch: &[String],
        next: u64,
    ) -> Result<(), ReadError> {
        let (name, at) = (self.name.as_str(), self.at);
        let counted = transaction!(parts.store, |tx| {
            held.check(tx).await?;
            plays::begin(tx).await?;
            if plays::offset_now(tx, name).await?.unwrap_or(0) != at {
                return Err(ReadError::Elsewhere(name.to_owned()));
            }
            let counted = match stream {
                Stream::Facts => {
                    let counted = count::count_facts(parts, tx, batch, next).await?;
                    publish::store(parts, tx, counted.plays()).await?;
                    Some(counted)
                }
                Stream::Denials => {
                    count::count_denials(parts, tx, batch, next).await?;
                    None
                }
            };
            plays::set_offset(tx, name, next).await?;
            Ok::<_, ReadError>(counted)
        })?;
        self.at = next;
        match counted {
            Some(counted) => counted.tell(parts),
            None => batch.iter().for_each(|record| parts.bus.tell_json(Topic::Denials, record.as_str())),
        }
        Ok(())
    }
}
