//! What time brings about: leases that end, publications that were interrupted, uploads that were abandoned, objects
//! that must go, a snapshot that was not told.
//!
//! Two duties, each of one control plane among all: publications, and the rest. Whoever has one runs its steps at once and
//! then every `[jobs] sweep`. Each step is a bounded batch in a loop of its own: one that fails is logged when it begins to
//! fail and when it works again, and the others go on. Even so every step is a change in a transaction that checks the
//! duty's lease, or writes what is already there, so that one which was suspended in the middle does no harm.

use futures::future::BoxFuture;

use crate::api::policies::diff::VERDICTS_KEPT_MS;
use crate::clock;
use crate::error::ApiError;
use crate::keys::RETIRED_KEPT_S;
use crate::state::{Parts, Shared};
use crate::store::leases::Held;
use crate::store::removals::{self, Removal};
use crate::store::{StoreError, early, edges, jobs, keys, policies, revocations, tokens, tracks, transaction};
use crate::{duty, idempotency, multipart, objects, publication};

/// Rows that one step takes at a time.
const BATCH: u32 = 100;

/// Pause between two looks at a prefix that must stay empty.
const LOOK_AGAIN_MS: i64 = 300_000;

/// Pause after a first removal that failed; doubled up to [`LOOK_AGAIN_MS`].
const REMOVAL_PAUSE_MS: i64 = 5_000;

/// Removals in a row that fail before the rest is left to the next sweep.
const AWAY_AFTER: u32 = 5;

/// How long an edge that fell silent is still listed.
const EDGE_KEPT_MS: i64 = 3_600_000;

/// How long the position of an edge's log is kept: longer than an edge is away and comes back with the same folder.
const EDGE_LOG_KEPT_MS: i64 = 90 * 86_400_000;

/// How long it is remembered when a publisher's job was claimed last.
const SERVED_KEPT_MS: i64 = 86_400_000;

/// How long a purge is told. Longer than anything that was fetched before it may be served from a cache (`[cache.ttl]`).
const PURGE_KEPT_MS: i64 = 400 * 86_400_000;

/// How old a cursor may be that an edge goes on from: one that was away for longer gets the whole.
const CHANGE_KEPT_MS: i64 = 30 * 86_400_000;

/// How long a revocation that is over stays, so that a clock that is behind finds it.
const OVER_KEPT_S: i64 = 300;

/// How long it is known who did what with policies.
const HISTORY_KEPT_MS: i64 = 400 * 86_400_000;

/// How long a token that expired is still listed.
const EXPIRED_KEPT_MS: i64 = 30 * 86_400_000;

/// How long removals outlast the last write that a client or worker could still make.
const REMOVAL_SLACK_MS: i64 = 60_000;

/// Runs until shutdown. What a step had begun then is dropped, as a crash would: the next start takes it up.
pub(crate) async fn run(parts: Shared) {
    futures::join!(
        duty::keep(&parts, "sweeper", |parts, held| Box::pin(sweep(parts, held))),
        duty::keep(&parts, "publications", |parts, held| Box::pin(publish(parts, held))),
    );
}

async fn sweep(parts: Shared, held: Held) {
    let (parts, held) = (&parts, &held);
    futures::join!(
        every(parts, held, "leases", |parts, held, _| Box::pin(async move { leases(&parts, &held).await })),
        every(parts, held, "uploads", |parts, held, _| Box::pin(async move { abandoned_uploads(&parts, &held).await })),
        every(parts, held, "parts", |parts, held, _| Box::pin(async move { multipart::sweep(&parts, &held).await })),
        orphans(parts, held),
        every(parts, held, "removals", |parts, held, _| Box::pin(async move { removals_due(&parts, &held).await })),
        every(parts, held, "keys of requests", |parts, held, _| {
            Box::pin(async move { Ok(idempotency::sweep(&parts, &held).await?) })
        }),
        every(parts, held, "leftovers", |parts, held, _| Box::pin(async move { leftovers(&parts, &held).await })),
    );
}

async fn publish(parts: Shared, held: Held) {
    let step: Step = |parts, held, first| Box::pin(async move { publications(&parts, &held, first).await });
    every(&parts, &held, "publications", step).await;
}

/// A step, told whether it is the first time since the duty came here.
type Step = fn(Shared, Held, bool) -> BoxFuture<'static, Result<(), ApiError>>;

