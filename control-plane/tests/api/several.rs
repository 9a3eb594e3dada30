//! Two control planes over one database and one bucket, with and without a Redis that carries hints between them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use segue_config::Secret;
use segue_control_plane::{ControlConfig, RedisConfig};
use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::events::Follower;
use crate::house::{ADMIN, EDGE, House, config};

/// A redis-server that keeps nothing, on a socket of its own.
struct Redis {
    process: Child,
    config: RedisConfig,
}

impl Redis {
    async fn start(folder: &Path) -> Self {
        let socket = folder.join("redis");
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--loglevel", "warning"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is missing; make test installs it");
        for _ in 0..400 {
            if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let url = Secret::literal(format!("redis+unix://{}", socket.display()));
        Self { process, config: RedisConfig { url, ca: None, prefix: "segue".to_owned() } }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn two(config: ControlConfig) -> (House, House) {
    // On the heap: a start holds a whole configuration.
    (Box::pin(House::start(config.clone())).await, Box::pin(House::start(config)).await)
}

async fn end(houses: [House; 2]) {
    for house in houses {
        house.control.shutdown().await;
    }
}

/// A purge at one is told to an edge that follows the other; gives how long that took.
async fn purge_reaches(house: &House, other: &House, track: &str) -> Duration {
    let send = async |tag: &str, wait_ms: u64| {
        let path = format!("/v1/edge/snapshot?wait_ms={wait_ms}");
        let request = other.client.get(other.url(&path)).bearer_auth(EDGE).header("if-none-match", tag);
        request.send().await.unwrap()
    };
    // What else is told at the start (each control plane raises the revision) has come through.
    let mut tag = String::new();
    loop {
        let response = send(&tag, 1500).await;
        if response.status() == StatusCode::NOT_MODIFIED {
            break;
        }
        tag = response.headers()["etag"].to_str().unwrap().to_owned();
    }
    let purge = async {
        let (status, purged) = house.post(&format!("/v1/tracks/{track}/purge"), json!({})).await;
        assert_eq!(status, StatusCode::OK);
        (Instant::now(), purged["generation"].as_u64())
    };
    let (response, (purged, generation)) = tokio::join!(send(&tag, 20_000), purge);
    let took = purged.elapsed();
    assert_eq!(response.status(), StatusCode::OK);
    let told: Value = response.json().await.unwrap();
    assert_eq!(told["purges"][track].as_u64(), generation, "{told}");
    took
}

#[tokio::test]
async fn what_one_is_told_the_other_tells_without_redis() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let (one, other) = two(ControlConfig { redis: None, ..config(folder.path(), &bucket) }).await;
    let waiting = other.claim();
    let adding = one.add("a.mp3", b"a");
    let (claimed, (track, job)) = tokio::join!(waiting, adding);
    let claimed = claimed.expect("a worker that waits at the other gets the job");
    assert_eq!(claimed.job, job);
    assert_eq!(one.complete(&claimed, 1000).await.0, StatusCode::OK, "whichever a worker reaches takes its word");
    assert_eq!(other.until(&track, "ready").await["duration_ms"], 1000);
    let took = purge_reaches(&one, &other, &track).await;
    assert!(took < Duration::from_secs(5), "half a second, and what a loaded machine adds: {took:?}");
    end([one, other]).await;
}

#[tokio::test]
async fn with_redis_events_of_one_are_heard_at_the_other_and_its_loss_costs_a_wait_alone() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut redis = Redis::start(folder.path()).await;
    let config = ControlConfig { redis: Some(redis.config.clone()), ..config(folder.path(), &bucket) };
    let (one, other) = two(config).await;
    let (track, _) = one.add("a.mp3", b"a").await;
    purge_reaches(&one, &other, &track).await;
    // It takes a moment until one has heard that somebody follows at the other.
    let mut follower = Follower::new(&other, "?topics=tracks").await;
    let create = async {
        loop {
            let body = json!({ "filename": "b.mp3", "size": 1, "title": "Heard elsewhere" });
            let (status, created) = one.post("/v1/tracks", body).await;
            assert_eq!(status, StatusCode::CREATED);
            tokio::time::sleep(Duration::from_millis(300)).await;
            let track = created["track"]["track"].as_str().unwrap();
            one.send(ADMIN, Method::DELETE, &format!("/v1/tracks/{track}"), None).await;
        }
    };
    let heard = async {
        let mut names = std::collections::BTreeSet::new();
        while names.len() < 2 {
            let (name, data) = follower.next().await;
            assert!(name == "track-deleted" || data["title"] == "Heard elsewhere", "{name}: {data}");
            names.insert(name);
        }
        names
    };
    let names = tokio::select! {
        () = create => unreachable!(),
        names = heard => names,
    };
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["track", "track-deleted"]);
    drop(follower);
    redis.process.kill().unwrap();
    redis.process.wait().unwrap();
    purge_reaches(&one, &other, &track).await;
    end([one, other]).await;
}

