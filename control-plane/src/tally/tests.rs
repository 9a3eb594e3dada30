//! Exactly once, whatever is cut off where.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use segue_events::{DenialDraft, FactDraft, Kind, LogOptions};

use super::*;
use crate::fixture;
use crate::plays::sums::Sums;
use crate::store::webhooks::{self, WebhookRow};
use crate::store::{sums, tracks, transaction};

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
    // A reader that was dropped in the middle of a transaction may leave its locks to a server for as long as that waits for them.
    for _ in 0..6000 {
        if plays::offset(&parts.store, "facts").await.unwrap() == Some(log.facts().end().0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    task.abort();
    assert_eq!(plays::offset(&parts.store, "facts").await.unwrap(), Some(log.facts().end().0));
}

async fn total(parts: &Shared) -> Sums {
    sums::total(&parts.store, TRACK).await.unwrap().unwrap()
}

/// Ends what was over before.
async fn end(parts: &Shared, before: i64) {
    end_plays(parts, &fixture::held(parts).await, before).await.unwrap();
}

/// Every row of `sums` of a track, the total last.
async fn all(parts: &Shared, track: &str) -> Vec<(i64, Sums)> {
    let mut rows = sums::hours(&parts.store, track, i64::MIN, i64::MAX).await.unwrap();
    rows.push((sums::TOTAL, sums::total(&parts.store, track).await.unwrap().unwrap_or_default()));
    rows
}

/// The reader is dropped again and again while facts come in: at any await, before and after the commit.
#[tokio::test]
async fn killed_at_any_moment_it_counts_every_fact_once() {
    let folder = tempfile::tempdir().unwrap();
    let (parts, log) = (house(folder.path()).await, log(folder.path()));
    let hook = WebhookRow {
        id: "w".to_owned(),
        url: String::new(),
        events: "play.qualified".to_owned(),
        secret: String::new(),
        created_ms: 0,
        is_full: 0,
        missed: 0,
    };
    transaction!(parts.store, |tx| webhooks::insert(tx, &hook, 1).await).unwrap();
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
    // What is told elsewhere is stored with what was counted: once for each play.
    let told = webhooks::deliveries(&parts.store, "w", Some("waiting"), None, 1000).await.unwrap();
    let plays: std::collections::HashSet<String> = told
        .iter()
        .map(|one| serde_json::from_str::<serde_json::Value>(&one.body).unwrap()["data"]["play"].to_string())
        .collect();
    assert_eq!((told.len(), plays.len()), (6, 6), "{told:?}");
    let hours = sums::hours(&parts.store, sums::HOUSE, i64::MIN, i64::MAX).await.unwrap();
    let hours: i64 = hours.iter().map(|hour| hour.1.bytes).sum();
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
    assert_eq!(sums::total(&parts.store, TRACK).await.unwrap(), None);
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
    let counted = sums::denials(&parts.store, None, 10).await.unwrap();
    assert!(counted.len() <= 2, "at most the hour turned: {counted:?}");
    assert_eq!(counted.iter().map(|row| row.2).sum::<i64>(), 500);
    let seen: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM seen_blocks").fetch_one(parts.store.read()).await.unwrap();
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
    assert_eq!((sums.plays, sums.ended), (2, 0));
    end(&parts, i64::try_from(t0).unwrap() + 600_001).await;
    assert_eq!(total(&parts).await.ended, 1, "the second is not over then");
    end(&parts, clock::now_ms()).await;
    end(&parts, clock::now_ms()).await;
    assert_eq!(total(&parts).await.ended, 2);
    // A fact of the second play comes late: it counts, and ends nothing twice.
    deliver(&log, "s1", 1, Some(t0 + 700_500));
    catch_up(&parts, &log).await;
    end(&parts, clock::now_ms()).await;
    let sums = total(&parts).await;
    assert_eq!((sums.plays, sums.ended, sums.media_ms), (2, 2, 18_000));
}

/// A listening house: several listeners, of whom some have names, seek, pause, come back after the end, hear another track besides; with
/// late facts, other kinds, refetches, and what players say.
fn evening(seed: u64, t0: u64) -> Vec<String> {
    let mut random = Random(seed);
    let mut facts = Vec::new();
    for listener in 0..6 {
        let mut ts = t0 + random.below(7_200_000);
        for _ in 0..random.below(40) + 5 {
            // Mostly on and on, at times a pause, at times one that is longer than the gap.
            ts += match random.below(12) {
                0 => random.below(900_000),
                1 => random.below(3_000_000),
                _ => random.below(9000),
            };
            let n = facts.len();
            let segment = random.below(100);
            let cache = ["hit-memory", "hit-disk", "miss", "coalesced", "stale", "bypass"][random.below(6) as usize];
            let mut fact = serde_json::json!({
                "v": 1, "id": format!("e{}-boot-{n}", random.below(2)), "ts": ts, "edge": "e1", "track": if random.below(5) == 0 { OTHER } else { TRACK },
                "file": format!("f{segment}"), "kind": if random.below(9) == 0 { "init" } else { "segment" },
                "pos_ms": segment * 6000, "media_ms": 6000, "sid": format!("s{listener}"), "status": 200, "bytes": random.below(90_000),
                "ttfb_ms": random.below(400), "cache": cache, "complete": random.below(15) != 0,
            });
            if listener % 2 == 0 {
                fact["sub"] = serde_json::json!(format!("u{}", listener / 4));
            }
            if random.below(3) == 0 {
                fact["cmcd"] = serde_json::json!({ "bs": random.below(2) == 0, "mtp": random.below(9000), "sid": "x" });
            }
            facts.push(fact.to_string());
        }
    }
    facts
}

const OTHER: &str = "bbbbbbbbbbbb";

/// A small generator (xorshift), so that a failure names its seed and nothing else is needed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for n in (1..list.len()).rev() {
            let other = self.below(n as u64 + 1) as usize;
            list.swap(n, other);
        }
    }
}

