//! Somebody else's tickets, end to end: signed as the other house signs, verified by a policy, held against path and clock by the edge.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use md5::{Digest as _, Md5};
use segue_policy_host::{Grant, HostConfig, Key, PolicyHost, Services, TicketScheme};
use segue_proxy::{EdgeConfig, PolicyServices};
use serde_json::{Value, json};
use support::wasm::put;
use support::{Answer, Behaviour, House, TRACK, house_with, now, pattern, ready_made, with_admin};

const SEGMENT: &str = "seg-00000.m4s";
const HOST: &str = "http://edge";
const PRIVATE: &str = include_str!("../../policies/host/tests/keys/rsa.pem");
const PUBLIC: &str = include_str!("../../policies/host/tests/keys/rsa.pub.pem");
const SECRET: &str = "enigma";

fn lend(config: &mut EdgeConfig, name: &str, key: Key) {
    let services = Services { keys: [(name.to_owned(), key)].into(), ..Services::default() };
    config.policy_services = PolicyServices::of(services);
}

async fn house(folder: &Path, change: impl FnOnce(&mut EdgeConfig)) -> House {
    let house = house_with(|config| {
        with_admin(config);
        config.policies.dir = Some(folder.to_owned());
        change(config);
    })
    .await;
    house.origin.track(SEGMENT, Behaviour::Serve(pattern(1_000)));
    house
}

/// A URL signed by the scheme itself, as the control plane makes them.
fn signed(name: &str, config: &Value, key: Key, grant: &Grant) -> String {
    let host = PolicyHost::new(HostConfig::default()).unwrap();
    let services = Services { keys: [("k".to_owned(), key)].into(), signer: true, ..Services::default() };
    let policy = host.compile(&ready_made(name)).unwrap();
    let scheme = TicketScheme::new(policy, "s@1", config, Arc::new(services)).unwrap();
    let url = scheme.sign(grant).unwrap().unwrap();
    url.strip_prefix(HOST).unwrap().to_owned()
}

async fn get(house: &House, target: &str) -> Answer {
    house.client().await.get(target).await
}

