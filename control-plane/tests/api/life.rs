//! A track's life over HTTP: created, uploaded, transcoded, played, purged, deleted.

use reqwest::{Method, StatusCode};
use segue_signing::{CanonicalPath, Key, Keyring, SigningSecret};
use serde_json::json;

use crate::bucket::Bucket;
use crate::house::{ADMIN, EDGE, EDGE_BASE, House, KEY, config, master, result, version};

fn keyring() -> Keyring {
    let secret = SigningSecret::parse(KEY).unwrap();
    Keyring::new(vec![Key { kid: "k1".to_owned(), secret, not_before: None, retire_at: None }]).unwrap()
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

#[tokio::test]
async fn from_upload_to_ready() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let (track, job) = house.add("My_Song.mp3", b"not really music").await;
    let (_, shown) = house.get(&format!("/v1/tracks/{track}")).await;
    assert_eq!(
        (&shown["status"], &shown["title"], &shown["stage"]),
        (&json!("queued"), &json!("My Song"), &json!("queued"))
    );

    let (status, offer) = house.worker("claim", json!({ "worker": "w1", "instance": "i1", "wait_ms": 0 })).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(offer["job"], json!(job));
    assert_eq!((&offer["fence"], &offer["attempt"]), (&json!(1), &json!(1)));
    assert_eq!((&offer["source"]["bytes"], &offer["source"]["filename"]), (&json!(16), &json!("My_Song.mp3")));
    assert_eq!(bucket.object(offer["source"]["key"].as_str().unwrap()).unwrap(), b"not really music");

    let (status, lease) =
        house.worker(&format!("jobs/{job}/progress"), json!({ "fence": 1, "stage": "encode", "progress": 0.5 })).await;
    assert_eq!((status, &lease["lease_ms"]), (StatusCode::OK, &json!(30_000)));
    let (_, shown) = house.get(&format!("/v1/tracks/{track}")).await;
    assert_eq!(
        (&shown["status"], &shown["progress"], &shown["stage"]),
        (&json!("transcoding"), &json!(0.5), &json!("encode"))
    );

    let (status, done) = house.worker(&format!("jobs/{job}/complete"), result(1, 60_000)).await;
    assert_eq!((status, &done["state"]), (StatusCode::OK, &json!("done")));
    assert_eq!(bucket.object(&format!("hls/{track}/master.m3u8")).unwrap(), master(1).as_bytes());
    let (_, shown) = house.get(&format!("/v1/tracks/{track}")).await;
    assert_eq!(shown["status"], "ready");
    assert_eq!(
        (&shown["title"], &shown["artist"], &shown["duration_ms"]),
        (&json!("From the tag"), &json!("Somebody"), &json!(60_000))
    );
    assert_eq!(
        (&shown["version"], &shown["progress"], &shown["stage"]),
        (&json!(version(1)), &json!(1.0), &json!(null))
    );
    assert_eq!(shown["loudness"]["gain_db"], 2.0);
    assert_eq!(shown["renditions"][0]["bandwidth"], 70_000);

    // Artwork and waveform are signed for the edge.
    let artwork = shown["artwork"].as_str().unwrap();
    let (url, query) = artwork.split_once('?').unwrap();
    let path = format!("/hls/{track}/{}/cover.jpg", version(1));
    assert_eq!(url, format!("{EDGE_BASE}{path}"));
    let part = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap();
    let path = CanonicalPath::parse(&path).unwrap();
    segue_signing::url::verify(&keyring(), &path, part("kid"), part("exp"), part("sig"), now(), 0).unwrap();

    // A lost answer is asked for again, and answered the same; another result with that fence is not taken.
    let (status, again) = house.worker(&format!("jobs/{job}/complete"), result(1, 60_000)).await;
    assert_eq!((status, &again["state"]), (StatusCode::OK, &json!("done")));
    house.control.shutdown().await;
}

