//! A file as shared memory: the one place with `unsafe`.
//!
//! The file is seen as a slice of `AtomicU64` and as nothing else, so two threads that disagree about who
//! may write where read stale words at worst: that is a bug, but never undefined behaviour. Bytes are
//! little-endian within their words.
//!
//! On failure: blocks are reserved before the mapping is made, so that a disk that fills up later cannot
//! turn a store into SIGBUS. Where the file system cannot reserve (`EOPNOTSUPP`), zeros are written instead.
//! A copy-on-write file system without reservation (ZFS) keeps no such promise: put the directory elsewhere.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// A mapped file of a fixed length.
#[derive(Debug)]
pub(crate) struct Mapped {
    map: MmapRaw,
}

impl Mapped {
    /// Reserves `bytes` (a multiple of eight) of `file` on the disk and maps them. What the file holds stays.
    pub(crate) fn reserve(file: &File, bytes: u64) -> io::Result<Self> {
        let length = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        if length == 0 || !length.is_multiple_of(8) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        loop {
            match fallocate(file, FallocateFlags::empty(), 0, bytes) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    write_zeros(file, bytes)?;
                    break;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        let map = MmapOptions::new().len(length).map_raw(file)?;
        Ok(Self { map })
    }

    /// The whole file, word by word.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping starts at a page, so it is aligned for u64, and is `len` bytes long, which is a
        // multiple of eight (checked in `reserve`). It is readable and writable and lives until `self.map` is
        // dropped, which the borrow of `self` outlives. The file has blocks for all of it (`reserve`) and is
        // never cut, so no access faults. Every bit pattern is a u64. All access in this process goes
        // through this slice, hence is atomic and of one size; no other process has the file mapped, since
        // the directory is held under an exclusive lock.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), self.map.len() / 8) }
    }

    /// Takes the page faults of the whole mapping now, on this thread, so that a request does not.
    /// Kernels before 5.14 cannot: the faults then come one by one, as they would have.
    pub(crate) fn populate(&self) {
        if let Err(error) = self.map.advise(Advice::PopulateWrite) {
            tracing::trace!(%error, "event log pages cannot be populated ahead");
        }
    }
}

/// Gives a file real blocks where it has none yet, keeping what it holds.
fn write_zeros(file: &File, bytes: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let mut at = file.metadata()?.len();
    while at < bytes {
        let step = (bytes - at).min(ZEROS.len() as u64) as usize;
        file.write_all_at(&ZEROS[..step], at)?;
        at += step as u64;
    }
    Ok(())
}

/// How many words `bytes` bytes take.
pub(crate) const fn words_for(bytes: usize) -> usize {
    bytes.div_ceil(8)
}

/// Copies `bytes` into `words`, the last word filled up with zeros. The caller publishes them with a later
/// `Release` store.
pub(crate) fn copy_in(words: &[AtomicU64], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<8>();
    for (word, chunk) in words.iter().zip(whole) {
        word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
    }
    if !rest.is_empty()
        && let Some(word) = words.get(whole.len())
    {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        word.store(u64::from_le_bytes(last), Ordering::Relaxed);
    }
}

/// Appends the first `length` bytes of `words` to `out`. The caller saw them published with an `Acquire` load.
pub(crate) fn copy_out(words: &[AtomicU64], length: usize, out: &mut Vec<u8>) {
    let from = out.len();
    out.resize(from + words_for(length) * 8, 0);
    let (chunks, _) = out[from..].as_chunks_mut::<8>();
    for (chunk, word) in chunks.iter_mut().zip(words) {
        *chunk = word.load(Ordering::Relaxed).to_le_bytes();
    }
    out.truncate(from + length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_survive_in_the_file() {
        let file = tempfile::tempfile().expect("temporary file");
        let mapped = Mapped::reserve(&file, 4096).expect("mapped");
        for length in [1, 7, 8, 9, 63, 64, 65] {
            let bytes: Vec<u8> = (0..length).map(|n| n as u8 ^ 0x5a).collect();
            copy_in(&mapped.words()[1..], &bytes);
            let mut out = b"kept".to_vec();
            copy_out(&mapped.words()[1..], bytes.len(), &mut out);
            assert_eq!(&out[..4], b"kept");
            assert_eq!(&out[4..], bytes);
            let mut on_file = vec![0; bytes.len()];
            file.read_exact_at(&mut on_file, 8).expect("read");
            assert_eq!(on_file, bytes, "the file holds the bytes in order");
        }
    }

    #[test]
    fn reserving_gives_blocks_and_keeps_content() {
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::tempfile().expect("temporary file");
        file.write_all_at(b"here before", 0).expect("write");
        let mapped = Mapped::reserve(&file, 1 << 20).expect("mapped");
        let mut out = Vec::new();
        copy_out(mapped.words(), 11, &mut out);
        assert_eq!(out, b"here before");
        assert!(file.metadata().expect("metadata").blocks() * 512 >= 1 << 20, "no holes");
    }

    #[test]
    fn zeros_written_instead_of_reserved_blocks_keep_content() {
        let file = tempfile::tempfile().expect("temporary file");
        file.write_all_at(b"here before", 0).expect("write");
        write_zeros(&file, 100_000).expect("zeros");
        assert_eq!(file.metadata().expect("metadata").len(), 100_000);
        let mut start = [0; 11];
        file.read_exact_at(&mut start, 0).expect("read");
        assert_eq!(&start, b"here before");
    }

    #[test]
    fn odd_lengths_are_refused() {
        let file = tempfile::tempfile().expect("temporary file");
        assert!(Mapped::reserve(&file, 0).is_err());
        assert!(Mapped::reserve(&file, 4097).is_err());
    }
}
