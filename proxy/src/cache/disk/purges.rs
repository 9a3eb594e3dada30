//! Purges that were asked for on this edge, kept beside what they purge.
//!
//! A purge raises a track's generation, which is a part of every key; without it a restart would find the older bytes
//! under the older generation again.
//!
//! Invariants: a purge is on the disk (`fdatasync`) before it is answered. The log belongs to one store: it names the
//! store's seed. It is written anew, by a rename, when it reaches half of its bytes.
//!
//! On failure: a log that is missing, of another store or not whole says nothing of what was purged: [`Unknown`], and
//! the store must start empty.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::record::checksum;
use super::volume::PRIVATE;

const MAGIC: &[u8; 8] = b"SEGUEPRG";
/// Length, generation and checksum beside a track's name.
const RECORD_BYTES: usize = 18;
/// A track is one path segment of at most this.
const TRACK_MAX: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Purges {
    path: PathBuf,
    file: File,
    seed: u64,
    bytes: u64,
    bytes_max: u64,
    known: BTreeMap<String, u64>,
}

/// What was purged cannot be known any more.
#[derive(Debug)]
pub(super) struct Unknown;

impl Purges {
    /// Reads the log of the store with `seed`. One that does not fit into `bytes_max` is unknown too: to drop a part of it would
    /// bring bytes back.
    pub(super) fn read(dir: &Path, seed: u64, bytes_max: u64) -> Result<BTreeMap<String, u64>, Unknown> {
        let bytes = fs::read(dir.join(NAME)).map_err(|_| Unknown)?;
        let mut rest =
            bytes.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(&seed.to_le_bytes())).ok_or(Unknown)?;
        let mut known = BTreeMap::new();
        while !rest.is_empty() {
            let (track, generation, tail) = record(rest, seed).ok_or(Unknown)?;
            let newest: &mut u64 = known.entry(track).or_default();
            *newest = (*newest).max(generation);
            rest = tail;
        }
        if bytes_of(&known) > bytes_max / 2 { Err(Unknown) } else { Ok(known) }
    }

    /// Writes the log anew, of `bytes_max` at most, the copy while it is written included.
    pub(super) fn begin(dir: &Path, seed: u64, bytes_max: u64, known: BTreeMap<String, u64>) -> io::Result<Self> {
        let path = dir.join(NAME);
        let (file, bytes) = write(&path, seed, &known)?;
        Ok(Self { path, file, seed, bytes, bytes_max, known })
    }

    /// Keeps a purge. When this returns, no restart forgets it.
    ///
    /// # Errors
    /// The disk's, and one of kind `QuotaExceeded` where there is no room for more tracks.
    pub(super) fn keep(&mut self, track: &str, generation: u64) -> io::Result<()> {
        let newest = self.known.entry(track.to_owned()).or_default();
        *newest = (*newest).max(generation);
        let record = encode(track, generation, self.seed);
        if self.bytes + record.len() as u64 > self.bytes_max / 2 {
            if bytes_of(&self.known) > self.bytes_max / 2 {
                self.known.remove(track);
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
            (self.file, self.bytes) = write(&self.path, self.seed, &self.known)?;
            return Ok(());
        }
        if let Err(error) = self.file.write_all(&record).and_then(|()| self.file.sync_data()) {
            // Half a record may stand there: the whole log is written anew, or stays unreadable and empties the tier.
            (self.file, self.bytes) = write(&self.path, self.seed, &self.known).map_err(|_| error)?;
            return Ok(());
        }
        self.bytes += record.len() as u64;
        Ok(())
    }
}

/// The log's file.
const NAME: &str = "purges";

fn write(path: &Path, seed: u64, known: &BTreeMap<String, u64>) -> io::Result<(File, u64)> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&seed.to_le_bytes());
    for (track, generation) in known {
        bytes.extend_from_slice(&encode(track, *generation, seed));
    }
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).open(&beside)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok((file, bytes.len() as u64))
}

/// What a log of these takes.
fn bytes_of(known: &BTreeMap<String, u64>) -> u64 {
    let records: usize = known.keys().map(|track| track.len() + RECORD_BYTES).sum();
    (2 * MAGIC.len() + records) as u64
}

fn encode(track: &str, generation: u64, seed: u64) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD_BYTES + track.len());
    record.extend_from_slice(&u16::try_from(track.len().min(TRACK_MAX)).unwrap_or(0).to_le_bytes());
    record.extend_from_slice(&generation.to_le_bytes());
    record.extend_from_slice(track.as_bytes());
    let sum = checksum(seed, &record);
    record.extend_from_slice(&sum.to_le_bytes());
    record
}

fn record(bytes: &[u8], seed: u64) -> Option<(String, u64, &[u8])> {
    let length = usize::from(u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?));
    let generation = u64::from_le_bytes(bytes.get(2..10)?.try_into().ok()?);
    let covered = bytes.get(..10 + length)?;
    let sum = bytes.get(10 + length..18 + length)?;
    if *sum != checksum(seed, covered).to_le_bytes() {
        return None;
    }
    let track = std::str::from_utf8(covered.get(10..)?).ok()?;
    Some((track.to_owned(), generation, bytes.get(18 + length..)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn purges_are_read_again_and_the_newest_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut purges = Purges::begin(dir.path(), 7, 4096, BTreeMap::new()).unwrap();
        for (track, generation) in [("a", 5), ("ü", 6), ("a", 9), ("a", 8)] {
            purges.keep(track, generation).unwrap();
        }
        let known = Purges::read(dir.path(), 7, 4096).unwrap();
        assert_eq!(known, BTreeMap::from([("a".to_owned(), 9), ("ü".to_owned(), 6)]));
        assert!(Purges::read(dir.path(), 8, 4096).is_err(), "another store's");
        assert!(Purges::read(dir.path(), 7, 32).is_err(), "more than fits now");
    }

    #[test]
    fn a_log_that_is_cut_or_changed_is_never_read_as_fewer_purges() {
        let dir = tempfile::tempdir().unwrap();
        let mut purges = Purges::begin(dir.path(), 7, 4096, BTreeMap::new()).unwrap();
        purges.keep("track", 5).unwrap();
        let whole = fs::read(dir.path().join(NAME)).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            fs::write(dir.path().join(NAME), &bad).unwrap();
            assert!(Purges::read(dir.path(), 7, 4096).is_err(), "byte {at}");
            fs::write(dir.path().join(NAME), &whole[..at]).unwrap();
            assert!(at == 16 || Purges::read(dir.path(), 7, 4096).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_log_is_written_anew_before_it_outgrows_its_bytes_and_refuses_what_does_not_fit() {
        let dir = tempfile::tempdir().unwrap();
        let mut purges = Purges::begin(dir.path(), 7, 2048, BTreeMap::new()).unwrap();
        for generation in 1..=300 {
            purges.keep("again", generation).unwrap();
            assert!(fs::metadata(dir.path().join(NAME)).unwrap().len() <= 1024);
        }
        let refused = (0..100).find(|n| purges.keep(&format!("track-{n:03}"), 1).is_err()).unwrap();
        assert!(refused > 20);
        let known = Purges::read(dir.path(), 7, 4096).unwrap();
        assert_eq!((known["again"], known.len()), (300, refused + 1));
    }
}