#[tokio::test]
async fn uploaded_holds_the_object_against_what_was_declared() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let body = json!({ "filename": "a.wav", "size": 10, "content_type": "audio/wav", "title": "Given" });
    let (_, created) = house.post("/v1/tracks", body).await;
    let track = created["track"]["track"].as_str().unwrap();
    let uploaded = format!("/v1/tracks/{track}/uploaded");

    let (status, error) = house.post(&uploaded, json!({})).await;
    assert_eq!((status, &error["error"]), (StatusCode::CONFLICT, &json!("upload-missing")));

    // The presigned length is part of the signature: another one is refused by the store, or found here.
    let refused = house.upload(&created, b"five!").await;
    let (status, error) = house.post(&uploaded, json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    if refused.is_success() {
        assert_eq!(error["error"], "size-mismatch");
    } else {
        assert_eq!((refused, &error["error"]), (StatusCode::FORBIDDEN, &json!("upload-missing")));
    }

    assert_eq!(house.upload(&created, b"ten bytes!").await, StatusCode::OK);
    let (status, first) = house.post(&uploaded, json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{first}");
    let (status, second) = house.post(&uploaded, json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(first["job"]["job"], second["job"]["job"], "asked twice, queued once");
    let (_, jobs) = house.get("/v1/jobs").await;
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 1);
    house.control.shutdown().await;
}

#[tokio::test]
async fn a_worker_that_comes_back_late_cannot_publish() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut config = config(folder.path(), &bucket);
    config.jobs.lease = std::time::Duration::from_secs(1);
    let house = House::start(config).await;
    let (track, job) = house.add("a.flac", b"x").await;
    let late = house.claim().await.unwrap();
    // Silent until the lease is over and the job is claimed again.
    let second = house.claim().await.unwrap();
    assert_eq!((late.job.as_str(), second.job.as_str()), (job.as_str(), job.as_str()));
    assert!(second.fence > late.fence);

    let said = json!({ "fence": late.fence, "stage": "encode", "progress": 0.9 });
    let failed = json!({ "fence": late.fence, "reason": "out-of-memory", "message": "x", "retryable": false });
    for (what, body) in [("progress", said), ("complete", result(late.fence, 1000)), ("fail", failed)] {
        let (status, error) = house.worker(&format!("jobs/{job}/{what}"), body).await;
        assert_eq!((status, &error["error"]), (StatusCode::CONFLICT, &json!("lease-lost")), "{what}");
    }
    assert!(bucket.object(&format!("hls/{track}/master.m3u8")).is_none());

    let (status, _) = house.complete(&second, 1000).await;
    assert_eq!(status, StatusCode::OK);
    let (status, error) = house.complete(&late, 1000).await;
    assert_eq!((status, &error["error"]), (StatusCode::CONFLICT, &json!("lease-lost")), "not after the end either");
    assert_eq!(bucket.object(&format!("hls/{track}/master.m3u8")).unwrap(), master(second.fence).as_bytes());
    house.control.shutdown().await;
}

#[tokio::test]
async fn a_failure_is_told_and_retried_within_its_attempts() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let (track, job) = house.add("a.txt", b"words").await;
    let fail = |fence: i64, retryable: bool| json!({ "fence": fence, "reason": "not-audio", "message": "This is not audio.", "retryable": retryable });
    for attempt in 1..=3 {
        let claimed = house.claim().await.unwrap();
        assert_eq!(claimed.fence, attempt);
        let (status, told) = house.worker(&format!("jobs/{job}/fail"), fail(attempt, true)).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(told["state"], if attempt < 3 { "queued" } else { "failed" });
    }
    let shown = house.until(&track, "failed").await;
    assert_eq!(
        (&shown["reason"], &shown["message"]),
        (&json!("not-audio"), &json!("This is not audio. It was tried 3 times."))
    );

    let (status, retried) = house.post(&format!("/v1/jobs/{job}/retry"), json!({})).await;
    assert_eq!((status, &retried["attempts"]), (StatusCode::ACCEPTED, &json!(0)));
    let (status, error) = house.post(&format!("/v1/jobs/{job}/retry"), json!({})).await;
    assert_eq!((status, &error["error"]), (StatusCode::CONFLICT, &json!("not-failed")));
    let claimed = house.claim().await.unwrap();
    assert_eq!(claimed.fence, 4, "a fence never comes again");
    let (_, told) = house.worker(&format!("jobs/{job}/fail"), fail(4, false)).await;
    assert_eq!(told["state"], "failed", "what cannot pass is not tried again");
    house.control.shutdown().await;
}

