//! The two logs of an edge and the intents between a segment's last write and its fact.
//!
//! Invariants:
//! - The directory's lock is held for as long as the [`EventLog`] or any [`Intent`] of it lives.
//! - Ids never repeat in a directory: the boot time in them grows with every open, even if the clock does not.
//! - An intent is settled once: by [`Intent::settle`], by its drop, or by the next open.
//!
//! On failure: see the crate's documentation; what is dropped is counted by reason in [`Overflow`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::directory::Directory;
use crate::intents::{Left, Slots};
use crate::json::with_buffer;
use crate::{DenialDraft, FactDraft, Log, LogBounds, LogError, Position, WhenFull, bounds, fact};

/// How often the keeper looks after the files without being asked: only to try again after a failure.
const TEND: Duration = Duration::from_secs(1);

/// Bounds of an [`EventLog`].
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// The facts. Default: 1 GiB (about two million facts), files of 8 MiB, 32 MiB kept for tailing.
    pub facts: LogBounds,
    /// The denials. Default: a ring of 64 MiB, files of 4 MiB, so that a flood of bad requests costs no more.
    pub denials: LogBounds,
    /// How many facts may be noted and not settled at a time, 4 KiB of disk each; as many as there are answers
    /// being written. Beyond that facts are still settled, but do not survive a crash in between. Default: 4096.
    pub slots: u32,
}

impl Default for LogOptions {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            facts: LogBounds { bytes: 1024 * MIB, retain: 32 * MIB, segment: 8 * MIB, full: WhenFull::DropNewest },
            denials: LogBounds { bytes: 64 * MIB, retain: 64 * MIB, segment: 4 * MIB, full: WhenFull::DropOldest },
            slots: 4096,
        }
    }
}

/// What did not fit, since this process opened the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overflow {
    /// Facts dropped: the log was at its bound and nothing in it acknowledged.
    pub log_full: u64,
    /// Facts dropped: the disk gave no file (full, or failing).
    pub disk: u64,
    /// Facts settled without an intent before: all slots were taken. They are in the log.
    pub slots_full: u64,
    /// Denials dropped for either reason.
    pub denials_dropped: u64,
    /// Records let go unacknowledged to make room for newer ones ([`WhenFull::DropOldest`]).
    pub overwritten: u64,
    /// Files in which damaged records were met and passed over.
    pub damaged: u64,
}

