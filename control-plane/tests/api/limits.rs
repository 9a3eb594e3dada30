//! Limit classes: set, refused, told to edges, taken away.

use reqwest::{Method, StatusCode};
use segue_signing::{Followed, SnapshotDelta};
use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::house::{ADMIN, EDGE, House, WORKER, config};

async fn put(house: &House, path: &str, class: Value) -> (StatusCode, Value) {
    house.send(ADMIN, Method::PUT, &format!("/v1/limits/{path}"), Some(class)).await
}

async fn look(house: &House, held: &Followed) -> SnapshotDelta {
    let (cursor, keys, limits) = (held.cursor(), held.keys_tag(), held.limits_tag());
    let path = format!("/v1/edge/snapshot?cursor={cursor}&keys={keys}&limits={limits}");
    let response = house.client.get(house.url(&path)).bearer_auth(EDGE).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.unwrap()
}

#[tokio::test]
async fn classes_are_set_told_to_edges_and_taken_away() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let held = Followed::default().apply(look(&house, &Followed::default()).await, 0).unwrap();
    assert!(held.document().limits.is_empty());

    let (status, class) = put(&house, "classes/tracks", json!({ "rate": 10, "burst": 60, "per": "track" })).await;
    assert_eq!(status, StatusCode::OK, "{class}");
    assert_eq!((&class["max_wait_ms"], &class["apply"]), (&json!(5), &json!(["segment"])), "defaults are shown");
    let (status, class) = put(&house, "streams/home", json!({ "max": 2, "on_excess": "refuse-newest" })).await;
    assert_eq!(status, StatusCode::OK, "{class}");

    let told = look(&house, &held).await;
    assert!(told.partial && told.keys.is_none() && told.limits.is_some(), "{told:?}");
    let held = held.apply(told, 0).unwrap();
    let limits = held.document().limits;
    assert_eq!((limits.classes["tracks"].rate, limits.streams["home"].max), (10.0, 2));
    assert!(look(&house, &held).await.limits.is_none(), "what the edge has does not travel again");
    assert_eq!(house.control.snapshots().borrow().limits, limits, "the edge of the same process is told as well");

    // A change of one class, and what the rules refuse.
    let (status, _) =
        put(&house, "classes/tracks", json!({ "rate": 20, "burst": 60, "per": "track", "shadow": true })).await;
    assert_eq!(status, StatusCode::OK);
    for (path, class, part) in [
        ("classes/tracks", json!({ "rate": 0, "burst": 60, "per": "track" }), "limits.tracks.rate: 0 tokens"),
        ("classes/tracks", json!({ "rate": 1, "burst": 1, "per": "path" }), "unknown variant `path`"),
        ("classes/tracks", json!({ "rate": 1, "burst": 1, "per": "track", "brst": 2 }), "a class has no `brst`"),
        ("classes/Tracks", json!({ "rate": 1, "burst": 1, "per": "track" }), "a class's name is a word"),
        ("streams/family", json!({ "max": 4 }), "only one class of streams may apply by itself"),
    ] {
        let (status, said) = put(&house, path, class).await;
        let message = said["message"].as_str().unwrap_or_default();
        assert!(status == StatusCode::BAD_REQUEST && message.contains(part), "{part:?}: {said}");
    }
    let (status, all) = house.get("/v1/limits").await;
    assert_eq!((status, all["classes"]["tracks"]["rate"].as_f64()), (StatusCode::OK, Some(20.0)));
    assert_eq!(all["streams"].as_object().unwrap().len(), 1);

    for (token, wanted) in
        [(WORKER, StatusCode::FORBIDDEN), (ADMIN, StatusCode::NO_CONTENT), (ADMIN, StatusCode::NOT_FOUND)]
    {
        let (status, _) = house.send(token, Method::DELETE, "/v1/limits/classes/tracks", None).await;
        assert_eq!(status, wanted);
    }
    let held = held.apply(look(&house, &held).await, 0).unwrap();
    let limits = held.document().limits;
    assert!(limits.classes.is_empty() && limits.streams.contains_key("home"));
    house.control.shutdown().await;
}
