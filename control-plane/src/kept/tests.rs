//! Each record once, whatever is cut off where.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::fixture;
use crate::state::Shared;

const DAY: i64 = 24 * 3_600_000;

async fn keep(parts: &Shared, records: &[(i64, String)], now: i64) {
    let mut tx = parts.store.begin().await.unwrap();
    let records: Vec<(i64, &str)> = records.iter().map(|(ts, record)| (*ts, record.as_str())).collect();
    parts.kept.append(&mut tx, Kind::Facts, &records, now).await.unwrap();
    tx.commit().await.unwrap();
}

fn records(numbers: std::ops::Range<i64>) -> Vec<(i64, String)> {
    numbers.map(|n| (n, format!("{{\"ts\":{n},\"track\":\"t{}\"}}", n % 2))).collect()
}

const ALL: Span = Span { from_ms: i64::MIN, to_ms: i64::MAX, position: 0, track: None };

async fn read(parts: &Shared, span: Span) -> Vec<(u64, i64)> {
    let shelved = lines(&parts.kept, &parts.store, Kind::Facts, span).await.unwrap();
    let mut all = Vec::new();
    let each = |number: u64, record: &str| {
        all.push((number, serde_json::from_str::<serde_json::Value>(record).unwrap()["ts"].as_i64().unwrap()));
        true
    };
    shelved.read(each).unwrap();
    all
}

fn numbered(numbers: std::ops::Range<i64>) -> Vec<(u64, i64)> {
    numbers.map(|n| (n as u64, n)).collect()
}

#[tokio::test]
async fn what_was_not_committed_is_not_there_and_is_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let parts = fixture::parts(folder.path(), None).await;
    keep(&parts, &records(0..10), 0).await;
    // Written, and rolled back: longer than what comes after it.
    let mut tx = parts.store.begin().await.unwrap();
    let lost = records(100..400);
    let lost: Vec<(i64, &str)> = lost.iter().map(|(ts, record)| (*ts, record.as_str())).collect();
    parts.kept.append(&mut tx, Kind::Facts, &lost, 0).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(read(&parts, ALL).await, numbered(0..10));
    keep(&parts, &records(10..12), 0).await;
    keep(&parts, &records(12..15), 0).await;
    assert_eq!(read(&parts, ALL).await, numbered(0..15));
    // zstd itself reads the file.
    let file = File::open(parts.kept.path(Kind::Facts, 0)).unwrap();
    let text = std::io::read_to_string(zstd::Decoder::new(file).unwrap()).unwrap();
    assert_eq!(text.lines().count(), 15);
}

#[tokio::test]
async fn readers_get_what_they_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let parts = fixture::parts(folder.path(), None).await;
    for day in 0..3 {
        keep(&parts, &records(day * 10..day * 10 + 10), day * DAY).await;
    }
    assert_eq!(std::fs::read_dir(&parts.kept.root).unwrap().count(), 4, "a file a day, and the number");
    assert_eq!(read(&parts, Span { from_ms: 5, to_ms: 25, ..ALL }).await, numbered(5..25));
    assert_eq!(read(&parts, Span { position: 17, ..ALL }).await, numbered(17..30));
    let odd = read(&parts, Span { track: Some("t1".to_owned()), from_ms: 20, ..ALL }).await;
    assert_eq!(odd, [(21, 21), (23, 23), (25, 25), (27, 27), (29, 29)]);
    assert_eq!(lines(&parts.kept, &parts.store, Kind::Facts, ALL).await.unwrap().next, 30);
}

#[tokio::test]
async fn the_oldest_goes_by_age_and_numbers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let parts = fixture::parts(folder.path(), None).await;
    for day in 0..3 {
        let at: Vec<(i64, String)> = records(0..5).into_iter().map(|(ts, record)| (day * DAY + ts, record)).collect();
        keep(&parts, &at, day * DAY).await;
    }
    parts.kept.prune(&parts.store, 32 * DAY + 4).await.unwrap();
    let left: Vec<u64> = read(&parts, ALL).await.into_iter().map(|(number, _)| number).collect();
    assert_eq!(left, (5..15).collect::<Vec<_>>());
    parts.kept.prune(&parts.store, 1000 * DAY).await.unwrap();
    let left: Vec<u64> = read(&parts, ALL).await.into_iter().map(|(number, _)| number).collect();
    assert_eq!(left, (10..15).collect::<Vec<_>>(), "the newest file stays");
}

#[tokio::test]
async fn a_file_that_lost_its_end_with_the_power_goes_on_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let parts = fixture::parts(folder.path(), None).await;
    let now = 1000 * DAY;
    keep(&parts, &records(0..10), now).await;
    keep(&parts, &records(10..20), now).await;
    let path = parts.kept.path(Kind::Facts, 0);
    let length = std::fs::metadata(&path).unwrap().len();
    File::options().write(true).open(&path).unwrap().set_len(length - 3).unwrap();
    std::fs::write(parts.kept.root.join("facts-000000000000099.ndjson.zst"), "of nobody").unwrap();
    let again = fixture::parts(folder.path(), None).await;
    assert_eq!(read(&again, ALL).await, numbered(0..10));
    keep(&again, &records(20..25), now).await;
    assert_eq!(
        read(&again, ALL).await,
        [numbered(0..10), numbered(20..25)].concat(),
        "lost records keep their numbers"
    );
    assert_eq!(std::fs::read_dir(&again.kept.root).unwrap().count(), 3);
}
