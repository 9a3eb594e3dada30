//! The decoded samples of a job, in its folder: interleaved 32-bit floats, written once, read by every encoder.
//!
//! Invariants: nothing but finite samples; never more than the longest source allowed; a write that would leave the
//! disk with less than it must keep free is refused.
//!
//! On failure: the worker's, not the file's: retryable.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::reject::{Failure, disk};

const NAME: &str = "samples.f32";
/// The disk is asked how full it is once for so many bytes.
const LOOK_EVERY: u64 = 32 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Spool {
    path: PathBuf,
    file: BufWriter<File>,
    keep_free: u64,
    unlooked: u64,
}

impl Spool {
    /// An empty one in `folder`.
    pub(crate) fn create(folder: &Path, keep_free: u64) -> Result<Self, Failure> {
        let path = folder.join(NAME);
        room(folder, keep_free)?;
        let file = File::create(&path).map_err(|error| disk("make the spool", &error))?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 20, file), keep_free, unlooked: 0 })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.unlooked += bytes.len() as u64;
        if self.unlooked >= LOOK_EVERY {
            self.unlooked = 0;
            room(&self.path, self.keep_free)?;
        }
        self.file.write_all(bytes).map_err(|error| disk("write the spool", &error))
    }

    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        self.file.flush().map_err(|error| disk("write the spool", &error))
    }
}

/// Refuses where the disk under `path` has less than `keep_free` bytes left.
pub(crate) fn room(path: &Path, keep_free: u64) -> Result<(), Failure> {
    let stat = rustix::fs::statvfs(path).map_err(|error| disk("ask how full the disk is", &error.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= keep_free {
        return Ok(());
    }
    let full = std::io::Error::new(std::io::ErrorKind::StorageFull, format!("{free} bytes are free of {keep_free}"));
    Err(disk("keep the disk from filling up", &full))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reject::Reason;

    #[test]
    fn a_disk_that_would_fill_up_is_no_fault_of_the_file() {
        let dir = tempfile::tempdir().expect("tempdir");
        let failure = Spool::create(dir.path(), u64::MAX).expect_err("nobody has so much");
        assert_eq!(failure.reason, Reason::WorkerFailed);
        assert!(failure.reason.is_retryable());
        let mut spool = Spool::create(dir.path(), 0).expect("room");
        spool.keep_free = u64::MAX;
        let written = (0..100).take_while(|_| spool.write(&[0; 1 << 20]).is_ok()).count();
        assert_eq!(written, 31, "it looks while it writes");
    }
}
