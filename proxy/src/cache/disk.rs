//! The disk tier: whole objects on the disk, bounded, warm after a restart, behind the same key as the memory.
//!
//! Purpose: what no longer fits into memory is served from the disk instead of the origin. Everything lies in one
//! file of a fixed size, in regions that are written one after the other ([`rings`]); the index is in memory and
//! rebuilt at the start ([`scan`]).
//!
//! Invariants:
//! - Never a wrong byte: every byte that is served was proven against a checksum that is bound to key, purge
//!   generation, ETag and length ([`record`]). What fails that is a miss, and is dropped.
//! - The file, the log of purges and their copies never take more than `[cache] disk`; the index never more than
//!   [`INDEX_BYTES_PER_ENTRY`] for each [`ENTRY_BYTES`] of it.
//! - Nothing here holds a request up: writes are queued and dropped where the queue is full; reads are bounded in number
//!   and time, and end as misses.
//! - One process holds the folder, by a lock that dies with it.
//!
//! On failure: a folder that cannot be used is an error at the start. A disk that fails later makes misses.
//! Lock order: the table of fills, then the index.

mod counts;
mod index;
mod meta;
mod purges;
mod reader;
mod record;
mod rings;
mod scan;
mod store;
#[cfg(test)]
mod tests;
mod volume;
mod writer;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{Key, KeyRef, Object};
use crate::config::CacheConfig;
use crate::lock::Mutex;
use crate::metrics::Family;
use counts::{Counts, Dropped, Usage};
use index::Index;
use purges::Purges;
use reader::Reads;
use store::Store;
use volume::Volume;
use writer::{Task, Written};

pub(crate) use reader::{Entry, OnDisk, Parts, Recalled};
pub(crate) use store::Grave;

/// The index has one entry for so many bytes of the disk. Where objects are smaller on average, it is full before the
/// disk is; segments are larger.
const ENTRY_BYTES: u64 = 16 * 1024;
/// What an entry takes in memory at most: 38 in the table, 64 in the lists of regions (8, where nothing is replaced),
/// 4 for those that were let go of.
#[cfg(test)]
const INDEX_BYTES_PER_ENTRY: u64 = 110;
/// Objects that wait to be written.
const QUEUE_MAX: usize = 1024;
/// And their bytes, or one object where that is larger.
const QUEUE_BYTES_MAX: u64 = 64 << 20;
/// The share of the disk that the log of purges may take, with its copy.
const PURGES_SHARE: u64 = 64;
const PURGES_BYTES_MAX: u64 = 32 << 20;
/// The lock, the folder and the file system's own blocks for small files.
const SMALL_FILES: u64 = 64 * 1024;
/// How long a start waits for the index, so that a small cache is warm at the first request. It is rebuilt on.
const SCAN_PATIENCE: Duration = Duration::from_secs(2);
/// How long the end waits for what is still to be written.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Disk {
    store: Arc<Store>,
    reads: Reads,
    /// `None` once the tier is closed.
    queue: Mutex<Option<SyncSender<Task>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    purges: Mutex<Purges>,
    purged: BTreeMap<String, u64>,
    queue_bytes_max: u64,
    /// Held until the tier is closed.
    lock: Mutex<Option<File>>,
}

impl Disk {
    /// The least that `[cache] disk` may be.
    pub(crate) fn least(max_object: u64) -> u64 {
        let least = volume::least(max_object) + SMALL_FILES;
        (least + least.div_ceil(PURGES_SHARE - 1)).next_multiple_of(1 << 20)
    }

    /// The most that `[cache] disk` may be.
    pub(crate) const MOST: u64 = volume::BYTES_MAX;

    /// Opens the tier, or makes it. `None` where there is to be none. `routes` say what each route leads to, by its
    /// place. Waits for the index for a while.
    ///
    /// # Errors
    /// What is wrong with the folder, and what to do.
    pub(crate) async fn open(
        config: &CacheConfig,
        routes: Vec<u64>,
        tasks: TaskTracker,
    ) -> Result<Option<Arc<Self>>, String> {
        let Some(dir) = config.dir.clone().filter(|_| config.disk > 0) else { return Ok(None) };
        let (bytes, max_object) = (config.disk, config.max_object);
        let opened = tokio::task::spawn_blocking(move || Self::begin(&dir, bytes, max_object, routes, tasks)).await;
        let (disk, mut scanned) = opened.map_err(|_| "opening it panicked".to_owned())??;
        // A large one goes on being indexed while it serves.
        let _ = tokio::time::timeout(SCAN_PATIENCE, scanned.wait_for(|is_over| *is_over)).await;
        Ok(Some(disk))
    }

