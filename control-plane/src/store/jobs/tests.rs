//! Every step of a job's life, and a long random walk over them with workers that die and come back.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::database::database;
use crate::fixture::{CLAIMANT, published, queued};
use crate::store::{removals, transaction};

const PATIENCE: Patience = Patience { lease_ms: 1000, backoff_ms: 100, backoff_max_ms: 400 };

async fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&database(folder.path())).await.unwrap();
    (folder, store)
}

async fn claim_at(store: &Store, now: i64) -> Option<Claimed> {
    let mut tx = store.begin().await.unwrap();
    let claimed = claim(&mut tx, CLAIMANT, PATIENCE, now).await.unwrap();
    tx.commit().await.unwrap();
    claimed
}

async fn fail_at(store: &Store, id: &str, fence: i64, retryable: bool, now: i64) -> Result<JobRow, LeaseLost> {
    let mut tx = store.begin().await.unwrap();
    let ending = Ending::said("broken", "It is broken.", retryable);
    let job = end(&mut tx, (id, fence), State::Running, ending, PATIENCE, now).await.unwrap();
    tx.commit().await.unwrap();
    job
}

async fn accept_at(store: &Store, id: &str, fence: i64, now: i64) -> Result<JobRow, LeaseLost> {
    let mut tx = store.begin().await.unwrap();
    let job = begin_publishing(&mut tx, id, fence, &published(fence, 1000), now, now).await.unwrap();
    tx.commit().await.unwrap();
    job
}

async fn finish_at(store: &Store, id: &str, fence: i64, now: i64) -> Option<JobRow> {
    let mut tx = store.begin().await.unwrap();
    let job = finish_publishing(&mut tx, (id, fence), PATIENCE, now).await.unwrap();
    tx.commit().await.unwrap();
    job
}

async fn expire_at(store: &Store, now: i64) -> Vec<JobRow> {
    let mut tx = store.begin().await.unwrap();
    let taken = expire_leases(&mut tx, PATIENCE, now, 100).await.unwrap();
    tx.commit().await.unwrap();
    taken
}

async fn status(store: &Store, track: &str) -> Status {
    tracks::get(store, track).await.unwrap().unwrap().status
}

#[tokio::test]
async fn the_most_urgent_due_job_goes_to_one_worker() {
    let (_folder, store) = store().await;
    queued(&store, "ta", "ja", 3, 10).await;
    queued(&store, "tb", "jb", 3, 20).await;
    let mut tx = store.begin().await.unwrap();
    sqlx::query("UPDATE jobs SET priority = 5 WHERE id = 'jb'").execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    let first = claim_at(&store, 100).await.unwrap();
    assert_eq!((first.job.id.as_str(), first.job.fence, first.source_key.as_str()), ("jb", 1, "uploads/tb/u"));
    assert_eq!(claim_at(&store, 100).await.unwrap().job.id, "ja");
    assert!(claim_at(&store, 100).await.is_none());
    assert_eq!(status(&store, "ta").await, Status::Transcoding);
}

#[tokio::test]
async fn claims_at_once_never_share_a_job() {
    let (_folder, store) = store().await;
    for n in 0..20 {
        queued(&store, &format!("t{n}"), &format!("j{n}"), 3, 10).await;
    }
    let claims = (0..30).map(|_| claim_at(&store, 100));
    let claimed: Vec<String> =
        futures::future::join_all(claims).await.into_iter().flatten().map(|c| c.job.id).collect();
    let distinct: std::collections::BTreeSet<&String> = claimed.iter().collect();
    assert_eq!((claimed.len(), distinct.len()), (20, 20));
}

