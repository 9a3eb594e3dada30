//! The facts that are noted and not yet settled: a mapped file of fixed slots.
//!
//! Layout in words: a first page with `MAGIC`, size of a slot, number of slots and the boot time; then the
//! slots. A slot is [frame: length and CRC, or zero for free][bytes][log position + 1, or zero][sequence] and
//! the fact up to its `bytes`.
//!
//! Invariants:
//! - Between [`Slots::take`] and [`Slots::free`] a slot belongs to one intent alone.
//! - The frame's word is stored last and cleared last, so a slot is either free or whole.
//! - Before a record is published in the log, its position stands in the slot. A slot that is still noted after
//!   a crash therefore tells whether its record is in the log, without a search.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::mapped::{Mapped, copy_in, copy_out, words_for};
use crate::{LogError, bounds};

const MAGIC: u64 = u64::from_le_bytes(*b"SEGUEIN1");
const PAGE: u64 = 4096;
const PAGE_WORDS: usize = 512;
const HEAD: usize = 4;
/// What fits a slot.
const CAPACITY: usize = (PAGE_WORDS - HEAD) * 8;
const _: () = assert!(CAPACITY >= bounds::RECORD, "a record must fit a slot");
const NONE: u32 = u32::MAX;

/// A fact that was noted and not settled when the last process died.
pub(crate) struct Left {
    pub(crate) slot: u32,
    pub(crate) sequence: u64,
    pub(crate) bytes: u64,
    /// Where in the log the record was about to be written, if it got so far.
    pub(crate) position: Option<u64>,
    pub(crate) begun: Vec<u8>,
}

/// The slots and the list of those that are free.
#[derive(Debug)]
pub(crate) struct Slots {
    map: Mapped,
    count: u32,
    /// Top of the stack of free slots in the low half; in the high half a number that changes with every
    /// change, so that a compare-and-swap never mistakes a stack for the same one of earlier.
    top: AtomicU64,
    below: Box<[AtomicU32]>,
}

impl Slots {
    /// Opens or makes the file with `count` slots. Everything is taken until [`Slots::free`] is called; what an
    /// earlier process left is returned and stays in the file until it is freed.
    pub(crate) fn open(dir: &Path, count: u32) -> Result<(Self, Vec<Left>), LogError> {
        let path = dir.join("intents");
        let existing = Self::read(&path)?;
        let (map, left) = match existing {
            // More slots than are wanted are kept while any of them is in use.
            Some((map, slots)) => {
                let left = leftovers(&map, slots);
                if slots == count || !left.is_empty() {
                    return Ok((Self::new(map, slots), left));
                }
                drop(map);
                (Self::create(&path, count)?, Vec::new())
            }
            None => (Self::create(&path, count)?, Vec::new()),
        };
        Ok((Self::new(map, count), left))
    }

    fn new(map: Mapped, count: u32) -> Self {
        let below = (0..count).map(|_| AtomicU32::new(NONE)).collect();
        Self { map, count, top: AtomicU64::new(u64::from(NONE)), below }
    }

