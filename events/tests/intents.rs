//! Intents, recovery and the directory, through the public API.
#![allow(clippy::expect_used, reason = "a test stops where it fails")]

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use segue_events::{Denial, DenialDraft, EventLog, Fact, FactDraft, Intent, LogBounds, LogOptions, Position, WhenFull};

fn options(slots: u32) -> LogOptions {
    let bounds = LogBounds { bytes: 8 << 20, retain: 0, segment: 64 * 1024, full: WhenFull::DropNewest };
    LogOptions { facts: bounds, denials: LogBounds { bytes: 1 << 20, full: WhenFull::DropOldest, ..bounds }, slots }
}

fn open(dir: &Path, slots: u32) -> Arc<EventLog> {
    EventLog::open(dir, "edge", options(slots)).expect("opened")
}

fn draft(file: &str, bytes: u64) -> FactDraft<'_> {
    FactDraft { track: "t", file, sid: "s", status: 200, bytes, ..FactDraft::default() }
}

fn facts(log: &EventLog) -> Vec<Fact> {
    let batch = log.facts().read(Position(0), 10_000).expect("read");
    batch.records.iter().map(|(_, text)| serde_json::from_str(text).expect("a fact")).collect()
}

/// A copy of the directory as it is now: what a process that is killed at this moment leaves.
fn left_by_a_kill(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("temporary directory");
    for from in ["", "facts", "denials"] {
        std::fs::create_dir_all(copy.path().join(from)).expect("directory");
        for entry in std::fs::read_dir(dir.join(from)).expect("listed") {
            let entry = entry.expect("entry");
            if entry.file_type().expect("type").is_file() {
                std::fs::copy(entry.path(), copy.path().join(from).join(entry.file_name())).expect("copied");
            }
        }
    }
    copy
}

#[test]
fn an_intent_crosses_threads_and_outlives_the_log() {
    fn movable<T: Send + Sync + 'static>(value: T) -> T {
        value
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), 4);
    let intent: Intent = movable(log.note(draft("f", 10)));
    let id = intent.id();
    drop(log);
    assert_eq!(EventLog::open(dir.path(), "edge", options(4)).expect_err("still held").kind(), "locked");
    std::thread::spawn(move || intent.settle(true, 10).expect("room")).join().expect("thread");
    let log = open(dir.path(), 4);
    let [fact] = facts(&log).try_into().expect("one fact");
    assert_eq!((fact.id, fact.bytes, fact.complete, fact.recovered), (id, 10, true, false));
}

#[test]
fn a_dropped_intent_is_a_fact_that_is_not_complete() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), 4);
    drop(log.note(draft("f", 10)));
    let [fact] = facts(&log).try_into().expect("one fact");
    assert_eq!((fact.bytes, fact.complete, fact.recovered), (0, false, false));
}

#[test]
fn what_was_in_flight_is_recovered_once_in_order_and_marked() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), 16);
    let mut intents: Vec<Intent> = (0..10).map(|n| log.note(draft("f", n))).collect();
    let mut ids: Vec<String> = intents.iter().map(Intent::id).collect();
    let settled = ids.remove(3);
    intents.remove(3).settle(true, 77);
    let copy = left_by_a_kill(dir.path());
    let log = open(copy.path(), 16);
    let found = facts(&log);
    assert_eq!((found[0].id.as_str(), found[0].bytes, found[0].recovered), (settled.as_str(), 77, false));
    assert_eq!(found[1..].iter().map(|fact| fact.id.clone()).collect::<Vec<_>>(), ids);
    assert_eq!(found[1..].iter().map(|fact| fact.bytes).collect::<Vec<_>>(), [0, 1, 2, 4, 5, 6, 7, 8, 9]);
    assert!(found[1..].iter().all(|fact| fact.recovered && fact.complete));
    let count = found.len();
    drop(log);
    assert_eq!(facts(&open(copy.path(), 16)).len(), count, "not recovered twice");
}

#[test]
fn a_record_that_got_into_the_log_before_the_kill_is_not_appended_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), 4);
    log.note(draft("first", 1)).settle(true, 1);
    let intent = log.note(draft("second", 2));
    let noted = std::fs::read(dir.path().join("intents")).expect("read");
    intent.settle(false, 1);
    // The moment between append and clearing: the slot as it was noted, with the position that it was given.
    let mut settled = std::fs::read(dir.path().join("intents")).expect("read");
    let slot = (1..=4).map(|slot| slot * 4096).find(|at| noted[at + 1] != 0 || noted[*at] != 0).expect("noted");
    assert_eq!(settled[slot..slot + 8], [0; 8], "cleared");
    settled[slot..slot + 8].copy_from_slice(&noted[slot..slot + 8]);
    let copy = left_by_a_kill(dir.path());
    std::fs::write(copy.path().join("intents"), &settled).expect("written");
    let found = facts(&open(copy.path(), 4));
    assert_eq!(found.iter().map(|fact| fact.file.as_str()).collect::<Vec<_>>(), ["first", "second"]);
    assert!(!found[1].recovered && !found[1].complete, "as it was settled");
    // The moment before: the position is there, the record is not.
    let copy = left_by_a_kill(dir.path());
    settled[slot + 16..slot + 24].copy_from_slice(&(log.facts().end().0 + 1).to_le_bytes());
    std::fs::write(copy.path().join("intents"), &settled).expect("written");
    assert_eq!(facts(&open(copy.path(), 4)).len(), 3);
    // A position at which another record stands by now.
    let copy = left_by_a_kill(dir.path());
    settled[slot + 16..slot + 24].copy_from_slice(&1_u64.to_le_bytes());
    std::fs::write(copy.path().join("intents"), &settled).expect("written");
    assert_eq!(facts(&open(copy.path(), 4)).len(), 3);
}

