use super::*;
use std::future::Future;
use std::task::{Context, Poll, Waker};

const SEGMENT: u64 = 16 * 1024;

fn bounds(segments: u64, retain: u64) -> LogBounds {
    LogBounds { bytes: segments * SEGMENT, retain, segment: SEGMENT, full: WhenFull::DropNewest }
}

fn open(dir: &Path, bounds: LogBounds) -> Log {
    Log::open(dir, bounds, "test").expect("opened")
}

fn put(log: &Log, text: &str) -> Option<Position> {
    log.append(text.as_bytes(), crc32fast::hash(text.as_bytes()), |_| {})
}

fn record(number: usize) -> String {
    format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(number * 37 % 900))
}

/// Appends records until one is dropped; how many went in.
fn fill(log: &Log, from: usize) -> usize {
    (from..).find(|number| put(log, &record(*number)).is_none()).expect("full") - from
}

fn read_all(log: &Log, mut at: Position) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let batch = log.read(at, 7).expect("read");
        if batch.records.is_empty() {
            return all;
        }
        at = batch.next;
        all.extend(batch.records.into_iter().map(|(_, text)| text));
    }
}

#[test]
fn records_come_back_in_order_over_many_files_and_after_a_reopening() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), bounds(64, 0));
    let written: Vec<String> = (0..1000).map(record).collect();
    for text in &written {
        put(&log, text).expect("there is room");
    }
    assert!(log.bytes() > 20 * SEGMENT, "over many files");
    assert_eq!(read_all(&log, log.start()), written);
    let end = log.end();
    drop(log);
    let log = open(dir.path(), bounds(64, 0));
    assert_eq!(log.end(), end);
    put(&log, "\"after\"").expect("there is room");
    let mut all = read_all(&log, Position(0));
    assert_eq!(all.pop().as_deref(), Some("\"after\""));
    assert_eq!(all, written);
}

#[test]
fn every_position_in_a_batch_is_one_to_read_on_from() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), bounds(8, 0));
    (0..150).for_each(|number| assert!(put(&log, &record(number)).is_some()));
    let whole = log.read(log.start(), 1000).expect("read");
    assert_eq!((whole.records.len(), whole.skipped), (150, 0));
    for (index, (after, _)) in whole.records.iter().enumerate() {
        let rest = log.read(*after, 1000).expect("read");
        assert_eq!(rest.records, whole.records[index + 1..]);
        assert_eq!(rest.skipped, 0);
    }
    assert_eq!(log.read(whole.next, 10).expect("read").records, []);
}

#[test]
fn a_position_that_is_none_reads_on_at_the_next_record_and_says_so() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), bounds(8, 0));
    let mut starts = Vec::new();
    for number in 0..60 {
        let end = put(&log, &record(number)).expect("room");
        starts.push(end.0 - frame_bytes(record(number).len()));
    }
    for at in 0..log.end().0 {
        let batch = log.read(Position(at), 1).expect("read");
        let expected = starts.iter().position(|start| *start >= at);
        assert_eq!(batch.records.first().map(|(_, text)| text.as_str()), expected.map(record).as_deref(), "at {at}");
        assert_eq!(batch.skipped > 0, !starts.contains(&at) && !in_padding(&log, at), "at {at}");
    }
    assert_eq!(log.damaged(), 0);
    let error = log.read(Position(log.end().0 + 8), 1).expect_err("past the end");
    assert_eq!(error.kind(), "ahead");
}

/// Whether `at` is in the part of its file that no record stands in.
fn in_padding(log: &Log, at: u64) -> bool {
    let segment = log.files.find(at).expect("a file");
    let mut position = segment.base();
    while let Frame::Record { next } = segment.frame(position, &mut Vec::new()) {
        position = next;
    }
    at >= position
}

#[test]
fn a_full_log_drops_the_newest_until_files_are_acknowledged() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), bounds(4, 0));
    let held = fill(&log, 0);
    assert!(log.bytes() <= 4 * SEGMENT);
    assert!(put(&log, &record(800)).is_none());
    assert_eq!(log.dropped_log_full(), 2);
    assert_eq!(read_all(&log, Position(0)), (0..held).map(record).collect::<Vec<_>>(), "nothing old is touched");
    // Half of what is in the first file lets no file go.
    let half = log.read(Position(0), 5).expect("read").next;
    log.acknowledge(half);
    assert!(put(&log, &record(800)).is_none());
    log.acknowledge(log.end());
    let more = fill(&log, held);
    assert!(more > held / 2, "{more} more fit");
    assert!(log.bytes() <= 4 * SEGMENT);
    let batch = log.read(Position(0), 1).expect("read");
    assert!(batch.skipped > 0, "a reader that missed records is told");
    assert!(log.start().0 > 0 && batch.next > log.start());
}

