//! When an origin is left alone for a while, and how many second attempts it is asked to bear.
//!
//! Invariants: [`FAILURES`] requests in a row that failed open the circuit for [`PAUSE`]; then one request may try, and its
//! outcome closes the circuit or begins another pause. Second attempts are at most a fifth of the first ones, but for a
//! reserve, so that a failing origin gets little more load than a sound one.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::Mutex;

/// Failures in a row, each after its own attempts. Fewer would let one bad minute of one object close an origin.
const FAILURES: u32 = 16;
/// How long the origin is left alone: about what a restart takes.
const PAUSE: Duration = Duration::from_secs(5);

/// What a request adds to the budget, in thousandths of an attempt.
const DEPOSIT: i64 = 200;
/// What a second attempt takes from it.
const ATTEMPT: i64 = 1_000;
/// The reserve, at the start and at most: a short failure under little load is retried in full.
const RESERVE: i64 = 100 * ATTEMPT;

/// See the module.
#[derive(Default)]
pub(super) struct Breaker {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    /// Whether a request may go to the origin now.
    pub(super) fn admits(&self) -> bool {
        let mut state = self.state.lock();
        let now = Instant::now();
        match state.open_until {
            Some(until) if now < until => false,
            // This one tries; the others wait for its outcome, or for another pause.
            Some(_) => {
                state.open_until = Some(now + PAUSE);
                true
            }
            None => true,
        }
    }

    pub(super) fn succeeded(&self) {
        let mut state = self.state.lock();
        *state = State::default();
    }

    /// Whether this failure opened the circuit.
    pub(super) fn failed(&self) -> bool {
        let mut state = self.state.lock();
        state.failures = state.failures.saturating_add(1);
        let opens = state.failures >= FAILURES;
        let was_open = state.open_until.is_some();
        if opens {
            state.open_until = Some(Instant::now() + PAUSE);
        }
        opens && !was_open
    }
}

/// What may be spent on second attempts.
pub(super) struct Budget(AtomicI64);

impl Budget {
    pub(super) fn new() -> Self {
        Self(AtomicI64::new(RESERVE))
    }

    /// A first attempt was made.
    pub(super) fn deposit(&self) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some((left + DEPOSIT).min(RESERVE)));
    }

    /// Whether another attempt may be made.
    pub(super) fn spend(&self) -> bool {
        let spent = |left: i64| (left >= ATTEMPT).then_some(left - ATTEMPT);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_request_tries_after_the_pause() {
        let breaker = Breaker::default();
        for _ in 1..FAILURES {
            assert!(!breaker.failed() && breaker.admits());
        }
        assert!(breaker.failed(), "this one opens it");
        assert!(!breaker.admits());
        tokio::time::advance(PAUSE).await;
        assert!(breaker.admits() && !breaker.admits());
        assert!(!breaker.failed(), "it was open already");
        tokio::time::advance(PAUSE).await;
        assert!(breaker.admits());
        breaker.succeeded();
        assert!(breaker.admits() && breaker.admits());
    }

    #[test]
    fn second_attempts_are_a_share_of_the_first() {
        let budget = Budget::new();
        assert_eq!((0..1_000).filter(|_| budget.spend()).count(), 100);
        (0..10).for_each(|_| budget.deposit());
        assert_eq!((0..10).filter(|_| budget.spend()).count(), 2);
    }
}
