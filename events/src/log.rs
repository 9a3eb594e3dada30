//! A bounded log in files that are mapped: appended to by request threads, read by consumers of this process.
//!
//! Invariants:
//! - An append is a copy under a lock that is held for nothing but that copy; a new file is made ready ahead
//!   of time by [`Log::prepare`], on the event log's own thread.
//! - `end` is published after the record: a reader, which never goes past `end`, never sees half of one, and
//!   takes no lock of the writer's.
//! - Lock order: `tail`, then `segments`. No system call under `segments`.
//! - Files go from the front only: those that are acknowledged and past the retention; when space is needed,
//!   those that are acknowledged; and only with [`WhenFull::DropOldest`] those that are not.
//!
//! On failure: with no space, by the bounds or by the disk, the newest record is dropped and counted. A
//! damaged record ends its file for readers: they go on with the next one, and [`Batch::skipped`] says so.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::LogError;
use crate::segment::{Frame, Segment, frame_bytes};

mod files;

use files::Files;

/// How long a waiting reader lets records gather once there is one, so that a busy edge wakes it at most two
/// hundred times a second, whatever the rate of the facts.
const GATHER: Duration = Duration::from_millis(5);
/// How long to let a disk rest that could not give a file: a request must not pay for a failing system call.
const RETRY: Duration = Duration::from_secs(1);

/// A place in a log: bytes since the directory was made. Only compared and handed back, never computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What to do when the log is at its bound and nothing in it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Keep what is there: for records that a consumer will come back for.
    DropNewest,
    /// Let the oldest file go: for records of which the latest are worth the most.
    DropOldest,
}

/// How much a log may hold.
#[derive(Clone, Copy, Debug)]
pub struct LogBounds {
    /// Most bytes on the disk, all files together; at least two segments.
    pub bytes: u64,
    /// Acknowledged bytes to keep for readers that tail, while nothing else needs the space.
    pub retain: u64,
    /// Size of one file, a multiple of 4096; also the unit in which space is given back.
    pub segment: u64,
    /// What happens at the bound.
    pub full: WhenFull,
}

impl LogBounds {
    fn validate(&self, what: &'static str) -> Result<(), LogError> {
        let problem = if self.segment < 16 * 1024 || !self.segment.is_multiple_of(4096) {
            format!("a segment of {} bytes must be a multiple of 4096 and at least 16384", self.segment)
        } else if self.segment > 1 << 31 {
            format!("a segment of {} bytes must be at most 2 GiB", self.segment)
        } else if self.bytes < self.segment * 2 {
            format!("{} bytes must be at least two segments of {}", self.bytes, self.segment)
        } else {
            return Ok(());
        };
        Err(LogError::Options { what, problem })
    }
}

/// Records read from a log.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Each record with the position after it, which is what to acknowledge or commit once it is done.
    pub records: Vec<(Position, String)>,
    /// Where to read on.
    pub next: Position,
    /// Bytes of log that were passed over, because they had gone or were damaged. Padding does not count.
    pub skipped: u64,
}

/// One of the two logs of an [`EventLog`](crate::EventLog).
#[derive(Debug)]
pub struct Log {
    files: Files,
    end: AtomicU64,
    tail: Mutex<Tail>,
    changed: Notify,
    /// Somebody waits in [`Log::changed`]: spares every append the cost of waking nobody.
    waiting: AtomicBool,
    /// The thread that runs [`Log::prepare`].
    keeper: OnceLock<Thread>,
    log_full: AtomicU64,
    disk: AtomicU64,
}

#[derive(Debug)]
struct Tail {
    segment: Arc<Segment>,
    /// The next file, ready but for its name.
    spare: Option<Segment>,
    /// Whether the keeper was asked for one.
    asked: bool,
    /// Not before this moment is a file asked of the disk again.
    rest_until: Option<Instant>,
    /// Whether the last append was dropped, so that only the turn is logged.
    dropping: bool,
}

/// Why a record was dropped.
enum Dropped {
    Full,
    Disk,
}

impl Log {
    pub(crate) fn open(dir: &Path, bounds: LogBounds, name: &'static str) -> Result<Self, LogError> {
        bounds.validate(name)?;
        let (files, tail, end) = Files::open(dir, bounds, name)?;
        Ok(Self {
            files,
            end: AtomicU64::new(end),
            tail: Mutex::new(Tail { segment: tail, spare: None, asked: false, rest_until: None, dropping: false }),
            changed: Notify::new(),
            waiting: AtomicBool::new(false),
            keeper: OnceLock::new(),
            log_full: AtomicU64::new(0),
            disk: AtomicU64::new(0),
        })
    }

