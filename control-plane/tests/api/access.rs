//! Every route without, with an unknown, with the wrong, and with the right token; and requests that are not ours.

use reqwest::{Method, StatusCode};
use segue_control_plane::DatabaseConfig;
use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::database::database;
use crate::house::{ADMIN, EDGE, House, WORKER, config};

/// Method, path, scope. A route that is missing here fails the count at the end of the test below.
const ROUTES: [(&str, &str, &str); 56] = [
    ("POST", "/v1/tracks", "publish"),
    ("POST", "/v1/jobs/{j}/cancel", "publish"),
    ("POST", "/v1/jobs/{j}/priority", "publish"),
    ("GET", "/v1/tracks", "read"),
    ("GET", "/v1/tracks/{t}", "read"),
    ("DELETE", "/v1/tracks/{t}", "publish"),
    ("POST", "/v1/tracks/{t}/uploaded", "publish"),
    ("GET", "/v1/tracks/{t}/upload", "publish"),
    ("POST", "/v1/tracks/{t}/upload/urls", "publish"),
    ("POST", "/v1/tracks/{t}/upload/parts", "publish"),
    ("GET", "/v1/uploads", "publish"),
    ("POST", "/v1/tracks/{t}/purge", "publish"),
    ("POST", "/v1/tracks/{t}/tickets", "play"),
    ("GET", "/v1/tracks/{t}/stats", "read"),
    ("GET", "/v1/jobs", "read"),
    ("GET", "/v1/jobs/{j}", "read"),
    ("POST", "/v1/jobs/{j}/retry", "publish"),
    ("GET", "/v1/stats", "read"),
    ("GET", "/v1/facts", "read"),
    ("GET", "/v1/denials", "read"),
    ("GET", "/v1/events", "read"),
    ("POST", "/v1/worker/claim", "worker"),
    ("POST", "/v1/worker/jobs/{j}/progress", "worker"),
    ("POST", "/v1/worker/jobs/{j}/complete", "worker"),
    ("POST", "/v1/worker/jobs/{j}/fail", "worker"),
    ("GET", "/v1/edge/snapshot", "edge"),
    ("POST", "/v1/edge/report", "edge"),
    ("POST", "/v1/edge/facts", "edge"),
    ("GET", "/v1/edges", "read"),
    ("GET", "/v1/keys", "read"),
    ("POST", "/v1/keys", "admin"),
    ("POST", "/v1/keys/rotate", "admin"),
    ("DELETE", "/v1/keys/nokey", "admin"),
    ("GET", "/v1/revocations", "read"),
    ("POST", "/v1/revocations", "admin"),
    ("DELETE", "/v1/revocations/norevocation", "admin"),
    ("GET", "/v1/policies", "read"),
    ("GET", "/v1/policies/nopolicy", "read"),
    ("GET", "/v1/policies/nopolicy/history", "read"),
    ("GET", "/v1/policies/nopolicy/diff", "read"),
    ("GET", "/v1/policies/nopolicy/verdicts", "read"),
    ("DELETE", "/v1/policies/nopolicy", "admin"),
    ("DELETE", "/v1/policies/nopolicy/versions/1", "admin"),
    ("POST", "/v1/policies/nopolicy/versions", "admin"),
    ("POST", "/v1/policies/nopolicy/push", "admin"),
    ("POST", "/v1/policies/nopolicy/shadow", "admin"),
    ("POST", "/v1/policies/nopolicy/canary", "admin"),
    ("POST", "/v1/policies/nopolicy/active", "admin"),
    ("DELETE", "/v1/policies/nopolicy/active", "admin"),
    ("POST", "/v1/policies/nopolicy/rollback", "admin"),
    ("DELETE", "/v1/policies/nopolicy/candidate", "admin"),
    ("GET", "/v1/edge/policies/nodigest", "edge"),
    ("POST", "/v1/worker/jobs/{j}/early", "worker"),
    ("GET", "/v1/limits", "read"),
    ("PUT", "/v1/limits/classes/noclass", "admin"),
    ("PUT", "/v1/limits/streams/noclass", "admin"),
];

