//! Uploads in parts: begun, broken off, resumed, completed once, given up.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use segue_control_plane::ControlConfig;
use serde_json::{Value, json};

use crate::bucket::{Bucket, Completes};
use crate::house::{ADMIN, House, config};

const MIB: usize = 1 << 20;
/// Three parts: 5, 5 and 2 MiB.
const SIZE: usize = 12 * MIB;

fn small_parts(folder: &std::path::Path, bucket: &Bucket) -> ControlConfig {
    let mut config = config(folder, bucket);
    (config.uploads.multipart_above, config.uploads.part_size) = (6 << 20, 5 << 20);
    config
}

fn file() -> Vec<u8> {
    (0..SIZE).map(|at| (at / 997 % 251) as u8).collect()
}

fn bytes_of(file: &[u8], number: u64) -> &[u8] {
    file.chunks(5 * MIB).nth(usize::try_from(number).unwrap() - 1).unwrap()
}

async fn begin(house: &House, more: Value) -> (String, Value) {
    let mut body = json!({ "filename": "long.wav", "size": SIZE });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (status, created) = house.post("/v1/tracks", body).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    (created["track"]["track"].as_str().unwrap().to_owned(), created["upload"].clone())
}

/// PUTs bytes to the URL of a part and gives its tag.
async fn put(house: &House, part: &Value, bytes: &[u8]) -> String {
    let mut put = house.client.put(part["url"].as_str().unwrap()).body(bytes.to_vec());
    for (name, value) in part["headers"].as_object().unwrap() {
        put = put.header(name, value.as_str().unwrap());
    }
    let response = put.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.headers()["etag"].to_str().unwrap().to_owned()
}

async fn url(house: &House, track: &str, number: u64) -> Value {
    let (status, urls) = house.post(&format!("/v1/tracks/{track}/upload/urls"), json!({ "parts": [number] })).await;
    assert_eq!(status, StatusCode::OK, "{urls}");
    urls["parts"][0].clone()
}

fn numbers(shown: &Value) -> Vec<u64> {
    shown["present"].as_array().unwrap().iter().map(|part| part["number"].as_u64().unwrap()).collect()
}

async fn uploaded(house: &House, track: &str) -> (StatusCode, Value) {
    house.post(&format!("/v1/tracks/{track}/uploaded"), json!({})).await
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never: {what}");
}

async fn source(house: &House) -> Value {
    let (status, offer) = house.worker("claim", json!({ "worker": "w1", "instance": "i1", "wait_ms": 0 })).await;
    assert_eq!(status, StatusCode::OK, "{offer}");
    offer["source"].clone()
}

/// The upload is the admin token's; a token of another name asks for it.
async fn others_see_it_only_with_the_scope_for_it(house: &House, track: &str) {
    let path = "/v1/uploads?publisher=bootstrap-admin";
    for (scopes, expected) in [(json!(["publish"]), None), (json!(["publish", "read"]), Some(track))] {
        let (_, made) = house.post("/v1/tokens", json!({ "name": "another studio", "scopes": scopes })).await;
        let secret = made["secret"].as_str().unwrap();
        let (status, own) = house.send(secret, Method::GET, "/v1/uploads", None).await;
        assert_eq!((status, &own["uploads"]), (StatusCode::OK, &json!([])), "{own}");
        let (status, theirs) = house.send(secret, Method::GET, path, None).await;
        match expected {
            Some(track) => assert_eq!(theirs["uploads"][0]["track"], track, "{theirs}"),
            None => assert_eq!((status, &theirs["error"]), (StatusCode::FORBIDDEN, &json!("forbidden")), "{theirs}"),
        }
        let (status, own) = house.send(secret, Method::GET, "/v1/uploads?publisher=another%20studio", None).await;
        assert_eq!((status, &own["uploads"]), (StatusCode::OK, &json!([])), "{own}");
    }
}