async fn rows(parts: &Shared) -> [Vec<(i64, Sums)>; 3] {
    [all(parts, TRACK).await, all(parts, OTHER).await, all(parts, sums::HOUSE).await]
}

/// Counts in batches, and ends what is over in between, as the sweep does.
async fn count_in(parts: &Shared, facts: &[String], sizes: &[usize]) {
    let (mut rest, mut at) = (facts, 0);
    for size in sizes.iter().cycle() {
        let (batch, more) = rest.split_at((*size).min(rest.len()));
        at += batch.len() as u64;
        count::facts(parts, batch, segue_events::Position(at)).await.unwrap();
        end(parts, clock::now_ms()).await;
        if more.is_empty() {
            return;
        }
        rest = more;
    }
}

#[tokio::test]
async fn facts_in_any_order_and_any_batches_come_to_the_same_sums() {
    let t0 = u64::try_from(clock::now_ms()).unwrap() - 20 * 3_600_000;
    for seed in 1..=12 {
        let mut facts = evening(seed, t0);
        let folder = tempfile::tempdir().unwrap();
        let parts = house(folder.path()).await;
        count_in(&parts, &facts, &[1000]).await;
        let straight = rows(&parts).await;
        let total = &straight[0].last().unwrap().1;
        assert!(total.plays > 3 && total.ended == total.plays && total.media_ms > 0, "seed {seed}: {total:?}");
        let mut random = Random(seed * 77);
        for round in 0..3 {
            random.shuffle(&mut facts);
            // Some come twice.
            let twice: Vec<String> = facts.iter().filter(|_| random.below(7) == 0).cloned().collect();
            let folder = tempfile::tempdir().unwrap();
            let parts = house(folder.path()).await;
            count_in(&parts, &[facts.clone(), twice].concat(), &[1, 7, 30, 2]).await;
            assert_eq!(rows(&parts).await, straight, "seed {seed}, round {round}");
        }
    }
}

#[tokio::test]
async fn a_fact_that_bridges_two_plays_makes_them_one() {
    let folder = tempfile::tempdir().unwrap();
    let (parts, log) = (house(folder.path()).await, log(folder.path()));
    let t0 = u64::try_from(clock::now_ms()).unwrap() - 3_600_000;
    for (segment, at) in [(0, 0), (1, 1_000_000), (2, 500_000)] {
        deliver(&log, "s1", segment, Some(t0 + at));
        catch_up(&parts, &log).await;
        end(&parts, clock::now_ms()).await;
    }
    let sums = total(&parts).await;
    assert_eq!((sums.plays, sums.ended, sums.media_ms, sums.sessions), (1, 1, 18_000, 1));
    let stored: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM plays").fetch_one(parts.store.read()).await.unwrap();
    assert_eq!(stored, 1);
}

