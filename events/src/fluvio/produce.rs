//! Writing: records into batches by partition, and the word of the leaders that they are there.
//!
//! Invariants: a record's partition follows from its session alone (by the client's own hash, so that others who write
//! by key agree), and within a partition records lie in the order of the log. One request a leader is under way; the
//! next parcel waits for its answer. What one partition confirmed is not sent to it again because another one failed.
//! A record may come twice all the same, where a leader wrote and its answer was lost: its id tells.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fluvio::dataplane::link::ErrorCode;
use fluvio::dataplane::record::{Batch, RawRecords, Record, RecordData, RecordKey, RecordSet};
use fluvio::{Compression, Isolation};
use fluvio_spu_schema::produce::{DefaultPartitionRequest, DefaultProduceRequest, DefaultTopicRequest};
use serde::Deserialize;
use siphasher::sip::SipHasher;

use super::cluster::{Cluster, Topic};
use super::{FluvioConfig, FluvioError};
use crate::{Most, Parcel, Position, Sink, SinkError};

/// Bytes of a batch before it is packed: far below the megabyte that readers ask for at a time.
const BATCH_BYTES: usize = 256 << 10;
/// How long a leader may wait for its replicas.
const REPLICAS_WITHIN: Duration = Duration::from_secs(10);

/// A record on its way to a topic.
struct Keyed<'r> {
    /// What its partition follows from; any of them where there is none.
    key: Option<Cow<'r, str>>,
    value: &'r str,
}

/// Records of one partition.
type Lot<'r> = Vec<Keyed<'r>>;

/// A topic that is written to.
#[derive(Debug)]
struct Producer {
    cluster: Cluster,
    topic: Topic,
    compression: Compression,
}

impl Producer {
    async fn connect(config: &FluvioConfig, topic: &str) -> Result<Self, FluvioError> {
        let cluster = Cluster::connect(config).await?;
        let topic = cluster.topic(topic).await?;
        Ok(Self { cluster, topic, compression: config.compression.compression() })
    }

    /// Sends lots by partition; says of each whether it is there.
    async fn send(
        &mut self,
        lots: BTreeMap<u32, Lot<'_>>,
    ) -> Result<BTreeMap<u32, Result<(), FluvioError>>, FluvioError> {
        let mut by_leader: BTreeMap<i32, Vec<DefaultPartitionRequest>> = BTreeMap::new();
        for (partition, lot) in lots {
            let place = usize::try_from(partition).unwrap_or(usize::MAX);
            let leader =
                self.topic.leaders.get(place).copied().ok_or_else(|| self.refused(partition, "no such partition"))?;
            let batches = pack(lot, self.compression).map_err(|problem| self.refused(partition, problem))?;
            by_leader
                .entry(leader)
                .or_default()
                .push(DefaultPartitionRequest { partition_index: partition, records: RecordSet { batches } });
        }
        let mut said = BTreeMap::new();
        for (leader, partitions) in by_leader {
            let numbers: Vec<u32> = partitions.iter().map(|partition| partition.partition_index).collect();
            let request = DefaultProduceRequest {
                isolation: Isolation::ReadCommitted,
                timeout: REPLICAS_WITHIN,
                topics: vec![DefaultTopicRequest { name: self.topic.name.clone(), partitions, ..Default::default() }],
                ..Default::default()
            };
            match self.cluster.call(leader, request).await {
                Ok(answer) => said.extend(numbers.into_iter().map(|number| {
                    let told = answer.find_partition_response(&self.topic.name, number).map(|told| &told.error_code);
                    let outcome = match told {
                        Some(ErrorCode::None) => Ok(()),
                        Some(other) => Err(self.refused(number, other)),
                        None => Err(self.refused(number, "its leader did not answer for it")),
                    };
                    (number, outcome)
                })),
                Err(error) => {
                    let told = error.to_string();
                    let of_others = |number| (number, Err(self.refused(number, &told)));
                    let mut numbers = numbers.into_iter();
                    said.extend(numbers.next().map(|first| (first, Err(error))));
                    said.extend(numbers.map(of_others));
                }
            }
        }
        Ok(said)
    }

    fn refused(&self, partition: u32, problem: impl std::fmt::Display) -> FluvioError {
        FluvioError::Partition { topic: self.topic.name.clone(), partition, problem: problem.to_string() }
    }
}

