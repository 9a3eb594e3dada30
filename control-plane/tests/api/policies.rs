//! The registry of policies: uploads and their refusals, the life of a version, what edges are told and what they report.

use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use segue_control_plane::{PoliciesConfig, Signer};
use segue_signing::{PolicyFailMode, PolicyTrial, SnapshotDelta};
use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::house::{ADMIN, EDGE, House, config};
use crate::policy::{abstains, access, denies, expecting, scheme};

struct Running {
    house: House,
    _folder: tempfile::TempDir,
    _bucket: Bucket,
}

async fn start(policies: PoliciesConfig) -> Running {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let config = segue_control_plane::ControlConfig { policies, ..config(folder.path(), &bucket) };
    Running { house: House::start(config).await, _folder: folder, _bucket: bucket }
}

/// What an edge is told that has the policies of `tag`.
async fn told(house: &House, tag: &str) -> SnapshotDelta {
    let path = house.url(&format!("/v1/edge/snapshot?policies={tag}"));
    house.client.get(path).bearer_auth(EDGE).send().await.unwrap().json().await.unwrap()
}

/// One edge, as it reports.
#[derive(Clone)]
struct Edge {
    name: &'static str,
    boot: u64,
}

impl Edge {
    async fn says(&self, house: &House, standings: &[(&str, bool, bool)], counts: Value) {
        let revision = told(house, "").await.revision;
        let standings: Vec<Value> = standings
            .iter()
            .map(|(version, is_ready, is_deciding)| {
                let problem = if *is_ready { Value::Null } else { "the digest is another one".into() };
                json!({
                    "policy": "rule", "version": version, "is_ready": is_ready, "is_deciding": is_deciding, "problem": problem,
                })
            })
            .collect();
        let mut report = json!({
            "edge": self.name, "boot": self.boot, "version": "0.1.0", "revision": revision, "uptime_s": 1, "policies": standings,
        });
        for (name, value) in counts.as_object().into_iter().flatten() {
            report[name] = value.clone();
        }
        let (status, _) = house.send(EDGE, Method::POST, "/v1/edge/report", Some(report)).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
    }
}

async fn act(house: &House, what: &str, body: Value) -> Value {
    let (status, answer) = house.post(&format!("/v1/policies/rule/{what}"), body).await;
    assert_eq!(status, StatusCode::OK, "{what}: {answer}");
    answer
}