#[test]
fn a_damaged_slot_is_dropped_and_used_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), 1);
    let intent = log.note(draft("f", 1));
    let copy = left_by_a_kill(dir.path());
    drop(intent);
    let mut file = std::fs::read(copy.path().join("intents")).expect("read");
    file[4096 + 60] ^= 1;
    std::fs::write(copy.path().join("intents"), file).expect("written");
    let log = open(copy.path(), 1);
    assert_eq!(facts(&log).len(), 0);
    log.note(draft("f", 1)).settle(true, 1);
    assert_eq!(log.overflow().slots_full, 0, "the slot is free");
}

#[test]
fn without_a_slot_the_fact_is_still_settled_and_counted() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), 2);
    let intents: Vec<Intent> = (0..5).map(|n| log.note(draft("f", n))).collect();
    assert_eq!(log.overflow().slots_full, 3);
    for (intent, bytes) in intents.into_iter().zip(0..) {
        intent.settle(true, bytes);
    }
    let bytes: Vec<u64> = facts(&log).iter().map(|fact| fact.bytes).collect();
    assert_eq!(bytes, [0, 1, 2, 3, 4]);
    let again: Vec<Intent> = (0..2).map(|n| log.note(draft("f", n))).collect();
    assert_eq!(log.overflow().slots_full, 3, "settled slots are free again");
    drop(again);
}

#[test]
fn slots_grow_and_shrink_with_the_options_and_lose_nothing() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), 8);
    let intents: Vec<Intent> = (0..8).map(|n| log.note(draft("f", n))).collect();
    let copy = left_by_a_kill(dir.path());
    drop(intents);
    let log = open(copy.path(), 2);
    assert_eq!(facts(&log).len(), 8);
    assert_eq!(std::fs::metadata(copy.path().join("intents")).expect("metadata").len(), 3 * 4096);
    drop(log);
    let log = open(copy.path(), 32);
    let held: Vec<Intent> = (0..32).map(|n| log.note(draft("f", n))).collect();
    assert_eq!(log.overflow().slots_full, 0);
    drop(held);
}

#[test]
fn ids_never_repeat_however_fast_it_is_opened_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut ids = HashSet::new();
    for round in 0..20 {
        let log = open(dir.path(), 4 + round % 3);
        for _ in 0..3 {
            let intent = log.note(draft("f", 1));
            assert!(intent.id().starts_with("edge-"));
            assert!(ids.insert(intent.id()));
        }
    }
    let log = open(dir.path(), 4);
    let found: HashSet<String> = facts(&log).into_iter().map(|fact| fact.id).collect();
    assert_eq!(found, ids);
}

#[test]
fn threads_share_slots_without_mixing_facts() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), 8);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let log = &log;
            scope.spawn(move || {
                for n in 0..500 {
                    let name = format!("{thread}/{n}");
                    let intents = [log.note(draft(&name, n)), log.note(draft(&name, n)), log.note(draft(&name, n))];
                    for intent in intents {
                        intent.settle(true, thread * 1000 + n);
                    }
                }
            });
        }
    });
    let found = facts(&log);
    assert_eq!(found.len(), 6000);
    assert_eq!(found.iter().map(|fact| fact.id.as_str()).collect::<HashSet<_>>().len(), 6000);
    for fact in found {
        let (thread, n) = fact.file.split_once('/').expect("a name");
        let bytes = thread.parse::<u64>().expect("number") * 1000 + n.parse::<u64>().expect("number");
        assert_eq!(fact.bytes, bytes);
    }
}

#[test]
fn denials_have_a_log_of_their_own_which_is_a_ring() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), 4);
    let path = "x".repeat(900);
    for _ in 0..2000 {
        log.deny(DenialDraft { path: &path, reason: "expired", status: 401, ..DenialDraft::default() });
    }
    assert_eq!(log.facts().end(), Position(0));
    // The keeper may let one more file go at any time: look until it did not.
    let (batch, overwritten) = loop {
        let before = log.overflow().overwritten;
        let batch = log.denials().read(log.denials().start(), 10_000).expect("read");
        if log.overflow().overwritten == before && batch.skipped == 0 {
            break (batch, before);
        }
    };
    let last: Denial = serde_json::from_str(&batch.records.last().expect("some").1).expect("a denial");
    assert!(last.id.ends_with("-2000"), "{}", last.id);
    assert_eq!(batch.records.len() as u64 + overwritten, 2000);
    assert!(log.denials().bytes() <= 1 << 20);
}

#[test]
fn names_and_bounds_that_cannot_work_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for name in ["", "a b", "ä", "a/b", &"x".repeat(49)] {
        assert_eq!(EventLog::open(dir.path(), name, options(4)).expect_err("refused").kind(), "edge-name");
    }
    assert_eq!(EventLog::open(dir.path(), "e", options(0)).expect_err("refused").kind(), "options");
    let file = dir.path().join("file");
    std::fs::write(&file, b"").expect("written");
    let error = EventLog::open(&file.join("dir"), "e", options(4)).expect_err("refused");
    assert!(error.to_string().contains("cannot create the directory"), "{error}");
    std::fs::write(dir.path().join("intents"), [b'?'; 8192]).expect("written");
    assert_eq!(EventLog::open(dir.path(), "e", options(4)).expect_err("refused").kind(), "format");
}