    fn begin(
        dir: &Path,
        bytes: u64,
        max_object: u64,
        routes: Vec<u64>,
        tasks: TaskTracker,
    ) -> Result<(Arc<Self>, watch::Receiver<bool>), String> {
        let lock = hold(dir)?;
        let purge_bytes = (bytes / PURGES_SHARE).min(PURGES_BYTES_MAX);
        let for_objects = bytes.saturating_sub(purge_bytes + SMALL_FILES);
        let (mut volume, is_new) = Volume::open(&dir.join("objects"), for_objects, max_object)
            .map_err(|problem| format!("{}: {problem}", dir.display()))?;
        let purged = match Purges::read(dir, volume.seed, purge_bytes) {
            Ok(purged) => purged,
            Err(_) => {
                if !is_new {
                    tracing::warn!(dir = %dir.display(), "the log of purges cannot be used; the disk tier starts empty");
                    volume.empty()?;
                }
                BTreeMap::new()
            }
        };
        let purges = Purges::begin(dir, volume.seed, purge_bytes, purged.clone())
            .map_err(|error| format!("cannot write {}: {error}", dir.join("purges").display()))?;
        let entries = entries_max(for_objects);
        let store = Arc::new(Store {
            index: Mutex::new(Index::new(volume.regions, entries)),
            routes: routes.into_boxed_slice(),
            counts: Counts::default(),
            time: AtomicU32::new(1),
            queued_bytes: AtomicU64::new(0),
            deadline: OnceLock::new(),
            is_closed: AtomicBool::new(false),
            volume,
        });
        let (queue, waiting) = sync_channel(QUEUE_MAX);
        let (scanned, is_scanned) = watch::channel(false);
        let writing = Arc::clone(&store);
        let writer = std::thread::Builder::new()
            .name("segue-disk".to_owned())
            .spawn(move || writer::run(&writing, &waiting, &scanned))
            .map_err(|error| format!("cannot start the thread that writes: {error}"))?;
        let disk = Self {
            store,
            reads: Reads::new(tasks),
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(writer)),
            purges: Mutex::new(purges),
            purged,
            queue_bytes_max: QUEUE_BYTES_MAX.max(max_object),
            lock: Mutex::new(Some(lock)),
        };
        Ok((Arc::new(disk), is_scanned))
    }

    /// The purges that were kept, as they were when the tier was opened.
    pub(crate) fn purged(&self) -> &BTreeMap<String, u64> {
        &self.purged
    }

    /// Keeps a purge that was asked for on this edge. Waits for the disk.
    ///
    /// # Errors
    /// It is not kept: a restart would bring the older bytes back.
    pub(crate) fn keep_purge(&self, track: &str, generation: u64) -> Result<(), std::io::Error> {
        self.purges.lock().keep(track, generation)
    }

    /// Takes over a whole object. It is written later, or not at all.
    pub(crate) fn offer(&self, key: &Key, object: &Arc<Object>) {
        let (key, hash) = self.store.key(key.borrowed());
        let (ticket, replaced) = {
            let mut index = self.store.index.lock();
            let (ticket, slot) = index.announce(hash);
            (ticket, slot.map(|slot| self.store.grave(&index, slot)))
        };
        let since_ms = meta::since_ms(object.since);
        let written = Written { hash, key, object: Arc::clone(object), since_ms };
        if !self.queue(Task::Store { written, ticket, replaced }, object.body.len()) {
            self.store.index.lock().withdraw(hash, ticket);
        }
    }

    /// The origin said that the object is still the right one: its freshness is written.
    pub(crate) fn renew(&self, key: &Key, object: &Arc<Object>) {
        let (bytes, hash) = self.store.key(key.borrowed());
        if !self.store.index.lock().slots.contains_key(&hash) {
            return self.offer(key, object);
        }
        let since_ms = meta::since_ms(object.since);
        let written = Written { hash, key: bytes, object: Arc::clone(object), since_ms };
        self.queue(Task::Renew(written), object.body.len());
    }

    /// Takes an object away. At once for every look-up; for good with [`Self::bury`].
    pub(crate) fn forget(&self, key: &Key) -> Option<Grave> {
        let (_, hash) = self.store.key(key.borrowed());
        let mut index = self.store.index.lock();
        let slot = index.forget(hash)?;
        Some(self.store.grave(&index, slot))
    }

    /// Makes sure that no start finds these again.
    pub(crate) async fn bury(&self, graves: Vec<Grave>) {
        if graves.is_empty() {
            return;
        }
        let store = Arc::clone(&self.store);
        let buried = tokio::task::spawn_blocking(move || graves.iter().for_each(|grave| store.bury(grave))).await;
        if buried.is_err() {
            tracing::error!("marking records as dead panicked");
        }
    }

    /// The same, when the writer comes to it.
    pub(crate) fn bury_later(&self, grave: Grave) {
        self.queue(Task::Bury(grave), 0);
    }

    /// Tells that an object was served from memory. Costs a comparison, but for once in each of the tier's times.
    #[inline]
    pub(crate) fn touch(&self, key: KeyRef<'_>, object: &Object) {
        let time = self.store.time.load(Ordering::Relaxed);
        if object.told.load(Ordering::Relaxed) != time {
            object.told.store(time, Ordering::Relaxed);
            let (_, hash) = self.store.key(key);
            self.store.index.lock().want(hash);
        }
    }

    /// For the metrics' text.
    pub(crate) fn families(&self) -> Vec<Family> {
        self.store.counts.families(self.usage())
    }

    fn usage(&self) -> Usage {
        let index = self.store.index.lock();
        Usage { bytes: index.used(), objects: index.slots.len() as u64, memory: index.memory() }
    }

    /// Whether the writer will come to it.
    fn queue(&self, task: Task, bytes: usize) -> bool {
        let queued = &self.store.queued_bytes;
        let bytes = bytes as u64;
        let has_room = queued.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.queue_bytes_max;
        let queue = self.queue.lock();
        let is_queued = has_room && queue.as_ref().is_some_and(|queue| queue.try_send(task).is_ok());
        if !is_queued {
            queued.fetch_sub(bytes, Ordering::Relaxed);
            self.store.counts.dropped(if queue.is_some() { Dropped::Overflow } else { Dropped::Stopped });
        }
        is_queued
    }

    /// Writes what is waiting, within [`CLOSE_PATIENCE`], and lets go of the folder.
    pub(crate) async fn close(&self) {
        let _set_once = self.store.deadline.set(Instant::now() + CLOSE_PATIENCE);
        drop(self.queue.lock().take());
        let writer = self.writer.lock().take();
        if let Some(writer) = writer
            && tokio::task::spawn_blocking(move || writer.join().is_ok()).await.ok() != Some(true)
        {
            tracing::error!("the thread that writes the disk tier panicked");
        }
        self.store.is_closed.store(true, Ordering::Release);
        drop(self.lock.lock().take());
    }
}

/// A number that stands for these texts in records.
pub(crate) fn mark(parts: &[String]) -> u64 {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    record::checksum(0, &bytes)
}

/// Entries for a disk of `bytes`: so many as fill a table to its last slot.
fn entries_max(bytes: u64) -> usize {
    let wanted = usize::try_from(bytes / ENTRY_BYTES).unwrap_or(usize::MAX).max(64);
    // A table of 2^n slots holds seven eighths of them; the power below is the bound's.
    let slots = if wanted.is_power_of_two() { wanted } else { wanted.next_power_of_two() / 2 };
    slots / 8 * 7
}

/// Takes the folder for this process.
fn hold(dir: &Path) -> Result<File, String> {
    let failed = |what: &str, path: &Path, error: std::io::Error| {
        format!("cannot {what} {}: {error}; `dir` must be a folder that this user may write", path.display())
    };
    fs::create_dir_all(dir).map_err(|error| failed("make the folder", dir, error))?;
    let path: PathBuf = dir.join("lock");
    let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let lock = lock.map_err(|error| failed("open", &path, error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(format!(
            "{} is in use by another process; stop it, or give this edge a folder of its own",
            dir.display()
        )),
        Err(TryLockError::Error(error)) => Err(failed("lock", &path, error)),
    }
}
