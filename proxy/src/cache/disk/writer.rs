//! The one thread that writes: it finds what an earlier process left, then takes objects off a bounded queue.
//!
//! Invariants: nothing else writes records, so records never overlap; an object enters the index after it is written,
//! and only if nobody has forgotten or replaced it meanwhile. What it replaced is marked dead, so that it does not come back.
//!
//! On failure: an object that cannot be written is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use super::counts::Dropped;
use super::index::Slot;
use super::record;
use super::rings::{Rings, refused, unit};
use super::scan;
use super::store::{Grave, Located, Store};
use super::volume::Ring;
use crate::cache::Object;

/// An object, and its key as it stands in records.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) hash: u64,
    pub(super) key: Arc<[u8]>,
    pub(super) object: Arc<Object>,
    /// When its head came.
    pub(super) since_ms: u64,
}

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Task {
    /// Write it, and bury what it replaces.
    Store { written: Written, ticket: u64, replaced: Option<Grave> },
    /// The origin said that it has not changed: its freshness alone is written.
    Renew(Written),
    /// Mark a record as dead.
    Bury(Grave),
}

impl Store {
    pub(super) fn next_sequence(&self) -> u64 {
        let mut index = self.index.lock();
        index.next_sequence += 1;
        index.next_sequence - 1
    }
}

/// The thread: ends when the queue is closed and empty, or its time is over.
pub(super) fn run(store: &Arc<Store>, queue: &Receiver<Task>, scanned: &tokio::sync::watch::Sender<bool>) {
    let mut rings = scan::scan(store);
    scanned.send_replace(true);
    while let Ok(task) = queue.recv() {
        match task {
            Task::Store { written, ticket, replaced } => {
                store.queued_bytes.fetch_sub(written.object.body.len() as u64, Ordering::Relaxed);
                settle(store, &mut rings, &written, ticket, replaced);
            }
            Task::Renew(written) => {
                store.queued_bytes.fetch_sub(written.object.body.len() as u64, Ordering::Relaxed);
                renew(store, &mut rings, &written);
            }
            Task::Bury(grave) => store.bury(&grave),
        }
    }
}

/// Writes an object or counts why not, and ends its announcement.
fn settle(store: &Store, rings: &mut Rings, written: &Written, ticket: u64, replaced: Option<Grave>) {
    if let Err(why) = write(store, rings, written, ticket) {
        store.counts.dropped(why);
        store.index.lock().withdraw(written.hash, ticket);
    }
    if let Some(grave) = replaced {
        store.bury(&grave);
    }
}

fn write(store: &Store, rings: &mut Rings, written: &Written, ticket: u64) -> Result<(), Dropped> {
    if store.deadline.get().is_some_and(|deadline| Instant::now() > *deadline) {
        return Err(Dropped::Stopped);
    }
    let ring = {
        let mut index = store.index.lock();
        if !index.awaits(written.hash, ticket) {
            return Err(Dropped::Outdated);
        }
        if index.remembers(written.hash) { Ring::Kept } else { Ring::Young }
    };
    let sequence = store.next_sequence();
    let seed = store.volume.seed;
    let head = record::head_of(seed, &written.key, &written.object, written.since_ms, sequence);
    let (mut head, sizes) = head.ok_or(Dropped::TooLarge)?;
    let place = rings.place(store, ring, sizes.bytes)?;
    record::stamp(seed, &mut head, place.epoch, sequence).ok_or(Dropped::TooLarge)?;
    // The body first: a head is there only where its body was written.
    let body_at = place.at + head.len() as u64;
    store.volume.write(body_at, &written.object.body).map_err(|error| refused(&error))?;
    store.volume.write(place.at, &head).map_err(|error| refused(&error))?;
    store.counts.writes.add(1);
    store.counts.written_bytes.add(sizes.bytes);
    let units = |bytes: u64| bytes / record::UNIT;
    let slot = Slot {
        sequence,
        unit: unit(place.at),
        units: u32::try_from(units(sizes.bytes)).map_err(|_| Dropped::TooLarge)?,
        head_units: u16::try_from(units(sizes.head_bytes as u64)).map_err(|_| Dropped::TooLarge)?,
        hits: 0,
    };
    let mut index = store.index.lock();
    if !index.awaits(written.hash, ticket) {
        let grave = store.grave(&index, slot);
        drop(index);
        store.bury(&grave);
        return Err(Dropped::Outdated);
    }
    let wanted = index.pending.remove(&written.hash).is_some_and(|pending| pending.wanted);
    index.insert(written.hash, Slot { hits: u8::from(wanted), ..slot }, place.region);
    Ok(())
}

/// Writes the freshness of what is there already, or all of it where that is another state of the object.
fn renew(store: &Store, rings: &mut Rings, written: &Written) {
    // What is gone meanwhile was evicted or forgotten: in both cases it is not to come back.
    let Some(located) = store.locate_hash(Arc::clone(&written.key), written.hash) else {
        return store.counts.dropped(Dropped::Outdated);
    };
    match renew_in_place(store, &located, written) {
        Ok(true) => store.counts.renewals.add(1),
        Ok(false) => {
            let announced = {
                let mut index = store.index.lock();
                let announced = index.announce_instead(written.hash, located.slot.sequence);
                announced.map(|(ticket, slot)| (ticket, store.grave(&index, slot)))
            };
            match announced {
                Some((ticket, replaced)) => settle(store, rings, written, ticket, Some(replaced)),
                None => store.counts.dropped(Dropped::Outdated),
            }
        }
        Err(why) => store.counts.dropped(why),
    }
}

/// Whether the record holds this state of the object, and room for what is new of it.
fn renew_in_place(store: &Store, located: &Located, written: &Written) -> Result<bool, Dropped> {
    let mut bytes = vec![0; located.head_bytes()];
    store.volume.read(located.at(), &mut bytes).map_err(|error| refused(&error))?;
    let Ok(head) = store.head(located, &bytes) else { return Ok(false) };
    let slot = head.renewal(&bytes, store.volume.seed, &written.object.meta, written.since_ms);
    let Some((at, slot)) = slot else { return Ok(false) };
    store.volume.write(located.at() + at, &slot).map_err(|error| refused(&error))?;
    Ok(true)
}
