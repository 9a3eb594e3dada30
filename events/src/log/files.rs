//! The files of one log: which there are, which may go, and up to where they are acknowledged.
//!
//! The file `state` holds the acknowledged position in a mapped word, so that saying so is a store.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{RwLockReadGuard, RwLockWriteGuard};

use super::{Arc, LogBounds, LogError, PoisonError, RwLock, Segment, VecDeque, WhenFull};
use crate::mapped::Mapped;
use crate::segment::Found;

const MAGIC: u64 = u64::from_le_bytes(*b"SEGUEST1");
const STATE_BYTES: u64 = 4096;

#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    name: &'static str,
    bounds: LogBounds,
    /// Word 0 `MAGIC`, word 1 the acknowledged position.
    state: Mapped,
    /// Oldest first, never empty. Read by consumers for the time it takes to clone an `Arc`.
    segments: RwLock<VecDeque<Arc<Segment>>>,
    /// For temporary names, since the keeper and a request may both be making a file.
    made: AtomicU64,
    overwritten: AtomicU64,
    damaged: AtomicU64,
}

impl Files {
    /// Opens what is there. Gives the file to write to and the position to write at.
    pub(super) fn open(
        dir: &Path,
        bounds: LogBounds,
        name: &'static str,
    ) -> Result<(Self, Arc<Segment>, u64), LogError> {
        fs::create_dir_all(dir).map_err(LogError::io("create the directory", dir))?;
        let state = open_state(&dir.join("state"))?;
        let mut segments = VecDeque::new();
        for (base, path) in list(dir)? {
            match Segment::open(path.clone(), base)? {
                Found::Segment(segment) => segments.push_back(Arc::new(segment)),
                Found::Hollow => {
                    tracing::warn!(path = %path.display(), "an event log file is empty, as after a loss of power; it is removed");
                    fs::remove_file(&path).map_err(LogError::io("remove", &path))?;
                }
            }
        }
        for (earlier, later) in segments.iter().zip(segments.iter().skip(1)) {
            if later.base() < earlier.end() {
                let found = format!("it overlaps {}", earlier.path().display());
                return Err(LogError::Format { path: later.path().to_owned(), found });
            }
        }
        let files = Self {
            dir: dir.to_owned(),
            name,
            bounds,
            state,
            segments: RwLock::new(segments),
            made: AtomicU64::new(0),
            overwritten: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
        };
        let (tail, end) = files.resume()?;
        Ok((files, tail, end))
    }

    /// Where to go on writing: in the last file, or in a new one.
    fn resume(&self) -> Result<(Arc<Segment>, u64), LogError> {
        let acknowledged = self.acknowledged();
        let last = self.read().back().cloned();
        let mut base = acknowledged.next_multiple_of(8);
        if let Some(tail) = last {
            let (end, broken) = tail.recover();
            if broken {
                self.count_damaged();
                tracing::warn!(
                    path = %tail.path().display(), position = end,
                    "the event log ends in damaged records, as after a loss of power; they are dropped"
                );
            }
            let end = if tail.is_sealed(end) { tail.end() } else { end };
            if acknowledged <= end {
                return Ok((tail, end));
            }
            // Records that somebody has were lost with the power: their positions must not be used again.
            base = base.max(tail.end());
        }
        let mut segment = self.create(base)?;
        segment.adopt(&self.dir)?;
        let segment = Arc::new(segment);
        self.push(Arc::clone(&segment));
        Ok((segment, base))
    }

    fn read(&self) -> RwLockReadGuard<'_, VecDeque<Arc<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, VecDeque<Arc<Segment>>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn start(&self) -> u64 {
        self.read().front().map_or(0, |segment| segment.base())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.read().iter().map(|segment| segment.bytes()).sum()
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.state.words()[1].load(Ordering::Acquire)
    }

    pub(super) fn overwritten(&self) -> u64 {
        self.overwritten.load(Ordering::Relaxed)
    }

    pub(super) fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    pub(super) fn count_damaged(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
    }

    /// The file that holds `position`, or the first one after it.
    pub(super) fn find(&self, position: u64) -> Option<Arc<Segment>> {
        let segments = self.read();
        let index = segments.partition_point(|segment| segment.end() <= position);
        segments.get(index).cloned()
    }

    pub(super) fn push(&self, segment: Arc<Segment>) {
        self.write().push_back(segment);
    }

    /// Makes a file under a temporary name.
    pub(super) fn create(&self, base: u64) -> Result<Segment, LogError> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Segment::create(self.dir.join(format!("{base:020}.{number}.new")), base, self.bounds.segment)
    }

    /// Takes a file off the disk. Who still reads it keeps its bytes until done.
    pub(super) fn discard(&self, segment: &Segment) {
        if let Err(error) = fs::remove_file(segment.path()) {
            tracing::warn!(path = %segment.path().display(), %error, "an old event log file cannot be removed");
        }
    }

    pub(super) fn acknowledge(&self, upto: u64, end: u64) {
        let before = self.state.words()[1].fetch_max(upto, Ordering::AcqRel);
        if upto > before {
            self.retire(|segments| {
                let oldest = segments.front()?;
                (oldest.end() <= upto && end.saturating_sub(oldest.end()) >= self.bounds.retain).then_some(())
            });
        }
    }

    /// Removes files from the front while `may_go` says so. The last one stays: it is written to.
    fn retire(&self, may_go: impl Fn(&VecDeque<Arc<Segment>>) -> Option<()>) {
        loop {
            let gone = {
                let mut segments = self.write();
                if segments.len() < 2 || may_go(&segments).is_none() {
                    return;
                }
                segments.pop_front()
            };
            if let Some(gone) = gone {
                self.discard(&gone);
            }
        }
    }

    /// Lets files go until one more fits the bound: those acknowledged, whatever the retention, and where the
    /// log is a ring also others. Says whether one fits now.
    pub(super) fn make_room(&self, end: u64) -> bool {
        let bounds = self.bounds;
        let fits = |segments: &VecDeque<Arc<Segment>>| {
            segments.iter().map(|segment| segment.bytes()).sum::<u64>() + bounds.segment <= bounds.bytes
        };
        let acknowledged = self.acknowledged().min(end);
        self.retire(|segments| {
            let oldest = segments.front()?;
            if fits(segments) {
                return None;
            }
            if oldest.end() > acknowledged {
                if bounds.full == WhenFull::DropNewest {
                    return None;
                }
                self.overwritten.fetch_add(oldest.records(), Ordering::Relaxed);
            }
            Some(())
        });
        fits(&self.read())
    }
}

fn open_state(path: &Path) -> Result<Mapped, LogError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(LogError::io("open", path))?;
    let state = Mapped::reserve(&file, STATE_BYTES).map_err(LogError::io("reserve space for", path))?;
    match state.words()[0].load(Ordering::Acquire) {
        MAGIC => {}
        0 => state.words()[0].store(MAGIC, Ordering::Release),
        other => return Err(LogError::Format { path: path.to_owned(), found: format!("magic {other:016x}") }),
    }
    Ok(state)
}

/// The files of a directory by base position. Unfinished ones of an earlier process are removed.
fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(LogError::io("list", dir))? {
        let path = entry.map_err(LogError::io("list", dir))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.ends_with(".new") {
            fs::remove_file(&path).map_err(LogError::io("remove", &path))?;
        } else if let Some(base) = name.strip_suffix(".log").and_then(|base| base.parse().ok()) {
            found.push((base, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}