#[tokio::test]
async fn back_off_doubles_and_is_waited_for() {
    let (_folder, store) = store().await;
    queued(&store, "t", "j", 5, 0).await;
    let mut now = 0;
    for wait in [100, 200, 400, 400] {
        let claimed = claim_at(&store, now).await.unwrap();
        fail_at(&store, "j", claimed.job.fence, true, now).await.unwrap();
        assert!(claim_at(&store, now + wait - 1).await.is_none(), "too early after {now}");
        assert_eq!(next_due(&store).await.unwrap(), Some(now + wait));
        now += wait;
    }
    let last = claim_at(&store, now).await.unwrap();
    let job = fail_at(&store, "j", last.job.fence, true, now).await.unwrap();
    assert_eq!((job.state, job.reason.as_deref()), (State::Failed, Some("broken")));
    assert_eq!(status(&store, "t").await, Status::Failed);
}

#[tokio::test]
async fn a_sign_of_life_extends_the_lease() {
    let (_folder, store) = store().await;
    queued(&store, "t", "j", 3, 0).await;
    claim_at(&store, 0).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    let job = progress(&mut tx, "j", 1, "encode", 0.4, PATIENCE, 900).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    assert_eq!(job.progress, 0.4);
    assert!(expire_at(&store, 1500).await.is_empty(), "the lease runs to 1900");
    assert_eq!(expire_at(&store, 1901).await.len(), 1);
}

#[tokio::test]
async fn an_expired_lease_that_nobody_took_is_still_held() {
    let (_folder, store) = store().await;
    queued(&store, "t", "j", 3, 0).await;
    claim_at(&store, 0).await.unwrap();
    assert!(accept_at(&store, "j", 1, 5000).await.is_ok(), "late, but no other worker has the job");
}

#[tokio::test]
async fn a_worker_cannot_fail_what_is_being_published() {
    let (_folder, store) = store().await;
    queued(&store, "t", "j", 3, 0).await;
    claim_at(&store, 0).await.unwrap();
    accept_at(&store, "j", 1, 10).await.unwrap();
    assert_eq!(fail_at(&store, "j", 1, true, 20).await.unwrap_err(), LeaseLost);
    assert!(expire_at(&store, 1_000_000).await.is_empty(), "and its lease does not end");
    assert_eq!(finish_at(&store, "j", 1, 30).await.unwrap().state, State::Done);
    assert_eq!(status(&store, "t").await, Status::Ready);
    assert!(finish_at(&store, "j", 1, 40).await.is_none(), "once");
}

#[tokio::test]
async fn a_repeated_completion_must_be_the_same() {
    let (_folder, store) = store().await;
    queued(&store, "t", "j", 3, 0).await;
    claim_at(&store, 0).await.unwrap();
    accept_at(&store, "j", 1, 10).await.unwrap();
    assert_eq!(accept_at(&store, "j", 1, 11).await.unwrap().state, State::Publishing);
    let mut other = published(1, 1000);
    other.version = "fedcba9876543210-1".to_owned();
    let mut tx = store.begin().await.unwrap();
    assert_eq!(begin_publishing(&mut tx, "j", 1, &other, 12, 12).await.unwrap().unwrap_err(), LeaseLost);
}

async fn end_at(store: &Store, fence: i64, ending: Ending<'_>, now: i64) -> JobRow {
    let mut tx = store.begin().await.unwrap();
    let job = end(&mut tx, ("j", fence), State::Running, ending, PATIENCE, now).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    job
}

async fn replace_at(store: &Store, worker: &str, instance: &str, now: i64) -> Vec<JobRow> {
    let mut tx = store.begin().await.unwrap();
    let taken = replace(&mut tx, Claimant { worker, instance }, PATIENCE, now).await.unwrap();
    tx.commit().await.unwrap();
    taken
}