#[tokio::test]
async fn what_was_broken_off_goes_on_with_the_parts_that_are_missing() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(small_parts(folder.path(), &bucket)).await;
    let file = file();
    let sha256 = "AB".repeat(32);
    let (track, upload) = begin(&house, json!({ "fingerprint": "mine", "sha256": sha256 })).await;
    assert_eq!(
        (&upload["method"], &upload["part_size"], &upload["parts"]),
        (&json!("MULTIPART"), &json!(5 * MIB), &json!(3))
    );
    let lengths: Vec<u64> =
        upload["urls"].as_array().unwrap().iter().map(|part| part["bytes"].as_u64().unwrap()).collect();
    assert_eq!(lengths, [5 << 20, 5 << 20, 2 << 20]);
    for number in [3, 1] {
        put(&house, &upload["urls"][number - 1], bytes_of(&file, number as u64)).await;
    }
    // The client dies, and the control plane is another one.
    house.control.shutdown().await;
    let house = House::start(small_parts(folder.path(), &bucket)).await;
    let (_, mine) = house.get("/v1/uploads?fingerprint=mine").await;
    assert_eq!((&mine["uploads"][0]["track"], &mine["uploads"][0]["filename"]), (&json!(track), &json!("long.wav")));
    let (_, page) = house.get("/v1/uploads?limit=1").await;
    let (_, end) = house.get(&format!("/v1/uploads?limit=1&after={}", page["next"].as_str().unwrap())).await;
    assert_eq!((&page["uploads"][0]["track"], &end), (&json!(track), &json!({ "uploads": [], "next": null })));
    assert_eq!(house.get("/v1/uploads?fingerprint=other").await.1["uploads"], json!([]));
    others_see_it_only_with_the_scope_for_it(&house, &track).await;
    let (status, shown) = house.get(&format!("/v1/tracks/{track}/upload")).await;
    assert_eq!((status, numbers(&shown)), (StatusCode::OK, vec![1, 3]), "{shown}");
    let (status, error) = uploaded(&house, &track).await;
    assert_eq!((status, &error["error"]), (StatusCode::CONFLICT, &json!("parts-missing")));
    assert!(error["message"].as_str().unwrap().starts_with("part 2 is not there"), "{error}");

    put(&house, &url(&house, &track, 2).await, bytes_of(&file, 2)).await;
    let (status, first) = uploaded(&house, &track).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{first}");
    let (status, second) = uploaded(&house, &track).await;
    assert_eq!(
        (status, &second["job"]["job"]),
        (StatusCode::ACCEPTED, &first["job"]["job"]),
        "asked twice, queued once"
    );
    let source = source(&house).await;
    assert!(bucket.object(source["key"].as_str().unwrap()).unwrap() == file, "the parts in their order");
    assert_eq!((&source["sha256"], bucket.parts()), (&json!(sha256.to_lowercase()), 0));
    assert_eq!(house.get(&format!("/v1/tracks/{track}/upload")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(house.get("/v1/uploads").await.1["uploads"], json!([]));
    house.control.shutdown().await;
}

#[tokio::test]
async fn of_a_part_that_was_sent_twice_the_last_one_counts_and_a_tag_of_the_first_is_void() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(small_parts(folder.path(), &bucket)).await;
    let file = file();
    let (track, upload) = begin(&house, json!({})).await;
    let report = format!("/v1/tracks/{track}/upload/parts");
    let wrong = put(&house, &upload["urls"][0], &vec![7; 5 * MIB]).await;
    let said = json!({ "parts": [{ "number": 1, "etag": wrong }] });
    assert_eq!(house.post(&report, said).await.0, StatusCode::NO_CONTENT);
    put(&house, &url(&house, &track, 1).await, bytes_of(&file, 1)).await;
    for number in [2u64, 3] {
        put(&house, &upload["urls"][number as usize - 1], bytes_of(&file, number)).await;
    }
    let (status, queued) = uploaded(&house, &track).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{queued}");
    assert!(bucket.object(source(&house).await["key"].as_str().unwrap()).unwrap() == file);
    house.control.shutdown().await;
}

#[tokio::test]
async fn a_part_of_another_length_is_never_taken() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(small_parts(folder.path(), &bucket)).await;
    let file = file();
    let (track, upload) = begin(&house, json!({})).await;
    for number in [1u64, 3] {
        put(&house, &upload["urls"][number as usize - 1], bytes_of(&file, number)).await;
    }
    // The length is signed: a store that holds against it refuses, and what another one took is not counted.
    let url = upload["urls"][1]["url"].as_str().unwrap();
    let short = house.client.put(url).body(vec![1; 5 * MIB - 1]).send().await.unwrap().status();
    let (_, shown) = house.get(&format!("/v1/tracks/{track}/upload")).await;
    assert_eq!(numbers(&shown), [1, 3], "{short}");
    assert_eq!(uploaded(&house, &track).await.1["error"], "parts-missing");
    house.control.shutdown().await;
}

#[tokio::test]
async fn a_store_that_fails_at_the_end_is_asked_again_by_the_sweep() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(small_parts(folder.path(), &bucket)).await;
    let file = file();
    for how in [Completes::Fail, Completes::LoseTheAnswer] {
        let (track, upload) = begin(&house, json!({})).await;
        for number in 1..=3u64 {
            put(&house, &upload["urls"][number as usize - 1], bytes_of(&file, number)).await;
        }
        bucket.completes(how);
        let (status, said) = uploaded(&house, &track).await;
        if matches!(how, Completes::Fail) {
            assert_eq!((status, &said["error"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("objects-unavailable")));
            assert_eq!(house.get(&format!("/v1/tracks/{track}")).await.1["status"], "uploading");
            let (_, shown) = house.get(&format!("/v1/tracks/{track}/upload")).await;
            assert_eq!(numbers(&shown), [1, 2, 3], "nothing is lost");
        } else {
            assert_eq!(status, StatusCode::ACCEPTED, "the object says that it was done: {said}");
        }
        bucket.completes(Completes::Work);
        // Nobody asks again.
        house.until(&track, "queued").await;
        assert!(bucket.object(source(&house).await["key"].as_str().unwrap()).unwrap() == file);
    }
    house.control.shutdown().await;
}

