//! Where the next object goes: two rings of regions, written from one end and given up at the other.
//!
//! Purpose: a scan of cold tracks must not flush the hot ones. What comes for the first time goes to the *young* ring, a
//! tenth of the disk; what was asked for again by the time its region is given up moves to the *kept* ring, and there
//! it gets another lap for each time that it was asked for (S3-FIFO, by regions). What left the young ring unasked
//! and is fetched again soon goes straight to the kept one.
//!
//! Invariants:
//! - One region is always free beside the two that are being written, so that what moves out of a region has a place
//!   before the region is given up.
//! - At most [`MOVED_SHARE`] of a region moves, so each eviction frees something, and writes at most four bytes for one.
//! - A region's header with a new epoch is written before anything in it.
//!
//! On failure: what cannot be moved is evicted; where no region can be had the object is not written.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::counts::Dropped;
use super::index::Slot;
use super::record::{self, Head, UNIT};
use super::store::{Located, Store};
use super::volume::{RegionHeader, Ring};

/// Of four parts of a region, how many may move on.
const MOVED_SHARE: u64 = 3;
/// How many times an object in memory is reported as wanted while the disk goes round once.
const TIMES_A_LAP: u32 = 8;
/// Evictions for one write at most; more means that everything that is left is wanted.
const EVICTIONS_MAX: usize = 16;

/// A region that is being written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    pub(super) region: u32,
    pub(super) epoch: u64,
    /// From the region's start.
    pub(super) next: u64,
}

/// Where a record is to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) region: u32,
    pub(super) epoch: u64,
    pub(super) at: u64,
}

/// The writing ends of both rings.
#[derive(Debug, Default)]
pub(super) struct Rings {
    pub(super) young: Option<Open>,
    pub(super) kept: Option<Open>,
    given_up: u32,
}

impl Rings {
    fn end(&mut self, ring: Ring) -> &mut Option<Open> {
        match ring {
            Ring::Young => &mut self.young,
            Ring::Kept => &mut self.kept,
        }
    }

    /// A place for `bytes`, evicting where there is none.
    pub(super) fn place(&mut self, store: &Store, ring: Ring, bytes: u64) -> Result<Place, Dropped> {
        if bytes + UNIT > store.volume.region_bytes {
            return Err(Dropped::TooLarge);
        }
        let is_full = store.index.lock().is_full();
        if let Some(place) = self.at_end(store, ring, bytes).filter(|_| !is_full) {
            return Ok(place);
        }
        let mut evictions = 0;
        while store.index.lock().needs_room() {
            evictions += 1;
            if evictions > EVICTIONS_MAX {
                return Err(Dropped::NoRoom);
            }
            self.evict(store)?;
        }
        // What moved may have opened another region meanwhile.
        if let Some(place) = self.at_end(store, ring, bytes) {
            return Ok(place);
        }
        self.begin(store, ring)?;
        self.at_end(store, ring, bytes).ok_or(Dropped::NoRoom)
    }

    /// A place in the region that is being written, if it has one.
    fn at_end(&mut self, store: &Store, ring: Ring, bytes: u64) -> Option<Place> {
        let open = self.end(ring).as_mut()?;
        let index = store.index.lock();
        if open.next + bytes > store.volume.region_bytes || index.is_listed_full(open.region) {
            return None;
        }
        let place = Place { region: open.region, epoch: open.epoch, at: store.volume.start(open.region) + open.next };
        open.next += bytes;
        Some(place)
    }

    /// Ends the ring's region and takes a free one.
    fn begin(&mut self, store: &Store, ring: Ring) -> Result<(), Dropped> {
        let (region, epoch) = {
            let mut index = store.index.lock();
            if let Some(open) = self.end(ring).take()
                && let Some(region) = index.region_mut(open.region)
            {
                region.open = false;
            }
            let region = index.free_region().ok_or(Dropped::NoRoom)?;
            let epoch = index.next_epoch;
            index.next_epoch += 1;
            (region, epoch)
        };
        store.volume.begin_region(region, RegionHeader { epoch, ring }).map_err(|error| refused(&error))?;
        let mut index = store.index.lock();
        if let Some(state) = index.region_mut(region) {
            state.epoch = epoch;
            state.ring = Some(ring);
            state.open = true;
            state.hashes.clear();
        }
        *self.end(ring) = Some(Open { region, epoch, next: UNIT });
        Ok(())
    }

