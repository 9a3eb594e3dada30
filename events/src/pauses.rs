//! Pauses between calls of another machine that fail.

use std::time::Duration;

/// The first pause after a failure; doubled for each one in a row.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause: whoever is back is found within it.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Pauses that grow with every failure in a row.
#[derive(Debug)]
pub struct Pauses {
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: PAUSE }
    }
}

impl Pauses {
    /// The last call went well. `true`: the one before had not.
    pub fn over(&mut self) -> bool {
        let failed = self.is_failing();
        self.next = PAUSE;
        failed
    }

    /// Whether the last call failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.next > PAUSE
    }

    /// How long to wait now: between half of the pause and all of it, so that edges do not come all at once. `true`
    /// beside it for the first failure in a row, which is the one to log.
    pub fn take(&mut self) -> (Duration, bool) {
        let (pause, first) = (self.next, self.next == PAUSE);
        self.next = (self.next * 2).min(PAUSE_MAX);
        (jittered(pause), first)
    }
}

/// Between half of `span` and all of it.
#[must_use]
pub fn jittered(span: Duration) -> Duration {
    let mut byte = [0xff_u8];
    // Without randomness everybody waits the whole of it.
    let _ = getrandom::fill(&mut byte);
    span / 2 + span / 2 * u32::from(byte[0]) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_start_again() {
        let mut pauses = Pauses::default();
        assert!(!pauses.over());
        let (first, is_first) = pauses.take();
        assert!(is_first && first >= PAUSE / 2 && first <= PAUSE, "{first:?}");
        for _ in 0..20 {
            let (pause, is_first) = pauses.take();
            assert!(!is_first && pause <= PAUSE_MAX, "{pause:?}");
        }
        assert!(pauses.take().0 >= PAUSE_MAX / 2);
        assert!(pauses.over() && !pauses.over());
    }
}
