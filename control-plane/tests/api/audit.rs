//! Who changed what: every route that changes something leaves a record, and none of them tells a secret.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use segue_control_plane::DatabaseConfig;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::bucket::Bucket;
use crate::database::database;
use crate::house::{ADMIN, House, config};

/// What reports of machines and requests for tickets are called: a unit test holds this against the table of routes.
const BESIDE: [&str; 8] = [
    "tickets.issue",
    "uploads.urls",
    "uploads.parts",
    "edge.report",
    "edge.facts",
    "worker.claim",
    "worker.progress",
    "worker.early",
];

async fn records(house: &House, query: &str) -> Vec<Value> {
    let (status, page) = house.get(&format!("/v1/audit?{query}")).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    page["records"].as_array().unwrap().clone()
}

/// Records that are written beside the requests, once there are as many.
async fn beside(house: &House, query: &str, count: usize) -> Vec<Value> {
    for _ in 0..200 {
        let found = records(house, query).await;
        if found.len() >= count {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{query}: {:?}", records(house, query).await);
}

#[tokio::test]
async fn every_route_that_changes_something_leaves_a_record() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let (_, document) = house.get("/v1/openapi.json").await;
    let mut wanted = BTreeSet::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        let parts = template.split('/').map(|part| if part.starts_with('{') { "aaaaaaaaaaaa" } else { part });
        let path = parts.collect::<Vec<_>>().join("/");
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            if method == "get" || BESIDE.contains(&name) {
                continue;
            }
            let request = house.client.request(method.to_uppercase().parse::<Method>().unwrap(), house.url(&path));
            let id = format!("r-{name}");
            let response = request.bearer_auth(ADMIN).header("x-request-id", &id).send().await.unwrap();
            let found = records(&house, &format!("operation={name}")).await;
            let [record] = found.as_slice() else { panic!("{name}: {found:?}") };
            // It is there, and whole, when the answer is.
            assert_eq!(record["status"], response.status().as_u16(), "{record}");
            assert_eq!(record["request_id"], id.as_str(), "{record}");
            assert_eq!((&record["actor"], &record["address"]), (&json!("bootstrap-admin"), &json!("127.0.0.1")));
            assert!(record["ended_ms"].as_i64().unwrap() >= record["at_ms"].as_i64().unwrap(), "{record}");
            assert_eq!(record["error"].is_string(), !response.status().is_success(), "{record}");
            if template.contains('{') {
                assert!(record["resource"].as_str().unwrap().contains("aaaaaaaaaaaa"), "{record}");
            }
            wanted.insert(name.to_owned());
        }
    }
    assert!(wanted.len() > 25, "{wanted:?}");
    house.control.shutdown().await;
}

