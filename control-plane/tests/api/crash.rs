//! What is left when something goes away in the middle, and what the next start makes of it.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;

use crate::bucket::Bucket;
use crate::house::{House, config, master};

#[tokio::test]
async fn a_result_that_was_taken_is_published_though_the_bucket_was_away() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let (track, job) = house.add("a.mp3", b"x").await;
    let claimed = house.claim().await.unwrap();
    bucket.set_away(true);
    let (status, told) = house.complete(&claimed, 1000).await;
    assert_eq!((status, &told["state"]), (StatusCode::OK, &json!("publishing")));
    let (_, shown) = house.get(&format!("/v1/jobs/{job}")).await;
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("publishing"), &json!("publish-failed")));
    assert_eq!(
        house.get(&format!("/v1/tracks/{track}")).await.1["status"],
        "transcoding",
        "not ready before its alias is there"
    );
    assert!(bucket.object(&format!("hls/{track}/master.m3u8")).is_none());
    bucket.set_away(false);
    house.until(&track, "ready").await;
    assert_eq!(bucket.object(&format!("hls/{track}/master.m3u8")).unwrap(), master(1).as_bytes());
    house.control.shutdown().await;
}

#[tokio::test]
async fn a_start_resumes_what_was_being_published() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let (track, _) = house.add("a.mp3", b"x").await;
    let claimed = house.claim().await.unwrap();
    bucket.set_away(true);
    house.complete(&claimed, 1000).await;
    house.control.shutdown().await;
    bucket.set_away(false);
    let house = House::start(config(folder.path(), &bucket)).await;
    let shown = house.until(&track, "ready").await;
    assert_eq!(shown["duration_ms"], 1000);
    house.control.shutdown().await;
}

#[tokio::test]
async fn a_worker_that_is_lost_for_good_fails_the_track_with_its_word() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut config = config(folder.path(), &bucket);
    config.jobs.lease = Duration::from_millis(20);
    config.jobs.sweep = Duration::from_millis(10);
    config.jobs.max_attempts = 2;
    let house = House::start(config).await;
    let (track, _) = house.add("a.mp3", b"x").await;
    for _ in 0..20 {
        house.claim().await.unwrap();
    }
    let shown = house.until(&track, "failed").await;
    assert_eq!(shown["reason"], "worker-lost");
    assert!(house.claim_now().await.is_none());
    house.control.shutdown().await;
}

#[tokio::test]
async fn a_worker_that_is_started_again_goes_on_at_once() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut config = config(folder.path(), &bucket);
    // Longer than any test: only the new process can free the job.
    (config.jobs.lease, config.jobs.backoff) = (Duration::from_secs(3600), Duration::from_secs(3600));
    let house = House::start(config).await;
    let (track, job) = house.add("a.mp3", b"x").await;
    let killed = house.claim_as("w", "i1", 0).await.unwrap();
    assert!(house.claim_as("w", "i1", 0).await.is_none(), "another slot of the same process");
    assert!(house.claim_as("v", "i2", 0).await.is_none(), "another worker");
    let again = house.claim_as("w", "i2", 0).await.expect("the same job, at once");
    assert_eq!(again.job, killed.job);
    assert!(again.fence > killed.fence);
    let (_, shown) = house.get(&format!("/v1/jobs/{job}")).await;
    assert_eq!((&shown["attempts"], &shown["losses"]), (&json!(1), &json!(1)));
    // The process before lives after all: nothing that it says is taken.
    let said = json!({ "fence": killed.fence, "stage": "encode", "progress": 0.9 });
    let (status, error) = house.worker(&format!("jobs/{job}/progress"), said).await;
    assert_eq!((status, &error["error"]), (StatusCode::CONFLICT, &json!("lease-lost")));
    assert_eq!(house.complete(&killed, 1000).await.0, StatusCode::CONFLICT);
    assert_eq!(house.complete(&again, 1000).await.0, StatusCode::OK);
    assert_eq!(house.until(&track, "ready").await["duration_ms"], 1000);
    house.control.shutdown().await;
}

#[tokio::test]
async fn stops_give_the_job_back_however_often_they_come() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut config = config(folder.path(), &bucket);
    config.jobs.backoff = Duration::from_secs(3600);
    let house = House::start(config).await;
    let (track, job) = house.add("a.mp3", b"x").await;
    for _ in 0..5 {
        let claimed = house.claim_now().await.expect("without a back-off");
        let body =
            json!({ "fence": claimed.fence, "reason": "worker-stopped", "message": "Stopped.", "retryable": true });
        let (status, told) = house.worker(&format!("jobs/{job}/fail"), body).await;
        assert_eq!((status, &told["state"]), (StatusCode::OK, &json!("queued")));
    }
    let (_, shown) = house.get(&format!("/v1/jobs/{job}")).await;
    assert_eq!((&shown["attempts"], &shown["losses"]), (&json!(0), &json!(0)));
    assert_eq!(house.get(&format!("/v1/tracks/{track}")).await.1["status"], "queued");
    house.control.shutdown().await;
}

#[tokio::test]
async fn uploads_that_never_come_fail_and_leave_nothing() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut config = config(folder.path(), &bucket);
    config.uploads.ttl = Duration::from_millis(300);
    let house = House::start(config).await;
    let (_, created) = house.post("/v1/tracks", json!({ "filename": "a.mp3", "size": 1 })).await;
    let track = created["track"]["track"].as_str().unwrap();
    // The bytes came, the word that they came did not.
    assert_eq!(house.upload(&created, b"x").await, StatusCode::OK);
    let shown = house.until(track, "failed").await;
    assert_eq!(shown["reason"], "upload-abandoned");
    let uploads = format!("uploads/{track}");
    for _ in 0..200 {
        if !bucket.holds_under(&uploads) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!bucket.holds_under(&uploads), "the bytes of an abandoned upload remain");
    let (status, error) = house.post(&format!("/v1/tracks/{track}/uploaded"), json!({})).await;
    assert_eq!((status, &error["error"]), (StatusCode::CONFLICT, &json!("upload-abandoned")));
    house.control.shutdown().await;
}

#[tokio::test]
async fn what_dead_attempts_wrote_is_removed_and_the_published_version_stays() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut config = config(folder.path(), &bucket);
    config.jobs.lease = Duration::from_millis(400);
    let house = House::start(config).await;
    let (track, job) = house.add("a.mp3", b"x").await;
    let dead = house.claim().await.unwrap();
    bucket.put(&format!("hls/{track}/{}/a64/seg-00000.m4s", crate::house::version(dead.fence)), b"dead");
    let body = json!({ "fence": dead.fence, "reason": "crashed", "message": "x", "retryable": true });
    assert_eq!(house.worker(&format!("jobs/{job}/fail"), body).await.0, StatusCode::OK);
    let second = house.claim().await.unwrap();
    let kept = format!("hls/{track}/{}/a64/seg-00000.m4s", crate::house::version(second.fence));
    bucket.put(&kept, b"good");
    assert_eq!(house.complete(&second, 1000).await.0, StatusCode::OK);
    let dead = format!("hls/{track}/{}", crate::house::version(dead.fence));
    for _ in 0..200 {
        if !bucket.holds_under(&dead) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!bucket.holds_under(&dead), "a dead attempt's segments remain");
    assert_eq!(bucket.object(&kept).unwrap(), b"good");
    assert!(bucket.object(&format!("hls/{track}/master.m3u8")).is_some());
    house.control.shutdown().await;
}
