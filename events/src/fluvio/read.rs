//! Reading: whole batches of a partition from an offset on, and no offset left out.
//!
//! Invariants: what [`FluvioReader::fetch`] gives begins at the offset that was asked for and is contiguous. A batch
//! that the answer's bound cut off is not looked at: its header says how many records it has, and the published
//! client, which believes it, goes on behind it. Here the next call begins with it, and where even the first batch does not fit the
//! bound grows.
//!
//! On failure: the caller drops the reader and begins again at the offset that it has stored.

use fluvio::Isolation;
use fluvio::dataplane::link::ErrorCode;
use fluvio::dataplane::record::{Batch, RawRecords, RecordSet, ReplicaKey};
use fluvio_spu_schema::fetch::{FetchPartition, FetchRequest, FetchableTopic};
use fluvio_spu_schema::server::fetch_offset::FetchOffsetsRequest;

use super::cluster::{Cluster, Topic};
use super::{FluvioConfig, FluvioError};

/// Bytes that are asked for at a time, as they lie on the leader's disk.
const FETCH_BYTES: i32 = 1 << 20;
/// And at most, for a batch that is larger than that.
const FETCH_BYTES_MAX: i32 = 64 << 20;

/// What a call brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Each record with its offset, without a gap.
    pub records: Vec<(u64, String)>,
    /// The offset to go on from.
    pub next: u64,
    /// Records that were gone before they were read: the topic's retention was shorter than the pause.
    pub lost: u64,
    /// The partition ends before the offset that was asked for; `next` is its start. Either its leader has just come back
    /// and does not know yet what is committed, or the topic is another one than before.
    pub anew: bool,
}

/// Reads one topic.
#[derive(Debug)]
pub struct FluvioReader {
    cluster: Cluster,
    topic: Topic,
}

impl FluvioReader {
    /// Connects, making the topic that the configuration names for `of` where nobody has written to it yet.
    ///
    /// # Errors
    /// When the cluster or the topic cannot be had within their bounds.
    pub async fn connect(config: &FluvioConfig, of: &str) -> Result<Self, FluvioError> {
        let cluster = Cluster::connect(config).await?;
        let topic = cluster.topic(&config.topic(of)).await?;
        Ok(Self { cluster, topic })
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic.name
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.topic.partitions()
    }

    /// Where a partition starts and ends: the offset of its oldest record, and the one after its newest.
    ///
    /// # Errors
    /// When its leader does not say.
    pub async fn span(&mut self, partition: u32) -> Result<(u64, u64), FluvioError> {
        let leader = self.leader(partition)?;
        let request = FetchOffsetsRequest::new(self.topic.name.clone(), partition);
        let answer = self.cluster.call(leader, request).await?;
        let told = answer.find_partition(&ReplicaKey::new(self.topic.name.clone(), partition));
        let told = told.ok_or_else(|| self.refused(partition, "its leader did not answer for it"))?;
        if told.error_code != ErrorCode::None {
            return Err(self.refused(partition, &told.error_code));
        }
        Ok((offset(told.start_offset), offset(told.last_stable_offset)))
    }

    /// Reads a partition from `from` on, as much as comes at a time; nothing where there is nothing new.
    ///
    /// # Errors
    /// When its leader refuses, or what it sends does not begin at `from`.
    pub async fn fetch(&mut self, partition: u32, from: u64) -> Result<Fetched, FluvioError> {
        let leader = self.leader(partition)?;
        let mut max_bytes = FETCH_BYTES;
        loop {
            let asked = FetchPartition {
                partition_index: partition,
                fetch_offset: i64::try_from(from).unwrap_or(i64::MAX),
                max_bytes,
                ..FetchPartition::default()
            };
            let topic = FetchableTopic { name: self.topic.name.clone(), fetch_partitions: vec![asked] };
            let request = FetchRequest::<RecordSet<RawRecords>> {
                max_bytes,
                isolation_level: Isolation::ReadCommitted,
                topics: vec![topic],
                ..FetchRequest::default()
            };
            let answer = self.cluster.call(leader, request).await?;
            let told = answer.find_partition(&self.topic.name, partition);
            let told = told.ok_or_else(|| self.refused(partition, "its leader did not answer for it"))?;
            match told.error_code {
                ErrorCode::None => {}
                ErrorCode::OffsetOutOfRange | ErrorCode::OffsetEvicted { .. } => {
                    return self.elsewhere(partition, from).await;
                }
                other => return Err(self.refused(partition, other)),
            }
            let start = offset(told.log_start_offset);
            if start > from {
                return Ok(Fetched { next: start, lost: start - from, ..Fetched::default() });
            }
            let end = offset(told.high_watermark);
            if end < from {
                return self.elsewhere(partition, from).await;
            }
            let more = end > from;
            let read = whole(&told.records.batches, from).map_err(|problem| self.refused(partition, problem))?;
            if read.next > from || !more {
                return Ok(read);
            }
            if max_bytes >= FETCH_BYTES_MAX {
                return Err(
                    self.refused(partition, format!("the batch at {from} is larger than {FETCH_BYTES_MAX} bytes"))
                );
            }
            max_bytes *= 4;
        }
    }

