//! So many of something in a time, for each of many: GCRA (ITU-T I.371, in its virtual scheduling form) in bounded memory.
//!
//! Invariants: at most [`KEYS_MAX`] keys are remembered; those beyond share one allowance, so that a flood of keys is
//! limited together instead of not at all. No wait, and no await under the lock.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Keys that are remembered: more tokens than may be made, and some hundred KiB.
const KEYS_MAX: usize = 10_000;

/// A full table is looked through for keys that have their whole allowance at most this often.
const SWEEP: Duration = Duration::from_secs(1);

/// An allowance for each key.
#[derive(Debug)]
pub(crate) struct Rates<K> {
    /// Time in which one more is allowed.
    each: Duration,
    /// How far ahead of its time a key may be.
    slack: Duration,
    due: Mutex<Due<K>>,
}

#[derive(Debug)]
struct Due<K> {
    by_key: HashMap<K, Instant>,
    /// Of all keys that found no room.
    rest: Option<Instant>,
    swept: Option<Instant>,
}

impl<K: Eq + Hash> Rates<K> {
    /// `count` in `span` at a steady pace, `burst` at once; both at least 1.
    pub(crate) fn new(count: u32, span: Duration, burst: u32) -> Self {
        let each = span / count.max(1);
        let due = Mutex::new(Due { by_key: HashMap::new(), rest: None, swept: None });
        Self { each, slack: each * burst.max(1).saturating_sub(1), due }
    }

    /// Takes one of the key's allowance.
    ///
    /// # Errors
    /// The time after which there will be one; nothing was taken.
    pub(crate) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut due = self.due();
        let known = due.at(&key);
        self.free(known, now)?;
        let next = known.map_or(now, |at| at.max(now)) + self.each;
        due.set(key, next, now);
        Ok(())
    }

    /// How long the key has to wait for its next one, without taking it.
    pub(crate) fn wait(&self, key: &K, now: Instant) -> Option<Duration> {
        self.free(self.due().at(key), now).err()
    }

    fn free(&self, due: Option<Instant>, now: Instant) -> Result<(), Duration> {
        let ahead = due.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        ahead.checked_sub(self.slack).filter(|wait| !wait.is_zero()).map_or(Ok(()), Err)
    }

    fn due(&self) -> MutexGuard<'_, Due<K>> {
        // Each change is one assignment: a panic elsewhere leaves nothing half done.
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Due<K> {
    fn at(&self, key: &K) -> Option<Instant> {
        let full = self.by_key.len() >= KEYS_MAX;
        self.by_key.get(key).copied().or(self.rest.filter(|_| full))
    }

    fn set(&mut self, key: K, at: Instant, now: Instant) {
        if self.by_key.len() >= KEYS_MAX && self.swept.is_none_or(|swept| now.duration_since(swept) >= SWEEP) {
            self.by_key.retain(|_, at| *at > now);
            self.swept = Some(now);
        }
        if self.by_key.len() < KEYS_MAX || self.by_key.contains_key(&key) {
            self.by_key.insert(key, at);
        } else {
            self.rest = Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_at_once_and_then_one_at_a_time() {
        let rates = Rates::new(10, Duration::from_secs(1), 3);
        let now = Instant::now();
        assert!((0..3).all(|_| rates.take("a", now).is_ok()));
        assert_eq!(rates.take("a", now), Err(Duration::from_millis(100)));
        assert_eq!(rates.wait(&"a", now), Some(Duration::from_millis(100)));
        assert!(rates.take("b", now).is_ok(), "each has an allowance of its own");
        let later = now + Duration::from_millis(100);
        assert_eq!(rates.wait(&"a", later), None);
        assert!(rates.take("a", later).is_ok());
        assert!(rates.take("a", later).is_err());
        assert!(
            (0..3).all(|_| rates.take("a", later + Duration::from_secs(9)).is_ok()),
            "no more than the burst is saved"
        );
        assert!(rates.take("a", later + Duration::from_secs(9)).is_err());
    }

    #[test]
    fn a_flood_of_keys_shares_one_allowance_and_grows_no_further() {
        let rates = Rates::new(1, Duration::from_secs(60), 1);
        let now = Instant::now();
        assert!((0..KEYS_MAX).all(|key| rates.take(key, now).is_ok()));
        assert!(rates.take(KEYS_MAX, now).is_ok(), "the first beyond them");
        assert!(rates.take(KEYS_MAX + 1, now).is_err(), "has taken what they share");
        assert_eq!(rates.due().by_key.len(), KEYS_MAX);
        let later = now + Duration::from_secs(61);
        assert!(rates.take(KEYS_MAX + 1, later).is_ok());
        assert_eq!(rates.due().by_key.len(), 1, "those that have their whole allowance are forgotten");
    }
}
