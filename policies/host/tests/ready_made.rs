//! The ready-made policies, built as `make policies` builds them, against the vectors that travel in them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/built.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use segue_policy_host::vectors::Vectors;
use segue_policy_host::{AccessPolicy, FailMode, HostConfig, Policy, PolicyHost, RequestView, Services, Verdict};

/// The policy, once its vectors have held.
fn vectors_hold(name: &str, names: &[&str], most_bytes: usize) -> Policy {
    let bytes = std::fs::read(support::built(names).join(format!("{name}.wasm"))).unwrap();
    let vectors = Vectors::inside(&bytes).unwrap().expect("vectors travel with it");
    assert!(vectors.len() >= 5, "{} vectors", vectors.len());
    let host = PolicyHost::new(HostConfig::default()).unwrap();
    let policy = host.compile(&bytes).unwrap();
    let outcomes = vectors.run(&policy).unwrap();
    let wrong: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(bytes.len() < most_bytes, "{} bytes", bytes.len());
    policy
}

macro_rules! ready_made {
    ($($test:ident: $name:literal),* $(,)?) => { $(#[test] fn $test() { vectors_hold($name, &[], 300 << 10); })* };
}

ready_made! {
    addresses: "addresses",
    bunny: "bunny",
    cat: "cat",
    cloudfront: "cloudfront",
    country: "country",
    devices: "devices",
    edgeauth: "edgeauth",
    household: "household",
    origin: "origin",
    preview: "preview",
    reference: "reference",
    secure_link: "secure-link",
    window: "window",
}

/// The same rules as `household` and `country`, and the same vectors, in other languages.
#[test]
fn in_c() {
    vectors_hold("household-c", &["household-c"], 16 << 10);
}

#[test]
fn in_javascript_and_an_instance_lasts() {
    let policy = vectors_hold("country-js", &["country-js"], 3 << 20);
    let config = serde_json::json!({ "allow": ["DE", "AT"] });
    let policy =
        AccessPolicy::new(policy, "country-js@1", &config, Arc::new(Services::default()), FailMode::Closed).unwrap();
    for call in 0..20_000 {
        let country = if call % 2 == 0 { "AT" } else { "FR" };
        let view = RequestView { country: Some(country), ..RequestView::of("/hls/t/master.m3u8") };
        let verdict = policy.authorize(&view).unwrap();
        assert_eq!(verdict == Verdict::Abstain, call % 2 == 0);
    }
    let counters = policy.counters();
    assert!(counters.failures.iter().all(|failures| failures.load(Relaxed) == 0), "{counters:?}");
    let instances = counters.instances.load(Relaxed);
    assert!(instances < 200, "{instances} instances for 20,000 calls: an instance must last");
}
