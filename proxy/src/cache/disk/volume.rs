//! The one file that holds everything, its regions, and reading and writing in it.
//!
//! Invariants: the file has blocks for all of its length before the first object, so that it neither grows nor fails
//! for lack of space later; a region's header names the lap (epoch) in which it was begun, and nothing of an earlier
//! lap counts. [`Volume::peek`] takes what the kernel has in memory and never waits for the disk.
//!
//! On failure: a header that cannot be read makes the file a new, empty one; a folder that cannot be used is an error
//! with what to do.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::record::{self, UNIT, checksum};

/// The file's own header; more than it needs, so that regions begin at large file system blocks.
pub(super) const HEADER_BYTES: u64 = 64 * 1024;
/// Fewer regions would make eviction too coarse: two are being written and one is kept free.
pub(super) const REGIONS_MIN: u64 = 8;
/// More would make the table of regions a cost of its own.
const REGIONS_MAX: u64 = 4096;
/// What one eviction takes away: small beside the disk, large beside an object.
const REGION_MIN: u64 = 1 << 20;
const REGION_MAX: u64 = 64 << 20;
/// What is cached is for those with a ticket, not for everybody on the machine.
pub(super) const PRIVATE: u32 = 0o600;
/// A unit's number has 32 bits.
pub(super) const BYTES_MAX: u64 = UNIT << 32;

const MAGIC: &[u8; 8] = b"SEGUEDSK";
const REGION_MAGIC: &[u8; 8] = b"SEGUEREG";
/// Raised with every change of the layout: another one is an empty store.
const LAYOUT: u64 = 1;

/// See the module.
#[derive(Debug)]
pub(super) struct Volume {
    file: File,
    /// Secret of this store, under all of its checksums.
    pub(super) seed: u64,
    pub(super) region_bytes: u64,
    pub(super) regions: u32,
    /// Whether the file system answers from memory alone when it is asked to.
    can_peek: AtomicBool,
}

/// Which of the two rings a region belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ring {
    /// What came once.
    Young,
    /// What was asked for again.
    Kept,
}

/// What a region's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RegionHeader {
    pub(super) epoch: u64,
    pub(super) ring: Ring,
}

/// The bytes of a region for a disk of `bytes` and objects of up to `max_object`.
pub(super) fn region_bytes(bytes: u64, max_object: u64) -> u64 {
    let fitting = (bytes / 64).clamp(REGION_MIN, REGION_MAX).max(bytes / (REGIONS_MAX / 2));
    fitting.max(record::bytes_for(max_object) + UNIT).next_multiple_of(REGION_MIN)
}

/// The least that a disk of objects up to `max_object` needs.
pub(super) fn least(max_object: u64) -> u64 {
    REGIONS_MIN * region_bytes(0, max_object) + HEADER_BYTES
}

impl Volume {
    /// Opens the file at `path`, of `bytes` at most. Whether it was made anew is told beside it.
    ///
    /// # Errors
    /// What is wrong and what to do.
    pub(super) fn open(path: &Path, bytes: u64, max_object: u64) -> Result<(Self, bool), String> {
        let failed = |what: &str, error: io::Error| format!("cannot {what} {}: {error}", path.display());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .open(path)
            .map_err(|error| failed("open", error))?;
        let wanted = region_bytes(bytes, max_object);
        let count = |region: u64| (bytes.saturating_sub(HEADER_BYTES) / region).min(REGIONS_MAX);
        // A store of another size goes on with its regions, where they still fit.
        let known = read_header(&file).filter(|(region, _)| {
            *region >= record::bytes_for(max_object) + UNIT
                && count(*region) >= REGIONS_MIN
                && bytes / *region <= REGIONS_MAX
        });
        let (region_bytes, seed, is_new) = match known {
            Some((region, seed)) => (region, seed, false),
            None => (wanted, random()?, true),
        };
        let regions = count(region_bytes);
        if regions < REGIONS_MIN {
            return Err(format!("too small: objects of `max_object` need at least {} bytes", least(max_object)));
        }
        if is_new {
            // The old content goes first, so that the new one finds its space.
            file.set_len(0).map_err(|error| failed("empty", error))?;
        }
        let length = HEADER_BYTES + regions * region_bytes;
        file.set_len(length).map_err(|error| failed("size", error))?;
        reserve(&file, length).map_err(|error| {
            format!("cannot reserve {length} bytes for {}: {error}; lower `disk` or free space there", path.display())
        })?;
        let regions = u32::try_from(regions).unwrap_or(u32::MAX);
        let volume = Self { file, seed, region_bytes, regions, can_peek: AtomicBool::new(true) };
        if is_new {
            volume.write_header().map_err(|error| failed("write", error))?;
        }
        Ok((volume, is_new))
    }

