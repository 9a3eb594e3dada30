//! Policies from a folder: what their verdicts do to requests, and what a policy that fails does not do to the edge.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use segue_proxy::limit::{Kinds, LimitConfig, OnExcess, Per, StreamsConfig};
use segue_proxy::{Edge, EdgeConfig, EdgeInputs, Endpoint, OriginConfig};
use segue_signing::{Claims, SnapshotDoc, mint};
use support::wasm::{self, ABSTAIN, BOMB, FINE, LOOP, TRAP, handwritten, put};
use support::{Answer, Behaviour, Client, House, TRACK, claims, house_with, key, pattern, with_admin};
use tokio::sync::watch;

const SEGMENT: &str = "seg-00000.m4s";

/// A house whose edge watches `folder`, with a playlist and its segments at the origin.
async fn house(folder: &Path, change: impl FnOnce(&mut EdgeConfig)) -> House {
    let house = house_with(|config| {
        with_admin(config);
        config.policies.dir = Some(folder.to_owned());
        change(config);
    })
    .await;
    let playlist =
        "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\nseg-00000.m4s\n#EXTINF:6,\nseg-00001.m4s\n#EXT-X-ENDLIST\n";
    house.origin.track("index.m3u8", Behaviour::Serve(playlist.as_bytes().to_vec()));
    house.origin.track(SEGMENT, Behaviour::Serve(pattern(1_000)));
    house.origin.track("seg-00001.m4s", Behaviour::Serve(pattern(1_000)));
    house
}

async fn get_as(house: &House, claims: &Claims, file: &str) -> Answer {
    let ticket = mint(&key(), claims).unwrap();
    house.client().await.get(&format!("/p/{ticket}/hls/{TRACK}/{file}")).await
}

