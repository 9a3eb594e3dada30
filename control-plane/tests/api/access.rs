//! Every route of the document without, with an unknown, with the wrong, and with the right token; and requests that are not ours.

use reqwest::{Method, StatusCode};
use segue_control_plane::DatabaseConfig;
use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::database::database;
use crate::house::{ADMIN, House, config};

const SCOPES: [&str; 6] = ["admin", "publish", "play", "read", "edge", "worker"];

/// The routes are those of the document, which a unit test holds against the router's own table.
#[tokio::test]
async fn every_route_of_the_document_wants_its_scope() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut config = config(folder.path(), &bucket);
    config.access.failures = 10_000;
    let house = House::start(config).await;
    let open = house.client.get(house.url("/v1/openapi.json")).send().await.unwrap();
    assert_eq!(open.status(), StatusCode::OK);
    let document: Value = open.json().await.unwrap();
    let mut tokens = Vec::new();
    for scope in SCOPES {
        let (_, made) = house.post("/v1/tokens", json!({ "name": scope, "scopes": [scope] })).await;
        tokens.push((scope, made["secret"].as_str().unwrap().to_owned()));
    }
    let send = async |method: &str, path: &str, authorization: Option<&str>| {
        let mut request = house.client.request(method.to_uppercase().parse::<Method>().unwrap(), house.url(path));
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        // Headers only: the event stream has no end.
        let response = request.send().await.unwrap();
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        (response.status(), response.headers().get("www-authenticate").is_some(), kind.unwrap_or_default())
    };
    let mut routes = 0;
    for (template, item) in document["paths"].as_object().unwrap() {
        // Nothing has this name, so that no route finds what it could change.
        let parts = template.split('/').map(|part| if part.starts_with('{') { "aaaaaaaaaaaa" } else { part });
        let path = parts.collect::<Vec<_>>().join("/");
        for (method, operation) in item.as_object().unwrap() {
            routes += 1;
            let route = format!("{method} {template}");
            let Some(scope) = operation["x-scope"].as_str() else {
                assert_eq!(template, "/v1/openapi.json", "no other route is open");
                continue;
            };
            for wrong in
                [None, Some("Bearer nobody-knows-this-token"), Some("Basic YTpi"), Some("Bearer "), Some(ADMIN)]
            {
                let (status, asks, kind) = send(method, &path, wrong).await;
                assert_eq!((status, asks), (StatusCode::UNAUTHORIZED, true), "{route} with {wrong:?}");
                assert_eq!(kind, "application/problem+json", "{route} with {wrong:?}");
            }
            for (has, token) in &tokens {
                let (status, _, kind) = send(method, &path, Some(&format!("Bearer {token}"))).await;
                if *has == "admin" || *has == scope {
                    assert!(!matches!(status.as_u16(), 401 | 403 | 429), "{route} with the scope {has}: {status}");
                    assert!(status.is_success() || kind == "application/problem+json", "{route}: {status} {kind}");
                    let told = &operation["responses"][status.as_str()];
                    assert!(told.is_object(), "{route} answers {status}, which the document does not say");
                } else {
                    assert_eq!(status, StatusCode::FORBIDDEN, "{route} with the scope {has}");
                }
            }
        }
    }
    assert!(routes > 50, "{routes}");
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
