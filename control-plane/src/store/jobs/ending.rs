//! How an attempt ends without a result, what that costs the job, and what is cleared away behind it.
//!
//! | ending | attempt | loss | comes back |
//! |---|---|---|---|
//! | the worker calls it failed, and it may pass | used up | - | after a back-off, while attempts are left |
//! | the worker calls it failed for good | used up | - | never |
//! | the worker was stopped | given back | - | at once |
//! | the worker fell silent | given back | one more | after a back-off, up to [`LOSSES_MAX`] |
//! | another process took the worker's name | given back | one more | at once, up to [`LOSSES_MAX`] |

use serde::Deserialize;

use super::{Claimant, JobRow, LeaseLost, Patience, State, change};
use crate::objects;
use crate::store::dialect::{args, locked};
use crate::store::tracks::{self, Status};
use crate::store::{StoreError, Write, removals};

/// Lost workers that one job survives. A machine is rarely restarted this often within one transcode, and a file that
/// takes its worker down with it each time must not do so for ever.
pub(super) const LOSSES_MAX: u32 = 20;

/// What attempts left behind is looked at a second time this long after the first: a worker that was suspended in the
/// middle of an upload sends the rest of it when it wakes, and only then hears that its lease is lost.
const SECOND_LOOK_MS: i64 = 600_000;

/// Why an attempt, or a publication, is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending<'a> {
    /// The worker says what went wrong, or the publication is given up.
    Failed {
        /// Word.
        reason: &'a str,
        /// Sentence for a person, about what went wrong; what happens next is added here.
        message: &'a str,
        /// Whether another attempt may end differently.
        retryable: bool,
    },
    /// The worker was stopped by whoever runs it.
    Stopped,
    /// The worker said nothing for as long as its lease.
    Silent,
    /// Another process claims under the worker's name, so the one that had the job is gone.
    Replaced,
}

/// What becomes of the job.
struct Verdict {
    /// Wait before it may be claimed again, in milliseconds; `None`: it failed.
    again_after: Option<i64>,
    attempts: u32,
    losses: u32,
    reason: String,
    message: String,
}

impl Ending<'_> {
    fn verdict(self, job: &JobRow, patience: Patience) -> Verdict {
        let given_back = job.attempts.saturating_sub(1);
        match self {
            Self::Failed { reason, message, retryable } => {
                let again = retryable && job.attempts < job.max_attempts;
                let message = match (again, retryable) {
                    (true, _) => followed(message, AGAIN),
                    (false, true) if job.attempts > 1 => {
                        followed(message, &format!("It was tried {} times.", job.attempts))
                    }
                    (false, _) => message.to_owned(),
                };
                Verdict {
                    again_after: again.then(|| patience.backoff(job.attempts)),
                    attempts: job.attempts,
                    losses: job.losses,
                    reason: reason.to_owned(),
                    message,
                }
            }
            Self::Stopped => Verdict {
                again_after: Some(0),
                attempts: given_back,
                losses: job.losses,
                reason: STOPPED.to_owned(),
                message: followed("The transcoder was stopped.", AGAIN),
            },
            Self::Silent | Self::Replaced => {
                let losses = job.losses.saturating_add(1);
                let pause = if matches!(self, Self::Silent) { patience.backoff(losses) } else { 0 };
                let again_after = (losses < LOSSES_MAX).then_some(pause);
                let message = match again_after {
                    Some(_) => followed("The transcoder was lost while it worked on this file.", AGAIN),
                    None => format!(
                        "The transcoder was lost {losses} times while it worked on this file, so the file itself may \
                         be what stops it. Look at the transcoder's log and its memory before you retry the track."
                    ),
                };
                Verdict { again_after, attempts: given_back, losses, reason: LOST.to_owned(), message }
            }
        }
    }
}

/// Reason words.
const STOPPED: &str = "worker-stopped";
const LOST: &str = "worker-lost";

/// Added to a message only where it is true.
const AGAIN: &str = "It will be tried again.";

/// One sentence after another.
fn followed(message: &str, next: &str) -> String {
    let message = message.trim_end();
    let stop = if message.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{message}{stop} {next}")
}

impl<'a> Ending<'a> {
    /// What a worker's own word about its attempt means.
    pub(crate) fn said(reason: &'a str, message: &'a str, retryable: bool) -> Self {
        if reason == STOPPED && retryable { Self::Stopped } else { Self::Failed { reason, message, retryable } }
    }
}