#[test]
fn acknowledged_records_stay_for_the_retention_and_go_when_space_is_needed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), bounds(6, 3 * SEGMENT));
    let held = fill(&log, 0);
    log.acknowledge(log.end());
    let kept = log.end().0 - log.start().0;
    assert!((3 * SEGMENT..5 * SEGMENT).contains(&kept), "{kept} bytes kept");
    for number in 0..held {
        put(&log, &record(number)).expect("acknowledged files make room");
        log.acknowledge(log.end());
    }
    assert!(log.bytes() <= 6 * SEGMENT);
    assert!(log.end().0 - log.start().0 >= 3 * SEGMENT);
}

#[test]
fn a_ring_lets_the_oldest_go_and_counts_it() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), LogBounds { full: WhenFull::DropOldest, ..bounds(3, 0) });
    (0..500).for_each(|number| assert!(put(&log, &record(number)).is_some()));
    assert!(log.bytes() <= 3 * SEGMENT);
    let left = read_all(&log, log.start());
    assert_eq!(left, (500 - left.len()..500).map(record).collect::<Vec<_>>(), "the newest, with none missing");
    assert_eq!(log.overwritten() as usize, 500 - left.len());
}

#[test]
fn an_acknowledgement_survives_and_never_goes_back() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), bounds(4, 4 * SEGMENT));
    let first = put(&log, "1").expect("room");
    let second = put(&log, "2").expect("room");
    log.acknowledge(second);
    log.acknowledge(first);
    log.acknowledge(Position(u64::MAX));
    drop(log);
    assert_eq!(open(dir.path(), bounds(4, 4 * SEGMENT)).acknowledged(), second);
}

#[test]
fn files_lost_with_the_power_never_bring_used_positions_back() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), bounds(4, 0));
    (0..20).for_each(|number| assert!(put(&log, &record(number)).is_some()));
    let end = log.end();
    log.acknowledge(end);
    let path = log.tail().segment.path().to_owned();
    drop(log);
    std::fs::remove_file(path).expect("removed");
    let log = open(dir.path(), bounds(4, 0));
    assert!(log.end() >= end && log.start() >= end);
    put(&log, "1").expect("room");
    assert_eq!(read_all(&log, end), ["1"]);
}

#[test]
fn an_unfinished_record_is_wiped_and_a_damaged_one_passed_over() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), bounds(8, 0));
    let ends: Vec<Position> = (0..100).filter_map(|number| put(&log, &record(number))).collect();
    let end = log.end().0;
    // As a writer leaves it that is killed after the payload and before the length.
    let words = |log: &Log, at: u64| {
        let segment = Arc::clone(&log.tail().segment);
        let offset = 64 + at - segment.base();
        (segment.path().to_owned(), offset)
    };
    let (path, offset) = words(&log, end);
    drop(log);
    write_at(&path, offset + 8, &[0x55; 900]);
    let log = open(dir.path(), bounds(8, 0));
    assert_eq!((log.end().0, log.damaged()), (end, 0));
    put(&log, "1").expect("room");
    put(&log, "2").expect("room");
    assert_eq!(read_all(&log, Position(end)), ["1", "2"]);
    // What comes after the new records must not be taken for one when they are read back.
    let end_of_two = log.end();
    drop(log);
    let log = open(dir.path(), bounds(8, 0));
    assert_eq!((log.end(), log.damaged()), (end_of_two, 0));
    // One bit in the second record: its file is given up there, the next is read.
    let first = log.files.find(0).expect("first file");
    let lost = ends.iter().filter(|position| position.0 <= first.end()).count();
    write_at(first.path(), 64 + ends[0].0 + 20, b"\x7f");
    let batch = log.read(Position(0), 1000).expect("read");
    assert_eq!(batch.records.len(), 1 + 100 - lost + 2);
    assert!(batch.skipped > 0 && log.damaged() == 1);
}

#[test]
fn a_damaged_end_is_cut_off_when_opened() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), bounds(8, 0));
    let ends: Vec<Position> = (0..10).filter_map(|number| put(&log, &record(number))).collect();
    let path = log.tail().segment.path().to_owned();
    drop(log);
    write_at(&path, 64 + ends[6].0 + 9, b"\x7f");
    let log = open(dir.path(), bounds(8, 0));
    assert_eq!((log.end(), log.damaged()), (ends[6], 1));
    put(&log, "1").expect("room");
    assert_eq!(read_all(&log, ends[5]), [record(6), "1".to_owned()]);
}

fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("opened");
    file.write_all_at(bytes, at).expect("written");
}