#[tokio::test]
async fn counting_again_from_what_is_kept_comes_to_the_same() {
    let t0 = u64::try_from(clock::now_ms()).unwrap() - 20 * 3_600_000;
    let folder = tempfile::tempdir().unwrap();
    let parts = house(folder.path()).await;
    let facts = evening(99, t0);
    count_in(&parts, &facts, &[40]).await;
    let denial = |n: i64| {
        serde_json::json!({
            "v": 1, "id": format!("e1-boot-{n}"), "ts": t0, "edge": "e1", "path": "/hls/x", "reason": "expired", "status": 401,
        })
        .to_string()
    };
    let denials: Vec<String> = (0..5).map(denial).collect();
    count::denials(&parts, &denials, segue_events::Position(5)).await.unwrap();
    let before = rows(&parts).await;
    // What a fault in the rule, or a hand in the database, may have done.
    let mut tx = parts.store.begin().await.unwrap();
    for harm in [
        "UPDATE sums SET plays = plays + 7, bytes = 0, ttfb_03 = 1",
        "DELETE FROM plays WHERE sid = 's1'",
        "DELETE FROM listeners WHERE hour_ms >= 0",
        "UPDATE denials SET count = 2",
    ] {
        sqlx::query(harm).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    let done = recount(&parts.store, &parts.kept).await.unwrap();
    assert_eq!(done, Recounted { facts: facts.len() as u64, denials: 5, from_ms: None });
    assert_eq!(rows(&parts).await, before);
    assert_eq!(sums::denials(&parts.store, None, 10).await.unwrap()[0].2, 5);
    // Again, and then a fact more: the position and what was counted are as they were.
    recount(&parts.store, &parts.kept).await.unwrap();
    count::facts(&parts, &facts, segue_events::Position(1)).await.unwrap();
    assert_eq!(rows(&parts).await, before);
}

#[tokio::test]
async fn hours_of_which_facts_are_gone_are_not_counted_again() {
    let folder = tempfile::tempdir().unwrap();
    let parts = house(folder.path()).await;
    let now = u64::try_from(clock::now_ms()).unwrap();
    let old = evening(5, now - 60 * 3_600_000);
    count_in(&parts, &old, &[1000]).await;
    // The first file goes, as by age; a new one begins.
    let mut tx = parts.store.begin().await.unwrap();
    sqlx::query("DELETE FROM kept_files").execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    let new: Vec<String> =
        evening(6, now - 20 * 3_600_000).iter().map(|fact| fact.replace("-boot-", "-boot2-")).collect();
    count_in(&parts, &new, &[1000]).await;
    let before = rows(&parts).await;
    let mut tx = parts.store.begin().await.unwrap();
    sqlx::query("UPDATE sums SET qualified = 99 WHERE hour_ms > ?")
        .bind(i64::try_from(now).unwrap() - 24 * 3_600_000)
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let done = recount(&parts.store, &parts.kept).await.unwrap();
    assert_eq!(done.facts, new.len() as u64);
    assert!(done.from_ms.is_some());
    assert_eq!(rows(&parts).await, before);
}

#[tokio::test]
async fn who_listens_now_is_known_from_what_was_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let (parts, log) = (house(folder.path()).await, log(folder.path()));
    let now = u64::try_from(clock::now_ms()).unwrap();
    // One fetches as it plays; one was given two minutes ahead a minute ago; one was given six seconds a minute ago.
    deliver(&log, "steady", 3, Some(now - 1000));
    for segment in 0..20 {
        deliver(&log, "ahead", segment, Some(now - 60_000));
    }
    deliver(&log, "gone", 0, Some(now - 60_000));
    catch_up(&parts, &log).await;
    let at = i64::try_from(now).unwrap();
    assert_eq!(plays::now(&parts.store, Some(TRACK), at).await.unwrap(), (2, 2));
    assert_eq!(plays::now(&parts.store, None, at + 65_000).await.unwrap(), (0, 0));
    assert_eq!(plays::now(&parts.store, Some(OTHER), at).await.unwrap(), (0, 0));
}