#[tokio::test]
async fn restarts_use_up_no_attempt() {
    let (_folder, store) = store().await;
    queued(&store, "t", "j", 2, 0).await;
    let mut now = 0;
    // As many kinds of restart as there are, far more of them than attempts.
    for round in 0..6u32 {
        let claimed = claim_at(&store, now).await.unwrap();
        assert_eq!(claimed.job.attempts, 1, "the one that runs");
        let stopped = Ending::said("worker-stopped", "The transcoder was stopped.", true);
        let job = end_at(&store, claimed.job.fence, stopped, now).await;
        assert_eq!((job.state, job.attempts, job.losses), (State::Queued, 0, 2 * round));

        let claimed = claim_at(&store, now).await.expect("without a pause");
        let job = replace_at(&store, "w", "later", now).await.remove(0);
        assert_eq!((job.state, job.attempts, job.losses), (State::Queued, 0, 2 * round + 1));
        assert_eq!(job.reason.as_deref(), Some("worker-lost"));

        assert!(claim_at(&store, now).await.expect("without a pause").job.fence > claimed.job.fence);
        now += 1001;
        let job = expire_at(&store, now).await.remove(0);
        assert_eq!((job.state, job.attempts, job.losses), (State::Queued, 0, 2 * round + 2));
        assert!(claim_at(&store, now).await.is_none(), "a silent worker's job is put off");
        now += 400;
    }
    // Failures still count as before.
    for left in [State::Queued, State::Failed] {
        let claimed = claim_at(&store, now).await.unwrap();
        assert_eq!(fail_at(&store, "j", claimed.job.fence, true, now).await.unwrap().state, left);
        now += 400;
    }
}

#[tokio::test]
async fn a_job_that_takes_its_workers_down_ends() {
    let (_folder, store) = store().await;
    queued(&store, "t", "j", 3, 0).await;
    for loss in 1..=ending::LOSSES_MAX {
        let claimed = claim_at(&store, 0).await.unwrap();
        let job = replace_at(&store, "w", "later", 0).await.remove(0);
        assert_eq!((job.id, job.losses), (claimed.job.id, loss));
    }
    let (job, track) = (get(&store, "j").await.unwrap().unwrap(), tracks::get(&store, "t").await.unwrap().unwrap());
    assert_eq!((job.state, job.attempts, job.reason.as_deref()), (State::Failed, 0, Some("worker-lost")));
    assert_eq!((track.status, track.reason.as_deref()), (Status::Failed, Some("worker-lost")));
    let message = track.message.unwrap();
    assert!(message.contains("20 times") && !message.contains("tried again"), "{message}");
    let mut tx = store.begin().await.unwrap();
    let job = retry(&mut tx, "j", 0).await.unwrap().unwrap();
    assert_eq!((job.state, job.losses), (State::Queued, 0));
}

#[tokio::test]
async fn only_another_process_of_the_same_name_takes_a_job_over() {
    let (_folder, store) = store().await;
    queued(&store, "t", "j", 3, 0).await;
    let claimed = claim_at(&store, 0).await.unwrap();
    assert!(replace_at(&store, "w", "i", 1).await.is_empty(), "another slot of the same process");
    assert!(replace_at(&store, "v", "later", 1).await.is_empty(), "another worker");
    accept_at(&store, "j", claimed.job.fence, 2).await.unwrap();
    assert!(replace_at(&store, "w", "later", 3).await.is_empty(), "what is published is ours");
}

#[tokio::test]
async fn a_message_says_that_the_job_is_tried_again_only_where_it_is() {
    let (_folder, store) = store().await;
    queued(&store, "t", "j", 2, 0).await;
    let mut messages = Vec::new();
    for now in [0, 1000] {
        let claimed = claim_at(&store, now).await.unwrap();
        messages.push(fail_at(&store, "j", claimed.job.fence, true, now).await.unwrap().message.unwrap());
    }
    assert_eq!(messages, ["It is broken. It will be tried again.", "It is broken. It was tried 2 times."]);
    queued(&store, "u", "k", 2, 0).await;
    let claimed = claim_at(&store, 0).await.unwrap();
    let job = fail_at(&store, "k", claimed.job.fence, false, 0).await.unwrap();
    assert_eq!(job.message.as_deref(), Some("It is broken."));
}