#[tokio::test]
async fn every_route_wants_its_scope() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let send = async |method: &str, path: &str, authorization: Option<&str>| {
        let path = path.replace("{t}", "aaaaaaaaaaaa").replace("{j}", "bbbbbbbbbbbbbbbb");
        let mut request = house.client.request(method.parse::<Method>().unwrap(), house.url(&path));
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        // Headers only: the event stream has no end.
        let response = request.send().await.unwrap();
        (response.status(), response.headers().get("www-authenticate").is_some())
    };
    for (method, path, scope) in ROUTES {
        let route = format!("{method} {path}");
        for wrong in [None, Some("Bearer nobody-knows-this-token"), Some("Basic YTpi"), Some("Bearer "), Some(ADMIN)] {
            let (status, asks) = send(method, path, wrong).await;
            assert_eq!((status, asks), (StatusCode::UNAUTHORIZED, true), "{route} with {wrong:?}");
        }
        for (token, has) in [(ADMIN, "all"), (WORKER, "worker"), (EDGE, "edge")] {
            let (status, _) = send(method, path, Some(&format!("Bearer {token}"))).await;
            let denied = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            assert_eq!(denied, has != "all" && has != scope, "{route} with the {has} token: {status}");
        }
    }
    let in_router = include_str!("../../src/router.rs").matches(".route(\"/v1/").count();
    assert_eq!(in_router, ROUTES.len(), "a route is not in this table");
    house.control.shutdown().await;
}

#[tokio::test]
async fn page_and_health_are_open() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let get = async |path: &str| house.client.get(house.url(path)).send().await.unwrap();
    let health = get("/healthz").await;
    assert_eq!(health.status(), StatusCode::OK);
    let page = get("/").await;
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(page.headers()["cache-control"], "no-cache");
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("http://edge.test:8080") && policy.contains(&bucket.endpoint()), "{policy}");
    let tag = page.headers()["etag"].clone();
    let again = house.client.get(house.url("/")).header("if-none-match", tag).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(get("/nothing.js").await.status(), StatusCode::NOT_FOUND);
    house.control.shutdown().await;
}

#[tokio::test]
async fn requests_that_are_wrong_are_told_why() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut config = config(folder.path(), &bucket);
    config.uploads.max_size = 1000;
    config.http.body_max = 4096;
    let house = House::start(config).await;
    let word = |(status, error): (StatusCode, Value)| {
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        (status.as_u16(), error["error"].as_str().unwrap_or("").to_owned())
    };
    let told = |status: u16, word: &str| (status, word.to_owned());
    assert_eq!(word(house.post("/v1/tracks", json!({ "filename": "a", "size": 1001 })).await), told(413, "too-large"));
    assert_eq!(word(house.post("/v1/tracks", json!({ "filename": "", "size": 1 })).await), told(400, "invalid"));
    assert_eq!(word(house.post("/v1/tracks", json!({ "size": 1 })).await), told(400, "invalid"));
    assert_eq!(word(house.post("/v1/tracks", json!({ "filename": "a", "size": -1 })).await), told(400, "invalid"));
    let long = "x".repeat(5000);
    assert_eq!(word(house.post("/v1/tracks", json!({ "filename": long, "size": 1 })).await), told(413, "too-large"));
    assert_eq!(word(house.get("/v1/tracks/nope").await), told(404, "not-found"));
    assert_eq!(word(house.get("/v1/tracks/aaaaaaaaaaaa").await), told(404, "not-found"));
    assert_eq!(word(house.get("/v1/jobs/nope").await), told(404, "not-found"));
    assert_eq!(word(house.get("/v1/events?topics=weather").await), told(400, "invalid"));
    assert_eq!(word(house.send(ADMIN, Method::PATCH, "/v1/tracks", None).await), told(405, "method-not-allowed"));
    assert_eq!(word(house.post("/v1/nothing", json!({})).await), told(404, "not-found"));
    assert_eq!(word(house.get("/v1/nothing").await), told(404, "not-found"));
    for wrong in
        [json!({ "worker": "", "instance": "i" }), json!({ "worker": "w", "instance": "" }), json!({ "worker": "w" })]
    {
        assert_eq!(word(house.worker("claim", wrong).await), told(400, "invalid"));
    }
    let stage = json!({ "fence": 1, "stage": "dreaming", "progress": 0.1 });
    assert_eq!(word(house.worker("jobs/x/progress", stage).await), told(400, "invalid"));
    house.control.shutdown().await;
}

#[tokio::test]
async fn a_changed_token_ends_the_old_one() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut config = config(folder.path(), &bucket);
    let house = House::start(config.clone()).await;
    assert_eq!(house.get("/v1/tracks").await.0, StatusCode::OK);
    house.control.shutdown().await;
    config.tokens.admin = segue_config::Secret::literal("another-admin-token");
    config.tokens.worker = None;
    let house = House::start(config).await;
    assert_eq!(house.get("/v1/tracks").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(house.worker("claim", json!({ "worker": "w", "instance": "i" })).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(house.send("another-admin-token", Method::GET, "/v1/tracks", None).await.0, StatusCode::OK);
    // Nothing of a secret is in the database.
    house.control.shutdown().await;
    if let DatabaseConfig::Sqlite(path) = database(folder.path()) {
        let stored = std::fs::read(path).unwrap();
        assert!(!stored.windows(19).any(|bytes| bytes == b"another-admin-token"));
    }
}