/// Batches of a partition's records, packed.
fn pack(lot: Lot<'_>, compression: Compression) -> Result<Vec<Batch<RawRecords>>, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut batches = Vec::new();
    let (mut records, mut bytes): (Vec<Record>, usize) = (Vec::new(), 0);
    let seal = |records: Vec<Record>| {
        let mut batch = Batch::from(records);
        batch.header.first_timestamp = now;
        batch.header.max_time_stamp = now;
        batch.header.set_compression(compression);
        Batch::<RawRecords>::try_from(batch).map_err(|error| error.to_string())
    };
    for Keyed { key, value } in lot {
        let size = value.len() + key.as_ref().map_or(0, |key| key.len());
        if bytes + size > BATCH_BYTES && !records.is_empty() {
            batches.push(seal(std::mem::take(&mut records))?);
            bytes = 0;
        }
        bytes += size;
        let key = key.map_or(RecordKey::NULL, |key| RecordKey::from(key.into_owned().into_bytes()));
        records.push(Record::from((key, RecordData::from(value.as_bytes()))));
    }
    if !records.is_empty() {
        batches.push(seal(records)?);
    }
    Ok(batches)
}

/// The partition of a key: SipHash 2-4 of its bytes with their number in front, as the client has it.
fn partition_of(key: &[u8], partitions: u32) -> u32 {
    let mut hasher = SipHasher::new();
    key.hash(&mut hasher);
    u32::try_from(hasher.finish() % u64::from(partitions.max(1))).unwrap_or(0)
}

/// Sends the records of one log to a topic, each session's to one partition.
#[derive(Debug)]
pub struct FluvioSink {
    config: FluvioConfig,
    topic: String,
    producer: Option<Producer>,
    /// Up to where in the log each partition has its records.
    confirmed: BTreeMap<u32, Position>,
    /// How many partitions that speaks of.
    partitions: u32,
}

/// What is needed of a record to send it.
#[derive(Deserialize)]
struct Head<'r> {
    #[serde(borrow)]
    id: Cow<'r, str>,
    #[serde(borrow, default)]
    sid: Option<Cow<'r, str>>,
}

impl FluvioSink {
    /// To the topic that the configuration names for `of` (`segments`, `denials`). Connects at the first parcel.
    #[must_use]
    pub fn new(config: &FluvioConfig, of: &str) -> Self {
        let topic = config.topic(of);
        Self { config: config.clone(), topic, producer: None, confirmed: BTreeMap::new(), partitions: 0 }
    }

    /// Sends records that are in no log, each with the key that its partition follows from.
    ///
    /// # Errors
    /// When it is not known that all of them are there; some of them may be.
    pub async fn publish(&mut self, records: &[(String, String)]) -> Result<(), SinkError> {
        let partitions = self.connected().await?;
        let mut lots: BTreeMap<u32, Lot<'_>> = BTreeMap::new();
        for (key, value) in records {
            let keyed = Keyed { key: Some(Cow::Borrowed(key)), value };
            lots.entry(partition_of(key.as_bytes(), partitions)).or_default().push(keyed);
        }
        let Some(producer) = &mut self.producer else { return Ok(()) };
        let sent = producer.send(lots).await.and_then(|said| said.into_values().collect::<Result<Vec<()>, _>>());
        if sent.is_err() {
            self.producer = None;
        }
        Ok(sent.map(drop)?)
    }

    async fn connected(&mut self) -> Result<u32, SinkError> {
        let partitions = match &self.producer {
            Some(producer) => producer.topic.partitions(),
            None => {
                let producer = Producer::connect(&self.config, &self.topic).await?;
                tracing::info!(topic = self.topic, partitions = producer.topic.partitions(), "connected to Fluvio");
                let partitions = producer.topic.partitions();
                self.producer = Some(producer);
                partitions
            }
        };
        if partitions != self.partitions {
            // Sessions belong elsewhere now; what is sent again is known by its ids.
            self.confirmed.clear();
            self.partitions = partitions;
        }
        Ok(partitions)
    }

    /// The records that their partitions do not have yet, by partition.
    fn lots<'r>(&self, records: &'r [(Position, String)], partitions: u32) -> BTreeMap<u32, Lot<'r>> {
        let mut lots: BTreeMap<u32, Lot<'r>> = BTreeMap::new();
        for (after, record) in records {
            // A record that this version cannot read has no session, and goes where its bytes say.
            let head: Option<Head<'r>> = serde_json::from_str(record).ok();
            let (partition, key) = match head {
                Some(Head { sid: Some(sid), .. }) => (partition_of(sid.as_bytes(), partitions), Some(sid)),
                Some(Head { id, .. }) => (partition_of(id.as_bytes(), partitions), None),
                None => (partition_of(record.as_bytes(), partitions), None),
            };
            if self.confirmed.get(&partition).is_none_or(|confirmed| confirmed < after) {
                lots.entry(partition).or_default().push(Keyed { key, value: record });
            }
        }
        lots
    }
}