#[tokio::test]
async fn leftovers_of_a_failed_job_spare_what_an_earlier_job_published() {
    let (_folder, store) = store().await;
    queued(&store, "t", "j", 1, 0).await;
    claim_at(&store, 0).await.unwrap();
    accept_at(&store, "j", 1, 0).await.unwrap();
    finish_at(&store, "j", 1, 0).await.unwrap();
    assert!(removals::due(&store, i64::MAX, 10).await.unwrap().is_empty(), "a first attempt leaves nothing");
    let mut tx = store.begin().await.unwrap();
    enqueue(&mut tx, "k", "t", 1, 0).await.unwrap();
    sqlx::query("UPDATE jobs SET fence = 4 WHERE id = 'k'").execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    claim_at(&store, 0).await.unwrap();
    fail_at(&store, "k", 5, false, 10).await.unwrap();
    assert!(removals::due(&store, 10 + 2 * PATIENCE.lease_ms - 1, 10).await.unwrap().is_empty(), "not at once");
    let removal = removals::due(&store, 10 + 2 * PATIENCE.lease_ms, 10).await.unwrap().remove(0);
    let stays = |version: &str| removal.keeps(&format!("hls/t/{version}/a64/init.mp4"));
    assert!(stays("0123456789abcdef-1") && stays("0123456789abcdef-6"));
    assert!(!stays("0123456789abcdef-5") && !stays("0123456789abcdef-2"));
}

async fn cancel_at(store: &Store, id: &str, now: i64) -> Option<JobRow> {
    transaction!(store, |tx| cancel(tx, id, PATIENCE, now).await).unwrap()
}

#[tokio::test]
async fn a_cancelled_job_is_nobodys_and_comes_back_by_a_retry_alone() {
    let (_folder, store) = store().await;
    queued(&store, "t", "j", 3, 0).await;
    assert_eq!(cancel_at(&store, "j", 1).await.unwrap().state, State::Cancelled);
    assert!(claim_at(&store, 2).await.is_none() && cancel_at(&store, "j", 2).await.is_none());
    let track = tracks::get(&store, "t").await.unwrap().unwrap();
    assert_eq!((track.status, track.reason.as_deref()), (Status::Failed, Some("cancelled")));
    let job = transaction!(store, |tx| retry(tx, "j", 3).await).unwrap().unwrap();
    assert_eq!((job.state, job.reason), (State::Queued, None));
    let claimed = claim_at(&store, 4).await.unwrap();
    cancel_at(&store, "j", 5).await.unwrap();
    assert!(accept_at(&store, "j", claimed.job.fence, 6).await.is_err());
    assert!(expire_at(&store, 1_000_000).await.is_empty(), "its lease is over");
    assert_eq!(removals::due(&store, i64::MAX, 10).await.unwrap().len(), 1, "what it wrote goes");
    transaction!(store, |tx| retry(tx, "j", 7).await).unwrap().unwrap();
    let claimed = claim_at(&store, 8).await.unwrap();
    accept_at(&store, "j", claimed.job.fence, 9).await.unwrap();
    assert!(cancel_at(&store, "j", 10).await.is_none(), "what is being published is not cancelled");
}

#[tokio::test]
async fn a_publisher_with_many_jobs_holds_up_no_other() {
    let (_folder, store) = store().await;
    for n in 0..5 {
        queued(&store, &format!("bulk-{n}"), &format!("b{n}"), 3, n).await;
    }
    queued(&store, "small-0", "s0", 3, 100).await;
    queued(&store, "small-1", "s1", 3, 101).await;
    let mut order = Vec::new();
    for now in 200..206 {
        order.push(claim_at(&store, now).await.unwrap().job.id);
    }
    assert_eq!(order, ["b0", "s0", "b1", "s1", "b2", "b3"], "by fewest running");
}

