//! Requests that are sent again with their `Idempotency-Key`: done once, and answered as before.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use segue_control_plane::DatabaseConfig;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::bucket::Bucket;
use crate::database::database;
use crate::house::{ADMIN, House, config};

struct Answer {
    status: StatusCode,
    replayed: bool,
    kind: String,
    body: Value,
}

async fn send(house: &House, token: &str, key: &str, path: &str, body: &Value) -> Answer {
    let request = house.client.request(Method::POST, house.url(path)).bearer_auth(token);
    let response = request.header("idempotency-key", key).json(body).send().await.unwrap();
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, replayed) = (response.status(), header("idempotent-replayed").is_some());
    let kind = header("content-type").unwrap_or_default();
    Answer { status, replayed, kind, body: response.json().await.unwrap_or_default() }
}

async fn tracks(house: &House) -> usize {
    house.get("/v1/tracks").await.1["tracks"].as_array().unwrap().len()
}

#[tokio::test]
async fn the_answer_comes_again_and_is_kept_in_no_clear_text() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let wish = json!({ "name": "a script", "scopes": ["admin"] });
    let first = send(&house, ADMIN, "\"k-1\"", "/v1/tokens", &wish).await;
    assert_eq!((first.status, first.replayed), (StatusCode::CREATED, false), "{}", first.body);
    let again = send(&house, ADMIN, "k-1", "/v1/tokens", &wish).await;
    assert_eq!((again.status, again.replayed, &again.body), (StatusCode::CREATED, true, &first.body));
    assert_eq!(again.kind, first.kind);
    let secret = first.body["secret"].as_str().unwrap().to_owned();
    let tokens = async || house.get("/v1/tokens").await.1["tokens"].as_array().unwrap().len();
    let before = tokens().await;

    let other = json!({ "name": "another", "scopes": ["read"] });
    let reused = send(&house, ADMIN, "k-1", "/v1/tokens", &other).await;
    assert_eq!(
        (reused.status, &reused.body["error"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("idempotency-reused"))
    );
    assert_eq!(tokens().await, before);
    let of_another = send(&house, &secret, "k-1", "/v1/tokens", &wish).await;
    assert_eq!((of_another.status, of_another.replayed), (StatusCode::CREATED, false), "each token has its own keys");
    let wrong = send(&house, ADMIN, "two words", "/v1/tokens", &wish).await;
    assert_eq!((wrong.status, &wrong.body["error"]), (StatusCode::BAD_REQUEST, &json!("invalid")));

    // A new secret of the same token opens no answers that were sealed for the one before.
    let id = first.body["token"]["id"].as_str().unwrap();
    let (_, rotated) = house.post(&format!("/v1/tokens/{id}/rotate"), json!({ "overlap_s": 0 })).await;
    let gone = send(&house, rotated["secret"].as_str().unwrap(), "k-1", "/v1/tokens", &wish).await;
    assert_eq!((gone.status, &gone.body["error"]), (StatusCode::CONFLICT, &json!("idempotency-answer-gone")));
    // What was answered again was done, and recorded, once.
    let (_, records) = house.get("/v1/audit?operation=tokens.create&actor=bootstrap-admin").await;
    assert_eq!(records["records"].as_array().unwrap().len(), 1, "{records}");
    house.control.shutdown().await;
    if let DatabaseConfig::Sqlite(path) = database(folder.path()) {
        let (stored, random) = (std::fs::read(path).unwrap(), secret.rsplit('_').next().unwrap().as_bytes());
        assert!(!stored.windows(random.len()).any(|bytes| bytes == random));
    }
}

#[tokio::test]
async fn of_many_at_two_control_planes_one_is_carried_out() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let config = config(folder.path(), &bucket);
    let houses = [Box::pin(House::start(config.clone())).await, Box::pin(House::start(config)).await];
    let wish = json!({ "filename": "a.mp3", "size": 1 });
    for round in 0..5 {
        let key = format!("round-{round}");
        let sent = (0..12).map(|n| send(&houses[n % 2], ADMIN, &key, "/v1/tracks", &wish));
        let answers = futures::future::join_all(sent).await;
        assert_eq!(answers.iter().filter(|one| one.status == StatusCode::CREATED && !one.replayed).count(), 1);
        let bodies: Vec<&Value> =
            answers.iter().filter(|one| one.status == StatusCode::CREATED).map(|one| &one.body).collect();
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
        for other in answers.iter().filter(|one| one.status != StatusCode::CREATED) {
            let told = (other.status, &other.body["error"]);
            assert_eq!(told, (StatusCode::CONFLICT, &json!("idempotency-running")), "{}", other.body);
        }
        let later = send(&houses[round % 2], ADMIN, &key, "/v1/tracks", &wish).await;
        assert_eq!((later.replayed, &later.body), (true, bodies[0]));
        assert_eq!(tracks(&houses[0]).await, round + 1);
    }
    for house in houses {
        house.control.shutdown().await;
    }
}

#[tokio::test]
async fn a_client_that_left_finds_what_it_asked_for() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let body = json!({ "filename": "a.mp3", "size": 1 });
    let text = body.to_string();
    for round in 0..10 {
        let key = format!("left-{round}");
        let mut stream = tokio::net::TcpStream::connect(house.control.addr()).await.unwrap();
        let request = format!(
            "POST /v1/tracks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\ncontent-type: application/json\r\n\
             idempotency-key: {key}\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(round)).await;
        drop(stream);
        let mut answer = send(&house, ADMIN, &key, "/v1/tracks", &body).await;
        for _ in 0..200 {
            if answer.status != StatusCode::CONFLICT {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            answer = send(&house, ADMIN, &key, "/v1/tracks", &body).await;
        }
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        assert_eq!(tracks(&house).await, usize::try_from(round).unwrap() + 1, "once each time");
    }
    house.control.shutdown().await;
}

#[tokio::test]
async fn what_did_nothing_leaves_its_key_free() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let wrong = send(&house, ADMIN, "k", "/v1/tracks", &json!({ "filename": "", "size": 1 })).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    let in_parts = json!({ "filename": "a.mp3", "size": 20 << 20, "multipart": true });
    bucket.set_away(true);
    let away = send(&house, ADMIN, "k", "/v1/tracks", &in_parts).await;
    assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE, "{}", away.body);
    bucket.set_away(false);
    let done = send(&house, ADMIN, "k", "/v1/tracks", &in_parts).await;
    assert_eq!((done.status, done.replayed), (StatusCode::CREATED, false), "{}", done.body);
    let again = send(&house, ADMIN, "k", "/v1/tracks", &in_parts).await;
    assert_eq!((again.replayed, &again.body), (true, &done.body), "with the URLs of its parts");
    // What changes nothing and succeeds is kept as well: the same ticket.
    let track = done.body["track"]["track"].as_str().unwrap();
    let path = format!("/v1/tracks/{track}/tickets");
    let ticket = send(&house, ADMIN, "t", &path, &json!({})).await;
    assert_eq!((ticket.status, ticket.replayed), (StatusCode::CREATED, false), "{}", ticket.body);
    assert_eq!(send(&house, ADMIN, "t", &path, &json!({})).await.body, ticket.body);
    // Routes that are the same however often they are called take no keys.
    let removed = house.client.delete(house.url(&format!("/v1/tracks/{track}"))).bearer_auth(ADMIN);
    assert_eq!(removed.header("idempotency-key", "k").send().await.unwrap().status(), StatusCode::NO_CONTENT);
    house.control.shutdown().await;
}
