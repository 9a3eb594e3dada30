//! A disk that is full: records are dropped and counted, and nothing dies of it.
#![allow(clippy::expect_used, reason = "a test stops where it fails")]

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use segue_events::{EventLog, FactDraft, LogBounds, LogError, LogOptions, Position, WhenFull};

const DIR: &str = "SEGUE_EVENTS_FULL_DIR";

fn options() -> LogOptions {
    let bounds = LogBounds { bytes: 1 << 30, retain: 0, segment: 64 * 1024, full: WhenFull::DropNewest };
    LogOptions { facts: bounds, denials: bounds, slots: 16 }
}

fn deliver(log: &EventLog) -> bool {
    log.note(FactDraft { track: "t", file: "f", sid: "s", status: 200, ..FactDraft::default() })
        .settle(true, 1)
        .is_some()
}

/// Runs with a small file system of its own mounted on the directory. Not a test of its own.
#[test]
#[ignore = "run by the test of this file, on a file system that it mounts"]
fn on_a_small_disk() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let log = EventLog::open(&dir.join("events"), "edge", options()).expect("opened");
    let filler = dir.join("filler");
    let mut file = std::fs::File::create(&filler).expect("created");
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    // Blocks that were only promised would fault in here: every word of slots and files is written.
    let held: Vec<_> =
        (0..16).map(|_| log.note(FactDraft { track: "t", file: "f", sid: "s", ..FactDraft::default() })).collect();
    drop(held);
    let mut written = 16;
    while deliver(&log) {
        written += 1;
    }
    let overflow = log.overflow();
    assert_eq!((overflow.disk, overflow.log_full), (1, 0));
    assert_eq!(log.facts().read(Position(0), 100_000).expect("read").records.len(), written);
    match EventLog::open(&dir.join("second"), "edge", options()) {
        Err(error @ LogError::Io { .. }) => assert!(error.to_string().contains("free space there"), "{error}"),
        other => panic!("opened on a full disk: {other:?}"),
    }
    std::fs::remove_file(filler).expect("removed");
    let until = Instant::now() + Duration::from_secs(20);
    while !deliver(&log) {
        assert!(Instant::now() < until, "space is back and the log does not use it");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert_eq!(log.facts().read(Position(0), 100_000).expect("read").records.len(), written + 1);
    println!("held {written} facts, then dropped, then went on");
}

/// Needs mount namespaces for this user. Where there are none the same path is covered by the log's own test of
/// a disk that gives no file.
#[test]
fn a_full_disk_kills_nothing_and_comes_back() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mount = dir.path().to_str().expect("UTF-8");
    let isolated = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", script, "sh", mount]);
        command.arg(std::env::current_exe().expect("this test")).env(DIR, mount);
        command
    };
    let mounted = isolated("mount -t tmpfs -o size=1m tmpfs \"$1\"").output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("skipped: this user may not mount a file system of its own");
        return;
    }
    let output =
        isolated("mount -t tmpfs -o size=1m tmpfs \"$1\" && exec \"$2\" --exact on_a_small_disk --ignored --nocapture")
            .output()
            .expect("run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("then went on"), "{}: {text}", output.status);
}
