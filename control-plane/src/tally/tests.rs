//! Exactly once, whatever is cut off where.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use segue_events::{DenialDraft, FactDraft, Kind, LogOptions};

use super::*;
use crate::fixture;
use crate::store::tracks;

const TRACK: &str = "aaaaaaaaaaaa";

async fn house(folder: &std::path::Path) -> Shared {
    let parts = fixture::parts(folder, None).await;
    if tracks::get(&parts.store, TRACK).await.unwrap().is_none() {
        fixture::queued(&parts.store, TRACK, "j", 3, 0).await;
        let mut tx = parts.store.begin().await.unwrap();
        tracks::publish(&mut tx, TRACK, &fixture::published(1, 600_000), 0).await.unwrap();
        tx.commit().await.unwrap();
    }
    parts
}

fn log(folder: &std::path::Path) -> Arc<EventLog> {
    EventLog::open(&folder.join("events"), "e1", LogOptions::default()).unwrap()
}

fn deliver(log: &EventLog, sid: &str, segment: u64, ts: Option<u64>) {
    let draft = FactDraft {
        ts,
        track: TRACK,
        file: "f",
        kind: Kind::Segment,
        pos_ms: Some(segment * 6000),
        media_ms: Some(6000),
        sid,
        status: 200,
        bytes: 10,
        ..FactDraft::default()
    };
    log.note(draft).settle(true, 10).unwrap();
}

