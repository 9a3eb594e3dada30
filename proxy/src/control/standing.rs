//! How an edge stands with its control plane: how old its snapshot is, and whether requests may be judged by it.
//!
//! Invariants: an edge with a control plane judges no request before it has a snapshot: without revocations it would let
//! through what somebody stopped. With one it goes on however old that becomes, unless `refuse_after` says otherwise.
//! The age is counted from when the control plane last confirmed the snapshot, over restarts.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::config::SnapshotConfig;
use crate::metrics::Counter;
use crate::refusal::Refusal;
use crate::snapshot::unix_ms;

/// How often the age is looked at.
const LOOK: Duration = Duration::from_secs(1);

const OPEN: u8 = 0;
const MISSING: u8 = 1;
const TOO_OLD: u8 = 2;

/// See the module. One that was never begun belongs to an edge without a control plane, and is open.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    gate: AtomicU8,
    /// When the snapshot was confirmed last, ms since the epoch; 0: never.
    confirmed_ms: AtomicU64,
    ages: OnceLock<SnapshotConfig>,
    pub(crate) follow_failures: Counter,
    pub(crate) report_failures: Counter,
    pub(crate) keep_failures: Counter,
}

impl Standing {
    /// From now on there is a control plane.
    pub(super) fn begin(&self, ages: &SnapshotConfig) {
        let _only_once = self.ages.set(ages.clone());
        self.gate.store(MISSING, Ordering::Relaxed);
    }

    /// The control plane says that the snapshot which is in force is the newest.
    pub(super) fn confirmed_at(&self, ms: u64) {
        self.confirmed_ms.store(ms, Ordering::Relaxed);
        self.judge();
    }

    /// Keeps the gate true while time passes.
    pub(super) async fn keep(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.judge();
        }
    }

    fn judge(&self) {
        let Some(ages) = self.ages.get() else { return };
        let now = match self.age() {
            None => MISSING,
            Some(age) if ages.refuse_after.is_some_and(|most| age > most) => TOO_OLD,
            Some(_) => OPEN,
        };
        let before = self.gate.swap(now, Ordering::Relaxed);
        match (before, now) {
            (OPEN, TOO_OLD) => tracing::error!(
                age_s = self.age().map_or(0, |age| age.as_secs()),
                "the snapshot is older than [snapshot] refuse_after: requests are refused until the control plane is back"
            ),
            (TOO_OLD, OPEN) => tracing::info!("the snapshot is new enough again; requests are answered"),
            _ => {}
        }
    }

    /// Whether a request may be judged by the snapshot that there is.
    ///
    /// # Errors
    /// [`Refusal::NoSnapshot`], [`Refusal::SnapshotTooOld`].
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        match self.gate.load(Ordering::Relaxed) {
            OPEN => Ok(()),
            MISSING => Err(Refusal::NoSnapshot),
            _ => Err(Refusal::SnapshotTooOld),
        }
    }

    /// How long ago the snapshot was confirmed; `None`: there is none.
    fn age(&self) -> Option<Duration> {
        let confirmed = self.confirmed_ms.load(Ordering::Relaxed);
        (confirmed > 0).then(|| Duration::from_millis(unix_ms().saturating_sub(confirmed)))
    }

    /// A sentence for whoever asks whether the edge is ready and well. `None`: there is nothing to say.
    pub(crate) fn concern(&self) -> Option<String> {
        let ages = self.ages.get()?;
        let age = self.age()?;
        (age > ages.max_age).then(|| {
            let (age, most) = (age.as_secs(), ages.max_age.as_secs());
            format!("the snapshot was confirmed {age} s ago, more than the {most} s of max_age")
        })
    }

    /// Prometheus text; nothing without a control plane.
    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        let Some(ages) = self.ages.get() else { return text };
        let age = self.age();
        let too_old = age.is_none_or(|age| age > ages.max_age);
        let mut sample = |name: &str, kind: &str, help: &str, value: u64| {
            // Writing to a String does not fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        let age_s = age.map_or(0, |age| age.as_secs());
        sample("segue_snapshot_age_seconds", "gauge", "Time since the control plane confirmed the snapshot.", age_s);
        let help = "Whether the snapshot is missing or older than max_age.";
        sample("segue_snapshot_too_old", "gauge", help, u64::from(too_old));
        for (name, help, counter) in [
            ("segue_control_follow_failures_total", "Failed looks at the snapshot.", &self.follow_failures),
            ("segue_control_report_failures_total", "Reports that were not taken.", &self.report_failures),
            ("segue_snapshot_keep_failures_total", "Snapshots that could not be kept on disk.", &self.keep_failures),
        ] {
            sample(name, "counter", help, counter.get());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_control_plane_it_is_open_and_says_nothing() {
        let standing = Standing::default();
        standing.judge();
        assert_eq!(standing.check(), Ok(()));
        assert!(standing.concern().is_none() && standing.metrics().is_empty());
    }

    #[test]
    fn it_opens_with_a_snapshot_and_closes_when_that_is_too_old() {
        let standing = Standing::default();
        let refuse_after = Some(Duration::from_secs(600));
        standing.begin(&SnapshotConfig { refuse_after, ..SnapshotConfig::default() });
        standing.judge();
        assert_eq!(standing.check(), Err(Refusal::NoSnapshot));
        standing.confirmed_at(unix_ms());
        assert_eq!((standing.check(), standing.concern()), (Ok(()), None));
        standing.confirmed_at(unix_ms() - 400_000);
        assert_eq!(standing.check(), Ok(()));
        assert!(standing.concern().is_some_and(|said| said.contains("max_age")));
        assert!(standing.metrics().contains("segue_snapshot_too_old 1"));
        standing.confirmed_at(unix_ms() - 700_000);
        assert_eq!(standing.check(), Err(Refusal::SnapshotTooOld));
        standing.confirmed_at(unix_ms());
        assert_eq!(standing.check(), Ok(()));
    }
}
