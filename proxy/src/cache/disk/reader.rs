//! Reading for requests: whole objects, shared by all who ask at once, and parts of large ones.
//!
//! Invariants:
//! - A runtime's worker never waits for the disk: it takes what the kernel has in memory, and anything else is read by
//!   at most [`READS_MAX`] threads of tokio's blocking pool. Beyond [`WAITING_MAX`] objects that are waited for, and
//!   after [`PATIENCE`], a look-up is a miss, and the origin answers.
//! - Of an object in parts only the chunks of the range are read, one part ahead of the client at most.
//!
//! On failure: before the first byte a failure is a miss; after it the answer is cut.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::Disk;
use super::record::CHUNK;
use super::store::{Located, Opened, Trouble};
use crate::cache::{Key, KeyRef, Meta, Object};
use crate::lock::Mutex;

/// Reads at once. More do not make a disk faster, and tokio's pool has 512 threads for all. A large object counts as
/// one more for each [`READ_BYTES`] of it, so that reads together hold some 64 MiB.
pub(super) const READS_MAX: u32 = 32;
const READ_BYTES: usize = 2 << 20;
/// Objects that may be waited for at once.
const WAITING_MAX: usize = 256;
/// How long a look-up waits for the disk before it goes to the origin: longer than a seek under load, shorter than a
/// listener's patience.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long the next part may take once an answer has begun, and there is no other way.
const PART_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of one part: what goes to a client in one write.
const PART_BYTES: usize = 4 * CHUNK;
/// An object of up to this many bytes is read whole: it is one part in any case.
const WHOLE_MAX: usize = PART_BYTES;
/// A larger one is read whole, into memory, when it was asked for so often since it was written.
const WHOLE_AT: u8 = 2;

/// What a shared read came to.
#[derive(Debug, Clone)]
enum Taken {
    Whole(Arc<Object>),
    Head(Arc<Opened>),
}

/// A record's sequence, and whether all of it is read.
type ReadName = (u64, bool);
type Outcome = Result<Taken, Trouble>;

/// Bounds of reading, and the reads that run.
pub(super) struct Reads {
    pub(super) permits: Arc<Semaphore>,
    running: Mutex<HashMap<ReadName, watch::Receiver<Option<Outcome>>>>,
    tasks: TaskTracker,
}

/// What was found on the disk.
pub(crate) enum Entry {
    /// All of it; [`Recalled`] tells whether it still counts.
    Whole(Recalled),
    /// A large one, to be read in parts. It is fresh.
    Parts(OnDisk),
}

/// An object that was read whole.
pub(crate) struct Recalled {
    pub(crate) object: Arc<Object>,
    located: Located,
}

/// A large object on the disk, of which nothing but the head was read.
pub(crate) struct OnDisk {
    disk: Arc<Disk>,
    located: Located,
    opened: Arc<Opened>,
}

/// The bytes of a range, part by part.
pub(crate) struct Parts {
    from: OnDisk,
    /// The next byte.
    next: u64,
    end: u64,
    ahead: Option<tokio::task::JoinHandle<Result<Bytes, Trouble>>>,
}

impl Reads {
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self { permits: Arc::new(Semaphore::new(READS_MAX as usize)), running: Mutex::default(), tasks }
    }
}

impl Disk {
    /// A fresh object of up to [`WHOLE_MAX`] bytes, if the kernel has it in memory. Waits for nothing.
    pub(crate) fn at_hand(&self, key: KeyRef<'_>) -> Option<Recalled> {
        let store = &self.store;
        let located = store.locate(key)?;
        if located.body_bytes() > WHOLE_MAX {
            return None;
        }
        match store.peek(&located) {
            Ok(object) => {
                // One that is out of date is for the other way, which asks the origin.
                object.is_fresh(Instant::now()).then(|| {
                    store.counts.reads.add(1);
                    self.wanted(&located);
                    Recalled { object: Arc::new(object), located }
                })
            }
            Err(trouble) => {
                if let Some(grave) = store.condemn(&located, trouble) {
                    self.bury_later(grave);
                }
                None
            }
        }
    }