#[tokio::test]
async fn a_record_says_who_did_what_and_tells_no_secret() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let wish = json!({ "name": "shop", "scopes": ["publish", "play"] });
    let (_, made) = house.post("/v1/tokens", wish).await;
    let (token, secret) = (made["token"]["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let wish = json!({ "filename": "song.mp3", "size": 5, "title": "A song" });
    let (_, created) = house.send(secret, Method::POST, "/v1/tracks", Some(wish)).await;
    let track = created["track"]["track"].as_str().unwrap();
    let wish = json!({ "sub": "listener-1", "ctx": { "pin": "4711" } });
    let (status, ticket) = house.send(secret, Method::POST, &format!("/v1/tracks/{track}/tickets"), Some(wish)).await;
    assert_eq!(status, StatusCode::CREATED, "{ticket}");

    let done = records(&house, "actor=shop&operation=tracks.create").await;
    assert_eq!(done[0]["resource"], format!("tracks/{track}"));
    assert_eq!(done[0]["summary"], json!({ "filename": "song.mp3", "size": 5, "title": "A song" }));
    assert_eq!(
        (&done[0]["sort"], &done[0]["method"], &done[0]["status"]),
        (&json!("change"), &json!("POST"), &json!(201))
    );
    let issued = beside(&house, &format!("actor={token}&operation=tickets.issue"), 1).await;
    assert_eq!((&issued[0]["sort"], &issued[0]["summary"]["sub"]), (&json!("ticket"), &json!("listener-1")));
    assert_eq!(issued[0]["summary"]["sid"], ticket["sid"], "which one it was");
    house.send(secret, Method::DELETE, &format!("/v1/tracks/{track}"), None).await;
    let of_track = records(&house, &format!("resource=tracks/{track}")).await;
    let names: Vec<&str> = of_track.iter().map(|record| record["operation"].as_str().unwrap()).collect();
    assert_eq!(names, ["tracks.delete", "tickets.issue", "tracks.create"], "newest first");
    let of_tracks = records(&house, "resource=tracks").await;
    assert_eq!(of_tracks.len(), 3, "what lies under it");
    assert_eq!(records(&house, "resource=track").await, Vec::<Value>::new());
    let made_at = records(&house, "operation=tokens.create").await[0]["at_ms"].as_i64().unwrap();
    assert!(records(&house, &format!("to={made_at}")).await.is_empty());
    assert_eq!(records(&house, &format!("from={made_at}")).await.len(), 4);

    // Page by page it is the same.
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let (_, page) = house.get(&format!("/v1/audit?limit=1{after}")).await;
        paged.extend(page["records"].as_array().unwrap().iter().map(|record| record["id"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    let whole: Vec<Value> = records(&house, "").await.iter().map(|record| record["id"].clone()).collect();
    assert_eq!((paged.len(), &paged), (4, &whole));

    let everything = house.get("/v1/audit").await.1.to_string();
    let signature = created["upload"]["url"].as_str().unwrap().split("X-Amz-Signature=").nth(1).unwrap();
    for hidden in [secret, ticket["ticket"].as_str().unwrap(), &signature[..64], "4711", "http"] {
        assert!(!everything.contains(hidden), "{hidden} is told");
    }
    assert_eq!(house.send(secret, Method::GET, "/v1/audit", None).await.0, StatusCode::FORBIDDEN);
    house.control.shutdown().await;
    if let DatabaseConfig::Sqlite(path) = database(folder.path()) {
        let (stored, random) = (std::fs::read(path).unwrap(), secret.rsplit('_').next().unwrap().as_bytes());
        assert!(!stored.windows(random.len()).any(|bytes| bytes == random));
    }
}

#[tokio::test]
async fn what_is_refused_is_recorded_and_counted() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut config = config(folder.path(), &bucket);
    config.access.failures = 50;
    let house = House::start(config).await;
    let (_, made) = house.post("/v1/tokens", json!({ "name": "reader", "scopes": ["read"] })).await;
    let secret = made["secret"].as_str().unwrap();
    for n in 0..200 {
        let path = format!("/v1/tokens/token-{n}/rotate");
        assert!(house.send("nobody-knows-this-token", Method::POST, &path, None).await.0.is_client_error());
        assert_eq!(house.send(secret, Method::POST, &path, None).await.0, StatusCode::FORBIDDEN);
    }
    // One for each status and token, and two where a minute ended in between.
    let mut refused = Vec::new();
    for _ in 0..200 {
        refused = records(&house, "operation=tokens.rotate").await;
        if refused.iter().map(|record| record["times"].as_i64().unwrap()).sum::<i64>() == 400 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!((3..=6).contains(&refused.len()), "{refused:?}");
    let counted = |status: u16, actor: Value| -> i64 {
        let of = refused.iter().filter(|record| record["status"] == status && record["actor"] == actor);
        of.map(|record| record["times"].as_i64().unwrap()).sum()
    };
    assert_eq!(counted(403, made["token"]["id"].clone()), 200);
    let (unknown, barred) = (counted(401, Value::Null), counted(429, Value::Null));
    assert_eq!(unknown + barred, 200);
    assert!(unknown >= 50 && barred > 0, "{unknown} {barred}");
    assert!(refused.iter().all(|record| record["resource"] == "tokens/{token}" && record["sort"] == "refused"));
    house.control.shutdown().await;
}

#[tokio::test]
async fn a_change_whose_client_left_says_so() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let address = house.control.addr();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/tracks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let begun = beside(&house, "operation=tracks.create", 1).await;
    assert_eq!((&begun[0]["status"], &begun[0]["ended_ms"]), (&Value::Null, &Value::Null), "stored before it begins");
    drop(stream);
    for _ in 0..200 {
        let now = records(&house, "operation=tracks.create").await;
        if !now[0]["ended_ms"].is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let ended = records(&house, "operation=tracks.create").await;
    assert!(ended[0]["ended_ms"].is_i64() && ended.len() == 1, "{ended:?}");
    assert!(ended[0]["status"].is_null() || ended[0]["status"] == 400, "{ended:?}");
    house.control.shutdown().await;
}