#[tokio::test]
async fn tickets_open_their_track_and_no_other() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let (track, _) = house.add("a.ogg", b"x").await;
    let (status, issued) =
        house.post(&format!("/v1/tracks/{track}/tickets"), json!({ "sub": "u7", "ttl_s": 60 })).await;
    assert_eq!(status, StatusCode::CREATED, "{issued}");
    let ticket = issued["ticket"].as_str().unwrap();
    assert_eq!(issued["url"], format!("{EDGE_BASE}/p/{ticket}/hls/{track}/master.m3u8"));
    let verified = segue_signing::verify(&keyring(), ticket, now(), 0).unwrap();
    assert_eq!(
        (verified.claims.exp, verified.claims.sub.as_deref()),
        (issued["expires"].as_i64().unwrap(), Some("u7"))
    );
    assert_eq!(issued["sid"], verified.sid);
    let path = |text: &str| CanonicalPath::parse(text).unwrap();
    assert!(verified.scope.allows(&path(&format!("/hls/{track}/master.m3u8"))));
    assert!(!verified.scope.allows(&path(&format!("/hls/{track}x/master.m3u8"))));

    let tickets = format!("/v1/tracks/{track}/tickets");
    let (_, named) = house.post(&tickets, json!({ "sid": "phone-1" })).await;
    assert_eq!(named["sid"], "phone-1");
    for wrong in [
        json!({ "ttl_s": 0 }),
        json!({ "ttl_s": 99_999_999 }),
        json!({ "sid": "" }),
        json!({ "ip": "nowhere" }),
        json!({ "tll": 1 }),
    ] {
        let (status, error) = house.post(&tickets, wrong.clone()).await;
        assert_eq!((status, &error["error"]), (StatusCode::BAD_REQUEST, &json!("invalid")), "{wrong}");
    }
    let (status, _) = house.post("/v1/tracks/aaaaaaaaaaaa/tickets", json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    house.control.shutdown().await;
}

#[tokio::test]
async fn purge_and_delete_reach_the_snapshot_and_the_bucket() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let (track, _) = house.add("a.mp3", b"x").await;
    let claimed = house.claim().await.unwrap();
    house.complete(&claimed, 1000).await;
    let segment = format!("hls/{track}/{}/a64/seg-00000.m4s", version(1));
    bucket.put(&segment, b"media");
    let mut snapshots = house.control.snapshots();
    let before = snapshots.borrow_and_update().revision;

    let (status, first) = house.post(&format!("/v1/tracks/{track}/purge"), json!({})).await;
    assert_eq!(status, StatusCode::OK);
    let (_, second) = house.post(&format!("/v1/tracks/{track}/purge"), json!({})).await;
    assert!(second["generation"].as_u64().unwrap() > first["generation"].as_u64().unwrap());
    let doc = snapshots.borrow_and_update().clone();
    assert!(doc.revision > before);
    assert_eq!(doc.purges[&track], second["generation"].as_u64().unwrap());

    // The same over HTTP, for edges elsewhere.
    let snapshot = || house.client.get(house.url("/v1/edge/snapshot")).bearer_auth(EDGE);
    let answer = snapshot().send().await.unwrap();
    let tag = answer.headers()["etag"].clone();
    let sent: segue_signing::SnapshotDoc = answer.json().await.unwrap();
    assert_eq!(sent, *doc);
    assert_eq!(sent.keys[0].secret, KEY);
    let again = snapshot().header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let waiting = tokio::spawn(snapshot().query(&[("wait_ms", "20000")]).header("if-none-match", &tag).send());

    let (status, _) = house.send(ADMIN, Method::DELETE, &format!("/v1/tracks/{track}"), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let woken = waiting.await.unwrap().unwrap();
    assert_eq!(woken.status(), StatusCode::OK, "a change ends the wait");
    assert!(bucket.object(&segment).is_none() && bucket.object(&format!("hls/{track}/master.m3u8")).is_none());
    let (status, _) = house.get(&format!("/v1/tracks/{track}")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, error) = house.complete(&claimed, 1000).await;
    assert_eq!((status, &error["error"]), (StatusCode::CONFLICT, &json!("lease-lost")));
    assert!(snapshots.borrow().purges[&track] > second["generation"].as_u64().unwrap());
    house.control.shutdown().await;
}

