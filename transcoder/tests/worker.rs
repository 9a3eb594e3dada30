//! The worker against its control plane: progress, a lost lease, a stop in mid-job, a control plane that is away.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop where it is")]

mod bench;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bench::{Bench, TONES, made};
use segue_transcoder::Worker;

/// Encoding this takes long enough to be interrupted.
fn long() -> Vec<u8> {
    made("long.flac", "-f lavfi -i anoisesrc=d=600:c=pink:r=44100:a=0.3 -ac 2 -compression_level 0")
}

/// ffmpeg processes that work below `folder`.
fn guests(folder: &std::path::Path) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|process| std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_grows_through_the_stages() {
    let bench = Bench::start().await;
    let job = bench.queue(&made("a.flac", &TONES.replace("d=10", "d=300")), "a.flac");
    bench.control.until(|told| told.0 == job && told.1 == "complete").await;
    let told = bench.control.told();
    let progress: Vec<_> = told.iter().filter(|told| told.1 == "progress").map(|told| &told.2).collect();
    let numbers: Vec<f64> = progress.iter().map(|body| body["progress"].as_f64().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    let encoding = progress.iter().filter(|body| body["stage"] == "encode").count();
    assert!(encoding >= 3, "several steps within the encode: {progress:?}");
    assert!(progress.iter().all(|body| body["fence"] == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_kills_ffmpeg_and_publishes_nothing() {
    let mut bench = Bench::start().await;
    let job = bench.queue(&long(), "long.flac");
    bench.control.until(|told| told.0 == job && told.2["stage"] == "encode").await;
    assert!(guests(bench.dir.path()) > 0);
    bench.control.lease_lost.store(true, Ordering::SeqCst);
    let lost = Instant::now();
    while bench.job_folders() > 0 || guests(bench.dir.path()) > 0 {
        assert!(lost.elapsed() < Duration::from_secs(20), "the job goes on without its lease");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bench.control.lease_lost.store(false, Ordering::SeqCst);
    // The next job runs, and nothing more was said about the lost one.
    bench.done(&made("a.wav", &format!("{TONES} -t 1")), "next.wav").await;
    bench.stop().await;
    assert!(bench.control.told().iter().all(|told| told.0 != job || !bench::is_end(&told.1)));
    // What lies in the attempt's own folder is named by nothing that was handed out.
    let versions = std::fs::read_dir(bench.bucket().join("hls/track0000001")).into_iter().flatten().flatten();
    assert!(versions.into_iter().all(|version| !version.path().join("a64/index.m3u8").exists()));
    assert!(!bench.bucket().join("hls/track0000001/master.m3u8").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_gives_the_job_back_and_leaves_nothing_behind() {
    let mut bench = Bench::start().await;
    let job = bench.queue(&long(), "long.flac");
    bench.control.until(|told| told.0 == job && told.2["stage"] == "encode").await;
    let stopping = Instant::now();
    bench.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(10));
    let (_, verb, body) = bench.control.until(|told| told.0 == job && bench::is_end(&told.1)).await;
    assert_eq!((verb.as_str(), &body["reason"], &body["retryable"]), ("fail", &"worker-stopped".into(), &true.into()));
    // Whether it is tried again is the control plane's to say.
    assert!(!body["message"].as_str().unwrap().contains("again"), "{body}");
    // They were killed; the kernel takes them away a moment later.
    while guests(bench.dir.path()) > 0 {
        assert!(stopping.elapsed() < Duration::from_secs(20), "guests outlive their worker");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(std::fs::read_dir(bench.dir.path().join("work")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_slot_claims_under_one_name_and_instance() {
    let mut bench = Bench::idle().await;
    bench.config.slots = 3;
    bench.run().await;
    bench.control.until(|told| told.1 == "claim").await;
    // Two jobs: two of the slots have claimed, and the one that waits has as well.
    for name in ["a.wav", "b.wav"] {
        bench.done(&made("a.wav", &format!("{TONES} -t 1")), name).await;
    }
    let claims: Vec<_> = bench.control.told().into_iter().filter(|told| told.1 == "claim").map(|told| told.2).collect();
    assert!(claims.len() >= 3, "{claims:?}");
    let (name, instance) = (&claims[0]["worker"], claims[0]["instance"].as_str().unwrap());
    assert!(name.as_str().unwrap().ends_with(&format!("-{}", std::process::id())), "{name}");
    assert!(instance.len() == 16 && instance.bytes().all(|b| b.is_ascii_hexdigit()), "{instance}");
    assert!(claims.iter().all(|claim| claim["worker"] == *name && claim["instance"] == instance), "{claims:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_cannot_renew_the_lease_ends_the_job() {
    let bench = Bench::start().await;
    let job = bench.queue(&long(), "long.flac");
    bench.control.until(|told| told.0 == job && told.2["stage"] == "encode").await;
    bench.control.away.store(true, Ordering::SeqCst);
    let away = Instant::now();
    while bench.job_folders() > 0 {
        assert!(away.elapsed() < Duration::from_secs(20), "the job goes on without its lease");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It comes back: so does the worker.
    bench.control.away.store(false, Ordering::SeqCst);
    bench.done(&made("a.wav", &format!("{TONES} -t 1")), "next.wav").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ends_with_its_job_breaks_nothing_off() {
    let bench = Bench::start().await;
    bench.control.slow_end.store(true, Ordering::SeqCst);
    let job = bench.queue(&made("a.wav", &format!("{TONES} -t 1")), "a.wav");
    bench.control.until(|told| told.0 == job && told.1 == "answered").await;
    let told = bench.control.told();
    let from = told.iter().position(|told| told.0 == job && bench::is_end(&told.1)).unwrap();
    assert!(told[from..].iter().any(|told| told.0 == job && told.1 == "progress"), "it was told meanwhile: {told:?}");
    assert_eq!(told.iter().filter(|told| told.0 == job && bench::is_end(&told.1)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_gone_is_no_reason_to_try_again() {
    let mut bench = Bench::idle().await;
    let job = bench.queue(b"abc", "a.wav");
    std::fs::remove_file(bench.bucket().join("uploads/track0000001-up")).unwrap();
    bench.run().await;
    let (_, verb, body) = bench.control.until(|told| told.0 == job && bench::is_end(&told.1)).await;
    assert_eq!((verb.as_str(), &body["reason"], &body["retryable"]), ("fail", &"source-missing".into(), &false.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_working_folder_that_cannot_be_made_is_one_clear_sentence() {
    let mut bench = Bench::idle().await;
    let file = bench.dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    bench.config.work_dir = file.join("work");
    let error = Worker::start(bench.config.clone()).await.expect_err("no folder inside a file");
    assert_eq!(error.kind(), "work-dir");
    let text = error.to_string();
    assert!(text.contains("work_dir") && !text.contains('\n'), "{text}");
}
