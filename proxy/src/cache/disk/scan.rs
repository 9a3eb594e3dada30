//! What an earlier process left: the index is rebuilt from the heads of records, region by region.
//!
//! Invariants: a record counts if its head is whole, of its region's epoch, and alive; its body is proven when it is
//! read. Of two records of one key the later one counts. What was forgotten while the scan runs stays forgotten.
//!
//! On failure: a head that cannot be read ends its region; what stands behind it is lost to the cache, and the region
//! is not written on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::index::{Index, Slot};
use super::record::{self, FIXED, Head, UNIT, checksum};
use super::rings::{Open, Rings, unit};
use super::store::Store;
use super::volume::{RegionHeader, Ring};
use crate::lock::Mutex;

/// Heads are read one after the other: so many at once keep a solid state disk busy.
const THREADS: usize = 4;
/// What is read at once: most heads are smaller.
const HEAD_GUESS: usize = 2048;

/// How a region ended.
struct End {
    next: u64,
    /// Whether nothing of this epoch can stand behind it.
    is_clean: bool,
}

/// Rebuilds the index; gives the regions that are written on.
pub(super) fn scan(store: &Arc<Store>) -> Rings {
    let begun = Instant::now();
    let rings = Mutex::new(Rings::default());
    let headers = headers(store);
    let next = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((region, header)) =
                    headers.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX))
                {
                    let end = scan_region(store, *region, header.epoch);
                    let open = Open { region: *region, epoch: header.epoch, next: end.next };
                    if end.is_clean {
                        newest(&mut rings.lock(), header.ring, open);
                    }
                }
            });
        }
    });
    let rings = std::mem::take(&mut *rings.lock());
    let mut index = store.index.lock();
    for open in [rings.young, rings.kept].into_iter().flatten() {
        if let Some(region) = index.region_mut(open.region) {
            region.open = true;
        }
    }
    index.forgotten = None;
    let objects = index.slots.len();
    drop(index);
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(objects, ms, "the disk tier is indexed");
    rings
}

/// The regions that hold something, the latest first, and the index told of them.
fn headers(store: &Store) -> Vec<(u32, RegionHeader)> {
    let mut headers = Vec::new();
    for region in 0..store.volume.regions {
        match store.volume.region(region) {
            Ok(Some(header)) => headers.push((region, header)),
            Ok(None) => {}
            Err(error) => {
                store.counts.read_errors.add(1);
                tracing::warn!(%error, region, "a region of the disk tier cannot be read; it counts as empty");
            }
        }
    }
    let mut index = store.index.lock();
    for (region, header) in &headers {
        index.next_epoch = index.next_epoch.max(header.epoch + 1);
        if let Some(state) = index.region_mut(*region) {
            state.epoch = header.epoch;
            state.ring = Some(header.ring);
        }
    }
    headers.sort_by_key(|(_, header)| std::cmp::Reverse(header.epoch));
    headers
}

fn newest(rings: &mut Rings, ring: Ring, open: Open) {
    let end = match ring {
        Ring::Young => &mut rings.young,
        Ring::Kept => &mut rings.kept,
    };
    if end.is_none_or(|known| known.epoch < open.epoch) {
        *end = Some(open);
    }
}

fn scan_region(store: &Store, region: u32, epoch: u64) -> End {
    let start = store.volume.start(region);
    let mut next = UNIT;
    let mut bytes = Vec::new();
    while next + UNIT <= store.volume.region_bytes {
        let head = match read_head(store, start + next, store.volume.region_bytes - next, &mut bytes) {
            Ok(Some(head)) if head.epoch == epoch => head,
            Ok(Some(_) | None) => return End { next, is_clean: true },
            Err(Damaged) => return End { next, is_clean: false },
        };
        let Some(sizes) = record::sizes(&bytes) else { return End { next, is_clean: false } };
        if next + sizes.bytes > store.volume.region_bytes {
            return End { next, is_clean: false };
        }
        let mut index = store.index.lock();
        index.next_sequence = index.next_sequence.max(head.sequence + 1);
        let dies = if head.alive { take_in(&mut index, store, &head, start + next, sizes.bytes, region) } else { None };
        let grave = dies.map(|slot| store.grave(&index, slot));
        drop(index);
        if let Some(grave) = grave {
            store.bury(&grave);
        }
        next += sizes.bytes;
    }
    End { next, is_clean: true }
}

fn take_in(index: &mut Index, store: &Store, head: &Head, at: u64, bytes: u64, region: u32) -> Option<Slot> {
    let hash = checksum(store.volume.seed, &head.key);
    let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX);
    let head_units = u16::try_from(head.head_bytes as u64 / UNIT).unwrap_or(u16::MAX);
    let slot = Slot { sequence: head.sequence, unit: unit(at), units, head_units, hits: 0 };
    index.found(hash, slot, region)
}

/// There is a head, and it is not whole.
struct Damaged;

/// `None`: there is no record.
fn read_head(store: &Store, at: u64, room: u64, bytes: &mut Vec<u8>) -> Result<Option<Head>, Damaged> {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    bytes.resize(HEAD_GUESS.min(room), 0);
    store.volume.read(at, bytes).map_err(|_| Damaged)?;
    if bytes.len() < FIXED {
        return Ok(None);
    }
    let Some(sizes) = record::sizes(bytes) else { return Ok(None) };
    if sizes.head_bytes > room {
        return Err(Damaged);
    }
    if sizes.head_bytes > bytes.len() {
        bytes.resize(sizes.head_bytes, 0);
        store.volume.read(at, bytes).map_err(|_| Damaged)?;
    }
    Head::read(store.volume.seed, bytes).map(Some).ok_or(Damaged)
}
