//! The state of a class's keys.

use super::table::{Slot, Table};

/// Where a class keeps what it knows of its keys.
#[derive(Debug)]
pub(crate) enum Keys {
    /// The buckets themselves: this process decides alone.
    Embedded(Table<Bucket>),
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
    pub(crate) fn new(keys: usize, _leased: bool) -> Self {
        Self::Embedded(Table::new(keys))
    }
}
