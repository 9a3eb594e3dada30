//! What edges in other processes are told and what they hand over: keys, revocations, purges, reports, facts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::{Method, StatusCode};
use segue_signing::{Followed, SnapshotDelta};
use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::house::{EDGE, House, config};

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// One look at the snapshot as an edge that has `held`; `None` for a 304.
async fn look(house: &House, held: &Followed, wait_ms: u64) -> Option<SnapshotDelta> {
    let path = format!("/v1/edge/snapshot?wait_ms={wait_ms}&cursor={}&keys={}", held.cursor(), held.keys_tag());
    let response = house
        .client
        .get(house.url(&path))
        .bearer_auth(EDGE)
        .header("if-none-match", format!("\"{}\"", held.cursor()))
        .send()
        .await
        .unwrap();
    if response.status() == StatusCode::NOT_MODIFIED {
        return None;
    }
    assert_eq!(response.status(), StatusCode::OK);
    Some(response.json().await.unwrap())
}

#[tokio::test]
async fn an_edge_gets_the_whole_once_and_then_what_changed() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let (track, _) = house.add("a.mp3", b"a").await;
    let first = look(&house, &Followed::default(), 0).await.unwrap();
    assert!(!first.partial && first.keys.is_some(), "{first:?}");
    // A revision is the time in milliseconds, or the last one and 1: the next change comes 100 ms later.
    let never_given = first.revision + 1;
    let held = Followed::default().apply(first, now()).unwrap();
    assert_eq!(look(&house, &held, 0).await, None);

    // A long poll that waits is answered by the change.
    let waiting = look(&house, &held, 30_000);
    let revoke = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        house.post("/v1/revocations", json!({ "sid": "s1", "note": "stolen" })).await
    };
    let (told, (status, revoked)) = tokio::join!(waiting, revoke);
    assert_eq!(status, StatusCode::CREATED, "{revoked}");
    let told = told.expect("the change ends the wait");
    assert!(told.partial && told.keys.is_none() && told.purges.is_empty(), "only what is new: {told:?}");
    assert_eq!(told.revocations[0].revocation.sid.as_deref(), Some("s1"));
    let held = held.apply(told, now()).unwrap();

    let (status, _) = house.post(&format!("/v1/tracks/{track}/purge"), json!({})).await;
    assert_eq!(status, StatusCode::OK);
    let told = look(&house, &held, 0).await.unwrap();
    assert!(told.partial && told.revocations.is_empty() && told.purges.contains_key(&track), "{told:?}");
    let held = held.apply(told, now()).unwrap();

    let id = revoked["id"].as_str().unwrap();
    let (status, _) = house.send(crate::house::ADMIN, Method::DELETE, &format!("/v1/revocations/{id}"), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let told = look(&house, &held, 0).await.unwrap();
    assert_eq!(told.lifted, [id]);
    assert!(held.apply(told, now()).unwrap().document().revocations.is_empty());
    assert_eq!(house.get("/v1/revocations").await.1["revocations"], json!([]));

    // A cursor that this database never gave (it was restored from a copy) gets the whole.
    let strange = look(&house, &Followed::default(), 0).await.unwrap();
    let strange = SnapshotDelta { revision: never_given, ..strange };
    let held = Followed::default().apply(strange, now()).unwrap();
    let told = look(&house, &held, 0).await.unwrap();
    assert!(!told.partial && told.keys.is_none(), "the keys it has already: {told:?}");
    assert!(told.purges.contains_key(&track));
    house.control.shutdown().await;
}