/// Runs the tally until it has read all that the log has.
async fn catch_up(parts: &Shared, log: &Arc<EventLog>) {
    let task = tokio::spawn(facts(Shared::clone(parts), Arc::clone(log)));
    for _ in 0..1000 {
        if plays::offset(&parts.store, "facts").await.unwrap() == Some(log.facts().end().0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    task.abort();
    assert_eq!(plays::offset(&parts.store, "facts").await.unwrap(), Some(log.facts().end().0));
}

async fn total(parts: &Shared) -> plays::Sums {
    plays::total(&parts.store, TRACK).await.unwrap().unwrap()
}

/// The reader is dropped again and again while facts come in: at any await, before and after the commit.
#[tokio::test]
async fn killed_at_any_moment_it_counts_every_fact_once() {
    let folder = tempfile::tempdir().unwrap();
    let (parts, log) = (house(folder.path()).await, log(folder.path()));
    let mut sent = 0;
    for round in 0..60u64 {
        for segment in 0..20 {
            deliver(&log, &format!("s{}", round % 6), segment, None);
            sent += 1;
        }
        let task = tokio::spawn(facts(Shared::clone(&parts), Arc::clone(&log)));
        tokio::time::sleep(Duration::from_micros(round * 137 % 4000)).await;
        task.abort();
        let _ = task.await;
    }
    catch_up(&parts, &log).await;
    let sums = total(&parts).await;
    assert_eq!((sums.bytes, sums.plays, sums.qualified, sums.listeners), (sent * 10, 6, 6, 6));
    assert_eq!(sums.media_ms, 6 * 20 * 6000);
    let hours: i64 = plays::hours(&parts.store, TRACK, 10).await.unwrap().iter().map(|hour| hour.bytes).sum();
    assert_eq!(hours, sent * 10);
}

#[tokio::test]
async fn a_batch_whose_commit_fails_leaves_nothing_and_is_counted_later() {
    let folder = tempfile::tempdir().unwrap();
    let (parts, log) = (house(folder.path()).await, log(folder.path()));
    deliver(&log, "s1", 0, None);
    let batch = log.facts().read(log.facts().start(), 10).unwrap();
    let records: Vec<String> = batch.records.into_iter().map(|(_, record)| record).collect();
    // The offset cannot be written: the sums must not be either.
    let mut tx = parts.store.begin().await.unwrap();
    sqlx::query("ALTER TABLE offsets RENAME TO hidden").execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    count::facts(&parts, &records, batch.next).await.unwrap_err();
    assert_eq!(plays::total(&parts.store, TRACK).await.unwrap(), None);
    let mut tx = parts.store.begin().await.unwrap();
    sqlx::query("ALTER TABLE hidden RENAME TO offsets").execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    catch_up(&parts, &log).await;
    assert_eq!(total(&parts).await.plays, 1);
}

#[tokio::test]
async fn denials_are_counted_once_and_leave_a_row_for_their_reason_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (parts, log) = (house(folder.path()).await, log(folder.path()));
    let deny = |count: usize| {
        for _ in 0..count {
            let draft = DenialDraft { path: "/hls/x", reason: "ticket-missing", status: 401, ..DenialDraft::default() };
            log.deny(draft);
        }
    };
    // Killed and started again in between: the position alone keeps what was counted from being counted again.
    for more in [300, 0, 200] {
        deny(more);
        let task = tokio::spawn(denials(Shared::clone(&parts), Arc::clone(&log)));
        for _ in 0..1000 {
            if plays::offset(&parts.store, "denials").await.unwrap() == Some(log.denials().end().0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        task.abort();
        let _ = task.await;
    }
    let counted = plays::denials(&parts.store, 10).await.unwrap();
    assert!(counted.len() <= 2, "at most the hour turned: {counted:?}");
    assert_eq!(counted.iter().map(|row| row.2).sum::<i64>(), 500);
    let seen: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM seen").fetch_one(parts.store.read()).await.unwrap();
    assert_eq!(seen, 0);
}

#[tokio::test]
async fn a_record_that_comes_twice_and_one_that_is_none_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let (parts, log) = (house(folder.path()).await, log(folder.path()));
    deliver(&log, "s1", 0, None);
    let batch = log.facts().read(log.facts().start(), 10).unwrap();
    let record = batch.records[0].1.clone();
    let records = [record.clone(), "{\"v\":1}".to_owned(), "noise".to_owned(), record];
    let counted = count::facts(&parts, &records, batch.next).await.unwrap();
    count::facts(&parts, &records, batch.next).await.unwrap();
    assert_eq!(total(&parts).await.bytes, 10);
    drop(counted);
}

#[tokio::test]
async fn a_log_that_is_not_the_one_before_is_read_from_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let parts = house(folder.path()).await;
    {
        let log = log(folder.path());
        for segment in 0..50 {
            deliver(&log, "s1", segment, None);
        }
        catch_up(&parts, &log).await;
    }
    std::fs::remove_dir_all(folder.path().join("events")).unwrap();
    let log = log(folder.path());
    deliver(&log, "s2", 0, None);
    catch_up(&parts, &log).await;
    assert_eq!(total(&parts).await.plays, 2);
}

#[tokio::test]
async fn plays_end_by_the_clock_of_facts_and_of_the_wall() {
    let folder = tempfile::tempdir().unwrap();
    let (parts, log) = (house(folder.path()).await, log(folder.path()));
    let t0 = u64::try_from(clock::now_ms()).unwrap() - 3_600_000;
    deliver(&log, "s1", 0, Some(t0));
    // Ten minutes long: silence of more than that ends a play.
    deliver(&log, "s1", 0, Some(t0 + 700_000));
    catch_up(&parts, &log).await;
    let sums = total(&parts).await;
    assert_eq!((sums.plays, sums.ended), (2, 1), "the second began after the first was over");
    end_plays(&parts, &fixture::held(&parts).await, clock::now_ms()).await.unwrap();
    end_plays(&parts, &fixture::held(&parts).await, clock::now_ms()).await.unwrap();
    assert_eq!(total(&parts).await.ended, 2);
    // A fact of the second play comes late: it counts, and ends nothing twice.
    deliver(&log, "s1", 1, Some(t0 + 700_500));
    catch_up(&parts, &log).await;
    end_plays(&parts, &fixture::held(&parts).await, clock::now_ms()).await.unwrap();
    let sums = total(&parts).await;
    assert_eq!((sums.plays, sums.ended, sums.media_ms), (2, 2, 18_000));
}

#[tokio::test]
async fn counting_again_from_the_start_comes_to_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (parts, log) = (house(folder.path()).await, log(folder.path()));
    let t0 = u64::try_from(clock::now_ms()).unwrap() - 9_000_000;
    for (n, segment) in [0u64, 5, 3, 3, 9, 1, 2, 4].into_iter().enumerate() {
        for listener in 0..3u64 {
            let ts = t0 + n as u64 * 4000 + listener * 900_000 * (n as u64 / 4);
            deliver(&log, &format!("s{listener}"), segment, Some(ts));
        }
    }
    catch_up(&parts, &log).await;
    let first = total(&parts).await;
    let mut tx = parts.store.begin().await.unwrap();
    for table in
        ["DELETE FROM offsets", "DELETE FROM seen", "DELETE FROM plays", "DELETE FROM sums", "DELETE FROM listeners"]
    {
        sqlx::query(table).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    catch_up(&parts, &log).await;
    assert_eq!(total(&parts).await, first);
}