impl Sink for FluvioSink {
    const KIND: &'static str = "fluvio";
    /// Some milliseconds of packing, and an answer that comes within a moment on a thin line.
    const MOST: Most = Most { records: 4000, bytes: 2 << 20 };

    async fn take(&mut self, parcel: Parcel<'_>) -> Result<Position, SinkError> {
        if parcel.records.is_empty() {
            // Nobody but the log knows how far it got.
            return Ok(parcel.log.acknowledged().max(parcel.log.start()));
        }
        let partitions = self.connected().await?;
        let lots = self.lots(parcel.records, partitions);
        let Some(producer) = &mut self.producer else { return Ok(parcel.from) };
        let mut failed = None;
        match producer.send(lots).await {
            Ok(said) => {
                for (partition, outcome) in said {
                    match outcome {
                        Ok(()) => {
                            self.confirmed.insert(partition, parcel.next);
                        }
                        Err(error) => failed = Some(error),
                    }
                }
            }
            Err(error) => failed = Some(error),
        }
        match failed {
            None => Ok(parcel.next),
            Some(error) => {
                self.producer = None;
                Err(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(batches: &[Batch<RawRecords>]) -> Vec<(Option<String>, String)> {
        let text = |data: &RecordData| data.as_utf8_lossy_string().into_owned();
        let records = batches.iter().flat_map(|batch| batch.memory_records().expect("records"));
        records.map(|record| (record.key().map(text), text(record.value()))).collect()
    }

    #[test]
    fn a_lot_comes_out_of_its_batches_as_it_went_in() {
        let values: Vec<String> =
            (0..3000).map(|n| format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(n % 400))).collect();
        for compression in
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
        {
            let lot = values
                .iter()
                .enumerate()
                .map(|(n, value)| Keyed { key: (n % 2 == 0).then(|| Cow::Owned(format!("k{n}"))), value });
            let batches = pack(lot.collect(), compression).expect("packed");
            assert!(batches.len() > 1, "{compression}");
            let back = unpack(&batches);
            assert_eq!(back.len(), values.len());
            for (n, (key, value)) in back.iter().enumerate() {
                assert_eq!((key.clone(), value), ((n % 2 == 0).then(|| format!("k{n}")), &values[n]), "{compression}");
            }
        }
    }

    #[test]
    fn a_session_has_one_partition_and_what_a_partition_has_is_not_sent_again() {
        let record = |n: u64, sid: Option<&str>| {
            let sid = sid.map(|sid| format!(",\"sid\":\"{sid}\"")).unwrap_or_default();
            (Position(n + 1), format!("{{\"v\":1,\"id\":\"e-b-{n}\"{sid},\"ua\":\"a \\\" b\"}}"))
        };
        let records: Vec<_> = (0..300).map(|n| record(n, Some(&format!("s{}", n % 30)))).collect();
        let mut sink = FluvioSink::new(&FluvioConfig::new("f:1"), "segments");
        let lots = sink.lots(&records, 4);
        assert_eq!((lots.len(), lots.values().map(Vec::len).sum::<usize>()), (4, 300));
        for lot in lots.values() {
            let place = |keyed: &Keyed<'_>| records.iter().position(|(_, record)| record == keyed.value);
            assert!(lot.is_sorted_by_key(place), "in the order of the log");
        }
        let of_session = |lots: &BTreeMap<u32, Lot<'_>>, sid: &str| {
            let has = |lot: &Lot<'_>| lot.iter().any(|keyed| keyed.key.as_deref() == Some(sid));
            lots.values().filter(|lot| has(lot)).count()
        };
        assert!((0..30).all(|session| of_session(&lots, &format!("s{session}")) == 1));
        let first = lots[&0].len();
        sink.confirmed.insert(0, Position(300));
        let rest = sink.lots(&records, 4);
        assert!(!rest.contains_key(&0));
        assert_eq!(rest.values().map(Vec::len).sum::<usize>(), 300 - first);
        let odd = [record(0, None), (Position(2), "noise".to_owned())];
        assert!(sink.lots(&odd, 1).is_empty(), "confirmed");
        sink.confirmed.clear();
        assert!(sink.lots(&odd, 1)[&0].iter().all(|keyed| keyed.key.is_none()));
    }
}