async fn refused(house: &House, what: &str, body: Value) -> (StatusCode, String) {
    let (status, answer) = house.post(&format!("/v1/policies/rule/{what}"), body).await;
    (status, answer["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_version_goes_its_whole_way_and_back() {
    let running = start(PoliciesConfig::default()).await;
    let house = &running.house;
    assert_eq!(told(house, "").await.policies, None, "none, and an edge with none is told nothing");

    let one = expecting(&abstains(), &json!({ "verdict": "abstain" }));
    let fields: [(&str, &[u8]); 3] = [("config", br#"{"a":1}"#), ("order", b"7"), ("on_failure", b"open")];
    let (status, first) = house.upload_policy("rule", &one, &fields).await;
    assert_eq!(status, StatusCode::CREATED, "{first}");
    let v1 = first["version"].as_str().unwrap().to_owned();
    assert!(first["digest"].as_str().unwrap().starts_with(&v1), "named after its bytes: {first}");
    assert_eq!((first["state"].as_str(), first["vectors"].as_i64()), (Some("checked"), Some(1)));
    assert_eq!(first["uploaded_by"], "bootstrap-admin");
    let (status, again) = house.upload_policy("rule", &one, &[]).await;
    assert_eq!((status, again["version"].as_str()), (StatusCode::OK, Some(v1.as_str())), "there already");
    assert_eq!(told(house, "").await.policies, None, "nothing is pushed yet");

    // Pushed: edges are told of it, and it decides nothing.
    let pushed = act(house, "push", json!({ "version": v1 })).await;
    assert_eq!(
        (pushed["done"].as_str(), pushed["policy"]["versions"][0]["state"].as_str()),
        (Some("push"), Some("pushed"))
    );
    let delta = told(house, "").await;
    let doc = delta.policies.clone().unwrap().remove(0);
    assert_eq!((doc.order, doc.on_failure, doc.active.clone()), (7, PolicyFailMode::Open, None));
    assert_eq!(doc.versions[0].config, json!({ "a": 1 }));
    assert_eq!(told(house, &delta.policies_tag).await.policies, None, "the edge has those of this tag");
    let path = house.url(&format!("/v1/edge/policies/{}", doc.versions[0].digest));
    let bytes = house.client.get(path).bearer_auth(EDGE).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes, one, "and gets its bytes");

    act(house, "active", json!({ "version": v1, "note": "the first rule" })).await;
    // What is left out is as in the version before.
    let two = house.version("rule", "strict", &denies()).await;
    assert_eq!(
        (two["order"].as_i64(), two["on_failure"].as_str(), &two["config"]),
        (Some(7), Some("open"), &json!({ "a": 1 }))
    );
    let shadow = act(house, "shadow", json!({ "version": "strict" })).await;
    assert_eq!(shadow["policy"]["candidate"]["trial"], "shadow");
    let doc = told(house, "").await.policies.unwrap().remove(0);
    assert_eq!(doc.active.as_deref(), Some(v1.as_str()));
    assert_eq!(doc.candidate.unwrap().trial, PolicyTrial::Shadow);

    let canary = act(house, "canary", json!({ "version": "strict", "percent": 12.5 })).await;
    assert_eq!(canary["policy"]["candidate"]["percent"], 12.5);
    assert_eq!(canary["policy"]["rollback"], json!({ "from": "strict", "to": v1, "ends_canary": true }));
    assert_eq!(told(house, "").await.policies.unwrap()[0].candidate.as_ref().unwrap().trial, PolicyTrial::Canary(1250));
    assert_eq!(
        refused(house, "rollback", json!({ "from": v1 })).await,
        (StatusCode::CONFLICT, "changed-meanwhile".into())
    );

    let active = act(house, "active", json!({ "version": "strict" })).await;
    assert_eq!((active["from"].as_str(), active["version"].as_str()), (Some(v1.as_str()), Some("strict")));
    assert_eq!(active["policy"]["candidate"], Value::Null);
    let same = act(house, "active", json!({ "version": "strict" })).await;
    assert_eq!(same["done"], "none", "it stood so already");

    let back = act(house, "rollback", json!({ "from": "strict", "note": "listeners complain" })).await;
    assert_eq!((back["done"].as_str(), back["version"].as_str()), (Some("rollback"), Some(v1.as_str())));
    assert_eq!(told(house, "").await.policies.unwrap()[0].active.as_deref(), Some(v1.as_str()));
    let off = act(house, "rollback", json!({})).await;
    assert_eq!(off["version"], Value::Null, "before the first there was none");
    assert_eq!(refused(house, "rollback", json!({})).await, (StatusCode::CONFLICT, "nothing-before".into()));

    let (_, history) = house.get("/v1/policies/rule/history").await;
    let acts: Vec<&str> =
        history["history"].as_array().unwrap().iter().map(|line| line["act"].as_str().unwrap()).collect();
    let expected = ["rollback", "rollback", "activate", "canary", "shadow", "upload", "activate", "push", "upload"];
    assert_eq!(acts, expected);
    let line = &history["history"][1];
    assert_eq!((line["by"].as_str(), line["note"].as_str()), (Some("bootstrap-admin"), Some("listeners complain")));
    assert_eq!((line["from"].as_str(), line["version"].as_str()), (Some("strict"), Some(v1.as_str())));
    assert_eq!(history["history"][3]["percent"], 12.5);
    let (_, page) = house.get("/v1/policies/rule/history?limit=2").await;
    let (_, next) = house.get(&format!("/v1/policies/rule/history?limit=2&before={}", page["next"])).await;
    assert_eq!(next["history"][0]["act"], "activate", "page by page");
    running.house.control.shutdown().await;
}

#[tokio::test]
async fn all_of_it_outlives_a_restart() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    house.version("rule", "1", &abstains()).await;
    house.version("rule", "2", &denies()).await;
    for version in ["1", "2"] {
        act(&house, "active", json!({ "version": version })).await;
    }
    let before = told(&house, "").await;
    house.control.shutdown().await;
    let house = House::start(config(folder.path(), &bucket)).await;
    let after = told(&house, "").await;
    assert_eq!((&before.policies, &before.policies_tag), (&after.policies, &after.policies_tag));
    assert!(before.policies.is_some() && after.revision > before.revision);
    assert_eq!(house.control.snapshots().borrow().policies, after.policies.unwrap(), "the edge in this process too");
    assert_eq!(act(&house, "rollback", json!({})).await["version"], "1");
    house.control.shutdown().await;
}

#[tokio::test]
async fn every_bad_upload_is_refused_with_its_reason() {
    let running = start(PoliciesConfig::default()).await;
    let house = &running.house;
    let component = |text: &str| wat::parse_str(text).unwrap();
    // Both names are there, and neither function is of its type.
    let untyped = r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
        (func $f (canon lift (core func $i "f"))) (export "configure" (func $f)) (export "authorize" (func $f)))"#;
    let endless = "(loop (br 0)) (unreachable)";
    let bomb = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)";
    let not_vectors = {
        // A custom section of that name with something else in it.
        let mut file = abstains();
        let section = [&[13][..], b"segue:vectors", b"{\"vectors\": 7}"].concat();
        file.extend_from_slice(&[0, u8::try_from(section.len()).unwrap()]);
        file.extend_from_slice(&section);
        file
    };
    let bad: Vec<(&str, &str, Vec<u8>)> = vec![
        ("not-wasm", "not WebAssembly", b"#!/bin/sh\n".to_vec()),
        ("not-wasm", "not WebAssembly", Vec::new()),
        ("invalid-wasm", "not valid WebAssembly", abstains()[..80].to_vec()),
        (
            "forbidden-import",
            "wasi:clocks/monotonic-clock@0.2.0",
            component(r#"(component (import "wasi:clocks/monotonic-clock@0.2.0" (instance)))"#),
        ),
        ("forbidden-import", "env time", component(r#"(module (import "env" "time" (func)))"#)),
        ("other-version", "7.0.0", component(r#"(component (import "segue:policy/tools@7.0.0" (instance)))"#)),
        ("missing-export", "configure", component("(component)")),
        ("missing-export", "configure", component("(module)")),
        ("contract-mismatch", "does not fit the contract", component(untyped)),
        ("configure-trap", "does not start", access("(unreachable)", "(i32.const 128)")),
        ("configure-timeout", "longer than it may", access(endless, "(i32.const 128)")),
        ("configure-out-of-memory", "memory", access(bomb, "(i32.const 128)")),
        ("configure-refused", "not today", access("(i32.const 192)", "(i32.const 128)")),
        ("self-test-failed", "a plain request", expecting(&denies(), &json!({ "verdict": "abstain" }))),
        ("self-test-unreadable", "line 1", not_vectors),
    ];
    for (word, part, file) in bad {
        let (status, answer) = house.upload_policy("rule", &file, &[]).await;
        assert_eq!((status, answer["error"].as_str()), (StatusCode::UNPROCESSABLE_ENTITY, Some(word)), "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(part), "{word}: {answer}");
    }
    let (status, answer) = house.upload_policy("rule", &vec![0; 200 << 20], &[]).await;
    assert_eq!((status, answer["error"].as_str()), (StatusCode::PAYLOAD_TOO_LARGE, Some("too-large")), "{answer}");

    let fields: [(&str, &[u8]); 7] = [
        ("config", b"[]"),
        ("config", b"{"),
        ("order", b"soon"),
        ("on_failure", b"ajar"),
        ("version", b"../1"),
        ("version", b""),
        ("weather", b"fine"),
    ];
    for field in fields {
        let (status, answer) = house.upload_policy("rule", &abstains(), &[field]).await;
        assert_eq!(
            (status, answer["error"].as_str()),
            (StatusCode::BAD_REQUEST, Some("invalid")),
            "{field:?}: {answer}"
        );
    }
    for name in ["a%20b", "..", &"n".repeat(65)] {
        let (status, answer) = house.upload_policy(name, &abstains(), &[]).await;
        assert!(status.is_client_error(), "{name}: {status} {answer}");
    }
    assert_eq!(house.get("/v1/policies").await.1["policies"], json!([]), "nothing was left behind");
    assert_eq!(house.get("/v1/policies/rule/history").await.0, StatusCode::NOT_FOUND);

    house.version("rule", "1", &abstains()).await;
    let (status, answer) = house.upload_policy("rule", &denies(), &[("version", b"1")]).await;
    assert_eq!((status, answer["error"].as_str()), (StatusCode::CONFLICT, Some("version-taken")), "{answer}");
    let (status, answer) = house.upload_policy("rule", &scheme(), &[]).await;
    assert_eq!((status, answer["error"].as_str()), (StatusCode::CONFLICT, Some("other-world")), "{answer}");
    running.house.control.shutdown().await;
}

#[tokio::test]
async fn signed_policies_only_where_signers_are_named() {
    let pair = |_| {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
    };
    let [release, stranger] = [0, 1].map(pair);
    let signer = Signer::parse("release", &STANDARD.encode(release.public_key())).unwrap();
    let running = start(PoliciesConfig { signers: vec![signer], ..PoliciesConfig::default() }).await;
    let (house, file) = (&running.house, abstains());
    let upload = async |signature: Option<&[u8]>| {
        let fields: Vec<(&str, &[u8])> = signature.map(|bytes| ("signature", bytes)).into_iter().collect();
        let (status, answer) = house.upload_policy("rule", &file, &fields).await;
        (status.as_u16(), answer["error"].as_str().unwrap_or_default().to_owned(), answer["signer"].clone())
    };
    assert_eq!(upload(None).await, (422, "signature-missing".to_owned(), Value::Null));
    assert_eq!(upload(Some(b"yes")).await, (422, "signature-malformed".to_owned(), Value::Null));
    assert_eq!(upload(Some(stranger.sign(&file).as_ref())).await, (422, "signature-wrong".to_owned(), Value::Null));
    assert_eq!(upload(Some(release.sign(b"another file").as_ref())).await.1, "signature-wrong");
    assert_eq!(house.get("/v1/policies").await.1, json!({ "policies": [], "signed_only": true }));
    assert_eq!(upload(Some(release.sign(&file).as_ref())).await, (201, String::new(), "release".into()));
    running.house.control.shutdown().await;
}

#[tokio::test]
async fn answers_name_the_edges_that_are_ready_and_wait_for_them() {
    let running = start(PoliciesConfig::default()).await;
    let house = &running.house;
    house.version("rule", "1", &abstains()).await;
    house.version("rule", "2", &denies()).await;
    let alone = act(house, "active", json!({ "version": "1" })).await;
    assert_eq!(alone["edges"]["alive"], 0, "with no edge there is none to wait for");
    let (fra, ams) = (Edge { name: "fra", boot: 1 }, Edge { name: "ams", boot: 1 });
    fra.says(house, &[("1", true, true)], json!({})).await;
    ams.says(house, &[("1", true, true)], json!({})).await;
    act(house, "push", json!({ "version": "2" })).await;
    fra.says(house, &[("1", true, true), ("2", true, false)], json!({})).await;
    ams.says(house, &[("1", true, true), ("2", false, false)], json!({})).await;

    let body = json!({ "version": "2", "only_if_ready": true });
    assert_eq!(refused(house, "active", body).await, (StatusCode::CONFLICT, "edges-not-ready".into()));
    assert_eq!(house.get("/v1/policies/rule").await.1["active"], "1", "and nothing happened");

    // Without the condition it is done, and the answer says who is not ready, and why.
    let began = Instant::now();
    let (status, answer) = house.post("/v1/policies/rule/active?wait_ms=300", json!({ "version": "2" })).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert!(began.elapsed() >= Duration::from_millis(300), "it waited for both");
    let edges = &answer["edges"];
    assert_eq!((&edges["ready"], &edges["not_ready"][0]["edge"]), (&json!(["fra"]), &json!("ams")));
    assert_eq!(edges["not_ready"][0]["problem"], "the digest is another one");
    assert_eq!(edges["not_on"].as_array().unwrap().len(), 2, "fra has not said yet that it decides: {edges}");

    // A wait ends when the last edge says that it stands on it.
    let waiting = house.post("/v1/policies/rule/rollback?wait_ms=30000", json!({}));
    let reporting = async {
        // The revision that the rollback told is in the reports, once it was told.
        while told(house, "").await.policies.unwrap()[0].active.as_deref() != Some("1") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        fra.says(house, &[("1", true, true), ("2", true, false)], json!({})).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        ams.says(house, &[("1", true, true), ("2", false, false)], json!({})).await;
    };
    let ((status, answer), ()) = tokio::join!(waiting, reporting);
    assert_eq!((status, &answer["edges"]["on"]), (StatusCode::OK, &json!(["ams", "fra"])), "{answer}");
    assert!(answer["waited_ms"].as_u64().unwrap() < 20_000, "not to the end of its time: {answer}");

    let (_, shown) = house.get("/v1/policies/rule").await;
    assert_eq!(shown["edges"][0]["problems"][0]["version"], "2");
    let ready = |version: &str| {
        shown["versions"].as_array().unwrap().iter().find(|one| one["version"] == version).unwrap()["ready"].clone()
    };
    assert_eq!((ready("1"), ready("2")), (json!(2), json!(1)));
    running.house.control.shutdown().await;
}

fn counts(version: &str, allow: u64, deny: u64) -> Value {
    let verdict = |verdict: &str, reason: &str, count: u64| json!({ "policy": "rule", "version": "1", "verdict": verdict, "reason": reason, "count": count, "took_ns": count * 500 });
    let difference = |said: &str, would: &str, count: u64, examples: Value| {
        json!({
            "policy": "rule", "shadow": version, "active": "1", "said": said, "would": would,
            "count": count, "took_ns": count * 900, "examples": examples,
        })
    };
    let example = json!([{ "ts": 1000 + deny, "path": "/hls/t/1.m4s", "country": "FR", "session": "ab12" }]);
    json!({
        "verdicts": [verdict("allow", "", allow + deny)],
        "differences": [
            difference("allow", "allow", allow, json!([])),
            difference("allow", "deny:too-early", deny, example),
            { "policy": "nobody", "shadow": "9", "said": "a", "would": "b", "count": 7, "took_ns": 7 },
        ],
    })
}

#[tokio::test]
async fn a_diff_adds_up_over_edges_and_their_restarts() {
    let running = start(PoliciesConfig::default()).await;
    let house = &running.house;
    house.version("rule", "1", &abstains()).await;
    house.version("rule", "2", &denies()).await;
    act(house, "active", json!({ "version": "1" })).await;
    assert_eq!(house.get("/v1/policies/rule/diff").await.1["error"], "no-shadow");
    act(house, "shadow", json!({ "version": "2" })).await;
    let standings: [(&str, bool, bool); 2] = [("1", true, true), ("2", true, false)];
    let (fra, ams) = (Edge { name: "fra", boot: 1 }, Edge { name: "ams", boot: 1 });
    for (edge, allow, deny) in [(&fra, 100, 1), (&fra, 100, 1), (&fra, 1000, 20), (&ams, 9000, 100)] {
        edge.says(house, &standings, counts("2", allow, deny)).await;
    }
    // A restart begins at zero again.
    let restarted = Edge { boot: 2, ..fra };
    restarted.says(house, &standings, counts("2", 268, 12)).await;

    let (status, diff) = house.get("/v1/policies/rule/diff").await;
    assert_eq!(status, StatusCode::OK, "{diff}");
    assert_eq!(
        (diff["requests"].as_i64(), diff["agree"].as_i64(), diff["newly_denied"].as_i64()),
        (Some(10_400), Some(10_268), Some(132))
    );
    assert_eq!((diff["running"].as_bool(), diff["active"].as_str()), (Some(true), Some("1")));
    assert_eq!(diff["latency"], json!({ "active_ns": 500, "shadow_ns": 900 }));
    let pair = &diff["pairs"][1];
    assert_eq!((pair["would"].as_str(), pair["effect"].as_str()), (Some("deny:too-early"), Some("newly-denied")));
    let examples: Vec<u64> =
        pair["examples"].as_array().unwrap().iter().map(|one| one["ts"].as_u64().unwrap()).collect();
    assert_eq!(examples, [1100, 1020, 1012, 1001], "the newest first, and none twice");
    assert!(!diff.to_string().contains("nobody"));

    let (_, verdicts) = house.get("/v1/policies/rule/verdicts?step_ms=3600000").await;
    let calls: i64 = verdicts["points"].as_array().unwrap().iter().map(|one| one["calls"].as_i64().unwrap()).sum();
    assert_eq!(calls, 10_400);
    for wrong in ["step_ms=5", "step_ms=15000", "step_ms=10000&since_ms=0"] {
        assert_eq!(
            house.get(&format!("/v1/policies/rule/verdicts?{wrong}")).await.0,
            StatusCode::BAD_REQUEST,
            "{wrong}"
        );
    }

    // The trial that ended is still to be looked at; one that begins counts anew.
    act(house, "active", json!({ "version": "2" })).await;
    assert_eq!(house.get("/v1/policies/rule/diff").await.1["running"], false);
    act(house, "rollback", json!({})).await;
    act(house, "shadow", json!({ "version": "2" })).await;
    assert_eq!(house.get("/v1/policies/rule/diff").await.1["requests"], 0);
    running.house.control.shutdown().await;
}

#[tokio::test]
async fn what_a_policy_makes_up_fills_no_table() {
    let running = start(PoliciesConfig::default()).await;
    let house = &running.house;
    house.version("rule", "1", &abstains()).await;
    let made_up: Vec<Value> = (0..300)
        .map(|n| json!({ "policy": "rule", "version": "1", "verdict": "deny", "reason": format!("r-{n}"), "count": 1, "took_ns": 1 }))
        .collect();
    let pairs: Vec<Value> = (0..300)
        .map(|n| json!({ "policy": "rule", "shadow": "1", "active": "", "said": "none", "would": format!("deny:r-{n}"), "count": 1, "took_ns": 1 }))
        .collect();
    let edge = Edge { name: "fra", boot: 1 };
    edge.says(house, &[], json!({ "verdicts": made_up, "differences": pairs })).await;
    let (_, verdicts) = house.get("/v1/policies/rule/verdicts").await;
    let points = verdicts["points"].as_array().unwrap();
    let calls: i64 = points.iter().map(|one| one["calls"].as_i64().unwrap()).sum();
    assert!(points.len() <= 51 && calls == 300, "{} rows for {calls} calls", points.len());
    let (_, diff) = house.get("/v1/policies/rule/diff?shadow=1").await;
    assert_eq!((diff["pairs"].as_array().unwrap().len(), diff["requests"].as_i64()), (201, Some(300)));
    let long = json!({ "verdicts": [{ "policy": "rule", "version": "1", "verdict": "x".repeat(200), "count": 1, "took_ns": 1 }] });
    let mut report = json!({ "edge": "fra", "boot": 1, "version": "0.1.0", "revision": 1, "uptime_s": 1 });
    report["verdicts"] = long["verdicts"].clone();
    assert_eq!(house.send(EDGE, Method::POST, "/v1/edge/report", Some(report)).await.0, StatusCode::BAD_REQUEST);
    running.house.control.shutdown().await;
}

#[tokio::test]
async fn what_is_in_use_is_not_deleted() {
    let running = start(PoliciesConfig::default()).await;
    let house = &running.house;
    for (version, file) in [("1", abstains()), ("2", denies()), ("3", abstains())] {
        // The third has the first one's bytes, and another configuration.
        let fields: [(&str, &[u8]); 2] =
            [("version", version.as_bytes()), ("config", if version == "3" { b"{\"a\":1}" } else { b"{}" })];
        assert_eq!(house.upload_policy("rule", &file, &fields).await.0, StatusCode::CREATED);
    }
    let (_, unnamed) = house.upload_policy("rule", &abstains(), &[("config", b"{\"a\":2}")]).await;
    let (_, numbered) = house.upload_policy("rule", &abstains(), &[("config", b"{\"a\":3}")]).await;
    assert_eq!(numbered["version"].as_str().unwrap(), format!("{}-2", unnamed["version"].as_str().unwrap()));
    for version in ["1", "2"] {
        act(house, "active", json!({ "version": version })).await;
    }
    let delete = async |path: &str| {
        let (status, answer) = house.send(ADMIN, Method::DELETE, &format!("/v1/policies/rule{path}"), None).await;
        (status.as_u16(), answer["error"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(delete("/versions/2").await, (409, "version-in-use".to_owned()), "active");
    assert_eq!(delete("/versions/1").await, (409, "version-in-use".to_owned()), "a rollback goes back to it");
    assert_eq!(delete("/versions/9").await.0, 404);
    assert_eq!(delete("/versions/3").await.0, 204);
    assert_eq!(delete("").await, (409, "policy-in-use".to_owned()));
    let digest = told(house, "").await.policies.unwrap()[0].versions[0].digest.clone();
    let bytes = async || {
        let path = house.url(&format!("/v1/edge/policies/{digest}"));
        house.client.get(path).bearer_auth(EDGE).send().await.unwrap().status().as_u16()
    };
    assert_eq!(bytes().await, 200, "another version has these bytes still");
    assert_eq!(delete("/active").await, (200, String::new()), "off");
    assert_eq!(delete("/active").await, (409, "nothing-active".to_owned()));
    assert_eq!(delete("/candidate").await, (409, "nothing-tried".to_owned()));
    assert_eq!(delete("").await.0, 204);
    assert_eq!((bytes().await, told(house, "").await.policies), (404, None), "all of it is gone");
    assert_eq!(
        house.get("/v1/policies/rule/history").await.1["history"][0]["act"],
        "delete-policy",
        "but not the history"
    );
    assert_eq!(refused(house, "push", json!({ "version": "1" })).await.0, StatusCode::NOT_FOUND);
    running.house.control.shutdown().await;
}

#[tokio::test]
async fn a_ticket_scheme_signs_the_urls_of_tracks() {
    let running = start(PoliciesConfig::default()).await;
    let house = &running.house;
    let (track, _) = house.add("a.mp3", b"a").await;
    let path = format!("/v1/tracks/{track}/tickets");
    let ask = async |body: Value| {
        let (status, answer) = house.post(&path, body).await;
        (status.as_u16(), answer)
    };
    assert_eq!(ask(json!({ "scheme": "rule" })).await.1["error"], "no-such-scheme");
    house.version("rule", "1", &scheme()).await;
    assert_eq!(ask(json!({ "scheme": "rule" })).await.1["error"], "no-such-scheme", "there, and not active");
    assert_eq!(refused(house, "shadow", json!({ "version": "1" })).await, (StatusCode::CONFLICT, "no-trial".into()));
    act(house, "active", json!({ "version": "1" })).await;
    let (status, issued) = ask(json!({ "scheme": "rule", "ttl_s": 60 })).await;
    assert_eq!(status, 201, "{issued}");
    assert_eq!(
        issued["url"].as_str().unwrap(),
        format!("{}/hls/{track}/master.m3u8?signed=1", crate::house::EDGE_BASE)
    );
    assert!(issued.get("ticket").is_none() && issued["expires"].as_i64().is_some());
    assert_eq!(
        ask(json!({ "scheme": "rule", "ctx": {} })).await.0,
        400,
        "what the scheme has no word for is not dropped"
    );
    assert_eq!(ask(json!({ "options": { "a": "b" } })).await.0, 400);
    house.version("other", "1", &abstains()).await;
    assert_eq!(ask(json!({ "scheme": "other" })).await.1["error"], "no-such-scheme", "an access policy signs nothing");
    running.house.control.shutdown().await;
}
