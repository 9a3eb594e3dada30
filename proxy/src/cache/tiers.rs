//! How memory and disk work together: what is looked for, promoted, written and forgotten, and when.
//!
//! Invariants: an object comes into memory from the disk only if it still counts there, under the lock of the table of
//! fills, so that what was forgotten meanwhile does not come back; it never displaces what a fill has brought. A
//! decryption key never goes to the disk, nor does the knowledge that there is no such object.
//!
//! On failure: a miss; the origin answers.

use std::sync::Arc;
use std::time::Instant;

use segue_events::CacheState;

use super::disk::{Disk, Entry, Grave, Recalled};
use super::{Found, Key, KeyRef, Object, Stored};
use crate::edge::Shared;
use crate::route::ObjectKind;

/// Tells the disk tier that an object was served from memory: what is wanted stays on the disk too.
#[inline]
pub(crate) fn touch(shared: &Shared, key: KeyRef<'_>, object: &Object) {
    if let Some(disk) = &shared.disk {
        disk.touch(key, object);
    }
}

/// A fresh object that is on the disk, if it can be had without waiting. The memory has nothing under `key`.
pub(crate) fn at_hand(shared: &Shared, key: KeyRef<'_>) -> Option<Arc<Object>> {
    let disk = shared.disk.as_ref()?;
    let recalled = disk.at_hand(key)?;
    promote(shared, disk, &key.into(), recalled)
}

/// What the disk has under `key`, where the memory has nothing. What is out of date comes into memory, so that whoever
/// asks the origin about it finds it there.
pub(crate) async fn recall(shared: &Shared, key: &Key) -> Option<Found> {
    let disk = shared.disk.as_ref()?;
    if shared.memory.get(key.borrowed()).is_some() {
        return None;
    }
    match disk.find(key).await? {
        Entry::Whole(recalled) => {
            let object = promote(shared, disk, key, recalled)?;
            object.is_fresh(Instant::now()).then_some(Found::Memory(object, CacheState::HitDisk))
        }
        Entry::Parts(object) => Some(Found::Disk(object)),
    }
}

/// Whoever asks at the same time promotes the same object once.
fn promote(shared: &Shared, disk: &Disk, key: &Key, recalled: Recalled) -> Option<Arc<Object>> {
    let _fills = shared.fills.lock();
    if !disk.still_counts(&recalled) {
        return None;
    }
    match shared.memory.get(key.borrowed()) {
        None => {
            disk.promoted();
            shared.memory.put(key.clone(), Stored::Object(Arc::clone(&recalled.object)));
            Some(recalled.object)
        }
        Some(Stored::Object(object)) if Arc::ptr_eq(&object, &recalled.object) => Some(object),
        Some(_) => None,
    }
}

/// Hands to the disk what a fill has put into memory. Called under the lock of the table of fills. `previous`: what
/// the origin was asked about.
pub(crate) fn keep(shared: &Shared, key: &Key, kind: ObjectKind, stored: &Stored, previous: Option<&Arc<Object>>) {
    let Some(disk) = &shared.disk else { return };
    match stored {
        // Which variants there are is not known after a restart, so none of them is kept, and the one that was is gone.
        Stored::Missing { .. } | Stored::Varies(_) => {
            if let Some(grave) = disk.forget(key) {
                disk.bury_later(grave);
            }
        }
        Stored::Object(_) if kind == ObjectKind::Key => {}
        Stored::Object(object) if !lasts(object) => {}
        // A renewed object has the very bytes of the one before it.
        Stored::Object(object) if previous.is_some_and(|previous| previous.body.as_ptr() == object.body.as_ptr()) => {
            disk.renew(key, object);
        }
        Stored::Object(object) => disk.offer(key, object),
    }
}

/// Whether everybody gets these very bytes and lines, also after a restart.
fn lasts(object: &Object) -> bool {
    object.meta.http.as_ref().is_none_or(|policy| policy.selects.is_empty() && policy.once.is_empty())
}

/// Forgets what is under `key` in both tiers. What is given back must be buried before the change is answered.
pub(crate) fn forget(shared: &Shared, key: &Key) -> Option<Grave> {
    shared.memory.forget(key);
    shared.disk.as_ref()?.forget(key)
}
