//! Versions that are swapped under load: no request fails but by the version that it met, and none meets two.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use segue_signing::PolicyDoc;
use support::control::{Control, digest, policy};
use support::wasm::{self, LOOP, TRAP};
use support::{Behaviour, Client, House, TRACK, house_with, pattern, ticket};

const SEGMENT: &str = "seg-00000.m4s";
const ACTIVATIONS: usize = 200;
/// Three that allow, each with a tag of its own; one traps, one loops.
const VERSIONS: [&str; 5] = ["v1", "v2", "v3", "traps", "loops"];
const EDGES: [&str; 2] = ["e1", "e2"];
const CLIENTS: usize = 3;

struct Sample {
    began: Instant,
    ended: Instant,
    status: u16,
    reason: String,
}

async fn load(house: Arc<House>, over: Arc<AtomicBool>) -> Vec<Sample> {
    let target = format!("/p/{}/hls/{TRACK}/{SEGMENT}", ticket());
    let mut client = Client::connect(house.edge.addr()).await;
    let mut samples = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let answer = client.get(&target).await;
        assert!(answer.whole && answer.status != 0, "a cut answer");
        samples.push(Sample { began, ended: Instant::now(), status: answer.status, reason: answer.reason() });
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    samples
}

/// Two policies that always change together: a request that met two arrangements would carry two versions' tags.
fn docs(active: &str, bytes: &BTreeMap<&str, Vec<u8>>) -> Vec<PolicyDoc> {
    let versions: Vec<(&str, &[u8])> = VERSIONS.iter().map(|version| (*version, bytes[version].as_slice())).collect();
    ["first", "second"].map(|name| policy(name, Some(active), &versions)).to_vec()
}

/// One activation: published, and decided by on every edge.
struct Activation {
    version: &'static str,
    published: Instant,
    in_force: Instant,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_activations_under_load() {
    let control = Control::start().await;
    let bytes: BTreeMap<&str, Vec<u8>> = VERSIONS
        .iter()
        .map(|version| {
            let module = match *version {
                "traps" => wasm::policy(TRAP),
                "loops" => wasm::policy(LOOP),
                tag => wasm::allows(None, None, tag),
            };
            (*version, module)
        })
        .collect();
    bytes.values().for_each(|bytes| control.hold(&digest(bytes), bytes));
    control.publish(docs("v1", &bytes));
    let mut houses = Vec::new();
    for name in EDGES {
        let house = house_with(|config| {
            config.name = name.to_owned();
            config.control = Some(control.endpoint());
        })
        .await;
        house.origin.track(SEGMENT, Behaviour::Serve(pattern(1_000)));
        houses.push(Arc::new(house));
    }
    for name in EDGES {
        for version in VERSIONS {
            control.stands(name, "second", version, |standing| standing.is_ready).await;
        }
    }
    let over = Arc::new(AtomicBool::new(false));
    let running: Vec<_> = houses
        .iter()
        .flat_map(|house| (0..CLIENTS).map(|_| tokio::spawn(load(Arc::clone(house), Arc::clone(&over)))))
        .collect();
    let mut activations = Vec::new();
    for number in 0..ACTIVATIONS {
        let version = VERSIONS[(number * 3 + number / 5) % VERSIONS.len()];
        let published = Instant::now();
        control.publish(docs(version, &bytes));
        for name in EDGES {
            control.stands(name, "second", version, |standing| standing.is_deciding && !standing.is_kept).await;
        }
        activations.push(Activation { version, published, in_force: Instant::now() });
    }
    over.store(true, Ordering::Relaxed);
    let mut samples = Vec::new();
    for task in running {
        samples.extend(task.await.unwrap());
    }
    // Who may have decided about a request: every version from the one in force before it began to the one published before it ended.
    let (mut served, mut refused) = (0, 0);
    for sample in samples.iter().filter(|sample| sample.began > activations[0].in_force) {
        let first = activations.partition_point(|activation| activation.in_force <= sample.began).saturating_sub(1);
        let end = activations.partition_point(|activation| activation.published <= sample.ended);
        let fails = |activation: &Activation| matches!(activation.version, "traps" | "loops");
        let possible = &activations[first..end.max(first + 1)];
        match (sample.status, sample.reason.as_str()) {
            (200, "") => {
                served += 1;
                assert!(!possible.iter().all(fails), "a request passed by a version that fails");
            }
            (503, "policy-failed") => {
                refused += 1;
                assert!(possible.iter().any(fails), "a request failed that no version fails");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(served > ACTIVATIONS && refused > 10, "{served} served, {refused} refused: too little load to tell");
    for house in houses {
        let log = house.events.facts();
        let mut seen = BTreeMap::<String, usize>::new();
        let mut at = log.start();
        loop {
            let batch = log.read(at, 10_000).unwrap();
            if batch.next == at {
                break;
            }
            at = batch.next;
            for (_, json) in &batch.records {
                let fact: serde_json::Value = serde_json::from_str(json).unwrap();
                let tags = fact["tags"].as_array().unwrap();
                assert_eq!(tags.len(), 1, "a request met two versions: {fact}");
                let tag = tags[0].as_str().unwrap();
                assert_eq!(fact["policy"], format!("second@{tag}"));
                *seen.entry(tag.to_owned()).or_default() += 1;
            }
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
        Arc::into_inner(house).unwrap().edge.shutdown().await;
    }
}