/// Waits until the segment is answered with this status.
async fn becomes(house: &House, status: u16) -> Answer {
    let mut last = 0;
    for _ in 0..3_000 {
        let answer = house.get(SEGMENT).await;
        if answer.status == status {
            return answer;
        }
        last = answer.status;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never {status}, but {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_answered_as_the_policy_says_and_recorded() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "rights.wasm", wasm::denies(451, "no-rights", Some(("x-why", "law"))));
    put(folder.path(), "rights.toml", "version = \"7\"\n");
    let house = house(folder.path(), |_| {}).await;
    let answer = house.get(SEGMENT).await;
    assert_eq!((answer.status, answer.reason().as_str()), (451, "no-rights"));
    assert_eq!((answer.header("x-why"), answer.header("cache-control")), (Some("law"), Some("no-store")));
    assert_eq!(house.origin.count(SEGMENT), 0, "nobody asks the origin for what nobody gets");
    let denials = house.denials();
    assert_eq!((denials[0]["reason"].as_str(), denials[0]["status"].as_u64()), (Some("no-rights"), Some(451)));
    let said = "segue_policy_verdicts_total{policy=\"rights\",version=\"7\",verdict=\"deny\",reason=\"no-rights\"}";
    assert_eq!(house.metric(said).await, 1.0);
    assert_eq!(house.metric("segue_refusals_total{reason=\"policy-denied\",class=\"4xx\"}").await, 1.0);

    put(folder.path(), "rights.wasm", wasm::redirects(302, "elsewhere", "https://shop.example/"));
    let answer = becomes(&house, 302).await;
    assert_eq!((answer.header("location"), answer.reason().as_str()), (Some("https://shop.example/"), "elsewhere"));

    put(folder.path(), "rights.wasm", wasm::policy(ABSTAIN));
    assert_eq!(becomes(&house, 200).await.body, pattern(1_000));
    let forged = house.client().await.get(&format!("/p/x.y.z/hls/{TRACK}/{SEGMENT}")).await;
    assert_eq!(forged.status, 401, "an abstention is no ticket");
    std::fs::remove_file(folder.path().join("rights.toml")).unwrap();
    assert_eq!(house.get(SEGMENT).await.status, 200);
    house.edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_brings_tags_limits_and_streams() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a.wasm", wasm::allows(Some(("few", "account-1")), None, "plan:free"));
    put(folder.path(), "a.toml", "version = \"1\"\n");
    put(folder.path(), "b.wasm", wasm::allows(Some(("nowhere", "x")), Some(("home", "house-1")), "house"));
    put(folder.path(), "b.toml", "version = \"2\"\n");
    let house = house(folder.path(), |config| {
        let few = LimitConfig { apply: Kinds::default(), ..LimitConfig::new(0.001, 4, Per::Session) };
        config.limits.classes.insert("few".to_owned(), few);
        let home = StreamsConfig { apply: false, ..StreamsConfig::new(1, OnExcess::RefuseNewest) };
        config.limits.streams.insert("home".to_owned(), home);
    })
    .await;
    assert_eq!(house.get(SEGMENT).await.status, 200);
    let facts = house.facts_when(1).await;
    assert_eq!(facts[0]["tags"], serde_json::json!(["plan:free", "house"]));
    assert_eq!(facts[0]["policy"], "b@2");
    // Another device of the household: one stream is all that it has.
    let other = Claims { sid: Some("device-2".to_owned()), sub: Some("listener-2".to_owned()), ..claims() };
    let answer = get_as(&house, &other, SEGMENT).await;
    assert_eq!((answer.status, answer.reason().as_str()), (429, "too-many-streams"));
    assert!(answer.header("ratelimit-policy").unwrap().starts_with("\"home\";q=1"));
    assert_eq!(get_as(&house, &other, "index.m3u8").await.status, 200, "a playlist is no stream");
    assert_eq!(house.get(SEGMENT).await.status, 200, "who plays goes on");
    // Three tokens of the account are spent, by whomever: the playlist cost none.
    assert_eq!(house.get("seg-00001.m4s").await.status, 200);
    let answer = house.get("seg-00001.m4s").await;
    assert_eq!((answer.status, answer.reason().as_str()), (429, "rate-limited"));
    assert_eq!(house.get("index.m3u8").await.status, 200, "whoever has no token left still gets a playlist");
    assert!(house.metric("segue_policy_unknown_classes_total").await >= 4.0, "and what there is not is counted");
    house.edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_a_policy_names_costs_a_token_for_what_it_applies_to() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a.wasm", wasm::allows(Some(("few", "account-1")), None, "plan:free"));
    put(folder.path(), "a.toml", "version = \"1\"\n");
    let house = house(folder.path(), |config| {
        let apply = Kinds::parse(&["playlist".to_owned()]).unwrap();
        config.limits.classes.insert("few".to_owned(), LimitConfig { apply, ..LimitConfig::new(0.001, 2, Per::Track) });
    })
    .await;
    for _ in 0..5 {
        assert_eq!(house.get(SEGMENT).await.status, 200);
    }
    assert_eq!([house.get("index.m3u8").await.status, house.get("index.m3u8").await.status], [200, 200]);
    assert_eq!(house.get("index.m3u8").await.status, 429, "the operator says what costs a token");
    assert_eq!(house.get(SEGMENT).await.status, 200);
    house.edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_ends_where_the_playlist_says() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "preview.wasm", support::ready_made("preview"));
    put(folder.path(), "preview.toml", "[config]\nseconds = 6\n");
    let house = house(folder.path(), |_| {}).await;
    // Nobody asked for the playlist before: the edge finds out by itself.
    let answer = house.get("seg-00001.m4s").await;
    assert_eq!((answer.status, answer.reason().as_str()), (402, "preview-over"));
    assert_eq!(house.get(SEGMENT).await.status, 200);
    assert_eq!(house.get(SEGMENT).await.status, 200);
    let ctx = serde_json::json!({ "plan": "gold" }).as_object().cloned();
    let subscriber = Claims { ctx, ..claims() };
    assert_eq!(get_as(&house, &subscriber, "seg-00001.m4s").await.status, 200);
    assert_eq!(house.get("seg-00001.m4s").await.status, 402, "also where the bytes are in memory by now");
    house.edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_country_comes_from_a_file_that_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("country.mmdb");
    std::fs::write(&file, support::mmdb::database(&[([127, 0, 0, 0], 8, "FR")])).unwrap();
    put(folder.path(), "country.wasm", support::ready_made("country"));
    put(folder.path(), "country.toml", "[config]\nallow = [\"DE\"]\n");
    let house = house(folder.path(), |config| config.client.country = Some(file.clone())).await;
    assert_eq!(house.get(SEGMENT).await.status, 451);
    put(folder.path(), "country.mmdb", support::mmdb::database(&[([127, 0, 0, 0], 8, "DE"), ([10, 0, 0, 0], 8, "FR")]));
    becomes(&house, 200).await;
    put(folder.path(), "country.mmdb", "damaged");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(house.get(SEGMENT).await.status, 200, "the last good one goes on");
    house.edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_policy_does_the_edge_serves_on() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "p.wasm", wasm::policy(ABSTAIN));
    put(folder.path(), "p.toml", "version = \"0\"\n");
    let house = house(folder.path(), |config| config.policies.bounds.configure = Duration::from_millis(200)).await;
    assert_eq!(house.get(SEGMENT).await.status, 200);
    // The two files of a policy change one after the other, so the version is asked until it is the one that is meant.
    let counts = async |sample: &str, status: u16| {
        for _ in 0..3_000 {
            let answer = house.get(SEGMENT).await;
            if answer.status == status && house.metric(sample).await >= 1.0 {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{sample} with {status} never came");
    };
    let deep = "(call $deep (i64.const 1)) (drop) (i32.const 128)";
    let deeper = "(func $deep (param i64) (result i64) (i64.add (i64.const 1) (call $deep (local.get 0))))";
    for (kind, module) in [
        ("trap", wasm::policy(TRAP)),
        ("timeout", wasm::policy(LOOP)),
        ("out-of-memory", wasm::policy(BOMB)),
        ("stack-exhausted", handwritten(FINE, deep, deeper)),
        ("bad-output", wasm::denies(99, "no", None)),
    ] {
        put(folder.path(), "p.wasm", module);
        put(folder.path(), "p.toml", format!("version = \"{kind}\"\n"));
        let failed = |mode: &str| {
            format!("segue_policy_failures_total{{policy=\"p\",version=\"{kind}\",kind=\"{kind}\",mode=\"{mode}\"}}")
        };
        let answer = counts(&failed("closed"), 503).await;
        assert_eq!((answer.reason().as_str(), answer.header("retry-after")), ("policy-failed", Some("1")), "{kind}");
        put(folder.path(), "p.toml", format!("version = \"{kind}\"\non_failure = \"open\"\n"));
        counts(&failed("open"), 200).await;
    }
    // What cannot be put to use is not: the version before goes on, and says so.
    put(folder.path(), "p.toml", "version = \"good\"\n");
    put(folder.path(), "p.wasm", wasm::denies(410, "gone", None));
    becomes(&house, 410).await;
    for broken in [handwritten(TRAP, ABSTAIN, ""), handwritten(LOOP, ABSTAIN, ""), b"no policy".to_vec()] {
        put(folder.path(), "p.wasm", broken);
        house.metric_reaches("segue_policy_kept{policy=\"p\"}", 1.0).await;
        assert_eq!(house.get(SEGMENT).await.status, 410);
        put(folder.path(), "p.wasm", wasm::denies(410, "gone", None));
        for _ in 0..3_000 {
            if house.metric("segue_policy_kept{policy=\"p\"}").await == 0.0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(house.metric("segue_panics_total").await, 0.0);
    house.edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_whose_rules_cannot_be_had_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "p.wasm", "no policy");
    put(folder.path(), "p.toml", "");
    let origin = OriginConfig::http(Endpoint::parse("http://127.0.0.1:1").unwrap());
    let mut config = EdgeConfig::minimal(origin);
    config.policies.dir = Some(folder.path().to_owned());
    let (_keep, snapshots) = watch::channel(Arc::new(SnapshotDoc::default()));
    let inputs = EdgeInputs { listener: None, admin_listener: None, snapshots, events: None };
    let problem = Edge::start(config, inputs).await.unwrap_err().to_string();
    assert!(problem.contains("[policies] dir") && problem.contains("not WebAssembly"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_what_policies_say() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a.wasm", wasm::policy(ABSTAIN));
    put(folder.path(), "a.toml", "[candidate]\nfile = \"b.wasm\"\nmode = \"shadow\"\nversion = \"new\"\n");
    put(folder.path(), "b.wasm", wasm::denies(403, "later", None));
    let house = house(folder.path(), |config| {
        config.admin_token = Some(segue_config::Secret::literal("admin"));
    })
    .await;
    let ask = async || {
        let url = format!("/p/{}/hls/{TRACK}/{SEGMENT}", support::ticket());
        let body = serde_json::json!({ "url": url, "client": "127.0.0.1" }).to_string();
        let mut admin = Client::connect(house.edge.admin_addr().unwrap()).await;
        let head = format!(
            "POST /explain HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer admin\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        admin.send(head.as_bytes()).await;
        admin.send(body.as_bytes()).await;
        serde_json::from_slice::<serde_json::Value>(&admin.answer(false).await.body).unwrap()
    };
    let said = ask().await;
    let step = |said: &serde_json::Value, name: &str| {
        said["steps"].as_array().unwrap().iter().find(|step| step["step"] == name).cloned().unwrap()
    };
    assert_eq!(said["serves"], true, "{said}");
    assert_eq!(step(&said, "policy")["found"]["shadows"][0]["would"]["reason"], "later");
    assert_eq!(
        house
            .metric("segue_policy_verdicts_total{policy=\"a\",version=\"new\",verdict=\"deny\",reason=\"later\"}")
            .await,
        0.0
    );
    assert_eq!(house.get(SEGMENT).await.status, 200);
    let differs = |metrics: &str| metrics.contains("said=\"abstain\",would=\"deny:later\"");
    let text = Client::connect(house.edge.admin_addr().unwrap()).await.get("/metrics").await;
    assert!(differs(&String::from_utf8(text.body).unwrap()));
    put(folder.path(), "a.toml", "file = \"b.wasm\"\n");
    becomes(&house, 403).await;
    let said = ask().await;
    assert_eq!((said["serves"].as_bool(), said["reason"].as_str()), (Some(false), Some("later")), "{said}");
    assert_eq!(step(&said, "policy")["passes"], false);
    house.edge.shutdown().await;
}
