//! Webhooks to receivers that answer, die, stall, lie and come back; and control planes that die in between.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use segue_control_plane::{ControlConfig, WebhooksConfig};
use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::house::{ADMIN, House, config};
use crate::receiver::{Answers, Got, Receiver};

const SOON: Duration = Duration::from_secs(20);

fn allowing(folder: &Path, bucket: &Bucket) -> ControlConfig {
    let webhooks = WebhooksConfig { allow: vec!["127.0.0.0/8".parse().unwrap()] };
    ControlConfig { webhooks, ..config(folder, bucket) }
}

/// Adds a webhook; its id and secret.
async fn hook(house: &House, receiver: &Receiver, events: &[&str]) -> (String, String) {
    let (status, made) = house.post("/v1/webhooks", json!({ "url": receiver.url, "events": events })).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    (made["webhook"]["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
}

/// A track that fails: its upload is given up.
async fn fail_one(house: &House) -> String {
    let (_, created) = house.post("/v1/tracks", json!({ "filename": "a.mp3", "size": 1 })).await;
    let track = created["track"]["track"].as_str().unwrap().to_owned();
    let given_up = house.send(ADMIN, Method::DELETE, &format!("/v1/tracks/{track}/upload"), None).await;
    assert_eq!(given_up.0, StatusCode::NO_CONTENT);
    track
}

async fn deliveries(house: &House, hook: &str, query: &str) -> Vec<Value> {
    let (status, page) = house.get(&format!("/v1/webhooks/{hook}/deliveries?{query}")).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    page["deliveries"].as_array().unwrap().clone()
}

/// The one delivery of a webhook, once it is as wanted.
async fn until(house: &House, hook: &str, is: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let all = deliveries(house, hook, "").await;
        if let [one] = all.as_slice()
            && is(one)
        {
            return one.clone();
        }
        assert!(begun.elapsed() < SOON, "{all:?}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Checks the signature as the specification has it.
fn is_signed(secret: &str, got: &Got) -> bool {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let tag = STANDARD.decode(got.signature.strip_prefix("v1,").unwrap()).unwrap();
    let text = format!("{}.{}.{}", got.id, got.timestamp, got.body);
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes(), &tag).is_ok()
}

#[tokio::test]
async fn a_track_that_is_ready_and_one_that_failed_are_told_and_signed() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(allowing(folder.path(), &bucket)).await;
    let (all, some) = (Receiver::start(Answers::Status(204)).await, Receiver::start(Answers::Status(200)).await);
    let (first, secret) = hook(&house, &all, &["track.failed", "track.ready"]).await;
    let (second, other) = hook(&house, &some, &["track.ready"]).await;
    let failed = fail_one(&house).await;
    let (ready, _) = house.add("b.mp3", b"bytes").await;
    let claimed = house.claim().await.unwrap();
    assert_eq!(house.complete(&claimed, 1000).await.0, StatusCode::OK);
    house.until(&ready, "ready").await;
    let got = all.gets(2, SOON).await;
    let one = some.gets(1, SOON).await.remove(0);
    let told: Vec<Value> = got.iter().map(|one| serde_json::from_str(&one.body).unwrap()).collect();
    let of = |event: &str| told.iter().find(|told| told["type"] == event).unwrap();
    let (gone, done) = (of("track.failed"), of("track.ready"));
    assert_eq!((&gone["data"]["track"], &gone["data"]["reason"]), (&json!(failed), &json!("upload-aborted")));
    assert_eq!((&done["data"]["track"], &done["data"]["duration_ms"]), (&json!(ready), &json!(1000)));
    assert!(done["timestamp"].as_str().unwrap().ends_with('Z'), "{done}");
    assert!(got.iter().all(|got| is_signed(&secret, got)) && is_signed(&other, &one));
    assert!(!is_signed(&other, &got[0]), "each has a secret of its own");
    assert!(got[0].id.starts_with("msg_") && got[0].id != got[1].id && got.iter().all(|got| got.id != one.id));
    let delivered = until(&house, &second, |one| one["state"] == "delivered").await;
    assert_eq!((&delivered["id"], &delivered["status"], &delivered["tries"]), (&json!(one.id), &json!(200), &json!(1)));
    // The secret is shown once, and the address is told to no reader of the audit.
    let (_, listed) = house.get("/v1/webhooks").await;
    assert_eq!(listed["webhooks"].as_array().unwrap().len(), 2);
    let (_, audit) = house.get("/v1/audit?operation=webhooks.create").await;
    assert!(!listed.to_string().contains(&secret) && !audit.to_string().contains("key=1"), "{audit}");
    let (_, page) = house.get(&format!("/v1/webhooks/{first}/deliveries?limit=1")).await;
    let rest = deliveries(&house, &first, &format!("after={}", page["next"].as_str().unwrap())).await;
    assert_eq!(rest.len(), 1);
    assert_eq!(
        house.send(ADMIN, Method::DELETE, &format!("/v1/webhooks/{first}"), None).await.0,
        StatusCode::NO_CONTENT
    );
    fail_one(&house).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!((all.got().len(), some.got().len()), (2, 1), "it is gone");
    assert_eq!(house.get(&format!("/v1/webhooks/{first}/deliveries")).await.0, StatusCode::NOT_FOUND);
    house.control.shutdown().await;
}

#[tokio::test]
async fn a_receiver_that_comes_back_gets_what_it_missed_under_the_same_id() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(allowing(folder.path(), &bucket)).await;
    let receiver = Receiver::start(Answers::Closes).await;
    let (id, _) = hook(&house, &receiver, &["track.failed"]).await;
    fail_one(&house).await;
    let waiting = until(&house, &id, |one| one["tries"] == 1).await;
    assert_eq!((&waiting["state"], waiting["reason"].is_string()), (&json!("waiting"), true), "{waiting}");
    let pause = waiting["due_ms"].as_i64().unwrap() - waiting["made_ms"].as_i64().unwrap();
    assert!((5000..25_000).contains(&pause), "{pause}");
    let anew = format!("/v1/webhooks/{id}/deliveries/{}/redeliver", waiting["id"].as_str().unwrap());
    assert_eq!(house.post(&anew, json!({})).await.1["error"], "delivery-waiting");
    receiver.answer(Answers::Status(200));
    let delivered = until(&house, &id, |one| one["state"] == "delivered").await;
    assert_eq!((&delivered["tries"], &delivered["reason"]), (&json!(2), &Value::Null));
    let ids: HashSet<String> = receiver.got().into_iter().map(|got| got.id).collect();
    assert_eq!(ids.len(), 1);
    // One that says that it is gone is believed, until a person says otherwise.
    receiver.answer(Answers::Status(410));
    assert_eq!(house.post(&anew, json!({})).await.0, StatusCode::ACCEPTED);
    let dead = until(&house, &id, |one| one["state"] == "dead").await;
    assert!(dead["reason"].as_str().unwrap().contains("410"), "{dead}");
    assert_eq!(deliveries(&house, &id, "state=dead").await.len(), 1);
    receiver.answer(Answers::Status(200));
    assert_eq!(house.post(&anew, json!({})).await.0, StatusCode::ACCEPTED);
    until(&house, &id, |one| one["state"] == "delivered").await;
    let ids: HashSet<String> = receiver.got().into_iter().map(|got| got.id).collect();
    assert_eq!((ids.len(), receiver.got().len()), (1, 4));
    house.control.shutdown().await;
}

#[tokio::test]
async fn a_receiver_that_stalls_holds_up_no_other() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(allowing(folder.path(), &bucket)).await;
    let (slow, fast) = (Receiver::start(Answers::Stalls).await, Receiver::start(Answers::Status(200)).await);
    hook(&house, &slow, &["track.failed"]).await;
    hook(&house, &fast, &["track.failed"]).await;
    let begun = Instant::now();
    for _ in 0..12 {
        fail_one(&house).await;
    }
    fast.gets(12, Duration::from_secs(14)).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "before the slow one's first time is over");
    assert_eq!(slow.gets(4, SOON).await.len(), 4, "as many as one receiver has at once");
    house.control.shutdown().await;
}

