//! Tokens that are made, rotated and revoked while everything runs; and how much they may ask for.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use segue_control_plane::DatabaseConfig;
use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::database::database;
use crate::house::{ADMIN, House, WORKER, config};

async fn made(house: &House, scopes: &[&str]) -> (String, String) {
    let (status, made) = house.post("/v1/tokens", json!({ "name": "a player's backend", "scopes": scopes })).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    (made["token"]["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
}

async fn status(house: &House, token: &str, path: &str) -> StatusCode {
    house.send(token, Method::GET, path, None).await.0
}

fn now_s() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

#[tokio::test]
async fn a_token_does_what_its_scopes_say_and_nothing_of_its_secret_is_kept() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let (id, secret) = made(&house, &["read", "play", "read"]).await;
    assert!(secret.starts_with(&format!("segue_{id}_")), "whoever finds one sees whose it is");
    assert_eq!(status(&house, &secret, "/v1/tracks").await, StatusCode::OK);
    assert_eq!(status(&house, &secret, "/v1/tokens").await, StatusCode::FORBIDDEN);
    let track = json!({ "filename": "a.mp3", "size": 1 });
    let refused = house.send(&secret, Method::POST, "/v1/tracks", Some(track)).await;
    assert_eq!((refused.0, &refused.1["error"]), (StatusCode::FORBIDDEN, &json!("forbidden")));
    let last = secret.len() - 1;
    let close = format!("{}{}", &secret[..last], if secret.ends_with('a') { 'b' } else { 'a' });
    assert_eq!(status(&house, &close, "/v1/tracks").await, StatusCode::UNAUTHORIZED, "its id opens nothing");
    for wrong in [
        json!({ "name": "x", "scopes": [] }),
        json!({ "name": "", "scopes": ["read"] }),
        json!({ "name": "bootstrap-admin", "scopes": ["admin"] }),
        json!({ "name": "x", "scopes": ["everything"] }),
        json!({ "name": "x", "scopes": ["read"], "expires_at": now_s() - 1 }),
    ] {
        let (status, told) = house.post("/v1/tokens", wrong.clone()).await;
        assert_eq!((status, &told["error"]), (StatusCode::BAD_REQUEST, &json!("invalid")), "{wrong}");
    }
    // Uses are written down at the end at the latest.
    house.control.shutdown().await;
    let house = House::start(config(folder.path(), &bucket)).await;
    let (_, listed) = house.get("/v1/tokens").await;
    let shown = listed["tokens"].as_array().unwrap().iter().find(|token| token["id"] == id.as_str()).unwrap();
    assert_eq!((&shown["scopes"], &shown["source"]), (&json!(["play", "read"]), &json!("database")));
    assert!(shown["last_used_ms"].as_i64().is_some_and(|ms| ms / 1000 >= now_s() - 60), "{shown}");
    let configured =
        listed["tokens"].as_array().unwrap().iter().find(|token| token["id"] == "bootstrap-admin").unwrap();
    assert_eq!(configured["source"], "config");
    assert!(!listed.to_string().contains(&secret));
    house.control.shutdown().await;
    if let DatabaseConfig::Sqlite(path) = database(folder.path()) {
        let (stored, random) = (std::fs::read(path).unwrap(), secret.rsplit('_').next().unwrap().as_bytes());
        assert!(!stored.windows(random.len()).any(|bytes| bytes == random));
    }
}

#[tokio::test]
async fn a_rotation_overlaps_and_a_revoked_token_is_refused_within_a_second_everywhere() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let config = config(folder.path(), &bucket);
    let (one, other) = (House::start(config.clone()).await, House::start(config).await);
    let (id, first) = made(&one, &["read"]).await;
    assert_eq!(status(&other, &first, "/v1/tracks").await, StatusCode::OK);
    let rotate = async |overlap: Value| {
        let (status, rotated) = one.post(&format!("/v1/tokens/{id}/rotate"), overlap).await;
        assert_eq!(status, StatusCode::OK, "{rotated}");
        (rotated["secret"].as_str().unwrap().to_owned(), rotated["token"]["overlap_until"].as_i64())
    };
    let (second, until) = rotate(json!({ "overlap_s": 60 })).await;
    assert!(until.is_some_and(|until| (50..=60).contains(&(until - now_s()))), "{until:?}");
    for secret in [&first, &second] {
        assert_eq!(status(&one, secret, "/v1/tracks").await, StatusCode::OK);
        assert_eq!(status(&other, secret, "/v1/tracks").await, StatusCode::OK);
    }
    let (third, until) = rotate(json!({ "overlap_s": 0 })).await;
    assert_eq!(until, None);
    for old in [&first, &second] {
        assert_eq!(status(&one, old, "/v1/tracks").await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(status(&other, &third, "/v1/tracks").await, StatusCode::OK);
    let revoked = one.send(ADMIN, Method::DELETE, &format!("/v1/tokens/{id}"), None).await;
    assert_eq!(revoked.0, StatusCode::NO_CONTENT);
    let begun = Instant::now();
    assert_eq!(status(&one, &third, "/v1/tracks").await, StatusCode::UNAUTHORIZED, "at once where it was said");
    tokio::time::sleep_until((begun + Duration::from_millis(900)).into()).await;
    assert_eq!(status(&other, &third, "/v1/tracks").await, StatusCode::UNAUTHORIZED, "within a second elsewhere");
    let again = one.send(ADMIN, Method::DELETE, &format!("/v1/tokens/{id}"), None).await;
    assert_eq!(again.0, StatusCode::NOT_FOUND);
    let configured = one.send(ADMIN, Method::DELETE, "/v1/tokens/bootstrap-worker", None).await;
    assert_eq!((configured.0, &configured.1["error"]), (StatusCode::CONFLICT, &json!("token-configured")));
    one.control.shutdown().await;
    other.control.shutdown().await;
}

#[tokio::test]
async fn a_token_ends_when_it_was_to() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let wish = json!({ "name": "short", "scopes": ["read"], "expires_at": now_s() + 2 });
    let (_, made) = house.post("/v1/tokens", wish).await;
    let secret = made["secret"].as_str().unwrap();
    let begun = Instant::now();
    assert_eq!(status(&house, secret, "/v1/tracks").await, StatusCode::OK);
    while status(&house, secret, "/v1/tracks").await == StatusCode::OK {
        assert!(begun.elapsed() < Duration::from_secs(5), "it goes on after its end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status(&house, secret, "/v1/tracks").await, StatusCode::UNAUTHORIZED);
    house.control.shutdown().await;
}

#[tokio::test]
async fn a_token_has_a_rate_and_an_address_that_tries_tokens_is_made_to_wait() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut config = config(folder.path(), &bucket);
    (config.access.rate, config.access.burst, config.access.failures) = (1, 20, 3);
    let house = House::start(config).await;
    let (_, busy) = made(&house, &["read"]).await;
    let (_, unseen) = made(&house, &["read"]).await;
    let ask = async |token: &str| {
        let response = house.client.get(house.url("/v1/tracks")).bearer_auth(token).send().await.unwrap();
        let wait = response.headers().get("retry-after").map(|wait| wait.to_str().unwrap().parse::<u64>().unwrap());
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        (status, body["error"].as_str().unwrap_or("").to_owned(), wait)
    };
    let mut last = ask(&busy).await;
    for _ in 0..30 {
        last = ask(&busy).await;
    }
    assert_eq!((last.0, last.1.as_str()), (StatusCode::TOO_MANY_REQUESTS, "too-many-requests"));
    assert!(last.2.is_some_and(|wait| (1..=2).contains(&wait)), "{last:?}");
    assert_eq!(ask(ADMIN).await.0, StatusCode::OK, "another token has a rate of its own");
    for _ in 0..3 {
        assert_eq!(ask("nobody-knows-this-token").await.0, StatusCode::UNAUTHORIZED);
    }
    for token in ["nobody-knows-this-token", "nor-this-one", WORKER, &unseen] {
        let barred = ask(token).await;
        assert_eq!((barred.0, barred.1.as_str()), (StatusCode::TOO_MANY_REQUESTS, "too-many-failures"), "{token}");
        assert!(barred.2.is_some_and(|wait| (1..=20).contains(&wait)), "{barred:?}");
    }
    // Somebody else behind the same address goes on, also when what is known of the token has to be looked up anew.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(ask(ADMIN).await.0, StatusCode::OK);
    house.control.shutdown().await;
}
