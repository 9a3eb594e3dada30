//! What is remembered per key, in a memory of fixed size.
//!
//! Purpose: a bucketed table in which a key that is idle costs nothing: its place is taken by the next that needs one.
//!
//! Invariants: at most [`WAYS`] keys lie in a bucket, so that memory is bounded and a look-up is short whoever
//! chooses the keys; a key is known by a keyed 64-bit hash, which nobody outside can aim at (of a million keys two
//! share one with odds of one in thirty million). A bucket's lock is held for a few instructions, never over an await.
//!
//! On failure: where a bucket has only busy keys, the one that would be idle first is forgotten and counted.

use crate::lock::Mutex;
use crate::metrics::Counter;

/// Keys of a bucket: a cache line or two to look through.
const WAYS: usize = 8;

/// The state of one key.
pub(crate) trait Slot: Default {
    /// From this moment on it is as good as a new one.
    fn busy_until(&self) -> u64;
}

/// Keys by their hash.
type Bucket<S> = Mutex<Vec<(u64, S)>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Table<S> {
    buckets: Box<[Bucket<S>]>,
    /// Keys that were forgotten while they were busy.
    pub(crate) forgotten: Counter,
}

impl<S: Slot> Table<S> {
    /// For at least `keys` keys.
    pub(crate) fn new(keys: usize) -> Self {
        let buckets = (keys / WAYS).max(1).next_power_of_two();
        Self { buckets: (0..buckets).map(|_| Mutex::default()).collect(), forgotten: Counter::default() }
    }

    /// Runs `act` on the state of `hash`, a new one if there is none.
    pub(crate) fn with<R>(&self, hash: u64, now: u64, act: impl FnOnce(&mut S) -> R) -> R {
        let bucket = usize::try_from(hash).unwrap_or(usize::MAX) & (self.buckets.len() - 1);
        let Some(bucket) = self.buckets.get(bucket) else { return act(&mut S::default()) };
        let mut slots = bucket.lock();
        if let Some((_, slot)) = slots.iter_mut().find(|(known, _)| *known == hash) {
            return act(slot);
        }
        let mut fresh = S::default();
        let result = act(&mut fresh);
        let is_full = slots.len() >= WAYS;
        match slots.iter_mut().min_by_key(|(_, slot)| slot.busy_until()) {
            Some(place) if is_full || place.1.busy_until() <= now => {
                self.forgotten.add(u64::from(place.1.busy_until() > now));
                *place = (hash, fresh);
            }
            _ => slots.push((hash, fresh)),
        }
        result
    }

    /// Runs `act` on the state of `hash` if there is one.
    pub(crate) fn known<R>(&self, hash: u64, act: impl FnOnce(&mut S) -> R) -> Option<R> {
        let bucket = usize::try_from(hash).unwrap_or(usize::MAX) & (self.buckets.len() - 1);
        let mut slots = self.buckets.get(bucket)?.lock();
        slots.iter_mut().find(|(known, _)| *known == hash).map(|(_, slot)| act(slot))
    }

    /// How many buckets there are, for [`Table::bucket`].
    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Runs `act` on every state of one bucket, with its hash.
    pub(crate) fn bucket(&self, number: usize, mut act: impl FnMut(u64, &mut S)) {
        if let Some(bucket) = self.buckets.get(number) {
            bucket.lock().iter_mut().for_each(|(hash, slot)| act(*hash, slot));
        }
    }

    /// Keys that are busy at `now`.
    pub(crate) fn busy(&self, now: u64) -> usize {
        let busy =
            |bucket: &Mutex<Vec<(u64, S)>>| bucket.lock().iter().filter(|(_, slot)| slot.busy_until() > now).count();
        self.buckets.iter().map(busy).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Until(u64);

    impl Slot for Until {
        fn busy_until(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn memory_is_bounded_and_the_first_to_be_idle_gives_way() {
        let table = Table::<Until>::new(64);
        for key in 0..10_000_u64 {
            table.with(key, 1, |slot| slot.0 = 10 + key);
        }
        assert_eq!(table.busy(1), 64);
        assert_eq!(table.forgotten.get(), 10_000 - 64);
        assert!(table.known(9_999, |_| ()).is_some());
        assert!(table.known(0, |_| ()).is_none());
    }

    #[test]
    fn an_idle_key_gives_its_place_away_uncounted() {
        let table = Table::<Until>::new(8);
        for key in 0..8 {
            table.with(key, 1, |slot| slot.0 = 5);
        }
        for key in 8..16 {
            table.with(key, 5, |slot| slot.0 = 9);
        }
        assert_eq!((table.busy(5), table.forgotten.get()), (8, 0));
    }
}