/// Ends an attempt, or gives up a publication: the job goes back to the queue, or fails and its track with it.
///
/// `from` is the state that the caller speaks for: a worker can end a running job, not a publication that is ours.
pub(crate) async fn end(
    tx: &mut Write,
    (id, fence): (&str, i64),
    from: State,
    ending: Ending<'_>,
    patience: Patience,
    now: i64,
) -> Result<Result<JobRow, LeaseLost>, StoreError> {
    let held = "SELECT * FROM jobs WHERE id = ? AND fence = ? AND state = ?";
    let held: Option<JobRow> = locked(tx, held, args![id, fence, from.word()]).await?;
    let Some(job) = held else { return Ok(Err(LeaseLost)) };
    let verdict = ending.verdict(&job, patience);
    let (state, stage, status) = match verdict.again_after {
        Some(_) => (State::Queued, Some(State::Queued.word()), Status::Queued),
        None => (State::Failed, job.stage.as_deref(), Status::Failed),
    };
    let job = change(
        tx,
        id,
        "state = ?, stage = ?, attempts = ?, losses = ?, progress = 0, reason = ?, message = ?, worker = NULL, \
         instance = NULL, due_ms = ?, updated_ms = ?",
        "fence = ?",
        args![
            state.word(),
            stage,
            i64::from(verdict.attempts),
            i64::from(verdict.losses),
            &verdict.reason,
            &verdict.message,
            now + verdict.again_after.unwrap_or(0),
            now,
            fence,
        ],
    )
    .await?
    .ok_or(sqlx::Error::RowNotFound)?;
    let failed = verdict.again_after.is_none();
    if failed {
        leftovers(tx, &job, patience, now).await?;
    }
    let shown = failed.then_some((verdict.reason.as_str(), verdict.message.as_str()));
    tracks::follow_job(tx, &job.track, status, shown, now).await?;
    Ok(Ok(job))
}

/// Takes back jobs whose worker fell silent. At most `limit`, so that a sweep stays short.
pub(crate) async fn expire_leases(
    tx: &mut Write,
    patience: Patience,
    now: i64,
    limit: u32,
) -> Result<Vec<JobRow>, StoreError> {
    let silent: Vec<(String, i64)> =
        sqlx::query_as("SELECT id, fence FROM jobs WHERE state = 'running' AND due_ms < ? ORDER BY due_ms LIMIT ?")
            .bind(now)
            .bind(i64::from(limit))
            .fetch_all(&mut **tx)
            .await?;
    take_back(tx, silent, Ending::Silent, patience, now).await
}

/// Takes back what runs under the claimant's name with another instance: that process is gone. As many jobs as one
/// worker has slots.
pub(crate) async fn replace(
    tx: &mut Write,
    claimant: Claimant<'_>,
    patience: Patience,
    now: i64,
) -> Result<Vec<JobRow>, StoreError> {
    let orphans: Vec<(String, i64)> =
        sqlx::query_as("SELECT id, fence FROM jobs WHERE state = 'running' AND worker = ? AND instance <> ?")
            .bind(claimant.worker)
            .bind(claimant.instance)
            .fetch_all(&mut **tx)
            .await?;
    take_back(tx, orphans, Ending::Replaced, patience, now).await
}

async fn take_back(
    tx: &mut Write,
    jobs: Vec<(String, i64)>,
    ending: Ending<'_>,
    patience: Patience,
    now: i64,
) -> Result<Vec<JobRow>, StoreError> {
    let mut taken = Vec::with_capacity(jobs.len());
    for (id, fence) in jobs {
        if let Ok(job) = end(tx, (&id, fence), State::Running, ending, patience, now).await? {
            taken.push(job);
        }
    }
    Ok(taken)
}

/// Notes the removal of what a job's attempts wrote and nobody was ever given: folders of this fence and older ones,
/// except for versions that were published, which listeners may still play. Attempts that come later have a higher
/// fence, so a retry is never touched, however late the removal runs.
pub(super) async fn leftovers(tx: &mut Write, job: &JobRow, patience: Patience, now: i64) -> Result<(), StoreError> {
    #[derive(Deserialize)]
    struct Completion {
        version: String,
    }
    let published: Vec<Option<String>> =
        sqlx::query_scalar("SELECT completion FROM jobs WHERE track = ? AND state = 'done'")
            .bind(&job.track)
            .fetch_all(&mut **tx)
            .await?;
    let folder = objects::media_prefix(&job.track);
    let mut keep = Vec::with_capacity(published.len());
    for text in published.into_iter().flatten() {
        keep.push(format!("{folder}{}/", serde_json::from_str::<Completion>(&text)?.version));
    }
    // A worker stops within one lease of its last sign of life.
    let due = now + 2 * patience.lease_ms;
    removals::note_attempts(tx, &folder, &keep.join("\n"), job.fence, (due, due + SECOND_LOOK_MS)).await
}