/// Repeats one step. Each has a loop of its own, so that a bucket that is away holds up no lease.
async fn every(parts: &Shared, held: &Held, name: &'static str, step: Step) {
    let (mut first, mut failing) = (true, false);
    loop {
        let result = step(Shared::clone(parts), held.clone(), first).await;
        first = first && result.is_err();
        match (&result, failing) {
            (Err(error), false) => tracing::warn!(step = name, %error, "the sweep fails; it goes on trying"),
            (Ok(()), true) => tracing::info!(step = name, "the sweep works again"),
            _ => {}
        }
        failing = result.is_err();
        tokio::time::sleep(parts.jobs.sweep).await;
    }
}

/// Looks at the bucket for uploads that nobody knows, far less often than the steps.
async fn orphans(parts: &Shared, held: &Held) {
    loop {
        if let Err(error) = multipart::orphans(parts, held).await {
            tracing::warn!(%error, "the bucket could not be looked at for uploads that nobody knows; it is tried again");
        }
        tokio::time::sleep(multipart::orphans_every(&parts.uploads)).await;
    }
}

/// Forgets what nobody asks for any more: revocations that are over, edges that are gone, old revisions, purges and verdicts.
pub(crate) async fn leftovers(parts: &Parts, held: &Held) -> Result<(), ApiError> {
    let now = clock::now_ms();
    let retired = now / 1000 - RETIRED_KEPT_S;
    transaction!(parts.store, |tx| {
        held.check(tx).await?;
        revocations::prune(tx, now / 1000 - OVER_KEPT_S, BATCH).await?;
        edges::prune(tx, now - EDGE_KEPT_MS, now - EDGE_LOG_KEPT_MS, BATCH).await?;
        jobs::prune(tx, now - SERVED_KEPT_MS, BATCH).await?;
        early::prune(tx).await?;
        keys::prune(tx, now - PURGE_KEPT_MS, now - CHANGE_KEPT_MS, retired, BATCH).await?;
        tokens::prune(tx, now - EXPIRED_KEPT_MS, BATCH).await?;
        policies::counts::prune(tx, now - VERDICTS_KEPT_MS).await?;
        policies::prune_history(tx, now - HISTORY_KEPT_MS).await?;
        Ok(())
    })
}

/// Requeues jobs whose worker fell silent, or fails those that lost too many.
pub(crate) async fn leases(parts: &Parts, held: &Held) -> Result<(), ApiError> {
    let taken = transaction!(parts.store, |tx| {
        held.check(tx).await?;
        jobs::expire_leases(tx, parts.patience(), clock::now_ms(), BATCH).await
    })?;
    for job in &taken {
        tracing::warn!(job.id, track.id = job.track, job.losses, "a worker was lost");
        parts.tell_job(job).await;
    }
    if !taken.is_empty() {
        parts.wake_workers();
    }
    Ok(())
}

/// Carries out publications that are due; all of them when the duty came here, since whoever had them in hand may be gone.
/// A control plane that has one in hand all the same writes the same alias, and one of the two ends the job.
pub(crate) async fn publications(parts: &Parts, held: &Held, all: bool) -> Result<(), ApiError> {
    let until = if all { i64::MAX } else { clock::now_ms() };
    for job in jobs::due_publications(&parts.store, until, BATCH).await? {
        transaction!(parts.store, |tx| held.check(tx).await)?;
        let now = match publication::carry_out(parts, &job).await {
            Ok(now) => now,
            Err(error) => {
                // This one's own fault, or the database's: then the next statement fails as well, and with it the step.
                if job.publish_tries == 0 {
                    tracing::error!(job.id, track.id = job.track, %error, "a publication cannot be carried out; trying on");
                }
                let message = "The transcoded track could not be published yet; it is tried again.";
                publication::postpone(parts, &job, message).await?;
                continue;
            }
        };
        if now.is_some_and(|job| job.state == jobs::State::Publishing) {
            // The bucket is away, most likely: the others are not made to wait for it one by one.
            break;
        }
    }
    Ok(())
}

/// Fails uploads that never came, and removes what came of them.
pub(crate) async fn abandoned_uploads(parts: &Parts, held: &Held) -> Result<(), ApiError> {
    let now = clock::now_ms();
    let ttl = i64::try_from(parts.uploads.ttl.as_millis()).unwrap_or(i64::MAX);
    let failed = transaction!(parts.store, |tx| {
        held.check(tx).await?;
        let failed = tracks::fail_abandoned(tx, now.saturating_sub(ttl), now).await?;
        for track in &failed {
            removals::note(tx, &objects::upload_prefix(track), now, last_write(parts, now)).await?;
        }
        Ok::<Vec<String>, StoreError>(failed)
    })?;
    for track in &failed {
        parts.tell_track(track).await;
    }
    Ok(())
}