#[tokio::test]
async fn a_duty_goes_to_the_other_when_its_holder_ends() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let (one, other) = two(config(folder.path(), &bucket)).await;
    let (track, _) = one.add("a.mp3", b"a").await;
    let claimed = one.claim().await.unwrap();
    bucket.set_away(true);
    assert_eq!(one.complete(&claimed, 1000).await.1["state"], "publishing");
    one.control.shutdown().await;
    bucket.set_away(false);
    other.until(&track, "ready").await;
    other.control.shutdown().await;
}

#[tokio::test]
async fn a_cancelled_job_ends_for_its_worker_and_can_be_retried() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let (track, job) = house.add("a.mp3", b"x").await;
    let claimed = house.claim().await.unwrap();
    let (status, cancelled) = house.post(&format!("/v1/jobs/{job}/cancel"), json!({})).await;
    assert_eq!((status, &cancelled["state"]), (StatusCode::OK, &json!("cancelled")));
    let shown = house.until(&track, "failed").await;
    assert_eq!(shown["reason"], "cancelled");
    let said = json!({ "fence": claimed.fence, "stage": "encode", "progress": 0.5 });
    let (status, error) = house.worker(&format!("jobs/{job}/progress"), said).await;
    assert_eq!((status, &error["error"]), (StatusCode::CONFLICT, &json!("lease-lost")));
    assert_eq!(house.complete(&claimed, 1000).await.0, StatusCode::CONFLICT);
    let (status, error) = house.post(&format!("/v1/jobs/{job}/cancel"), json!({})).await;
    assert_eq!((status, &error["error"]), (StatusCode::CONFLICT, &json!("not-cancellable")));
    let dead = house.get("/v1/jobs?state=cancelled").await.1;
    assert_eq!(dead["jobs"][0]["job"], json!(job));
    assert_eq!(house.get("/v1/jobs?state=failed").await.1["jobs"], json!([]));
    assert_eq!(house.post(&format!("/v1/jobs/{job}/retry"), json!({})).await.0, StatusCode::ACCEPTED);
    let again = house.claim().await.unwrap();
    assert!(again.fence > claimed.fence);
    assert_eq!(house.complete(&again, 2000).await.0, StatusCode::OK);
    assert_eq!(house.until(&track, "ready").await["duration_ms"], 2000);
    house.control.shutdown().await;
}

#[tokio::test]
async fn the_queue_is_fair_between_publishers_and_obeys_priorities() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let mut publisher_of = std::collections::BTreeMap::new();
    for publisher in ["bulk", "bulk", "bulk", "bulk", "small", "other"] {
        let body = json!({ "filename": "a.mp3", "size": 1, "publisher": publisher });
        let (status, created) = house.post("/v1/tracks", body).await;
        assert_eq!(status, StatusCode::CREATED, "{created}");
        assert_eq!(house.upload(&created, b"x").await, StatusCode::OK);
        let track = created["track"]["track"].as_str().unwrap();
        let queued = house.post(&format!("/v1/tracks/{track}/uploaded"), json!({})).await.1;
        assert_eq!(queued["job"]["publisher"], publisher);
        publisher_of.insert(queued["job"]["job"].as_str().unwrap().to_owned(), publisher);
    }
    // One worker that takes one after the other, and says at once that it is done.
    let mut order = Vec::new();
    for _ in 0..4 {
        let claimed = house.claim_now().await.unwrap();
        assert_eq!(house.complete(&claimed, 1000).await.0, StatusCode::OK);
        order.push(publisher_of.remove(&claimed.job).unwrap());
    }
    assert_eq!(order, ["bulk", "small", "other", "bulk"]);
    let urgent = publisher_of.keys().next_back().unwrap().clone();
    let path = format!("/v1/jobs/{urgent}/priority");
    assert_eq!(house.post(&path, json!({ "priority": 101 })).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(house.post(&path, json!({ "priority": 5 })).await.1["priority"], 5);
    assert_eq!(house.claim_now().await.unwrap().job, urgent);
    let (status, error) = house.post(&path, json!({ "priority": 1 })).await;
    assert_eq!((status, &error["error"]), (StatusCode::CONFLICT, &json!("not-queued")));
    house.control.shutdown().await;
}