impl Overflow {
    /// Each count with its reason word, for metrics.
    #[must_use]
    pub fn by_reason(&self) -> [(&'static str, u64); 6] {
        [
            ("log-full", self.log_full),
            ("disk", self.disk),
            ("slots-full", self.slots_full),
            ("denials-dropped", self.denials_dropped),
            ("overwritten", self.overwritten),
            ("damaged", self.damaged),
        ]
    }
}

/// The local logs of one edge.
#[derive(Debug)]
pub struct EventLog {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    // Dropped first to last: the lock goes when nothing is mapped any more.
    facts: Log,
    denials: Log,
    slots: Slots,
    edge: String,
    /// `<edge>-<boot>-`
    stem: String,
    sequence: AtomicU64,
    slots_full: AtomicU64,
    stop: AtomicBool,
    _directory: Directory,
}

impl EventLog {
    /// Opens or makes the logs under `dir`, which no other process may have open, and appends the facts that
    /// an earlier process noted and did not settle.
    ///
    /// # Errors
    /// [`LogError::Locked`] if the directory is in use, [`LogError::Io`] if it cannot be written or the disk
    /// has no space for the first files, [`LogError::Format`] if another version wrote it,
    /// [`LogError::EdgeName`] and [`LogError::Options`] for bad arguments.
    pub fn open(dir: &Path, edge: &str, options: LogOptions) -> Result<Arc<Self>, LogError> {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if edge.is_empty() || edge.len() > bounds::EDGE || !edge.bytes().all(fine) {
            return Err(LogError::EdgeName { name: edge.to_owned() });
        }
        if options.slots == 0 || options.slots > 1 << 20 {
            let problem = format!("{} must be 1 to {}", options.slots, 1 << 20);
            return Err(LogError::Options { what: "slots", problem });
        }
        let directory = Directory::hold(dir)?;
        let facts = Log::open(&directory.path().join("facts"), options.facts, "facts")?;
        let denials = Log::open(&directory.path().join("denials"), options.denials, "denials")?;
        let (mut slots, left) = Slots::open(directory.path(), options.slots)?;
        if !left.is_empty() {
            recover(&facts, &slots, left);
            // Now that all are free, the file can have the size that is asked for.
            drop(slots);
            (slots, _) = Slots::open(directory.path(), options.slots)?;
        }
        slots.free_the_empty();
        let boot = slots.boot(now_ms());
        let shared = Arc::new(Shared {
            facts,
            denials,
            slots,
            edge: edge.to_owned(),
            stem: format!("{edge}-{}-", base36(boot)),
            sequence: AtomicU64::new(1),
            slots_full: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            _directory: directory,
        });
        let kept = Arc::clone(&shared);
        let keeper = std::thread::Builder::new()
            .name("segue-events".to_owned())
            .spawn(move || kept.keep())
            .map_err(LogError::io("start the thread that looks after", dir))?;
        shared.facts.kept_by(keeper.thread().clone());
        shared.denials.kept_by(keeper.thread().clone());
        Ok(Arc::new(Self { shared, keeper: Some(keeper) }))
    }

    /// Notes a fact, before the last write of a segment. Never waits and never fails: with no slot free the
    /// fact is kept in memory until it is settled.
    pub fn note(&self, fact: FactDraft<'_>) -> Intent {
        let shared = &self.shared;
        let sequence = shared.sequence.fetch_add(1, Ordering::Relaxed);
        with_buffer(|buffer| {
            fact.begin(buffer, &shared.edge, &shared.stem, sequence, now_ms());
            let crc = crc32fast::hash(buffer);
            let place = match shared.slots.take() {
                Some(slot) => {
                    shared.slots.note(slot, sequence, fact.bytes, buffer, crc);
                    Place::Slot { slot, length: buffer.len() }
                }
                None => {
                    shared.slots_full.fetch_add(1, Ordering::Relaxed);
                    Place::Memory(buffer.as_slice().into())
                }
            };
            Intent { shared: Arc::clone(shared), sequence, crc, place }
        })
    }

    /// Writes down a refusal. Never waits; a record that does not fit is counted.
    pub fn deny(&self, denial: DenialDraft<'_>) {
        let shared = &self.shared;
        let sequence = shared.sequence.fetch_add(1, Ordering::Relaxed);
        with_buffer(|buffer| {
            denial.write(buffer, &shared.edge, &shared.stem, sequence, now_ms());
            // Dropped ones are counted by the log.
            let _counted = shared.denials.append(buffer, crc32fast::hash(buffer), |_| {});
        });
    }

    /// The log of the [facts](crate::Fact).
    #[must_use]
    pub fn facts(&self) -> &Log {
        &self.shared.facts
    }

    /// The log of the [denials](crate::Denial).
    #[must_use]
    pub fn denials(&self) -> &Log {
        &self.shared.denials
    }

