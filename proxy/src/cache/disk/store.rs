//! The store as readers and the writer share it: file, index, counts; and reading one record.
//!
//! Invariants: what is handed out was proven against the record's own checksums and against the whole key that was
//! asked for. A record that fails that, or that the disk fails to read, is dropped from the index at once and marked
//! dead, so that it is neither read again nor found at the next start.

use std::io::IoSliceMut;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;

use super::counts::Counts;
use super::index::{Index, Pin, Slot};
use super::record::{self, CHUNK, Head, UNIT, checksum};
use super::volume::Volume;
use crate::cache::{Key, KeyRef, Meta, Object};
use crate::lock::Mutex;

/// Why a record gives no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The bytes are not in the kernel's memory, or too many others wait for the disk.
    Busy,
    /// The disk did not answer in time.
    Slow,
    /// It is another key's, or dead.
    Gone,
    /// It is not what was written.
    Bad,
    /// The disk refused.
    Io,
}

/// A record that cannot be taken away while this lives.
#[derive(Debug, Clone)]
pub(super) struct Located {
    pub(super) hash: u64,
    pub(super) slot: Slot,
    pub(super) key: Arc<[u8]>,
    _pin: Arc<Pin>,
}

/// A record that is to die.
#[derive(Debug)]
pub(crate) struct Grave {
    slot: Slot,
    _pin: Pin,
}

/// What a record's head says.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) head: Head,
    pub(super) meta: Meta,
    pub(super) since: Instant,
}

/// See the module.
pub(super) struct Store {
    pub(super) volume: Volume,
    pub(super) index: Mutex<Index>,
    /// What each route leads to, by its place.
    pub(super) routes: Box<[u64]>,
    pub(super) counts: Counts,
    /// Rises as regions are given up; an object in memory is reported as wanted once in each of these times.
    pub(super) time: AtomicU32,
    /// Bytes of objects that wait to be written.
    pub(super) queued_bytes: AtomicU64,
    /// When the writer leaves undone what is still waiting.
    pub(super) deadline: OnceLock<Instant>,
    /// The folder may be another process's: nothing is written any more.
    pub(super) is_closed: AtomicBool,
}

impl Located {
    pub(super) fn at(&self) -> u64 {
        u64::from(self.slot.unit) * UNIT
    }

    pub(super) fn head_bytes(&self) -> usize {
        usize::from(self.slot.head_units) * usize::try_from(UNIT).unwrap_or(0)
    }

    /// Bytes of the body, padding included.
    pub(super) fn body_bytes(&self) -> usize {
        let units = u64::from(self.slot.units).saturating_sub(u64::from(self.slot.head_units));
        usize::try_from(units * UNIT).unwrap_or(usize::MAX)
    }
}

impl Store {
    /// The key as it stands in records, with its hash.
    pub(super) fn key(&self, key: KeyRef<'_>) -> (Arc<[u8]>, u64) {
        let route = self.routes.get(usize::from(key.route())).copied().unwrap_or(u64::MAX);
        let mut bytes = Vec::with_capacity(160);
        key.encode(route, &mut bytes);
        let hash = checksum(self.volume.seed, &bytes);
        (bytes.into(), hash)
    }

    pub(super) fn locate(&self, key: KeyRef<'_>) -> Option<Located> {
        let (key, hash) = self.key(key);
        self.locate_hash(key, hash)
    }

    pub(super) fn locate_hash(&self, key: Arc<[u8]>, hash: u64) -> Option<Located> {
        let index = self.index.lock();
        let slot = *index.slots.get(&hash)?;
        let pin = Arc::new(index.pin(self.region_of(&slot)));
        Some(Located { hash, slot, key, _pin: pin })
    }

    pub(super) fn region_of(&self, slot: &Slot) -> u32 {
        self.volume.region_of(u64::from(slot.unit) * UNIT)
    }

    /// A grave for what `index` has let go of. Under the same lock, so that its region is still the same.
    pub(super) fn grave(&self, index: &Index, slot: Slot) -> Grave {
        Grave { slot, _pin: index.pin(self.region_of(&slot)) }
    }

    /// Whether this record still is what counts for its key.
    pub(super) fn stands(&self, located: &Located) -> bool {
        let index = self.index.lock();
        index.slots.get(&located.hash).is_some_and(|slot| slot.sequence == located.slot.sequence)
    }

    /// Writes over the record's state, so that no start finds it again.
    pub(super) fn bury(&self, grave: &Grave) {
        if self.is_closed.load(Ordering::Acquire) {
            return;
        }
        let at = u64::from(grave.slot.unit) * UNIT + record::STATE_AT;
        if let Err(error) = self.volume.write(at, &record::DEAD.to_le_bytes()) {
            self.counts.read_errors.add(1);
            tracing::warn!(%error, "a record on the disk could not be marked as dead");
        }
    }