/// A small generator (xorshift64), so that a walk can be walked again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Workers claim, die, come back late and say anything with any fence they ever had. Whatever they do: a fence never
/// falls, only the newest fence has an effect, and in the end every job is done or failed with a reason.
#[tokio::test]
async fn a_random_walk_with_crashes_ends_every_job_and_obeys_no_old_fence() {
    for seed in 1..=8u64 {
        let (_folder, store) = store().await;
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for n in 0..3 {
            queued(&store, &format!("t{n}"), &format!("j{n}"), 3, 0).await;
        }
        let mut leases: Vec<(String, i64)> = Vec::new();
        let mut now = 0;
        for _ in 0..150 {
            now += i64::try_from(dice.roll(600)).unwrap();
            let spoken =
                (!leases.is_empty()).then(|| leases[usize::try_from(dice.roll(leases.len() as u64)).unwrap()].clone());
            let held = match &spoken {
                Some((id, fence)) => {
                    let job = get(&store, id).await.unwrap().unwrap();
                    assert!(job.fence >= *fence, "a fence fell");
                    job.fence == *fence && job.state == State::Running
                }
                None => false,
            };
            match (dice.roll(8), spoken) {
                (0 | 1, _) => {
                    if let Some(claimed) = claim_at(&store, now).await {
                        assert!(!leases.contains(&(claimed.job.id.clone(), claimed.job.fence)), "a fence came twice");
                        leases.push((claimed.job.id, claimed.job.fence));
                    }
                }
                (2, Some((id, fence))) => {
                    let taken = fail_at(&store, &id, fence, dice.roll(3) > 0, now).await;
                    assert_eq!(taken.is_ok(), held, "fail of {id} with {fence}");
                }
                (3, Some((id, fence))) => {
                    let before = get(&store, &id).await.unwrap().unwrap();
                    let taken = accept_at(&store, &id, fence, now).await;
                    let again = before.fence == fence && matches!(before.state, State::Publishing | State::Done);
                    assert_eq!(taken.is_ok(), held || again, "complete of {id} with {fence}");
                    // Half of the time the process dies here; the sweep below comes back to it.
                    if taken.is_ok() && dice.roll(2) == 0 {
                        finish_at(&store, &id, fence, now).await;
                    }
                }
                (4, _) => {
                    expire_at(&store, now).await;
                }
                (5, Some((id, fence))) => {
                    assert_eq!(
                        transaction!(store, |tx| progress(tx, &id, fence, "encode", 0.5, PATIENCE, now).await)
                            .unwrap()
                            .is_ok(),
                        held,
                        "progress of {id} with {fence}"
                    );
                }
                (6, Some((id, _))) => {
                    let before = get(&store, &id).await.unwrap().unwrap().state;
                    let cancelled = cancel_at(&store, &id, now).await.is_some();
                    assert_eq!(cancelled, matches!(before, State::Queued | State::Running), "cancel of {id}");
                    // Half of the time somebody wants it after all.
                    if cancelled && dice.roll(2) == 0 {
                        transaction!(store, |tx| retry(tx, &id, now).await).unwrap().unwrap();
                    }
                }
                (7, _) => {
                    replace_at(&store, CLAIMANT.worker, &format!("i{now}"), now).await;
                }
                _ => {}
            }
        }
        // Workers are gone. Time and the sweep alone end everything that still runs, and one worker does the rest.
        for _ in 0..40 {
            now += 2000;
            expire_at(&store, now).await;
            for job in due_publications(&store, now, 100).await.unwrap() {
                finish_at(&store, &job.id, job.fence, now).await;
            }
            if let Some(claimed) = claim_at(&store, now).await {
                accept_at(&store, &claimed.job.id, claimed.job.fence, now).await.unwrap();
            }
        }
        for n in 0..3 {
            let job = get(&store, &format!("j{n}")).await.unwrap().unwrap();
            let track = tracks::get(&store, &format!("t{n}")).await.unwrap().unwrap();
            match job.state {
                State::Done => {
                    assert_eq!(track.status, Status::Ready);
                    assert_eq!(
                        track.version.unwrap(),
                        format!("0123456789abcdef-{}", job.fence),
                        "published by the newest fence"
                    );
                }
                State::Failed | State::Cancelled => {
                    assert_eq!(track.status, Status::Failed);
                    assert!(job.reason.is_some() && track.reason.is_some());
                }
                other => panic!("seed {seed}: job {n} is stuck in {other:?}"),
            }
        }
    }
}