#[tokio::test]
async fn what_is_given_up_leaves_no_part() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut config = small_parts(folder.path(), &bucket);
    config.uploads.ttl = Duration::from_secs(2);
    let house = House::start(config).await;
    let mut tracks = Vec::new();
    for _ in 0..3 {
        let (track, upload) = begin(&house, json!({})).await;
        put(&house, &upload["urls"][2], &[1; 2 * MIB]).await;
        tracks.push(track);
    }
    assert!(bucket.parts() >= 3);
    let aborted = format!("/v1/tracks/{}/upload", tracks[0]);
    assert_eq!(house.send(ADMIN, Method::DELETE, &aborted, None).await.0, StatusCode::NO_CONTENT);
    let (status, error) = house.send(ADMIN, Method::DELETE, &aborted, None).await;
    assert_eq!((status, &error["error"]), (StatusCode::CONFLICT, &json!("upload-over")));
    assert_eq!(house.get(&format!("/v1/tracks/{}", tracks[0])).await.1["reason"], "upload-aborted");
    assert_eq!(house.get(&aborted).await.0, StatusCode::NOT_FOUND);
    let deleted = format!("/v1/tracks/{}", tracks[1]);
    assert_eq!(house.send(ADMIN, Method::DELETE, &deleted, None).await.0, StatusCode::NO_CONTENT);
    // The third one is never heard of again.
    assert_eq!(house.until(&tracks[2], "failed").await["reason"], "upload-abandoned");
    until("no part is left", || bucket.parts() == 0).await;
    assert_eq!(uploaded(&house, &tracks[2]).await.1["error"], "upload-abandoned");
    house.control.shutdown().await;
}

#[tokio::test]
async fn a_publisher_has_so_many_unfinished_uploads_and_no_more() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut config = small_parts(folder.path(), &bucket);
    config.uploads.unfinished = 2;
    let house = House::start(config).await;
    let one = |publisher: &str| json!({ "filename": "a.mp3", "size": 1, "publisher": publisher });
    let (_, first) = house.post("/v1/tracks", one("a")).await;
    let in_parts = json!({ "filename": "b.mp3", "size": 1, "publisher": "a", "multipart": true });
    assert_eq!(house.post("/v1/tracks", in_parts.clone()).await.0, StatusCode::CREATED);
    let before = bucket.parts();
    let (status, error) = house.post("/v1/tracks", in_parts).await;
    assert_eq!((status, &error["error"]), (StatusCode::TOO_MANY_REQUESTS, &json!("too-many-uploads")));
    assert_eq!(bucket.parts(), before, "what was begun for the refused one is gone");
    assert_eq!(house.post("/v1/tracks", one("b")).await.0, StatusCode::CREATED, "another publisher");
    assert_eq!(house.upload(&first, b"x").await, StatusCode::OK);
    let track = first["track"]["track"].as_str().unwrap();
    assert_eq!(uploaded(&house, track).await.0, StatusCode::ACCEPTED);
    assert_eq!(house.post("/v1/tracks", one("a")).await.0, StatusCode::CREATED);
    house.control.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_a_part_is_refused_in_words() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(small_parts(folder.path(), &bucket)).await;
    let (track, _) = begin(&house, json!({})).await;
    let (urls, parts) = (format!("/v1/tracks/{track}/upload/urls"), format!("/v1/tracks/{track}/upload/parts"));
    let many: Vec<u32> = (1..=65).collect();
    for (path, body) in [
        (&urls, json!({ "parts": [] })),
        (&urls, json!({ "parts": many })),
        (&urls, json!({ "parts": [0] })),
        (&urls, json!({ "parts": [4] })),
        (&urls, json!({ "parts": [{ "number": 1, "md5": "no digest" }] })),
        (&parts, json!({ "parts": [{ "number": 4, "etag": "x" }] })),
        (&parts, json!({ "parts": [{ "number": 1, "etag": "x".repeat(129) }] })),
    ] {
        let (status, error) = house.post(path, body.clone()).await;
        assert_eq!((status, &error["error"]), (StatusCode::BAD_REQUEST, &json!("invalid")), "{body}: {error}");
    }
    let md5 = json!({ "parts": [{ "number": 1, "md5": "1B2M2Y8AsgTpgAmY7PhCfg==" }] });
    let (status, signed) = house.post(&urls, md5).await;
    assert_eq!(status, StatusCode::OK, "{signed}");
    assert_eq!(signed["parts"][0]["headers"]["content-md5"], "1B2M2Y8AsgTpgAmY7PhCfg==");
    for body in
        [json!({ "sha256": "abc" }), json!({ "fingerprint": "x".repeat(161) }), json!({ "multipart": true, "size": 0 })]
    {
        let mut create = json!({ "filename": "a", "size": 1 });
        create.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        assert_eq!(house.post("/v1/tracks", create).await.1["error"], "invalid", "{body}");
    }
    house.control.shutdown().await;
}