#[tokio::test]
async fn what_a_receiver_lies_is_no_harm() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(allowing(folder.path(), &bucket)).await;
    let behind = Receiver::start(Answers::Status(200)).await;
    let answers = [Answers::Promises, Answers::Nonsense, Answers::Redirects(behind.url.clone()), Answers::Status(500)];
    let mut hooks = Vec::new();
    for answer in answers {
        let receiver = Receiver::start(answer).await;
        hooks.push(hook(&house, &receiver, &["track.failed"]).await.0);
    }
    fail_one(&house).await;
    let mut told = Vec::new();
    for hook in &hooks {
        told.push(until(&house, hook, |one| one["tries"] == 1).await);
    }
    let states: Vec<&str> = told.iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["delivered", "waiting", "waiting", "waiting"], "{told:?}");
    assert_eq!((&told[2]["status"], &told[3]["status"]), (&json!(302), &json!(500)));
    assert!(told[2]["reason"].as_str().unwrap().contains("redirect"), "{told:?}");
    assert!(
        told.iter().all(|one| !one["reason"].to_string().contains("key=1")),
        "an address can hold a secret: {told:?}"
    );
    assert!(behind.got().is_empty(), "where it pointed to was never asked");
    house.control.shutdown().await;
}

#[tokio::test]
async fn what_was_sent_and_not_noted_is_sent_again_under_the_same_id() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let config = allowing(folder.path(), &bucket);
    let receiver = Receiver::start(Answers::Stalls).await;
    let house = House::start(config.clone()).await;
    let (id, secret) = hook(&house, &receiver, &["track.failed"]).await;
    fail_one(&house).await;
    receiver.gets(1, SOON).await;
    // The receiver has it, and the control plane never hears so.
    house.control.shutdown().await;
    receiver.answer(Answers::Status(200));
    let house = House::start(config).await;
    let got = receiver.gets(2, SOON).await;
    assert_eq!((got.len(), &got[0].id, &got[0].body), (2, &got[1].id, &got[1].body));
    assert!(got.iter().all(|got| is_signed(&secret, got)));
    let delivered = until(&house, &id, |one| one["state"] == "delivered").await;
    assert_eq!(delivered["tries"], 1, "what nobody noted was no try");
    house.control.shutdown().await;
}

