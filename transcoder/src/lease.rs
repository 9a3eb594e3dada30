//! Keeping a job ours: heartbeats with progress, and the end of everything when the lease is lost.
//!
//! Invariants: a beat goes out every few seconds and at steps of progress, never more than one at a time; when the
//! control plane says that the lease is lost, or when it could not be asked for as long as the lease runs, the job's
//! token is cancelled, which kills ffmpeg and stops uploads. A worker that cannot prove its lease does not work on.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::queue::{Claim, Queue, QueueError};

/// The longest time between two beats.
const BEAT: Duration = Duration::from_secs(3);
/// The least time between two beats: progress comes in far finer steps than anyone watches.
const BEAT_LEAST: Duration = Duration::from_millis(400);

/// A stage of a job, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Fetch,
    Probe,
    Measure,
    Encode,
    Publish,
}

impl Stage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Probe => "probe",
            Self::Measure => "measure",
            Self::Encode => "encode",
            Self::Publish => "publish",
        }
    }

    /// The stage's part of the whole job, by what it costs on a song: encoding is most of it.
    fn span(self) -> (f64, f64) {
        match self {
            Self::Fetch => (0.0, 0.05),
            Self::Probe => (0.05, 0.07),
            Self::Measure => (0.07, 0.20),
            Self::Encode => (0.20, 0.92),
            Self::Publish => (0.92, 1.0),
        }
    }
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Progress {
    pub(crate) stage: Stage,
    /// 0 to 1 over the whole job; never falls.
    pub(crate) whole: f64,
}

/// Tells the heartbeat how far the job is. Cheap, callable from any thread, keeps only the latest.
#[derive(Debug, Clone)]
pub(crate) struct Reporter(watch::Sender<Progress>);

impl Reporter {
    pub(crate) fn new() -> (Self, watch::Receiver<Progress>) {
        let (sender, receiver) = watch::channel(Progress { stage: Stage::Fetch, whole: 0.0 });
        (Self(sender), receiver)
    }

    /// `done` is 0 to 1 within the stage.
    pub(crate) fn at(&self, stage: Stage, done: f64) {
        let (from, to) = stage.span();
        let done = if done.is_finite() { done.clamp(0.0, 1.0) } else { 0.0 };
        let whole = from + (to - from) * done;
        self.0.send_if_modified(|now| {
            if stage != now.stage {
                tracing::debug!(stage = stage.name(), "stage begun");
            }
            let step = stage != now.stage || whole - now.whole >= 0.01 || (done >= 1.0 && whole > now.whole);
            if step {
                *now = Progress { stage, whole: whole.max(now.whole) };
            }
            step
        });
    }
}

/// Beats until `end`; cancels `job` when the lease is lost. Returns whether it was.
///
/// From `ending` on the job's end is being told, and a lease that is gone may have ended with it: that is left to the
/// answer to the telling, which must not be broken off.
pub(crate) async fn hold(
    queue: &Queue,
    claim: &Claim,
    mut progress: watch::Receiver<Progress>,
    job: &CancellationToken,
    ending: &CancellationToken,
    end: &CancellationToken,
) -> bool {
    let mut lease = Duration::from_millis(claim.lease_ms);
    let mut renewed = Instant::now();
    let mut beat_at = renewed;
    loop {
        let every = BEAT.min(lease / 3).max(Duration::from_millis(50));
        tokio::select! {
            () = end.cancelled() => return false,
            () = tokio::time::sleep_until(beat_at + every) => {}
            changed = progress.changed() => {
                // The job's end drops the sender; `end` follows at once.
                let until = if changed.is_ok() { beat_at + BEAT_LEAST.min(every) } else { beat_at + every };
                tokio::select! {
                    () = end.cancelled() => return false,
                    () = tokio::time::sleep_until(until) => {}
                }
            }
        }
        let now = *progress.borrow_and_update();
        beat_at = Instant::now();
        let within = (lease / 3).clamp(Duration::from_millis(250), Duration::from_secs(5));
        let answer = tokio::select! {
            () = end.cancelled() => return false,
            answer = queue.progress(claim, now.stage.name(), (now.whole * 1000.0).round() / 1000.0, within) => answer,
        };
        match answer {
            Ok(length) => {
                // Counted from before the request: the control plane started its clock no earlier.
                renewed = beat_at;
                lease = length.max(Duration::from_millis(100));
            }
            Err(QueueError::LeaseLost) if ending.is_cancelled() => {
                end.cancelled().await;
                return false;
            }
            Err(QueueError::LeaseLost) => {
                tracing::warn!(job = %claim.job, fence = claim.fence, "lease lost; the job is dropped");
                job.cancel();
                return true;
            }
            Err(error) if renewed.elapsed() >= lease => {
                tracing::warn!(job = %claim.job, %error, "the lease ran out unrenewed; the job is dropped");
                job.cancel();
                return true;
            }
            Err(error) => tracing::warn!(job = %claim.job, %error, "heartbeat not delivered"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_never_falls_and_small_steps_are_not_sent() {
        let (reporter, mut receiver) = Reporter::new();
        reporter.at(Stage::Encode, 0.5);
        assert!(receiver.has_changed().expect("open"));
        let half = receiver.borrow_and_update().whole;
        reporter.at(Stage::Encode, 0.501);
        assert!(!receiver.has_changed().expect("open"));
        reporter.at(Stage::Measure, 0.1);
        assert!(receiver.borrow_and_update().whole >= half);
        reporter.at(Stage::Encode, f64::NAN);
        assert!(receiver.borrow().whole >= half);
    }
}