    /// Makes every object unreachable, for good.
    pub(super) fn empty(&mut self) -> Result<(), String> {
        self.seed = random()?;
        self.write_header().map_err(|error| format!("cannot empty the disk tier: {error}"))
    }

    fn write_header(&self) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        for number in [LAYOUT, self.region_bytes, self.seed] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&checksum(LAYOUT, &bytes).to_le_bytes());
        self.file.write_all_at(&bytes, 0)?;
        self.file.sync_data()
    }

    /// Where a region begins in the file.
    pub(super) fn start(&self, region: u32) -> u64 {
        HEADER_BYTES + u64::from(region) * self.region_bytes
    }

    /// The region of a place in the file.
    pub(super) fn region_of(&self, at: u64) -> u32 {
        u32::try_from(at.saturating_sub(HEADER_BYTES) / self.region_bytes).unwrap_or(u32::MAX)
    }

    pub(super) fn region(&self, region: u32) -> io::Result<Option<RegionHeader>> {
        let mut bytes = [0; 40];
        self.file.read_exact_at(&mut bytes, self.start(region))?;
        let (body, sum) = bytes.split_at(32);
        let word = |at: usize| body.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes);
        let is_whole = body.starts_with(REGION_MAGIC) && *sum == checksum(self.seed, body).to_le_bytes();
        let ring = match word(16) {
            Some(0) => Ring::Young,
            _ => Ring::Kept,
        };
        Ok(word(8)
            .filter(|_| is_whole && word(24) == Some(u64::from(region)))
            .map(|epoch| RegionHeader { epoch, ring }))
    }

    pub(super) fn begin_region(&self, region: u32, header: RegionHeader) -> io::Result<()> {
        let mut bytes = REGION_MAGIC.to_vec();
        for number in [header.epoch, u64::from(header.ring == Ring::Kept), u64::from(region)] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&checksum(self.seed, &bytes).to_le_bytes());
        self.file.write_all_at(&bytes, self.start(region))
    }

    /// Reads all of `buffer`, waiting for the disk. Never on a runtime's worker.
    pub(super) fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    /// Reads what the kernel has in memory, into one buffer after the other. `None`: it would have to wait.
    pub(super) fn peek(&self, at: u64, buffers: &mut [IoSliceMut<'_>]) -> Option<usize> {
        if !self.can_peek.load(Ordering::Relaxed) {
            return None;
        }
        match preadv2(&self.file, buffers, at, ReadWriteFlags::NOWAIT) {
            Ok(read) => Some(read),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.can_peek.store(false, Ordering::Relaxed);
                None
            }
            Err(_) => None,
        }
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// As where the kernel has nothing in memory.
    #[cfg(test)]
    pub(super) fn stop_peeking(&self) {
        self.can_peek.store(false, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

/// Region size and seed, where the header is whole.
fn read_header(file: &File) -> Option<(u64, u64)> {
    let mut bytes = [0; 40];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let (body, sum) = bytes.split_at(32);
    let word = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
    let is_ours = body.starts_with(MAGIC) && word(8)? == LAYOUT && *sum == checksum(LAYOUT, body).to_le_bytes();
    is_ours.then_some((word(16)?, word(24)?)).filter(|(region, _)| *region >= REGION_MIN)
}

/// Gives the file real blocks.
fn reserve(file: &File, length: u64) -> io::Result<()> {
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, length) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            // Without reservation the space is taken as it is written; a write that fails then is a dropped object.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

pub(super) fn random() -> Result<u64, String> {
    getrandom::u64().map_err(|error| format!("the system gives no random numbers: {error}"))
}
