//! From a worker's result to a track that plays: the alias is written between two transactions.
//!
//! 1. The worker's `complete` is checked against its fence and stored (`publishing`): from here on the result is ours.
//! 2. The alias `hls/<track>/master.m3u8` is written to the bucket.
//! 3. The job becomes `done` and the track `ready`.
//!
//! Invariants: an alias is only ever written for a job that is `publishing`, so a worker that lost its lease cannot
//! move it. Writing it twice writes the same bytes. On failure after 1 the job stays `publishing` and the sweep comes
//! back to it, with a growing pause, until [`TRIES_MAX`].

use crate::clock;
use crate::error::ApiError;
use crate::state::Parts;
use crate::store::jobs::{self, Ending, JobRow, LeaseLost, State};
use crate::store::tracks::Published;
use crate::store::{StoreError, transaction};

/// Tries of one publication: with a pause of at most a minute, about three hours of a store that is away.
const TRIES_MAX: u32 = 200;

/// Longest pause between two tries.
const PAUSE_MAX_MS: i64 = 60_000;

/// A publication that the first call has in hand is not touched by the sweep for this long: longer than an operation
/// on the bucket may take.
const IN_HAND_MS: i64 = 30_000;

/// Takes over a worker's result.
pub(crate) async fn accept(
    parts: &Parts,
    job: &str,
    fence: i64,
    published: &Published,
) -> Result<Result<JobRow, LeaseLost>, StoreError> {
    let now = clock::now_ms();
    transaction!(parts.store, |tx| jobs::begin_publishing(tx, job, fence, published, now + IN_HAND_MS, now).await)
}

/// Writes the alias and ends the job, or notes when to try again. Answers the job as it then stands.
pub(crate) async fn carry_out(parts: &Parts, job: &JobRow) -> Result<Option<JobRow>, ApiError> {
    let Some(published) = jobs::pending_completion(&parts.store, &job.id, job.fence).await? else {
        // Somebody else ended it, or the track is gone.
        return Ok(jobs::get(&parts.store, &job.id).await?);
    };
    if let Err(error) = parts.objects.put_alias(&job.track, &published.master).await {
        tracing::warn!(job.id, track.id = job.track, tries = job.publish_tries + 1, %error, "a track could not be published yet");
        return Ok(postpone(parts, job, "The object store did not take the playlist; it is tried again.").await?);
    }
    let (now, patience) = (clock::now_ms(), parts.patience());
    match transaction!(parts.store, |tx| jobs::finish_publishing(tx, (&job.id, job.fence), patience, now).await)? {
        Some(done) => {
            parts.tell_job(&done).await;
            Ok(Some(done))
        }
        None => Ok(jobs::get(&parts.store, &job.id).await?),
    }
}

/// Notes when a publication that failed is tried again and what is the matter, or gives it up. Answers the job as it
/// then stands.
pub(crate) async fn postpone(parts: &Parts, job: &JobRow, message: &str) -> Result<Option<JobRow>, StoreError> {
    let now = clock::now_ms();
    if job.publish_tries + 1 >= TRIES_MAX {
        let ending = Ending::Failed {
            reason: "publish-failed",
            message: "The track was transcoded, but its playlist could not be put into the object store.",
            retryable: false,
        };
        let failed = transaction!(parts.store, |tx| {
            jobs::end(tx, (&job.id, job.fence), State::Publishing, ending, parts.patience(), now).await
        })?;
        if let Ok(failed) = &failed {
            parts.tell_job(failed).await;
        }
        return Ok(failed.ok());
    }
    let pause = (1000i64 << job.publish_tries.min(6)).min(PAUSE_MAX_MS);
    transaction!(parts.store, |tx| jobs::postpone_publishing(tx, &job.id, job.fence, message, now + pause, now).await)?;
    jobs::get(&parts.store, &job.id).await
}

#[cfg(test)]
mod tests {
    //! The process dies at each point between a worker's completion and a track that plays.
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::bucket::Bucket;
    use crate::fixture;
    use crate::sweeper;

    async fn running(parts: &Parts) -> JobRow {
        fixture::queued(&parts.store, "aaaaaaaaaaaa", "j", 3, clock::now_ms()).await;
        let mut tx = parts.store.begin().await.unwrap();
        let claimed =
            jobs::claim(&mut tx, fixture::CLAIMANT, parts.patience(), clock::now_ms()).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        claimed.job
    }

    async fn ready(parts: &Parts) -> bool {
        parts.track_view("aaaaaaaaaaaa").await.unwrap().unwrap().status == crate::store::tracks::Status::Ready
    }

