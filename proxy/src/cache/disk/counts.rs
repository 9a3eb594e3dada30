//! What the disk tier counts.
//!
//! Invariants: one relaxed addition each; reasons are a closed set. How many hits the tier had is in
//! `segue_requests_total{cache="hit-disk"}`, beside those of the memory.

use crate::metrics::{Counter, Family};

/// Why an object was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// The queue of writes is full.
    Overflow,
    /// Head and body do not fit into a region.
    TooLarge,
    /// It was forgotten or replaced before its turn came.
    Outdated,
    /// No region could be freed: all are being read from, or all that is left is wanted.
    NoRoom,
    /// The disk refused.
    Io,
    /// The edge stopped first.
    Stopped,
}

const DROPPED: [(Dropped, &str); 6] = [
    (Dropped::Overflow, "overflow"),
    (Dropped::TooLarge, "too-large"),
    (Dropped::Outdated, "outdated"),
    (Dropped::NoRoom, "no-room"),
    (Dropped::Io, "io"),
    (Dropped::Stopped, "stopped"),
];

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(super) reads: Counter,
    pub(super) read_errors: Counter,
    pub(super) checksum_failures: Counter,
    pub(super) busy: Counter,
    pub(super) slow: Counter,
    pub(super) writes: Counter,
    pub(super) written_bytes: Counter,
    pub(super) renewals: Counter,
    pub(super) moved: Counter,
    pub(super) evictions: Counter,
    pub(super) promotions: Counter,
    dropped: [Counter; DROPPED.len()],
}

/// What is read off the index at the moment of asking.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Usage {
    /// Bytes of objects that can be found.
    pub(crate) bytes: u64,
    /// Their number.
    pub(crate) objects: u64,
    /// What the index takes in memory, in bytes.
    pub(crate) memory: u64,
}

impl Counts {
    pub(super) fn dropped(&self, why: Dropped) {
        let place = DROPPED.iter().position(|(known, _)| *known == why);
        if let Some(counter) = place.and_then(|place| self.dropped.get(place)) {
            counter.add(1);
        }
    }

    #[cfg(test)]
    pub(super) fn dropped_for(&self, why: Dropped) -> u64 {
        DROPPED.iter().zip(&self.dropped).filter(|((known, _), _)| *known == why).map(|(_, count)| count.get()).sum()
    }

    /// Everything, for the metrics' text.
    pub(super) fn families(&self, usage: Usage) -> Vec<Family> {
        let mut all = Vec::with_capacity(16);
        for (name, help, counter) in [
            ("segue_disk_reads_total", "Reads from the disk tier, whole objects, heads and parts.", &self.reads),
            ("segue_disk_read_errors_total", "Reads that the disk failed; the object is dropped.", &self.read_errors),
            (
                "segue_disk_checksum_failures_total",
                "Objects on the disk that were not what was written; dropped.",
                &self.checksum_failures,
            ),
            ("segue_disk_busy_total", "Look-ups taken for misses because too many reads were waiting.", &self.busy),
            ("segue_disk_slow_total", "Look-ups taken for misses because the disk did not answer in time.", &self.slow),
            ("segue_disk_writes_total", "Objects written.", &self.writes),
            ("segue_disk_written_bytes_total", "Bytes written, objects that moved included.", &self.written_bytes),
            ("segue_disk_renewals_total", "Objects whose freshness was renewed in place.", &self.renewals),
            ("segue_disk_moved_total", "Objects that were wanted and written again before eviction.", &self.moved),
            ("segue_disk_evictions_total", "Objects evicted.", &self.evictions),
            ("segue_disk_promotions_total", "Objects taken into memory from the disk.", &self.promotions),
        ] {
            all.push(Family::counter(name, help, vec![(String::new(), counter.get())]));
        }
        let reasons = DROPPED.iter().zip(&self.dropped);
        let reasons = reasons.map(|((_, reason), count)| (format!("reason=\"{reason}\""), count.get()));
        all.push(Family::counter("segue_disk_dropped_total", "Objects not written, by reason.", reasons.collect()));
        for (name, help, value) in [
            ("segue_disk_bytes", "Bytes of objects on the disk.", usage.bytes),
            ("segue_disk_objects", "Objects on the disk.", usage.objects),
            ("segue_disk_index_bytes", "Memory that the disk tier's index takes.", usage.memory),
        ] {
            all.push(Family::gauge(name, help, vec![(String::new(), value)]));
        }
        all
    }
}
