//! The generic cell rate algorithm: one number per key says when its bucket is full again.
//!
//! Purpose: a token bucket without a clock of its own. The number is the theoretical arrival time (TAT): the moment at
//! which everything that was taken is earned back. A bucket whose TAT is past is full, and need not be remembered.
//!
//! Invariants: in any window of `w` seconds at most `burst + rate * w` tokens are given out; a token's price is rounded
//! up to whole nanoseconds, so that rounding never gives out more.

/// Nanoseconds of a second.
const SECOND: f64 = 1_000_000_000.0;

/// A bucket's rate and size. Times are nanoseconds of whichever clock the caller keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gcra {
    /// What a token costs.
    interval: u64,
    /// How far ahead of the clock a TAT may be: the whole bucket.
    tolerance: u64,
}

impl Gcra {
    /// `rate` in tokens a second, `burst` in tokens.
    #[must_use]
    pub fn new(rate: f64, burst: f64) -> Self {
        let interval = SECOND / rate;
        // A float's way to an integer saturates, and a rate of nothing gives a bucket that never fills.
        Self { interval: interval.ceil() as u64, tolerance: (interval.ceil() * burst.floor()) as u64 }
    }

    /// Takes `cost` tokens from the bucket whose TAT is `tat`; gives its new TAT.
    ///
    /// # Errors
    /// The nanoseconds after which the tokens are there, if nobody else takes them.
    pub fn take(&self, tat: u64, now: u64, cost: u32) -> Result<u64, u64> {
        let next = tat.max(now).saturating_add(self.interval.saturating_mul(u64::from(cost)));
        match next.saturating_sub(now.saturating_add(self.tolerance)) {
            0 => Ok(next),
            early => Err(early),
        }
    }

    /// Takes `cost` tokens whether they are there or not; an empty bucket is the least that it comes to.
    #[must_use]
    pub fn charge(&self, tat: u64, now: u64, cost: u32) -> u64 {
        let next = tat.max(now).saturating_add(self.interval.saturating_mul(u64::from(cost)));
        next.min(now.saturating_add(self.tolerance))
    }

    /// Nanoseconds until a bucket with this TAT is full.
    #[must_use]
    pub fn full_in(&self, tat: u64, now: u64) -> u64 {
        tat.saturating_sub(now)
    }

    /// What a token costs, in nanoseconds.
    #[must_use]
    pub fn interval(&self) -> u64 {
        self.interval
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_its_rate() {
        let bucket = Gcra::new(10.0, 3.0);
        let (mut tat, now) = (0, 5_000 * MS);
        for _ in 0..3 {
            tat = bucket.take(tat, now, 1).unwrap();
        }
        assert_eq!(bucket.take(tat, now, 1), Err(100 * MS));
        assert_eq!(bucket.take(tat, now + 99 * MS, 1), Err(MS));
        assert!(bucket.take(tat, now + 100 * MS, 1).is_ok());
        assert_eq!(bucket.full_in(tat, now), 300 * MS);
        assert_eq!(bucket.take(0, now, 4), Err(100 * MS), "more than the bucket holds is never there");
    }

    #[test]
    fn no_window_sees_more_than_burst_and_rate_allow() {
        // Rates that no nanosecond divides, asked at odd moments.
        for (rate, burst) in [(3.0, 1.0), (7.0, 5.0), (333.3, 40.0), (0.4, 2.0), (999_999.0, 10.0)] {
            let bucket = Gcra::new(rate, burst);
            let (mut tat, mut now, mut given) = (0, 1_u64, Vec::new());
            let mut seed = 1_u64;
            while given.len() < 2_000 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                now += (seed >> 33) % ((4e8 / rate) as u64);
                if let Ok(next) = bucket.take(tat, now, 1) {
                    tat = next;
                    given.push(now);
                }
            }
            for (first, from) in given.iter().enumerate() {
                for (last, to) in given.iter().enumerate().skip(first).step_by(37) {
                    let allowed = burst + rate * ((to - from) as f64 / SECOND);
                    assert!((last - first + 1) as f64 <= allowed + 1e-6, "{rate}/{burst}: {first}..={last}");
                }
            }
        }
    }
}