    /// Whether the disk has something under `key`, fresh or not, without reading it.
    pub(crate) fn knows(&self, key: KeyRef<'_>) -> bool {
        self.store.locate(key).is_some()
    }

    /// What the disk has under `key`, fresh or not. `None`: a miss.
    pub(crate) async fn find(self: &Arc<Self>, key: &Key) -> Option<Entry> {
        let located = self.store.locate(key.borrowed())?;
        let is_whole = located.body_bytes() <= WHOLE_MAX || located.slot.hits >= WHOLE_AT;
        let mut taken = self.take(&located, is_whole).await;
        if let Ok(Taken::Head(opened)) = &taken {
            if opened.since.elapsed() < opened.meta.fresh_for {
                self.wanted(&located);
                let opened = Arc::clone(opened);
                return Some(Entry::Parts(OnDisk { disk: Arc::clone(self), located, opened }));
            }
            // To ask the origin whether it still holds takes all of it.
            taken = self.take(&located, true).await;
        }
        match taken {
            Ok(Taken::Whole(object)) => {
                self.wanted(&located);
                Some(Entry::Whole(Recalled { object, located }))
            }
            Ok(Taken::Head(_)) => None,
            Err(trouble) => {
                match trouble {
                    Trouble::Busy => self.store.counts.busy.add(1),
                    Trouble::Slow => self.store.counts.slow.add(1),
                    Trouble::Gone | Trouble::Bad | Trouble::Io => {}
                }
                None
            }
        }
    }

    /// Whether what was recalled still is what counts for its key. Ask under the lock of the table of fills, under
    /// which objects are forgotten.
    pub(crate) fn still_counts(&self, recalled: &Recalled) -> bool {
        self.store.stands(&recalled.located)
    }

    pub(crate) fn promoted(&self) {
        self.store.counts.promotions.add(1);
    }

    fn wanted(&self, located: &Located) {
        self.store.index.lock().want(located.hash);
    }

    /// Joins the read of this record, or begins it.
    async fn take(self: &Arc<Self>, located: &Located, is_whole: bool) -> Outcome {
        let mut outcome = {
            let reads = &self.reads;
            let mut running = reads.running.lock();
            let name = (located.slot.sequence, is_whole);
            match running.get(&name) {
                Some(outcome) => outcome.clone(),
                None if running.len() >= WAITING_MAX => return Err(Trouble::Busy),
                None => {
                    let (sender, outcome) = watch::channel(None);
                    running.insert(name, outcome.clone());
                    reads.tasks.spawn(Arc::clone(self).read(located.clone(), is_whole, sender));
                    outcome
                }
            }
        };
        let read = tokio::time::timeout(PATIENCE, outcome.wait_for(Option::is_some)).await;
        match read {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(Err(Trouble::Io)),
            Ok(Err(_)) => Err(Trouble::Io),
            Err(_) => Err(Trouble::Slow),
        }
    }

    /// The task of one shared read. It ends for itself, whoever waits for it.
    async fn read(self: Arc<Self>, located: Located, is_whole: bool, sender: watch::Sender<Option<Outcome>>) {
        let name = (located.slot.sequence, is_whole);
        let _over = Over { disk: &self, name };
        let disk = Arc::clone(&self);
        let bytes = if is_whole { located.body_bytes() } else { 0 };
        let outcome = self
            .blocking(bytes, move || {
                let store = &disk.store;
                store.counts.reads.add(1);
                let taken = if is_whole {
                    store.read(&located).map(|object| Taken::Whole(Arc::new(object)))
                } else {
                    store.open(&located).map(|opened| Taken::Head(Arc::new(opened)))
                };
                taken.inspect_err(|trouble| disk.drop_bad(&located, *trouble))
            })
            .await;
        sender.send_replace(Some(outcome));
    }