    /// `from` is no offset of the partition: before its start, or past its end.
    async fn elsewhere(&mut self, partition: u32, from: u64) -> Result<Fetched, FluvioError> {
        let (start, end) = self.span(partition).await?;
        if from < start {
            return Ok(Fetched { next: start, lost: start - from, ..Fetched::default() });
        }
        if from > end {
            return Ok(Fetched { next: start, anew: true, ..Fetched::default() });
        }
        Err(self.refused(partition, format!("its leader has {start} to {end} and denies {from}")))
    }

    fn leader(&self, partition: u32) -> Result<i32, FluvioError> {
        let place = usize::try_from(partition).unwrap_or(usize::MAX);
        self.topic.leaders.get(place).copied().ok_or_else(|| self.refused(partition, "no such partition"))
    }

    fn refused(&self, partition: u32, problem: impl std::fmt::Display) -> FluvioError {
        FluvioError::Partition { topic: self.topic.name.clone(), partition, problem: problem.to_string() }
    }
}

fn offset(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The records of the batches that are whole, from `from` on.
fn whole(batches: &[Batch<RawRecords>], from: u64) -> Result<Fetched, String> {
    let mut read = Fetched { next: from, ..Fetched::default() };
    for batch in batches {
        // Cut off by the answer's bound, which is no error: its length says so, its count of records does not.
        if !batch.validate_decoding() {
            break;
        }
        let base = offset(batch.base_offset);
        let records =
            batch.memory_records().map_err(|error| format!("the batch at {base} cannot be unpacked: {error}"))?;
        if records.len() != batch.records_len() {
            return Err(format!("the batch at {base} has {} records of {}", records.len(), batch.records_len()));
        }
        for (at, record) in (base..).zip(records) {
            // The first batch begins wherever it was written.
            if at < read.next {
                continue;
            }
            if at > read.next {
                return Err(format!("offset {at} came in place of {}", read.next));
            }
            read.records.push((at, record.value().as_utf8_lossy_string().into_owned()));
            read.next = at + 1;
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use fluvio::Compression;
    use fluvio::dataplane::core::{Decoder, Encoder};
    use fluvio::dataplane::record::{Record, RecordData};

    use super::*;

    /// Batches of the given sizes, as a leader keeps them.
    fn kept(sizes: &[usize], compression: Compression) -> Vec<Batch<RawRecords>> {
        let mut base = 100;
        let batches = sizes.iter().map(|size| {
            let record = |n: usize| Record::from(("k", RecordData::from(format!("{}", base + n))));
            let mut batch = Batch::from((0..*size).map(record).collect::<Vec<Record>>());
            batch.header.set_compression(compression);
            let batch = Batch::<RawRecords>::try_from(batch).expect("packed").base_offset(base as i64);
            base += size;
            batch
        });
        batches.collect()
    }

    /// What a reader gets of them when its bound is `bytes`.
    fn cut(batches: Vec<Batch<RawRecords>>, bytes: usize) -> RecordSet<RawRecords> {
        let mut wire = Vec::new();
        RecordSet { batches }.encode(&mut wire, 0).expect("encoded");
        let mut some = i32::try_from(bytes).expect("small").to_be_bytes().to_vec();
        some.extend_from_slice(&wire[4..4 + bytes]);
        let mut set = RecordSet::<RawRecords>::default();
        set.decode(&mut some.as_slice(), 0).expect("decoded");
        set
    }

    #[test]
    fn a_batch_that_was_cut_off_is_read_by_the_next_call_wherever_it_was_cut() {
        for compression in [Compression::None, Compression::Zstd] {
            let sizes = [5, 1, 40, 7];
            let mut length = Vec::new();
            RecordSet { batches: kept(&sizes, compression) }.encode(&mut length, 0).expect("encoded");
            for bytes in 0..=length.len() - 4 {
                let set = cut(kept(&sizes, compression), bytes);
                let read = whole(&set.batches, 100).expect("read");
                let numbers: Vec<String> = (100..read.next).map(|n| n.to_string()).collect();
                let came: Vec<String> = read.records.into_iter().map(|(_, text)| text).collect();
                assert_eq!(came, numbers, "{compression} cut at {bytes}");
                assert!([100, 105, 106, 146, 153].contains(&read.next), "{compression} cut at {bytes}: {}", read.next);
            }
        }
    }

    #[test]
    fn it_begins_in_the_middle_of_a_batch_and_a_gap_is_an_error() {
        let over_the_wire = |batches: Vec<Batch<RawRecords>>| {
            let bytes = batches.iter().map(|batch| batch.write_size(0)).sum();
            cut(batches, bytes).batches
        };
        let batches = over_the_wire(kept(&[10, 10, 10], Compression::Lz4));
        let read = whole(&batches, 104).expect("read");
        assert_eq!((read.records.len(), read.next), (26, 130));
        assert_eq!(read.records[0], (104, "104".to_owned()));
        let with_a_gap = [batches[0].clone(), batches[2].clone()];
        assert_eq!(whole(&with_a_gap, 100), Err("offset 120 came in place of 110".to_owned()));
        assert_eq!(whole(&[], 7), Ok(Fetched { next: 7, ..Fetched::default() }));
    }
}