    /// What did not fit so far.
    #[must_use]
    pub fn overflow(&self) -> Overflow {
        let Shared { facts, denials, slots_full, .. } = &*self.shared;
        Overflow {
            log_full: facts.dropped_log_full(),
            disk: facts.dropped_disk(),
            slots_full: slots_full.load(Ordering::Relaxed),
            denials_dropped: denials.dropped_log_full() + denials.dropped_disk(),
            overwritten: facts.overwritten() + denials.overwritten(),
            damaged: facts.damaged() + denials.damaged(),
        }
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(keeper) = self.keeper.take() {
            keeper.thread().unpark();
            if keeper.join().is_err() {
                tracing::error!("the thread that looks after the event log panicked");
            }
        }
    }
}

impl Shared {
    /// The keeper's life: files are made ready here, so that requests find them ready.
    fn keep(&self) {
        self.facts.populate();
        self.denials.populate();
        while !self.stop.load(Ordering::Acquire) {
            self.facts.prepare();
            self.denials.prepare();
            std::thread::park_timeout(TEND);
        }
    }
}

/// Where a noted fact is.
#[derive(Debug)]
enum Place {
    Slot { slot: u32, length: usize },
    Memory(Box<[u8]>),
    Settled,
}

/// A fact that is noted. Dropped without being settled, it is settled as not complete, with no bytes.
#[derive(Debug)]
#[must_use = "an intent that is dropped is settled as not complete"]
pub struct Intent {
    shared: Arc<Shared>,
    sequence: u64,
    /// CRC-32 of the fact as far as it is noted.
    crc: u32,
    place: Place,
}

impl Intent {
    /// The id that the fact has.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}{}", self.shared.stem, self.sequence)
    }

    /// Appends the fact to the log: whether the kernel took all of the answer's bytes, and how many it took.
    /// Gives the position after it, or `None` if it was dropped (and counted).
    #[allow(clippy::must_use_candidate, reason = "the request that the fact tells of is over either way")]
    pub fn settle(mut self, complete: bool, bytes: u64) -> Option<Position> {
        self.append(complete, bytes)
    }

    fn append(&mut self, complete: bool, bytes: u64) -> Option<Position> {
        let place = std::mem::replace(&mut self.place, Place::Settled);
        let Shared { facts, slots, .. } = &*self.shared;
        with_buffer(|buffer| {
            match &place {
                Place::Slot { slot, length } => slots.begun(*slot, *length, buffer),
                Place::Memory(begun) => buffer.extend_from_slice(begun),
                Place::Settled => return None,
            }
            let crc = finish(buffer, self.crc, bytes, complete, false);
            if let Place::Slot { slot, .. } = place {
                let appended = facts.append(buffer, crc, |position| slots.appending(slot, position));
                slots.free(slot);
                appended
            } else {
                facts.append(buffer, crc, |_| {})
            }
        })
    }
}

impl Drop for Intent {
    fn drop(&mut self) {
        if !matches!(self.place, Place::Settled) {
            self.append(false, 0);
        }
    }
}

/// Closes a fact and gives the CRC-32 of the whole, from that of what was noted.
fn finish(buffer: &mut Vec<u8>, begun: u32, bytes: u64, complete: bool, recovered: bool) -> u32 {
    let from = buffer.len();
    fact::finish(buffer, bytes, complete, recovered);
    let mut crc = crc32fast::Hasher::new_with_initial(begun);
    crc.update(&buffer[from..]);
    crc.finalize()
}

/// Appends what an earlier process noted and did not settle. May itself be killed at any point and run again.
fn recover(facts: &Log, slots: &Slots, left: Vec<Left>) {
    let mut appended = 0_u64;
    let found = left.len();
    for intent in left {
        let Left { slot, bytes, position, begun, .. } = intent;
        // Gone again means that the record was there: its place would not have been passed otherwise.
        let there = position.is_some_and(|at| at < facts.start().0 || facts.holds(at, &begun));
        if !there {
            let mut record = begun;
            let crc = crc32fast::hash(&record);
            let crc = finish(&mut record, crc, bytes, true, true);
            if facts.append(&record, crc, |at| slots.appending(slot, at)).is_some() {
                appended += 1;
            }
        }
        slots.free(slot);
    }
    tracing::info!(found, appended, "facts in flight when the last process ended were recovered");
}

fn now_ms() -> u64 {
    // A clock before 1970 is a machine without one: its facts get the time zero.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize] as char);
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}