fn object(file: &str) -> String {
    format!("/hls/{TRACK}/{file}")
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_nginx_secure_link() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "links.wasm", ready_made("secure-link"));
    put(folder.path(), "links.toml", "version = \"1\"\n[config]\nkey = \"k\"\n");
    let house = house(folder.path(), |config| lend(config, "k", Key::secret(SECRET.as_bytes()).unwrap())).await;
    let link = |path: &str, end: i64| {
        let digest = Md5::digest(format!("{end}{path}127.0.0.1 {SECRET}"));
        format!("{path}?v=2&md5={}&expires={end}", URL_SAFE_NO_PAD.encode(digest))
    };
    let path = object(SEGMENT);
    house.origin.put(&format!("{path}?v=2"), Behaviour::Serve(pattern(1_000)));
    let good = link(&path, now() + 600);
    assert_eq!(get(&house, &good).await.body, pattern(1_000));
    // What goes to the origin, and what the object is kept under, is without the ticket.
    assert_eq!(house.origin.count_path(&format!("{path}?v=2")), 1);
    let again = get(&house, &link(&path, now() + 700)).await;
    assert_eq!((again.status, again.header("cache-status").is_some_and(|status| status.contains("hit"))), (200, true));
    for (target, status, reason) in [
        (path.clone(), 401, "ticket-missing"),
        (link(&path, now() - 600), 401, "expired"),
        (good.replace(SEGMENT, "seg-00001.m4s"), 401, "signature-invalid"),
        (good.replace("md5=", "md5=A"), 401, "ticket-malformed"),
        (link("/elsewhere/x", now() + 600), 404, "no-route"),
    ] {
        let answer = get(&house, &target).await;
        assert_eq!((answer.status, answer.reason().as_str()), (status, reason), "{target}");
    }
    // Our own tickets go on beside them.
    assert_eq!(house.get(SEGMENT).await.status, 200);
    let fact = house.facts_when(3).await[0].clone();
    assert!(fact["sid"].as_str().unwrap().starts_with("anonymous-"), "{fact}");
    let said = "segue_policy_verdicts_total{policy=\"links\",version=\"1\",verdict=\"deny\",reason=\"expired\"}";
    assert_eq!(house.metric(said).await, 1.0);
    for denial in house.denials() {
        assert!(!denial.to_string().contains("md5"), "no signature in records: {denial}");
    }
    house.edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_and_cookies_of_cloudfront() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "cf.wasm", ready_made("cloudfront"));
    put(folder.path(), "cf.toml", format!("[config]\nbase = \"{HOST}\"\n[config.keys]\nK1 = \"k\"\n"));
    // An access policy beside it sees the claims of the other house.
    put(folder.path(), "home.wasm", ready_made("household"));
    put(folder.path(), "home.toml", "[config]\nclass = \"home\"\nby = \"claim:kid\"\n");
    let house = house(folder.path(), |config| lend(config, "k", Key::pem(PUBLIC).unwrap())).await;
    let config = json!({ "keys": { "K1": "k" }, "key_pair": "K1", "base": HOST });
    let sign = |grant: &Grant| signed("cloudfront", &config, Key::pem(PRIVATE).unwrap(), grant);
    let end = u64::try_from(now()).unwrap() + 600;
    let canned = Grant { url: format!("{HOST}{}", object(SEGMENT)), expires: end, ..Grant::default() };
    let url = sign(&canned);
    assert_eq!(get(&house, &url).await.body, pattern(1_000));
    assert_eq!(house.facts_when(1).await[0]["policy"], "home@".to_owned() + &version(&ready_made("household")));
    assert_eq!(get(&house, &url.replace(SEGMENT, "other.m4s")).await.reason(), "signature-invalid");
    assert_eq!(get(&house, &sign(&Grant { expires: end - 1_200, ..canned.clone() })).await.reason(), "expired");
    // A custom policy over the whole track, and the same in cookies.
    let custom = sign(&Grant { scope: Some(object("")), ..canned.clone() });
    assert_eq!(get(&house, &custom).await.status, 200);
    let query = custom.split_once('?').unwrap().1;
    let cookies: Vec<String> = query.split('&').map(|pair| format!("CloudFront-{pair}")).collect();
    let header = format!("Cookie: {}\r\n", cookies.join("; "));
    house.origin.track("seg-00001.m4s", Behaviour::Serve(pattern(500)));
    let answer = house.client().await.request("GET", &object("seg-00001.m4s"), &header).await;
    assert_eq!((answer.status, answer.body), (200, pattern(500)));
    let elsewhere = "/hls/another00000/seg-00000.m4s";
    let answer = house.client().await.request("GET", elsewhere, &header).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "out-of-scope"));
    house.edge.shutdown().await;
}

fn version(bytes: &[u8]) -> String {
    support::control::digest(bytes)[..12].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_path_is_taken_off_before_anything_is_looked_up() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "bunny.wasm", ready_made("bunny"));
    put(folder.path(), "bunny.toml", "[config]\nkey = \"k\"\n");
    let secret = || Key::secret(SECRET.as_bytes()).unwrap();
    let house = house(folder.path(), |config| lend(config, "k", secret())).await;
    let end = u64::try_from(now()).unwrap() + 600;
    let grant = Grant {
        url: format!("{HOST}{}", object("index.m3u8")),
        scope: Some(object("")),
        expires: end,
        ..Grant::default()
    };
    let url = signed("bunny", &json!({ "key": "k" }), secret(), &grant);
    assert!(url.starts_with("/bcdn_token="), "{url}");
    // As a player resolves a relative URI of the playlist.
    let segment = url.replace("index.m3u8", SEGMENT);
    assert_eq!(get(&house, &segment).await.body, pattern(1_000));
    assert_eq!(house.origin.count(SEGMENT), 1);
    assert_eq!(house.facts_when(1).await[0]["track"], TRACK);
    let answer = get(&house, &segment.replace(TRACK, "another00000")).await;
    assert_ne!(answer.status, 200);
    let answer = get(&house, &url.replace("bcdn_token=HS256-", "bcdn_token=HS256-A")).await;
    assert_eq!(answer.status, 401);
    for denial in house.denials() {
        assert!(!denial.to_string().contains("HS256-"), "no token in records: {denial}");
    }
    house.edge.shutdown().await;
}
