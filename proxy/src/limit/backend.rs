//! The state of a class's keys.

use super::lease::Leased;
use super::table::{Slot, Table};

/// Where a class keeps what it knows of its keys.
#[derive(Debug)]
pub(crate) enum Keys {
    /// The buckets themselves: this process decides alone.
    Embedded(Table<Bucket>),
    /// Tokens that were drawn from buckets in Redis.
    Leased(Table<Leased>),
}

/// One key's bucket: its TAT, on the limiter's clock.
#[derive(Debug, Default)]
pub(crate) struct Bucket(pub(crate) u64);

impl Slot for Bucket {
    fn busy_until(&self) -> u64 {
        self.0
    }
}

impl Keys {
    pub(crate) fn new(keys: usize, leased: bool) -> Self {
        if leased { Self::Leased(Table::new(keys)) } else { Self::Embedded(Table::new(keys)) }
    }

    /// Keys that are busy at `now`, and those that were forgotten while they were.
    pub(crate) fn usage(&self, now: u64) -> (usize, u64) {
        match self {
            Self::Embedded(table) => (table.busy(now), table.forgotten.get()),
            Self::Leased(table) => (table.busy(now), table.forgotten.get()),
        }
    }
}