/// Until when somebody may still write under a track's prefixes who does not know that it is gone.
pub(crate) fn last_write(parts: &Parts, now: i64) -> i64 {
    let url = i64::try_from(parts.uploads.url_ttl.as_millis()).unwrap_or(i64::MAX / 4);
    now + url.max(2 * parts.patience().lease_ms) + REMOVAL_SLACK_MS
}

/// Empties the prefixes that are due. One that cannot be emptied goes behind the others.
pub(crate) async fn removals_due(parts: &Parts, held: &Held) -> Result<(), ApiError> {
    let mut in_a_row = 0;
    for removal in removals::due(&parts.store, clock::now_ms(), BATCH).await? {
        transaction!(parts.store, |tx| held.check(tx).await)?;
        let Err(error) = remove(parts, &removal).await else {
            in_a_row = 0;
            continue;
        };
        if removal.failures == 0 {
            tracing::warn!(prefix = removal.prefix, %error, "objects cannot be removed; trying on");
        }
        let pause = (REMOVAL_PAUSE_MS << removal.failures.min(10)).min(LOOK_AGAIN_MS);
        transaction!(parts.store, |tx| removals::postpone(tx, &removal.prefix, clock::now_ms() + pause).await)?;
        in_a_row += 1;
        if in_a_row == AWAY_AFTER {
            // The bucket is away, most likely. The others stay due, ahead of those that were just put off.
            break;
        }
    }
    Ok(())
}

/// Empties a prefix once, and notes when to look again.
pub(crate) async fn remove(parts: &Parts, removal: &Removal) -> Result<(), ApiError> {
    let removed = parts.objects.remove_prefix(&removal.prefix, |key| removal.keeps(key)).await?;
    if removed > 0 {
        tracing::info!(prefix = removal.prefix, removed, "objects removed");
    }
    let now = clock::now_ms();
    // What an edge fetched while the objects were on their way out is kept under the generation that the deletion
    // raised: it is raised once more now that they are gone.
    let deleted = removal.deleted_track().filter(|_| removed > 0);
    transaction!(parts.store, |tx| {
        removals::done(tx, removal, now + LOOK_AGAIN_MS, now).await?;
        if let Some(track) = deleted {
            keys::raise_generation(tx, track, now).await?;
            keys::raise_revision(tx, now).await?;
        }
        Ok::<(), StoreError>(())
    })?;
    if deleted.is_some() {
        parts.keys.publish(&parts.store).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::bucket::Bucket;
    use crate::fixture;

    #[tokio::test]
    async fn a_prefix_that_cannot_be_emptied_starves_no_other() {
        let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
        let parts = fixture::parts(folder.path(), Some(bucket.endpoint())).await;
        bucket.refuse(Some("aaaaaaaaaaaa"));
        let now = clock::now_ms();
        let mut tx = parts.store.begin().await.unwrap();
        for (track, due) in [("aaaaaaaaaaaa", now - 2), ("bbbbbbbbbbbb", now - 1)] {
            bucket.put(&format!("uploads/{track}/u"), b"x");
            removals::note(&mut tx, &objects::upload_prefix(track), due, now - 1).await.unwrap();
        }
        tx.commit().await.unwrap();
        removals_due(&parts, &fixture::held(&parts).await).await.unwrap();
        assert!(bucket.object("uploads/aaaaaaaaaaaa/u").is_some());
        assert!(bucket.object("uploads/bbbbbbbbbbbb/u").is_none(), "the second went, though the first could not");
        assert!(removals::due(&parts.store, clock::now_ms(), 10).await.unwrap().is_empty(), "the first is put off");
        let left = removals::due(&parts.store, clock::now_ms() + REMOVAL_PAUSE_MS, 10).await.unwrap().remove(0);
        assert_eq!((left.prefix.as_str(), left.failures), ("uploads/aaaaaaaaaaaa/", 1));
        bucket.refuse(None);
        remove(&parts, &left).await.unwrap();
        assert!(bucket.object("uploads/aaaaaaaaaaaa/u").is_none());
        assert!(removals::due(&parts.store, i64::MAX, 10).await.unwrap().is_empty(), "over");
    }
}