    /// Gives up one region; what is wanted of it moves to the kept ring.
    fn evict(&mut self, store: &Store) -> Result<(), Dropped> {
        let (victim, ring, mut wanted) = {
            let index = store.index.lock();
            let victim = index.victim().ok_or(Dropped::NoRoom)?;
            let region = index.region(victim).ok_or(Dropped::NoRoom)?;
            let slots = region.hashes.iter().filter_map(|hash| Some((*hash, *index.slots.get(hash)?)));
            let here = slots.filter(|(_, slot)| slot.hits > 0 && store.region_of(slot) == victim);
            (victim, region.ring.unwrap_or(Ring::Young), here.collect::<Vec<_>>())
        };
        wanted.sort_by_key(|(_, slot)| std::cmp::Reverse(slot.hits));
        // A key that was written twice into the region is listed twice.
        let mut left = store.volume.region_bytes / 4 * MOVED_SHARE;
        for (hash, slot) in wanted {
            let bytes = u64::from(slot.units) * UNIT;
            if bytes <= left && self.move_on(store, hash, slot, ring).is_ok() {
                left -= bytes;
            }
        }
        self.give_up(store, victim, ring);
        Ok(())
    }

    /// Lets go of what is left in a region.
    fn give_up(&mut self, store: &Store, victim: u32, ring: Ring) {
        let mut index = store.index.lock();
        let Some(region) = index.region_mut(victim) else { return };
        let hashes = std::mem::take(&mut region.hashes);
        *region = super::index::Region::default();
        let mut evicted = 0;
        for hash in hashes {
            let sequence = match index.slots.get(&hash) {
                Some(slot) if store.region_of(slot) == victim => slot.sequence,
                _ => continue,
            };
            index.remove(hash, sequence);
            evicted += 1;
            if ring == Ring::Young {
                index.remember(hash);
            }
        }
        drop(index);
        store.counts.evictions.add(evicted);
        self.given_up += 1;
        if self.given_up.is_multiple_of((store.volume.regions / TIMES_A_LAP).max(1)) {
            store.time.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes a record again, into the kept ring.
    fn move_on(&mut self, store: &Store, hash: u64, slot: Slot, from: Ring) -> Result<(), Dropped> {
        let Some(located) = store.locate_hash(Arc::from([]), hash).filter(|now| now.slot.unit == slot.unit) else {
            return Err(Dropped::Outdated);
        };
        let bytes = u64::from(slot.units) * UNIT;
        let mut whole = vec![0; usize::try_from(bytes).map_err(|_| Dropped::TooLarge)?];
        store.volume.read(located.at(), &mut whole).map_err(|error| refused(&error))?;
        if !is_proven(store, &whole, &located) {
            return Err(Dropped::Io);
        }
        let place = match self.at_end(store, Ring::Kept, bytes) {
            Some(place) => place,
            // The free region is there for this.
            None => {
                self.begin(store, Ring::Kept)?;
                self.at_end(store, Ring::Kept, bytes).ok_or(Dropped::NoRoom)?
            }
        };
        let sequence = store.next_sequence();
        record::stamp(store.volume.seed, &mut whole, place.epoch, sequence).ok_or(Dropped::Io)?;
        store.volume.write(place.at, &whole).map_err(|error| refused(&error))?;
        store.counts.written_bytes.add(bytes);
        // A lap is paid with one time that it was asked for; leaving the young ring takes all of them.
        let hits = if from == Ring::Young { 0 } else { slot.hits - 1 };
        let moved = Slot { sequence, unit: unit(place.at), hits, ..slot };
        let mut index = store.index.lock();
        if index.remove(hash, slot.sequence).is_some() {
            index.insert(hash, moved, place.region);
            store.counts.moved.add(1);
        } else {
            // It was forgotten while it moved, and is not to be found at the next start.
            let grave = store.grave(&index, moved);
            drop(index);
            store.bury(&grave);
        }
        Ok(())
    }
}

/// Whether all of a record is what was written.
fn is_proven(store: &Store, whole: &[u8], located: &Located) -> bool {
    let Some(head) = Head::read(store.volume.seed, whole) else { return false };
    let length = usize::try_from(head.length).unwrap_or(usize::MAX);
    let body = whole.get(head.head_bytes..head.head_bytes.saturating_add(length));
    head.alive && head.sequence == located.slot.sequence && body.is_some_and(|body| head.proves(0, body))
}

/// The unit of a place in the file. The file is short enough (`volume::BYTES_MAX`).
pub(super) fn unit(at: u64) -> u32 {
    u32::try_from(at / UNIT).unwrap_or(u32::MAX)
}

pub(super) fn refused(error: &io::Error) -> Dropped {
    tracing::warn!(%error, "the disk tier could not be read or written");
    Dropped::Io
}
