//! What lies where: the tier's index in memory, and the state of its regions.
//!
//! Invariants:
//! - One lock around all of it, held for table operations alone, never over a read, a write or an await.
//! - The table of objects is made at its full size at once: it never grows, so the memory that it takes is known.
//! - A slot is found by a 64-bit hash of the key; that it is the right object is proven by the record itself.
//! - A region is taken for new objects only while nobody reads from it: readers hold [`Pin`]s.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::record::UNIT;
use super::volume::Ring;

/// How often an object must be asked for to be wanted for that many laps more.
const HITS_MAX: u8 = 3;
/// Objects that were forgotten while the index is still being rebuilt; beyond it the rebuilding stops.
const FORGOTTEN_MAX: usize = 65_536;
/// A region may list so many times its even share of the objects, and at least so many.
const LISTED_SHARE: usize = 4;
const LISTED_MIN: usize = 256;
/// The share of regions for objects that came once, as a divisor.
const YOUNG_SHARE: usize = 10;

/// Hashes are hashed already.
#[derive(Debug, Default)]
pub(super) struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

type ByHash<T> = HashMap<u64, T, BuildHasherDefault<Plain>>;

/// Where an object lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// The order of writing, unique for a record.
    pub(super) sequence: u64,
    /// Units from the file's start.
    pub(super) unit: u32,
    /// Units of all of it.
    pub(super) units: u32,
    /// Units before the body.
    pub(super) head_units: u16,
    /// How often it was asked for since it was written, at most [`HITS_MAX`].
    pub(super) hits: u8,
}

#[derive(Debug, Default)]
pub(super) struct Region {
    /// The lap's number.
    pub(super) epoch: u64,
    /// `None`: it holds nothing.
    pub(super) ring: Option<Ring>,
    /// Being written.
    pub(super) open: bool,
    /// What was written into it; some of it may be gone.
    pub(super) hashes: Vec<u64>,
}

/// An object on its way to the disk.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) ticket: u64,
    /// Whether it was asked for since.
    pub(super) wanted: bool,
}

/// See the module.
pub(super) struct Index {
    pub(super) slots: ByHash<Slot>,
    pub(super) regions: Vec<Region>,
    pub(super) pending: ByHash<Pending>,
    /// What was forgotten before the scan came to it; `None` once everything is scanned.
    pub(super) forgotten: Option<HashSet<u64>>,
    pub(super) next_sequence: u64,
    pub(super) next_epoch: u64,
    next_ticket: u64,
    ghosts: Box<[u32]>,
    entries_max: usize,
    used_units: u64,
    pins: Arc<[AtomicU32]>,
}