    fn read(path: &Path) -> Result<Option<(Mapped, u32)>, LogError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::io("open", path)(error)),
        };
        let bytes = file.metadata().map_err(LogError::io("stat", path))?.len();
        if bytes < 2 * PAGE || !bytes.is_multiple_of(PAGE) {
            return Err(LogError::Format { path: path.to_owned(), found: format!("{bytes} bytes") });
        }
        let map = Mapped::reserve(&file, bytes).map_err(LogError::io("reserve space for", path))?;
        let word = |index: usize| map.words()[index].load(Ordering::Acquire);
        let slots = bytes / PAGE - 1;
        if (word(0), word(1), word(2)) != (MAGIC, PAGE, slots) {
            if word(0) == 0 {
                // Made, renamed, and lost with the power before its content was on the disk.
                return Ok(None);
            }
            let found = format!("magic {:016x}, {} slots of {}", word(0), word(2), word(1));
            return Err(LogError::Format { path: path.to_owned(), found });
        }
        let slots = u32::try_from(slots)
            .map_err(|_| LogError::Format { path: path.to_owned(), found: format!("{slots} slots") })?;
        Ok(Some((map, slots)))
    }

    fn create(path: &Path, count: u32) -> Result<Mapped, LogError> {
        let new: PathBuf = path.with_extension("new");
        let boot = match Self::read(path)? {
            Some((map, _)) => map.words()[3].load(Ordering::Relaxed),
            None => 0,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&new)
            .map_err(LogError::io("create", &new))?;
        let map =
            Mapped::reserve(&file, PAGE * (u64::from(count) + 1)).map_err(LogError::io("reserve space for", &new))?;
        map.words()[1].store(PAGE, Ordering::Relaxed);
        map.words()[2].store(u64::from(count), Ordering::Relaxed);
        map.words()[3].store(boot, Ordering::Relaxed);
        map.words()[0].store(MAGIC, Ordering::Release);
        fs::rename(&new, path).map_err(LogError::io("rename the new intents file to", path))?;
        Ok(map)
    }

    /// The boot time for ids: now, or past the last one where the clock stands or went back.
    pub(crate) fn boot(&self, now_ms: u64) -> u64 {
        let word = &self.map.words()[3];
        let boot = now_ms.max(word.load(Ordering::Relaxed) + 1);
        word.store(boot, Ordering::Release);
        boot
    }

    /// Frees every slot that holds nothing. Called once, after [`Slots::open`].
    pub(crate) fn free_the_empty(&self) {
        for slot in (0..self.count).rev() {
            if self.slot(slot)[0].load(Ordering::Relaxed) == 0 {
                self.push(slot);
            }
        }
    }

    fn slot(&self, slot: u32) -> &[AtomicU64] {
        let from = PAGE_WORDS * (slot as usize + 1);
        &self.map.words()[from..from + PAGE_WORDS]
    }

    /// Takes a free slot, the one used last first, since it is warm.
    pub(crate) fn take(&self) -> Option<u32> {
        let mut top = self.top.load(Ordering::Acquire);
        loop {
            let slot = top as u32;
            let below = self.below.get(slot as usize)?.load(Ordering::Relaxed);
            let next = ((top >> 32).wrapping_add(1) << 32) | u64::from(below);
            match self.top.compare_exchange_weak(top, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(slot),
                Err(now) => top = now,
            }
        }
    }

    fn push(&self, slot: u32) {
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            self.below[slot as usize].store(top as u32, Ordering::Relaxed);
            let next = ((top >> 32).wrapping_add(1) << 32) | u64::from(slot);
            match self.top.compare_exchange_weak(top, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Notes a fact up to its `bytes` in a slot that was taken.
    pub(crate) fn note(&self, slot: u32, sequence: u64, bytes: u64, begun: &[u8], crc: u32) {
        if let [frame, expected, position, number, rest @ ..] = self.slot(slot) {
            expected.store(bytes, Ordering::Relaxed);
            position.store(0, Ordering::Relaxed);
            number.store(sequence, Ordering::Relaxed);
            copy_in(rest, begun);
            frame.store(begun.len() as u64 | u64::from(crc) << 32, Ordering::Release);
        }
    }

    /// Copies the noted fact out.
    pub(crate) fn begun(&self, slot: u32, length: usize, out: &mut Vec<u8>) {
        copy_out(&self.slot(slot)[HEAD..], length.min(CAPACITY), out);
    }

    /// Remembers where the record is about to be published.
    pub(crate) fn appending(&self, slot: u32, position: u64) {
        self.slot(slot)[2].store(position + 1, Ordering::Release);
    }

    /// Clears a slot and gives it back.
    pub(crate) fn free(&self, slot: u32) {
        self.slot(slot)[0].store(0, Ordering::Release);
        self.push(slot);
    }
}

fn leftovers(map: &Mapped, slots: u32) -> Vec<Left> {
    let mut left = Vec::new();
    for slot in 0..slots {
        let from = PAGE_WORDS * (slot as usize + 1);
        let words = &map.words()[from..from + PAGE_WORDS];
        let frame = words[0].load(Ordering::Acquire);
        if frame == 0 {
            continue;
        }
        let length = frame as u32 as usize;
        let mut begun = Vec::new();
        if length <= CAPACITY && words_for(length) <= PAGE_WORDS - HEAD {
            copy_out(&words[HEAD..], length, &mut begun);
        }
        if begun.is_empty() || crc32fast::hash(&begun) != (frame >> 32) as u32 {
            // Only lost power does this: the slot tells nothing that could be trusted.
            tracing::warn!(slot, "an intent was damaged and is dropped");
            words[0].store(0, Ordering::Release);
            continue;
        }
        left.push(Left {
            slot,
            sequence: words[3].load(Ordering::Relaxed),
            bytes: words[1].load(Ordering::Relaxed),
            position: words[2].load(Ordering::Relaxed).checked_sub(1),
            begun,
        });
    }
    left.sort_by_key(|intent| intent.sequence);
    left
}