#[tokio::test]
async fn keys_are_added_rotated_and_retired_and_no_secret_is_shown() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let (track, _) = house.add("a.mp3", b"a").await;
    let kid_of = async || {
        let (status, issued) = house.post(&format!("/v1/tracks/{track}/tickets"), json!({})).await;
        assert_eq!(status, StatusCode::CREATED, "{issued}");
        let ticket = issued["ticket"].as_str().unwrap();
        use base64::Engine as _;
        let head = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(ticket.split('.').next().unwrap()).unwrap();
        serde_json::from_slice::<Value>(&head).unwrap()["kid"].as_str().unwrap().to_owned()
    };
    let retire = async |kid: &str, query: &str| {
        house.send(crate::house::ADMIN, Method::DELETE, &format!("/v1/keys/{kid}{query}"), None).await
    };
    assert_eq!(kid_of().await, "k1");
    let (status, refused) = retire("k1", "").await;
    assert_eq!((status, refused["error"].as_str()), (StatusCode::CONFLICT, Some("last-key")));

    // A key in the future signs nothing yet; one that has begun signs from now on.
    let (status, pending) = house.post("/v1/keys", json!({ "kid": "k2", "not_before": now() + 600 })).await;
    assert_eq!((status, pending["state"].as_str()), (StatusCode::CREATED, Some("pending")), "{pending}");
    assert_eq!(kid_of().await, "k1");
    let (status, added) = house.post("/v1/keys", json!({ "kid": "k3", "not_before": now() - 1 })).await;
    assert_eq!((status, added["signs"].as_bool()), (StatusCode::CREATED, Some(true)), "{added}");
    assert!(added.get("secret").is_none());
    assert_eq!(kid_of().await, "k3");
    let (status, taken) = house.post("/v1/keys", json!({ "kid": "k1" })).await;
    assert_eq!((status, taken["error"].as_str()), (StatusCode::CONFLICT, Some("kid-taken")));
    let (status, wrong) = house.post("/v1/keys", json!({ "kid": "k 9" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");

    // A rotation: a new key that edges hear of first, and an end for all before it.
    let (status, rotated) = house.post("/v1/keys/rotate", json!({ "overlap_s": 3600 })).await;
    assert_eq!(status, StatusCode::CREATED, "{rotated}");
    assert_eq!(rotated["retiring"], json!(["k1", "k2", "k3"]));
    assert_eq!(rotated["key"]["state"], "pending");
    assert_eq!(kid_of().await, "k3", "until the new one begins");

    // A key of the configuration can be retired too, and stays so over a restart.
    let (status, retired) = retire("k1", "").await;
    assert_eq!((status, retired["state"].as_str()), (StatusCode::OK, Some("retired")), "{retired}");
    house.control.shutdown().await;
    let house = House::start(config(folder.path(), &bucket)).await;
    let (_, all) = house.get("/v1/keys").await;
    let state = |kid: &str| all["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid).unwrap().clone();
    assert_eq!((state("k1")["state"].as_str(), state("k1")["source"].as_str()), (Some("retired"), Some("config")));
    assert_eq!((state("k3")["signs"].as_bool(), state("k3")["source"].as_str()), (Some(true), Some("database")));
    let told = look(&house, &Followed::default(), 0).await.unwrap();
    for key in told.keys.unwrap() {
        assert!(!all.to_string().contains(&key.secret), "the secret of {} is shown", key.kid);
    }
    house.control.shutdown().await;
}

#[tokio::test]
async fn reports_are_kept_and_key_uses_add_up_over_restarts_of_edges() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let report = async |edge: &str, boot: u64, accepted: u64| {
        let body = json!({
            "edge": edge, "boot": boot, "version": "0.1.0", "revision": 5, "uptime_s": 3,
            "keys": [{ "kid": "k1", "accepted": accepted, "out_of_time": 0 }], "counters": { "requests": 7 },
        });
        house.send(EDGE, Method::POST, "/v1/edge/report", Some(body)).await.0
    };
    for (edge, boot, accepted) in [("e1", 1, 10), ("e1", 1, 15), ("e2", 1, 100), ("e1", 2, 4), ("e1", 2, 4)] {
        assert_eq!(report(edge, boot, accepted).await, StatusCode::NO_CONTENT);
    }
    assert_eq!(report("no such/name", 1, 1).await, StatusCode::BAD_REQUEST);
    let (_, edges) = house.get("/v1/edges").await;
    let edges = edges["edges"].as_array().unwrap().clone();
    assert_eq!((edges.len(), edges[0]["edge"].as_str(), edges[0]["boot"].as_u64()), (2, Some("e1"), Some(2)));
    assert_eq!((edges[0]["alive"].as_bool(), edges[0]["current"].as_bool()), (Some(true), Some(false)));
    let (_, first) = house.get("/v1/edges?limit=1").await;
    let (_, second) = house.get(&format!("/v1/edges?limit=1&after={}", first["next"].as_str().unwrap())).await;
    let (_, end) = house.get(&format!("/v1/edges?limit=1&after={}", second["next"].as_str().unwrap())).await;
    assert_eq!(
        (&first["edges"][0], &second["edges"][0]["edge"], &end["next"]),
        (&edges[0], &json!("e2"), &Value::Null)
    );
    let (_, keys) = house.get("/v1/keys").await;
    assert_eq!(keys["keys"][0]["accepted"], 119, "15 and 4 of e1, 100 of e2");
    assert!(keys["keys"][0]["last_used_ms"].as_i64().is_some());
    house.control.shutdown().await;
}

fn fact(track: &str, n: u64) -> String {
    json!({
        "v": 1, "id": format!("e1-boot-{n}"), "ts": now() * 1000, "edge": "e1", "track": track, "file": format!("s{n}.m4s"),
        "kind": "segment", "pos_ms": n * 6000, "media_ms": 6000, "sid": "s", "status": 200, "bytes": 10, "ttfb_ms": 1,
        "cache": "miss", "complete": true,
    })
    .to_string()
}

#[tokio::test]
async fn a_batch_counts_once_whatever_is_posted_again() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let (track, _) = house.add("a.mp3", b"a").await;
    let post = async |stream: &str, log: &str, from: u64, next: u64, first: bool, records: Vec<String>| {
        let path = format!("/v1/edge/facts?edge=e1&log={log}&stream={stream}&from={from}&next={next}&first={first}");
        let body = records.join("\n");
        let response = house.client.post(house.url(&path)).bearer_auth(EDGE).body(body).send().await.unwrap();
        let status = response.status();
        (status, response.json::<Value>().await.unwrap()["position"].as_u64())
    };
    let bytes = async || house.get(&format!("/v1/tracks/{track}/stats")).await.1["bytes"].as_u64().unwrap();
    let (one, two) = (vec![fact(&track, 1), fact(&track, 2)], vec![fact(&track, 3)]);
    assert_eq!(post("facts", "l1", 0, 200, true, one.clone()).await, (StatusCode::OK, Some(200)));
    assert_eq!(bytes().await, 20);
    // The answer was lost, and the batch comes again; then in another cut.
    assert_eq!(post("facts", "l1", 0, 200, true, one.clone()).await, (StatusCode::OK, Some(200)));
    assert_eq!(post("facts", "l1", 0, 300, true, one.iter().chain(&two).cloned().collect()).await.1, Some(200));
    assert_eq!(bytes().await, 20);
    assert_eq!(post("facts", "l1", 200, 300, false, two.clone()).await.1, Some(300));
    assert_eq!(bytes().await, 30);
    // A place beyond the stored one: the edge goes back, unless it has nothing from before.
    assert_eq!(post("facts", "l1", 400, 500, false, vec![fact(&track, 5)]).await.1, Some(300));
    assert_eq!(post("facts", "l1", 400, 500, true, vec![fact(&track, 5)]).await.1, Some(500));
    assert_eq!(bytes().await, 40);
    // Another log with the same facts in it: their ids are known.
    assert_eq!(post("facts", "l2", 0, 300, true, one.iter().chain(&two).cloned().collect()).await.1, Some(300));
    assert_eq!(bytes().await, 40);

    let denial = json!({
        "v": 1, "id": "e1-boot-9", "ts": now() * 1000, "edge": "e1", "path": "/hls/x/y", "reason": "expired", "status": 401,
    })
    .to_string();
    for _ in 0..3 {
        assert_eq!(post("denials", "l1", 0, 50, true, vec![denial.clone()]).await.1, Some(50));
    }
    let (_, denials) = house.get("/v1/denials").await;
    assert!(denials.to_string().contains("\"count\":1"), "{denials}");
    let (_, page) = house.get("/v1/denials?limit=1").await;
    let (_, end) = house.get(&format!("/v1/denials?after={}", page["next"].as_str().unwrap())).await;
    assert_eq!((&page["hourly"], &end), (&denials["hourly"], &json!({ "hourly": [], "next": null })));
    assert_eq!(post("weather", "l1", 0, 1, true, Vec::new()).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(post("facts", "l1", 9, 1, true, Vec::new()).await.0, StatusCode::BAD_REQUEST);
    house.control.shutdown().await;
}