/// Keeps a region from being taken while its object is read.
#[derive(Debug)]
pub(super) struct Pin {
    pins: Arc<[AtomicU32]>,
    region: usize,
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(count) = self.pins.get(self.region) {
            count.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Index {
    pub(super) fn new(regions: u32, entries_max: usize) -> Self {
        let count = usize::try_from(regions).unwrap_or(usize::MAX);
        Self {
            slots: ByHash::with_capacity_and_hasher(entries_max, BuildHasherDefault::default()),
            regions: (0..count).map(|_| Region::default()).collect(),
            pending: ByHash::default(),
            forgotten: Some(HashSet::new()),
            next_sequence: 1,
            next_epoch: 1,
            next_ticket: 1,
            // As many as a half of the table, four bytes each.
            ghosts: vec![0; (entries_max / 2).next_power_of_two().max(64)].into_boxed_slice(),
            entries_max,
            used_units: 0,
            pins: (0..count).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Nobody may take the region until the pin is gone.
    pub(super) fn pin(&self, region: u32) -> Pin {
        let region = usize::try_from(region).unwrap_or(usize::MAX);
        if let Some(count) = self.pins.get(region) {
            count.fetch_add(1, Ordering::Acquire);
        }
        Pin { pins: Arc::clone(&self.pins), region }
    }

    pub(super) fn is_full(&self) -> bool {
        self.slots.len() >= self.entries_max
    }

    /// Whether a region's list has its share of the memory; replaced objects stay in it until the region is given up.
    pub(super) fn is_listed_full(&self, region: u32) -> bool {
        let share = (LISTED_SHARE * self.entries_max / self.regions.len().max(1)).max(LISTED_MIN);
        self.region(region).is_none_or(|region| region.hashes.len() >= share)
    }

    pub(super) fn region(&self, region: u32) -> Option<&Region> {
        self.regions.get(usize::try_from(region).ok()?)
    }

    pub(super) fn region_mut(&mut self, region: u32) -> Option<&mut Region> {
        self.regions.get_mut(usize::try_from(region).ok()?)
    }

    /// Makes room for an object that is on its way. The object that stands in its place is gone; a later one of the
    /// same key replaces it.
    pub(super) fn announce(&mut self, hash: u64) -> (u64, Option<Slot>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.pending.insert(hash, Pending { ticket, wanted: false });
        (ticket, self.take(hash))
    }

    fn take(&mut self, hash: u64) -> Option<Slot> {
        let slot = self.slots.remove(&hash)?;
        self.used_units -= u64::from(slot.units);
        Some(slot)
    }

    /// Bytes of the objects that can be found.
    pub(super) fn used(&self) -> u64 {
        self.used_units * UNIT
    }

    /// As [`Self::announce`], if this very record still stands.
    pub(super) fn announce_instead(&mut self, hash: u64, sequence: u64) -> Option<(u64, Slot)> {
        let stands = self.slots.get(&hash).is_some_and(|slot| slot.sequence == sequence);
        let (ticket, replaced) = stands.then(|| self.announce(hash))?;
        replaced.map(|replaced| (ticket, replaced))
    }

    /// Whether the object of `ticket` is still to be written.
    pub(super) fn awaits(&self, hash: u64, ticket: u64) -> bool {
        self.pending.get(&hash).is_some_and(|pending| pending.ticket == ticket)
    }

    /// Gives up on an object that was announced.
    pub(super) fn withdraw(&mut self, hash: u64, ticket: u64) {
        if self.awaits(hash, ticket) {
            self.pending.remove(&hash);
        }
    }

    /// The object was asked for, here or in memory.
    pub(super) fn want(&mut self, hash: u64) {
        if let Some(slot) = self.slots.get_mut(&hash) {
            slot.hits = (slot.hits + 1).min(HITS_MAX);
        } else if let Some(pending) = self.pending.get_mut(&hash) {
            pending.wanted = true;
        }
    }

    /// Takes away what is known under `hash`, also what is on its way or not found yet.
    pub(super) fn forget(&mut self, hash: u64) -> Option<Slot> {
        self.pending.remove(&hash);
        if let Some(forgotten) = &mut self.forgotten {
            forgotten.insert(hash);
            if forgotten.len() > FORGOTTEN_MAX {
                self.forgotten = None;
            }
        }
        self.take(hash)
    }

    /// Takes away this very record, if it is still the one that counts.
    pub(super) fn remove(&mut self, hash: u64, sequence: u64) -> Option<Slot> {
        if self.slots.get(&hash).is_none_or(|slot| slot.sequence != sequence) {
            return None;
        }
        self.take(hash)
    }

    /// Takes in a record that was found at the start. Gives the one that is to die: this, or an older one of its key.
    pub(super) fn found(&mut self, hash: u64, slot: Slot, region: u32) -> Option<Slot> {
        let is_forgotten = self.forgotten.as_ref().is_none_or(|forgotten| forgotten.contains(&hash));
        let known = self.slots.get(&hash).copied();
        let is_older = known.is_some_and(|known| known.sequence > slot.sequence);
        let is_too_many = known.is_none() && self.is_full();
        if is_forgotten || is_older || is_too_many || self.pending.contains_key(&hash) {
            return Some(slot);
        }
        self.insert(hash, slot, region);
        known
    }

    pub(super) fn insert(&mut self, hash: u64, slot: Slot, region: u32) {
        self.take(hash);
        self.used_units += u64::from(slot.units);
        self.slots.insert(hash, slot);
        if let Some(region) = self.region_mut(region) {
            region.hashes.push(hash);
        }
    }

    /// Remembers that an object was let go of; each such memory stands until another falls on its place.
    pub(super) fn remember(&mut self, hash: u64) {
        let (place, mark) = self.ghost(hash);
        if let Some(ghost) = self.ghosts.get_mut(place) {
            *ghost = mark;
        }
    }

    /// Whether the object was let go of not long ago.
    pub(super) fn remembers(&mut self, hash: u64) -> bool {
        let (place, mark) = self.ghost(hash);
        self.ghosts.get_mut(place).is_some_and(|ghost| std::mem::take(ghost) == mark)
    }

    fn ghost(&self, hash: u64) -> (usize, u32) {
        let place = usize::try_from(hash).unwrap_or(0) & (self.ghosts.len() - 1);
        (place, u32::try_from(hash >> 32).unwrap_or(0) | 1)
    }

    /// Whether something has to be given up before another region may be begun, or another object listed.
    pub(super) fn needs_room(&self) -> bool {
        self.free().count() < 2 || self.is_full()
    }

    pub(super) fn free_region(&self) -> Option<u32> {
        u32::try_from(self.free().next()?).ok()
    }

    /// Regions that hold nothing, and from which nobody reads what they held.
    fn free(&self) -> impl Iterator<Item = usize> {
        let regions = self.regions.iter().enumerate();
        regions.filter(|(place, region)| region.ring.is_none() && self.is_unread(*place)).map(|(place, _)| place)
    }

    fn is_unread(&self, place: usize) -> bool {
        self.pins.get(place).is_some_and(|pins| pins.load(Ordering::Acquire) == 0)
    }

    /// The region to give up next: the oldest of the young ones while they are more than their share, else the oldest
    /// of the kept ones. `None`: readers hold all of them.
    pub(super) fn victim(&self) -> Option<u32> {
        let young = self.regions.iter().filter(|region| region.ring == Some(Ring::Young) && !region.open).count();
        let rings = if young >= (self.regions.len() / YOUNG_SHARE).max(1) {
            [Ring::Young, Ring::Kept]
        } else {
            [Ring::Kept, Ring::Young]
        };
        rings.into_iter().find_map(|ring| {
            let closed = self
                .regions
                .iter()
                .enumerate()
                .filter(|(place, region)| region.ring == Some(ring) && !region.open && self.is_unread(*place));
            let (place, _) = closed.min_by_key(|(_, region)| region.epoch)?;
            u32::try_from(place).ok()
        })
    }

    /// What the table and the regions take at most, in bytes.
    pub(super) fn memory(&self) -> u64 {
        // A slot of the table has a byte of control beside key and value.
        let table = self.slots.capacity() * 8 / 7 * (size_of::<(u64, Slot)>() + 1);
        let regions: usize = self.regions.iter().map(|region| region.hashes.capacity() * size_of::<u64>()).sum();
        (table + regions + self.ghosts.len() * size_of::<u32>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(sequence: u64) -> Slot {
        Slot { sequence, unit: 0, units: 1, head_units: 1, hits: 0 }
    }

    #[test]
    fn of_two_records_of_one_key_the_later_counts_in_whatever_order_they_are_found() {
        let mut index = Index::new(8, 100);
        assert_eq!(index.found(1, slot(5), 0), None);
        assert_eq!(index.found(1, slot(4), 1), Some(slot(4)));
        assert_eq!(index.found(1, slot(6), 2), Some(slot(5)));
        assert_eq!(index.slots[&1].sequence, 6);
    }

    #[test]
    fn what_was_forgotten_or_replaced_before_it_was_found_stays_away() {
        let mut index = Index::new(8, 100);
        index.forget(1);
        assert_eq!(index.found(1, slot(5), 0), Some(slot(5)));
        let (ticket, _) = index.announce(2);
        assert_eq!(index.found(2, slot(5), 0), Some(slot(5)));
        index.forget(2);
        assert!(!index.awaits(2, ticket), "a write on its way does not come back either");
    }

    #[test]
    fn the_table_does_not_grow_beyond_its_bound() {
        let mut index = Index::new(8, 1000);
        let before = index.slots.capacity();
        for hash in 0..5000_u64 {
            index.found(hash, slot(hash), 0);
        }
        assert_eq!((index.slots.len(), index.slots.capacity()), (1000, before));
    }
}
