//! Hot bodies as files in memory (`memfd_create(2)`), which the kernel sends without copying them (`sendfile(2)`).
//!
//! Purpose: from some 16 KB up the copy into the socket is the largest part of what a hit costs. A file's pages go to
//! the socket as they are.
//!
//! Invariants:
//! - A file is written once, then sealed against every change, and only then sent: bytes that wait in a socket stay
//!   what they were, also when the file is let go (the kernel keeps its pages until they are sent).
//! - Files are bounded in bytes and in number, under the bound of the memory tier; what is asked for least goes first.
//! - Only an object that was hit [`HOT`] times gets one: a scan of cold tracks makes none.
//!
//! On failure: no descriptor, no memory: the body is copied as ever, and after a while it is tried again.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use rustix::fs::{MemfdFlags, SealFlags};

use super::Object;

/// Below this size a copy is cheaper than a second system call.
const SIZE_MIN: u64 = 16 * 1024;
/// Above it a client takes the body in many turns anyway.
const SIZE_MAX: u64 = 4 << 20;
/// Hits after which an object gets a file.
const HOT: u32 = 8;
/// Smaller memory tiers go without.
const TIER_MIN: u64 = 64 << 20;
/// The share of the memory tier that files may take, and the most that they take.
const SHARE: u64 = 4;
const BYTES_MAX: u64 = 512 << 20;
/// Files at most: each is a descriptor, of which connections need most.
const FILES_MAX: u64 = 4096;
/// The share of the process's descriptors that files may take.
const DESCRIPTORS_SHARE: u64 = 8;

/// Numbers objects, as the key of their files.
static OBJECTS: AtomicU64 = AtomicU64::new(1);

/// An object's number, which no other object of this process has.
pub(crate) fn number() -> u64 {
    OBJECTS.fetch_add(1, Ordering::Relaxed)
}

/// A sealed file in memory.
#[derive(Debug)]
pub(crate) struct MemFile {
    file: OwnedFd,
    length: u64,
}

impl MemFile {
    /// Writes `body` and seals it.
    fn new(body: &[u8]) -> std::io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = std::fs::File::from(rustix::fs::memfd_create("segue-object", flags)?);
        std::io::Write::write_all(&mut &file, body)?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        Ok(Self { file: file.into(), length: body.len() as u64 })
    }

    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.file
    }
}

#[derive(Clone)]
struct ByBytes {
    /// What a file weighs at least, so that their number is bounded too.
    least: u64,
}

impl Weighter<u64, Arc<MemFile>> for ByBytes {
    fn weight(&self, _number: &u64, file: &Arc<MemFile>) -> u64 {
        // Whole pages are what the kernel takes.
        file.length.next_multiple_of(4096).max(self.least)
    }
}

/// The files of one edge.
pub(crate) struct MemFiles {
    /// `None`: none are made.
    files: Option<Cache<u64, Arc<MemFile>, ByBytes>>,
    /// Bytes that they may take together.
    bytes: u64,
    failed: AtomicU64,
}

impl MemFiles {
    /// `tier`: the bytes of the memory tier, of which the files take their part.
    pub(crate) fn new(tier: u64) -> Self {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let count = (descriptors.unwrap_or(FILES_MAX) / DESCRIPTORS_SHARE).min(FILES_MAX);
        if tier < TIER_MIN || count == 0 {
            return Self { files: None, bytes: 0, failed: AtomicU64::new(0) };
        }
        let bytes = (tier / SHARE).min(BYTES_MAX);
        let files = Cache::with_weighter(usize::try_from(count).unwrap_or(0), bytes, ByBytes { least: bytes / count });
        Self { files: Some(files), bytes, failed: AtomicU64::new(0) }
    }

    /// The part of the memory tier that is theirs.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file of a body that was asked for again; made here once the object is hot.
    pub(crate) fn of(&self, object: &Object) -> Option<Arc<MemFile>> {
        let files = self.files.as_ref()?;
        if !(SIZE_MIN..=SIZE_MAX).contains(&(object.body.len() as u64)) {
            return None;
        }
        if let Some(file) = files.get(&object.number) {
            return Some(file);
        }
        // At each multiple: who lost its file, or could not get one, has to be hit as often again.
        if !(object.hits.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(HOT) {
            return None;
        }
        match MemFile::new(&object.body) {
            Ok(file) => {
                let file = Arc::new(file);
                files.insert(object.number, Arc::clone(&file));
                Some(file)
            }
            Err(error) => {
                if self.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(%error, "a hot object got no file in memory; hits are copied, which costs more");
                }
                None
            }
        }
    }

    /// How many there are, how many bytes they weigh, and how often one could not be made.
    pub(crate) fn usage(&self) -> (usize, u64, u64) {
        let (files, weight) = self.files.as_ref().map_or((0, 0), |files| (files.len(), files.weight()));
        (files, weight, self.failed.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Seek};

    use super::*;

    #[test]
    fn a_file_holds_the_body_and_nobody_can_change_it() {
        let body: Vec<u8> = (0..50_000_u32).map(|at| (at % 251) as u8).collect();
        let file = MemFile::new(&body).unwrap();
        let mut reader = std::fs::File::from(file.descriptor().try_clone().unwrap());
        assert!(std::io::Write::write_all(&mut reader, b"x").is_err(), "sealed against writing");
        assert!(reader.set_len(0).is_err(), "sealed against shrinking");
        reader.rewind().unwrap();
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(read, body);
    }

    #[test]
    fn hot_objects_get_files_and_their_bytes_stay_bounded() {
        let files = MemFiles::new(TIER_MIN);
        let objects: Vec<_> = (0..400).map(|_| Object::of_bytes(vec![7; 100_000].into())).collect();
        assert!((1..HOT).all(|_| files.of(&objects[0]).is_none()), "not yet hot");
        assert!(files.of(&objects[0]).is_some());
        for object in &objects {
            for _ in 0..HOT {
                files.of(object);
            }
        }
        let (count, bytes, failed) = files.usage();
        assert!(count > 100 && bytes <= files.bytes() && failed == 0, "{count} files, {bytes} bytes, {failed} failed");
        assert!(files.of(&Object::of_bytes(vec![7; 1000].into())).is_none(), "small bodies are copied");
        assert!(MemFiles::new(TIER_MIN - 1).of(&objects[0]).is_none(), "small tiers go without");
    }
}