    #[tokio::test]
    async fn dying_after_the_first_transaction() {
        let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
        let parts = fixture::parts(folder.path(), Some(bucket.endpoint())).await;
        let job = running(&parts).await;
        accept(&parts, &job.id, job.fence, &fixture::published(job.fence, 1000)).await.unwrap().unwrap();
        parts.store.close().await;
        let parts = fixture::parts(folder.path(), Some(bucket.endpoint())).await;
        assert!(!ready(&parts).await && bucket.object("hls/aaaaaaaaaaaa/master.m3u8").is_none());
        sweeper::publications(&parts, &fixture::held(&parts).await, true).await.unwrap();
        assert!(ready(&parts).await && bucket.object("hls/aaaaaaaaaaaa/master.m3u8").is_some());
    }

    #[tokio::test]
    async fn dying_after_the_alias_was_written() {
        let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
        let parts = fixture::parts(folder.path(), Some(bucket.endpoint())).await;
        let job = running(&parts).await;
        let published = fixture::published(job.fence, 1000);
        accept(&parts, &job.id, job.fence, &published).await.unwrap().unwrap();
        parts.objects.put_alias(&job.track, &published.master).await.unwrap();
        parts.store.close().await;
        let parts = fixture::parts(folder.path(), Some(bucket.endpoint())).await;
        assert!(!ready(&parts).await);
        sweeper::publications(&parts, &fixture::held(&parts).await, true).await.unwrap();
        assert!(ready(&parts).await);
        assert_eq!(bucket.object("hls/aaaaaaaaaaaa/master.m3u8").unwrap(), published.master.as_bytes());
        sweeper::publications(&parts, &fixture::held(&parts).await, true).await.unwrap();
    }

    #[tokio::test]
    async fn dying_at_any_await_of_the_publication() {
        let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
        let parts = fixture::parts(folder.path(), Some(bucket.endpoint())).await;
        let job = running(&parts).await;
        let published = fixture::published(job.fence, 1000);
        for ms in 0..12u64 {
            let limit = std::time::Duration::from_millis(ms);
            let cut = async {
                let job = accept(&parts, &job.id, job.fence, &published).await.unwrap().unwrap();
                carry_out(&parts, &job).await.unwrap();
            };
            let _ = tokio::time::timeout(limit, cut).await;
        }
        sweeper::publications(&parts, &fixture::held(&parts).await, true).await.unwrap();
        if !ready(&parts).await {
            // Not even the first transaction got through in time.
            let job = accept(&parts, &job.id, job.fence, &published).await.unwrap().unwrap();
            carry_out(&parts, &job).await.unwrap();
        }
        assert!(ready(&parts).await);
    }

    #[tokio::test]
    async fn a_publication_that_cannot_be_carried_out_holds_up_no_other() {
        let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
        let parts = fixture::parts(folder.path(), Some(bucket.endpoint())).await;
        // The other one is claimed and due first.
        fixture::queued(&parts.store, "bbbbbbbbbbbb", "bad", 3, 0).await;
        let mut tx = parts.store.begin().await.unwrap();
        let bad =
            jobs::claim(&mut tx, fixture::CLAIMANT, parts.patience(), clock::now_ms()).await.unwrap().unwrap().job;
        tx.commit().await.unwrap();
        let job = running(&parts).await;
        for job in [&bad, &job] {
            accept(&parts, &job.id, job.fence, &fixture::published(job.fence, 1000)).await.unwrap().unwrap();
        }
        let mut tx = parts.store.begin().await.unwrap();
        sqlx::query("UPDATE jobs SET completion = 'noise', due_ms = 0 WHERE id = 'bad'")
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        sweeper::publications(&parts, &fixture::held(&parts).await, true).await.unwrap();
        assert!(ready(&parts).await);
        let bad = jobs::get(&parts.store, "bad").await.unwrap().unwrap();
        assert_eq!((bad.state, bad.publish_tries), (State::Publishing, 1), "put off, not forgotten");
    }

    #[tokio::test]
    async fn a_bucket_that_stays_away_fails_the_track_in_the_end() {
        let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
        let parts = fixture::parts(folder.path(), Some(bucket.endpoint())).await;
        let job = running(&parts).await;
        let mut job = accept(&parts, &job.id, job.fence, &fixture::published(job.fence, 1000)).await.unwrap().unwrap();
        job.publish_tries = TRIES_MAX - 1;
        bucket.set_away(true);
        let ended = carry_out(&parts, &job).await.unwrap().unwrap();
        assert_eq!((ended.state, ended.reason.as_deref()), (State::Failed, Some("publish-failed")));
    }
}