    pub(crate) fn kept_by(&self, keeper: Thread) {
        // Set once, by the one who starts the thread.
        let _first = self.keeper.set(keeper);
    }

    /// Where the oldest record stands that is still here.
    #[must_use]
    pub fn start(&self) -> Position {
        Position(self.files.start())
    }

    /// The position after the newest record.
    #[must_use]
    pub fn end(&self) -> Position {
        Position(self.end.load(Ordering::Acquire))
    }

    /// Up to where the records are acknowledged, also by an earlier process.
    #[must_use]
    pub fn acknowledged(&self) -> Position {
        Position(self.files.acknowledged())
    }

    /// Bytes on the disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        // The tail first: a spare counts only with the files that made room for it gone.
        let tail = self.tail();
        self.files.bytes() + tail.spare.as_ref().map_or(0, Segment::bytes)
    }

    pub(crate) fn dropped_log_full(&self) -> u64 {
        self.log_full.load(Ordering::Relaxed)
    }

    pub(crate) fn dropped_disk(&self) -> u64 {
        self.disk.load(Ordering::Relaxed)
    }

    pub(crate) fn overwritten(&self) -> u64 {
        self.files.overwritten()
    }

    pub(crate) fn damaged(&self) -> u64 {
        self.files.damaged()
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        // Nothing between lock and unlock panics; a poisoned lock would still guard a whole tail.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record whose CRC-32 is `crc`. `before` learns the position before the record is there for
    /// readers and for a recovery. `None`: dropped and counted.
    pub(crate) fn append(&self, payload: &[u8], crc: u32, before: impl FnOnce(u64)) -> Option<Position> {
        let need = frame_bytes(payload.len());
        let mut tail = self.tail();
        let mut at = self.end.load(Ordering::Relaxed);
        if tail.segment.end() - at < need {
            match self.roll(&mut tail, at) {
                Ok(base) => at = base,
                Err(dropped) => {
                    match dropped {
                        Dropped::Full => &self.log_full,
                        Dropped::Disk => &self.disk,
                    }
                    .fetch_add(1, Ordering::Relaxed);
                    return None;
                }
            }
        }
        before(at);
        tail.segment.put(at, payload, crc);
        let end = at + need;
        self.end.store(end, Ordering::Release);
        let half = tail.segment.end() - end < tail.segment.bytes() / 2;
        let ask = half && !tail.asked;
        tail.asked |= ask;
        drop(tail);
        if ask && let Some(keeper) = self.keeper.get() {
            keeper.unpark();
        }
        // Pairs with the fence in `changed`: either this sees the reader waiting, or the reader sees the end.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) && self.waiting.swap(false, Ordering::Relaxed) {
            self.changed.notify_waiters();
        }
        Some(Position(end))
    }

    /// Goes on to a new file. Gives its base.
    fn roll(&self, tail: &mut Tail, at: u64) -> Result<u64, Dropped> {
        let mut segment = match tail.spare.take() {
            Some(spare) => spare,
            None => {
                let made = self.make(tail);
                if let Err(dropped) = made {
                    if !tail.dropping {
                        tail.dropping = true;
                        let reason = match dropped {
                            Dropped::Full => "log-full",
                            Dropped::Disk => "disk",
                        };
                        tracing::warn!(log = self.files.name(), reason, "the event log drops its newest records");
                    }
                    return Err(dropped);
                }
                made?
            }
        };
        if let Err(error) = segment.adopt(self.files.dir()) {
            tracing::warn!(log = self.files.name(), %error, "the event log cannot go on to its next file");
            tail.rest_until = Some(Instant::now() + RETRY);
            return Err(Dropped::Disk);
        }
        if tail.dropping {
            tail.dropping = false;
            tracing::info!(log = self.files.name(), "the event log takes records again");
        }
        let base = segment.base();
        tail.segment.seal(at);
        tail.segment = Arc::new(segment);
        tail.asked = false;
        self.files.push(Arc::clone(&tail.segment));
        Ok(base)
    }

    /// Makes a file here and now, since the keeper had none ready.
    fn make(&self, tail: &mut Tail) -> Result<Segment, Dropped> {
        if !self.files.make_room(self.end.load(Ordering::Relaxed)) {
            return Err(Dropped::Full);
        }
        if tail.rest_until.is_some_and(|until| Instant::now() < until) {
            return Err(Dropped::Disk);
        }
        match self.files.create(tail.segment.end()) {
            Ok(segment) => {
                tail.rest_until = None;
                Ok(segment)
            }
            Err(error) => {
                tracing::warn!(log = self.files.name(), %error, "the event log cannot make its next file");
                tail.rest_until = Some(Instant::now() + RETRY);
                Err(Dropped::Disk)
            }
        }
    }

    /// Takes the page faults of the file that is written to.
    pub(crate) fn populate(&self) {
        let segment = Arc::clone(&self.tail().segment);
        segment.populate();
    }

    /// Makes the next file ready when the current one is half full, so that no request has to.
    pub(crate) fn prepare(&self) {
        let base = {
            let mut tail = self.tail();
            if tail.spare.is_some() || !tail.asked || tail.rest_until.is_some_and(|until| Instant::now() < until) {
                return;
            }
            tail.rest_until = None;
            tail.segment.end()
        };
        if !self.files.make_room(self.end.load(Ordering::Relaxed)) {
            return;
        }
        match self.files.create(base) {
            Ok(spare) => {
                spare.populate();
                let mut tail = self.tail();
                if tail.spare.is_none() && tail.segment.end() == base {
                    tail.spare = Some(spare);
                } else {
                    drop(tail);
                    self.files.discard(&spare);
                }
            }
            Err(error) => {
                tracing::warn!(log = self.files.name(), %error, "the event log cannot make its next file");
                self.tail().rest_until = Some(Instant::now() + RETRY);
            }
        }
    }

    /// Reads up to `max` records (of at most [`RECORD`](crate::bounds::RECORD) bytes) from `from` on. A position whose records have gone reads from the oldest that
    /// are left, and says so in [`Batch::skipped`].
    ///
    /// # Errors
    /// [`LogError::Ahead`] for a position past the end: it is an offset into another log than this.
    pub fn read(&self, from: Position, max: usize) -> Result<Batch, LogError> {
        let end = self.end.load(Ordering::Acquire);
        if from.0 > end {
            return Err(LogError::Ahead { position: from.0, start: self.files.start(), end });
        }
        let mut batch = Batch { records: Vec::new(), next: from, skipped: 0 };
        let mut at = from.0;
        let mut buffer = Vec::new();
        while at < end && batch.records.len() < max {
            let Some(segment) = self.files.find(at) else { break };
            if segment.base() > at {
                batch.skipped += segment.base() - at;
                at = segment.base();
            }
            let stop = end.min(segment.end());
            while at < stop && batch.records.len() < max {
                match segment.frame(at, &mut buffer) {
                    Frame::Record { next } => match String::from_utf8(std::mem::take(&mut buffer)) {
                        Ok(text) => {
                            at = next;
                            batch.records.push((Position(next), text));
                        }
                        Err(_) => at = self.pass_over(&segment, at, stop, &mut batch),
                    },
                    Frame::End => at = stop,
                    Frame::Broken => at = self.pass_over(&segment, at, stop, &mut batch),
                }
            }
        }
        batch.next = Position(at);
        Ok(batch)
    }

    /// `at` is not where a frame begins: finds the next one that does, from the front of the file, or gives the
    /// rest of the file up.
    fn pass_over(&self, segment: &Segment, at: u64, stop: u64, batch: &mut Batch) -> u64 {
        let mut buffer = Vec::new();
        let mut position = segment.base();
        while position <= at {
            match segment.frame(position, &mut buffer) {
                Frame::Record { next } => position = next,
                Frame::End => return stop,
                Frame::Broken => {
                    self.files.count_damaged();
                    batch.skipped += stop - at;
                    return stop;
                }
            }
        }
        let position = position.min(stop);
        batch.skipped += position - at;
        position
    }

    /// Whether the record at `position` begins with `begun`.
    pub(crate) fn holds(&self, position: u64, begun: &[u8]) -> bool {
        let mut buffer = Vec::new();
        position < self.end.load(Ordering::Acquire)
            && self.files.find(position).is_some_and(|segment| {
                segment.base() <= position
                    && matches!(segment.frame(position, &mut buffer), Frame::Record { .. })
                    && buffer.starts_with(begun)
            })
    }

    /// Resolves once [`Log::end`] is past `after`, a few milliseconds later, so that records gather.
    /// Cancel-safe. Needs a Tokio runtime with time.
    pub async fn changed(&self, after: Position) {
        if self.end() > after {
            return;
        }
        loop {
            let woken = self.changed.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            self.waiting.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if self.end() > after {
                break;
            }
            woken.await;
        }
        tokio::time::sleep(GATHER).await;
    }

    /// Says that everything before `upto` has reached where it was going: old files may go. Survives a
    /// restart. A position that is not ahead of the last one changes nothing.
    pub fn acknowledge(&self, upto: Position) {
        let end = self.end.load(Ordering::Acquire);
        self.files.acknowledge(upto.0.min(end), end);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let spare = self.tail().spare.take();
        if let Some(spare) = spare {
            self.files.discard(&spare);
        }
    }
}

#[cfg(test)]
mod tests;
