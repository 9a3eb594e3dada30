//! Rest after repeated failures: a policy that traps at each call would cost an instance for each request, and whoever
//! can make it trap could make the edge slow.
//!
//! Invariants: while nothing fails, a call costs one relaxed load and no look at the clock; while resting, nothing runs;
//! after a rest one call is let through to try, and its outcome decides.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A rest grows to at most `rest` times two to the power of this.
const MAX_DOUBLINGS: u32 = 6;

/// Counts failures in a row.
pub(crate) struct Breaker {
    born: Instant,
    bound: u32,
    rest: Duration,
    failures: AtomicU32,
    /// Milliseconds since `born` until which it rests; 0: it does not.
    until: AtomicU64,
    doublings: AtomicU32,
}

impl Breaker {
    pub(crate) fn new(bound: u32, rest: Duration) -> Self {
        let zero = || AtomicU32::new(0);
        Self {
            born: Instant::now(),
            bound: bound.max(1),
            rest,
            failures: zero(),
            until: AtomicU64::new(0),
            doublings: zero(),
        }
    }

    /// Whether a call may run now.
    pub(crate) fn admits(&self) -> bool {
        let until = self.until.load(Relaxed);
        if until == 0 {
            return true;
        }
        let now = self.now();
        // Whoever moves the end of the rest is the one that tries; it moves by a whole rest, so that a try that hangs holds the others off.
        now >= until && self.until.compare_exchange(until, now + self.span(), Relaxed, Relaxed).is_ok()
    }

    pub(crate) fn worked(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.doublings.store(0, Relaxed);
            self.until.store(0, Relaxed);
        }
    }

    /// Counts a failure; says whether a rest begins with it.
    pub(crate) fn failed(&self) -> bool {
        if self.failures.fetch_add(1, Relaxed) + 1 < self.bound {
            return false;
        }
        let first = self.until.swap(self.now() + self.span(), Relaxed) == 0;
        if self.doublings.load(Relaxed) < MAX_DOUBLINGS {
            self.doublings.fetch_add(1, Relaxed);
        }
        first
    }

    /// Whether it rests at this moment.
    pub(crate) fn rests(&self) -> bool {
        self.until.load(Relaxed) > self.now()
    }

    fn span(&self) -> u64 {
        let span = self.rest.saturating_mul(1 << self.doublings.load(Relaxed).min(MAX_DOUBLINGS));
        u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 2).max(1)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_after_failures_in_a_row_and_tries_once_after_the_rest() {
        let breaker = Breaker::new(3, Duration::from_millis(30));
        assert!(!breaker.failed());
        breaker.worked();
        assert!(!breaker.failed());
        assert!(!breaker.failed());
        assert!(breaker.admits());
        assert!(breaker.failed());
        assert!(!breaker.admits());
        assert!(breaker.rests());
        while breaker.rests() {
            std::thread::yield_now();
        }
        assert!(breaker.admits(), "the one that tries");
        assert!(!breaker.admits(), "the others wait for it");
        breaker.worked();
        assert!(breaker.admits());
        assert!(!breaker.failed(), "counts from the start");
    }
}