#[tokio::test]
async fn results_that_point_elsewhere_are_refused() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let (_, job) = house.add("a.mp3", b"x").await;
    house.claim().await.unwrap();
    let with = |key: &str, value: &str| {
        let mut body = result(1, 1000);
        body[key] = json!(value);
        body
    };
    let elsewhere = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n";
    for wrong in [
        with("version", "0123456789abcdef-2"),
        with("version", "../other-1"),
        with("master", "hello"),
        with("master", "#EXTM3U\n"),
        with("master", &format!("{elsewhere}/hls/other/a64/index.m3u8\n")),
        with("master", &format!("{elsewhere}{}/../x/index.m3u8\n", version(1))),
        with("master", &format!("{elsewhere}http://evil.test/index.m3u8\n")),
        with("master", &format!("#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,URI=\"../x.m3u8\"\n{}/v/index.m3u8\n", version(1))),
    ] {
        let (status, error) = house.worker(&format!("jobs/{job}/complete"), wrong.clone()).await;
        assert_eq!((status, &error["error"]), (StatusCode::BAD_REQUEST, &json!("invalid")), "{wrong}");
    }
    assert_eq!(house.worker(&format!("jobs/{job}/complete"), result(1, 1000)).await.0, StatusCode::OK);
    house.control.shutdown().await;
}

#[tokio::test]
async fn lists_come_in_pages() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let mut made = Vec::new();
    for n in 0..5 {
        let (_, created) = house.post("/v1/tracks", json!({ "filename": format!("{n}.mp3"), "size": 1 })).await;
        made.push(created["track"]["track"].clone());
    }
    let mut seen = Vec::new();
    let mut path = "/v1/tracks?limit=2".to_owned();
    loop {
        let (_, page) = house.get(&path).await;
        seen.extend(page["tracks"].as_array().unwrap().iter().map(|track| track["track"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/tracks?limit=2&after={next}");
    }
    assert_eq!(seen.len(), 5);
    assert!(made.iter().all(|track| seen.contains(track)));
    assert_eq!(house.get("/v1/tracks?after=nonsense").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(house.get("/v1/tracks?limit=many").await.0, StatusCode::BAD_REQUEST);
    house.control.shutdown().await;
}

#[tokio::test]
async fn a_track_is_played_while_it_is_encoded_and_no_dead_attempt_is() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let (track, job) = house.add("a.flac", b"x").await;
    let url = async || {
        let (status, issued) = house.post(&format!("/v1/tracks/{track}/tickets"), json!({})).await;
        assert_eq!(status, StatusCode::CREATED, "{issued}");
        issued["url"].as_str().unwrap().to_owned()
    };
    let playable = async || {
        let (_, shown) = house.get(&format!("/v1/tracks/{track}")).await;
        let (_, listed) = house.get("/v1/tracks").await;
        assert_eq!(shown["playable"], listed["tracks"][0]["playable"]);
        shown["playable"] == true
    };
    let alias = format!("/hls/{track}/master.m3u8");
    let first = house.claim().await.unwrap();
    assert!(url().await.ends_with(&alias) && !playable().await);

    let early = format!("jobs/{job}/early");
    for wrong in [json!({ "fence": 1, "version": "0123456789abcdef-2" }), json!({ "fence": 1, "version": "../x-1" })] {
        assert_eq!(house.worker(&early, wrong).await.0, StatusCode::BAD_REQUEST);
    }
    let (status, _) = house.worker(&early, json!({ "fence": first.fence, "version": version(1) })).await;
    assert_eq!(status, StatusCode::OK);
    assert!(url().await.ends_with(&format!("/hls/{track}/{}/early.m3u8", version(1))) && playable().await);
    assert!(bucket.object(&alias[1..]).is_none(), "the alias is for what is whole");

    // The worker dies; another process under its name takes the job, and hears whose listeners wait.
    let body = json!({ "worker": "w1", "instance": "i2", "wait_ms": 5000 });
    let (_, offer) = house.worker("claim", body).await;
    assert_eq!((&offer["fence"], &offer["early"]), (&json!(2), &json!([version(1)])));
    assert!(url().await.ends_with(&alias) && !playable().await, "nobody is sent to the dead attempt");
    let (status, error) = house.worker(&early, json!({ "fence": 1, "version": version(1) })).await;
    assert_eq!((status, &error["error"]), (StatusCode::CONFLICT, &json!("lease-lost")));

    let (status, _) = house.worker(&early, json!({ "fence": 2, "version": version(2) })).await;
    assert_eq!(status, StatusCode::OK);
    assert!(url().await.contains(&version(2)));
    let (status, _) = house.worker(&format!("jobs/{job}/complete"), result(2, 60_000)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(url().await.ends_with(&alias) && playable().await);
    house.control.shutdown().await;
}