#[test]
fn files_of_another_format_are_refused_and_hollow_ones_removed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let name = dir.path().join(Segment::name(0));
    std::fs::write(&name, []).expect("written");
    std::fs::write(dir.path().join("5.0.new"), b"left over").expect("written");
    drop(open(dir.path(), bounds(4, 0)));
    assert!(!dir.path().join("5.0.new").exists());
    std::fs::write(&name, [b'?'; SEGMENT as usize]).expect("written");
    let error = Log::open(dir.path(), bounds(4, 0), "test").expect_err("not ours");
    assert_eq!(error.kind(), "format");
    assert!(error.to_string().contains(&*name.to_string_lossy()), "{error}");
}

#[test]
fn bounds_that_contradict_are_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for (bytes, segment) in [(1 << 20, 5000), (1 << 20, 4096), (SEGMENT, SEGMENT), (1 << 40, 1 << 32)] {
        let bounds = LogBounds { bytes, retain: 0, segment, full: WhenFull::DropNewest };
        assert_eq!(Log::open(dir.path(), bounds, "facts").expect_err("refused").kind(), "options");
    }
}

#[test]
fn a_disk_that_gives_no_file_drops_the_newest_and_comes_back() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("log");
    let log = open(&path, bounds(64, 0));
    std::fs::rename(&path, dir.path().join("away")).expect("renamed");
    let held = fill(&log, 0);
    assert!(put(&log, &record(800)).is_none());
    assert_eq!((log.dropped_disk(), log.dropped_log_full()), (2, 0));
    std::fs::rename(dir.path().join("away"), &path).expect("renamed");
    // The disk is asked again once it has rested.
    log.tail().rest_until = Some(Instant::now());
    put(&log, "1").expect("room again");
    assert_eq!(read_all(&log, Position(0)).len(), held + 1);
}

#[test]
fn the_keeper_has_the_next_file_ready_and_leaves_none_behind() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), bounds(8, 0));
    log.prepare();
    assert!(log.tail().spare.is_none(), "not before half of the file is used");
    (0..30).for_each(|number| assert!(put(&log, &record(number)).is_some()));
    log.prepare();
    assert!(log.tail().spare.is_some());
    assert_eq!(log.bytes(), 2 * SEGMENT);
    let base = log.tail().segment.end();
    let (mut number, before) = (30, Arc::clone(&log.tail().segment));
    while log.tail().segment.base() == before.base() {
        put(&log, &record(number)).expect("room");
        number += 1;
    }
    assert_eq!(log.tail().segment.base(), base);
    assert!(log.tail().spare.is_none());
    (0..30).for_each(|number| assert!(put(&log, &record(number)).is_some()));
    log.prepare();
    drop(log);
    let left = std::fs::read_dir(dir.path()).expect("listed").filter_map(Result::ok);
    assert!(left.map(|entry| entry.file_name()).all(|name| !name.to_string_lossy().ends_with(".new")));
}

#[test]
fn readers_beside_writers_see_whole_records_in_order() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), LogBounds { full: WhenFull::DropNewest, ..bounds(2000, 0) });
    let total = 20_000;
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let log = &log;
            scope.spawn(move || {
                for number in 0..total / 4 {
                    put(log, &format!("{writer} {number} {}", "y".repeat(number % 200))).expect("room");
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                let (mut at, mut seen, mut next) = (Position(0), 0, [0; 4]);
                while seen < total {
                    let batch = log.read(at, 64).expect("read");
                    assert_eq!(batch.skipped, 0);
                    for (_, text) in &batch.records {
                        let words: Vec<&str> = text.split(' ').collect();
                        let (writer, number): (usize, usize) =
                            (words[0].parse().expect("number"), words[1].parse().expect("number"));
                        assert_eq!((number, words[2].len()), (next[writer], number % 200));
                        next[writer] += 1;
                        seen += 1;
                    }
                    at = batch.next;
                }
            });
        }
    });
}

#[test]
fn a_waiting_reader_is_woken_and_one_that_is_behind_does_not_wait() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), bounds(4, 0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    runtime.block_on(async {
        let before = log.end();
        let mut waiting = std::pin::pin!(log.changed(before));
        assert!(matches!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
        put(&log, "1").expect("room");
        tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("woken");
        let mut behind = std::pin::pin!(log.changed(before));
        assert!(matches!(behind.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(())));
    });
}

#[test]
fn no_wake_up_is_lost_between_a_look_and_a_wait() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let log = open(dir.path(), bounds(64, 0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    std::thread::scope(|scope| {
        let (go, gone) = std::sync::mpsc::sync_channel::<()>(0);
        let log = &log;
        scope.spawn(move || {
            while gone.recv().is_ok() {
                put(log, "1").expect("room");
            }
        });
        for round in 0..200 {
            let before = log.end();
            go.send(()).expect("the writer lives");
            let woken =
                runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), log.changed(before)).await });
            assert!(woken.is_ok() && log.end() > before, "round {round}");
        }
        drop(go);
    });
}