#[tokio::test]
async fn two_control_planes_send_each_once() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let config = allowing(folder.path(), &bucket);
    let houses = [Box::pin(House::start(config.clone())).await, Box::pin(House::start(config)).await];
    let receiver = Receiver::start(Answers::Status(200)).await;
    hook(&houses[1], &receiver, &["track.failed"]).await;
    for n in 0..30 {
        fail_one(&houses[n % 2]).await;
    }
    receiver.gets(30, SOON).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let got = receiver.got();
    let ids: HashSet<&String> = got.iter().map(|got| &got.id).collect();
    assert_eq!((got.len(), ids.len()), (30, 30));
    for house in houses {
        house.control.shutdown().await;
    }
}

#[tokio::test]
async fn a_webhook_leads_to_no_address_of_this_machine() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let receiver = Receiver::start(Answers::Status(200)).await;
    let port = receiver.url.rsplit(':').next().unwrap().split('/').next().unwrap().to_owned();
    for url in [
        receiver.url.clone(),
        format!("https://127.0.0.1:{port}/"),
        format!("https://[::ffff:127.0.0.1]:{port}/"),
        format!("https://2130706433:{port}/"),
        format!("http://localhost:{port}/"),
        "https://169.254.169.254/latest/meta-data/".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        let (status, told) = house.post("/v1/webhooks", json!({ "url": url, "events": ["track.failed"] })).await;
        assert_eq!((status, &told["error"]), (StatusCode::BAD_REQUEST, &json!("invalid")), "{url}: {told}");
    }
    for events in [json!([]), json!(["track.ready", "weather"])] {
        let wrong = json!({ "url": "https://example.com/", "events": events });
        assert_eq!(house.post("/v1/webhooks", wrong).await.0, StatusCode::BAD_REQUEST);
    }
    // A name is looked at when it is resolved.
    let url = format!("https://localhost:{port}/");
    let (_, made) = house.post("/v1/webhooks", json!({ "url": url, "events": ["track.failed"] })).await;
    let id = made["webhook"]["id"].as_str().unwrap();
    fail_one(&house).await;
    let refused = until(&house, id, |one| one["tries"] == 1).await;
    assert!(refused["reason"].as_str().unwrap().contains("no address that is allowed"), "{refused}");
    assert!(receiver.got().is_empty());
    house.control.shutdown().await;
}