    /// Counts what went wrong with a record, and drops it where it is of no use. Gives what is to be buried.
    pub(super) fn condemn(&self, located: &Located, trouble: Trouble) -> Option<Grave> {
        match trouble {
            Trouble::Busy | Trouble::Slow | Trouble::Gone => return None,
            Trouble::Bad => self.counts.checksum_failures.add(1),
            Trouble::Io => self.counts.read_errors.add(1),
        }
        let path = Key::path_in(&located.key);
        tracing::warn!(path, ?trouble, "an object on the disk cannot be used; it is dropped and fetched anew");
        let mut index = self.index.lock();
        let slot = index.remove(located.hash, located.slot.sequence)?;
        Some(self.grave(&index, slot))
    }

    /// The whole object, if the kernel has it in memory. Never waits for the disk.
    pub(super) fn peek(&self, located: &Located) -> Result<Object, Trouble> {
        let (mut head, mut body) = (vec![0; located.head_bytes()], vec![0; located.body_bytes()]);
        let wanted = head.len() + body.len();
        let mut buffers = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)];
        if self.volume.peek(located.at(), &mut buffers) != Some(wanted) {
            return Err(Trouble::Busy);
        }
        self.object(located, &head, body)
    }

    /// The whole object, from the disk.
    pub(super) fn read(&self, located: &Located) -> Result<Object, Trouble> {
        let (mut head, mut body) = (vec![0; located.head_bytes()], vec![0; located.body_bytes()]);
        self.volume.read(located.at(), &mut head).map_err(|_| Trouble::Io)?;
        self.volume.read(located.at() + head.len() as u64, &mut body).map_err(|_| Trouble::Io)?;
        self.object(located, &head, body)
    }

    /// What the head says, from the disk.
    pub(super) fn open(&self, located: &Located) -> Result<Opened, Trouble> {
        let mut bytes = vec![0; located.head_bytes()];
        self.volume.read(located.at(), &mut bytes).map_err(|_| Trouble::Io)?;
        self.opened(located, &bytes)
    }

    pub(super) fn opened(&self, located: &Located, bytes: &[u8]) -> Result<Opened, Trouble> {
        let head = self.head(located, bytes)?;
        let (meta, since) = head.meta(bytes).ok_or(Trouble::Bad)?;
        Ok(Opened { head, meta, since })
    }

    pub(super) fn head(&self, located: &Located, bytes: &[u8]) -> Result<Head, Trouble> {
        let head = Head::read(self.volume.seed, bytes).ok_or(Trouble::Bad)?;
        if !head.alive || *head.key != *located.key {
            return Err(Trouble::Gone);
        }
        let is_this = head.sequence == located.slot.sequence && head.head_bytes == located.head_bytes();
        let chunks = head.length.div_ceil(CHUNK as u64);
        if is_this && head.sums.len() as u64 == chunks { Ok(head) } else { Err(Trouble::Bad) }
    }

    fn object(&self, located: &Located, head: &[u8], mut body: Vec<u8>) -> Result<Object, Trouble> {
        let Opened { head, meta, since } = self.opened(located, head)?;
        let length = usize::try_from(head.length).map_err(|_| Trouble::Bad)?;
        if body.len() < length {
            return Err(Trouble::Bad);
        }
        body.truncate(length);
        if !head.proves(0, &body) {
            return Err(Trouble::Bad);
        }
        Ok(Object::new(meta, Bytes::from(body), since))
    }

    /// Chunks from `first` on, `bytes` of them, as far as the object goes. `wait`: also from the disk.
    pub(super) fn chunks(
        &self,
        located: &Located,
        head: &Head,
        first: usize,
        bytes: usize,
        wait: bool,
    ) -> Result<Bytes, Trouble> {
        let from = (first * CHUNK) as u64;
        let length = usize::try_from(head.length.saturating_sub(from)).unwrap_or(usize::MAX).min(bytes);
        let mut buffer = vec![0; length];
        let at = located.at() + head.head_bytes as u64 + from;
        if wait {
            self.volume.read(at, &mut buffer).map_err(|_| Trouble::Io)?;
        } else if self.volume.peek(at, &mut [IoSliceMut::new(&mut buffer)]) != Some(length) {
            return Err(Trouble::Busy);
        }
        if head.proves(first, &buffer) { Ok(Bytes::from(buffer)) } else { Err(Trouble::Bad) }
    }
}