    /// Runs `read`, of so many bytes, where it may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        bytes: usize,
        read: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let share = u32::try_from(1 + bytes / READ_BYTES).unwrap_or(READS_MAX).min(READS_MAX);
        let permit = Arc::clone(&self.reads.permits).acquire_many_owned(share).await.map_err(|_| Trouble::Busy)?;
        let read = self.reads.tasks.spawn_blocking(move || {
            let _permit = permit;
            read()
        });
        read.await.unwrap_or(Err(Trouble::Io))
    }

    /// Drops a record that is of no use. Waits for the disk.
    fn drop_bad(&self, located: &Located, trouble: Trouble) {
        if let Some(grave) = self.store.condemn(located, trouble) {
            self.store.bury(&grave);
        }
    }
}

/// Takes a read out of the table, whatever became of it.
struct Over<'d> {
    disk: &'d Disk,
    name: ReadName,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.disk.reads.running.lock().remove(&self.name);
    }
}

impl OnDisk {
    pub(crate) fn meta(&self) -> &Meta {
        &self.opened.meta
    }

    pub(crate) fn length(&self) -> u64 {
        self.opened.head.length
    }

    /// When its head came.
    pub(crate) fn since(&self) -> Instant {
        self.opened.since
    }

    /// Bytes from `first` on, `length` of them.
    pub(crate) fn parts(self, first: u64, length: u64) -> Parts {
        Parts { from: self, next: first, end: first + length, ahead: None }
    }

    /// The part that holds the byte `next`, from its chunk's begin. `wait`: also from the disk.
    fn read(&self, next: u64, end: u64, wait: bool) -> Result<Bytes, Trouble> {
        let chunk = usize::try_from(next / CHUNK as u64).map_err(|_| Trouble::Bad)?;
        let to_end = end.saturating_sub((chunk * CHUNK) as u64).next_multiple_of(CHUNK as u64);
        let bytes = usize::try_from(to_end).unwrap_or(usize::MAX).min(PART_BYTES);
        self.disk.store.chunks(&self.located, &self.opened.head, chunk, bytes, wait)
    }

    /// The same, on a thread that may wait.
    fn fetch(&self, next: u64, end: u64) -> tokio::task::JoinHandle<Result<Bytes, Trouble>> {
        let disk = Arc::clone(&self.disk);
        let this = Self { disk: Arc::clone(&disk), located: self.located.clone(), opened: Arc::clone(&self.opened) };
        self.disk.reads.tasks.spawn(async move {
            let read = disk.blocking(PART_BYTES, move || {
                this.disk.store.counts.reads.add(1);
                this.read(next, end, true).inspect_err(|trouble| this.disk.drop_bad(&this.located, *trouble))
            });
            tokio::time::timeout(PART_PATIENCE, read).await.unwrap_or(Err(Trouble::Slow))
        })
    }
}

impl Parts {
    /// The next part, and whether it is the last; `None` after that.
    ///
    /// # Errors
    /// The part cannot be had.
    pub(crate) async fn next(&mut self) -> Result<Option<(Bytes, bool)>, Trouble> {
        if self.next >= self.end {
            return Ok(None);
        }
        let read = match self.ahead.take() {
            Some(ahead) => Err(ahead),
            None => match self.from.read(self.next, self.end, false) {
                Err(Trouble::Busy) => Err(self.from.fetch(self.next, self.end)),
                read => Ok(read),
            },
        };
        let (part, waited) = match read {
            Ok(Err(trouble)) => {
                if let Some(grave) = self.from.disk.store.condemn(&self.from.located, trouble) {
                    self.from.disk.bury_later(grave);
                }
                return Err(trouble);
            }
            Ok(Ok(part)) => (part, false),
            Err(fetch) => (fetch.await.unwrap_or(Err(Trouble::Io))?, true),
        };
        let skip = usize::try_from(self.next % CHUNK as u64).unwrap_or(0).min(part.len());
        let left = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
        let part = part.slice(skip..part.len().min(skip.saturating_add(left)));
        if part.is_empty() {
            return Err(Trouble::Bad);
        }
        self.next += part.len() as u64;
        let is_last = self.next >= self.end;
        if waited && !is_last {
            self.ahead = Some(self.from.fetch(self.next, self.end));
        }
        Ok(Some((part, is_last)))
    }
}
