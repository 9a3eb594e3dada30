//! Policies from a control plane: fetched by digest, in force at a flip, and kept at the last good version whatever happens to
//! registry, bytes, network and edge.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::path::Path;
use std::time::Duration;

use segue_signing::{PolicyTrial, Revocation};
use support::control::{Control, digest, policy, tried};
use support::wasm::{self, ABSTAIN, TRAP, handwritten};
use support::{Behaviour, House, TRACK, house_with, now, pattern, with_admin};

const SEGMENT: &str = "seg-00000.m4s";
const EDGE: &str = "e1";

async fn begun(control: &Control, dir: &Path) -> House {
    let house = house_with(|config| {
        with_admin(config);
        config.name = EDGE.to_owned();
        config.control = Some(control.endpoint());
        config.snapshot.dir = Some(dir.to_owned());
    })
    .await;
    house.origin.track(SEGMENT, Behaviour::Serve(pattern(1_000)));
    house
}

async fn becomes(house: &House, status: u16, reason: &str) {
    let mut last = (0, String::new());
    for _ in 0..3_000 {
        let answer = house.get(SEGMENT).await;
        last = (answer.status, answer.reason());
        if last == (status, reason.to_owned()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never {status} {reason}, but {last:?}");
}

fn denies(reason: &str) -> Vec<u8> {
    wasm::denies(403, reason, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_version_is_activated_by_a_flip_and_taken_back_by_another() {
    let control = Control::start().await;
    let dir = tempfile::tempdir().unwrap();
    let house = begun(&control, dir.path()).await;
    let (one, two) = (denies("one"), denies("two"));
    for bytes in [&one, &two] {
        control.hold(&digest(bytes), bytes);
    }
    let versions: [(&str, &[u8]); 2] = [("1", &one), ("2", &two)];
    becomes(&house, 200, "").await;
    control.publish(vec![policy("p", None, &versions)]);
    for version in ["1", "2"] {
        control.stands(EDGE, "p", version, |standing| standing.is_ready && !standing.is_deciding).await;
    }
    assert_eq!(house.get(SEGMENT).await.status, 200, "pushed is not active");
    let fetched = control.fetched();
    for (version, reason) in [("1", "one"), ("2", "two"), ("1", "one")] {
        control.publish(vec![policy("p", Some(version), &versions)]);
        becomes(&house, 403, reason).await;
        control.stands(EDGE, "p", version, |standing| standing.is_deciding && !standing.is_kept).await;
    }
    assert_eq!(control.fetched(), fetched, "nothing is fetched twice");
    // A shadow beside: counted, with examples, and not heeded.
    control.publish(vec![tried(policy("p", Some("1"), &versions), "2", PolicyTrial::Shadow)]);
    let difference = loop {
        becomes(&house, 403, "one").await;
        let report = control.report(EDGE).unwrap();
        if let Some(difference) = report.differences.first().cloned() {
            assert!(
                report
                    .verdicts
                    .iter()
                    .any(|said| said.version == "1" && said.verdict == "deny" && said.reason == "one")
            );
            break difference;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((difference.said.as_str(), difference.would.as_str()), ("deny:one", "deny:two"));
    assert_eq!(difference.examples[0].path, format!("/hls/{TRACK}/{SEGMENT}"));
    assert!(!difference.examples[0].session.contains("device"), "names nobody");
    control.publish(vec![tried(policy("p", Some("1"), &versions), "2", PolicyTrial::Canary(10_000))]);
    becomes(&house, 403, "two").await;
    control.publish(Vec::new());
    becomes(&house, 200, "").await;
    house.edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_the_last_good_version_decides_and_says_so() {
    let control = Control::start().await;
    let dir = tempfile::tempdir().unwrap();
    let house = begun(&control, dir.path()).await;
    let good = denies("good");
    control.hold(&digest(&good), &good);
    control.publish(vec![policy("p", Some("good"), &[("good", &good)])]);
    becomes(&house, 403, "good").await;

    let kept = "segue_policy_kept{policy=\"p\"}";
    let goes_on = async |house: &House, version: &str, problem: &str| {
        let standing = control.stands(EDGE, "p", version, |standing| standing.problem.is_some()).await;
        let said = standing.problem.clone().unwrap();
        assert!(said.contains(problem), "{problem:?} is not in {said:?}");
        assert!(!standing.is_ready && !standing.is_deciding);
        control.stands(EDGE, "p", "good", |standing| standing.is_deciding && standing.is_kept).await;
        assert_eq!(house.metric(kept).await, 1.0);
        becomes(house, 403, "good").await;
    };
    // The registry does not have it.
    let next = denies("next");
    let both = |name: &'static str, bytes: &[u8]| vec![policy("p", Some(name), &[("good", &good), (name, bytes)])];
    control.publish(both("away", &next));
    goes_on(&house, "away", "404").await;
    // It gives other bytes than were asked for; mended, it goes on by itself.
    let other = denies("other");
    control.hold(&digest(&other), b"something else");
    control.publish(both("wrong", &other));
    goes_on(&house, "wrong", "its SHA-256 is").await;
    // What came does not compile, or refuses to be configured.
    control.hold(&digest(b"no policy"), b"no policy");
    control.publish(both("garbage", b"no policy"));
    goes_on(&house, "garbage", "not-wasm").await;
    let refuses = handwritten(TRAP, ABSTAIN, "");
    control.hold(&digest(&refuses), &refuses);
    control.publish(both("refuses", &refuses));
    goes_on(&house, "refuses", "trap").await;
    // It does not answer at all; and nothing else waits for it.
    control.stall(true);
    let late = denies("late");
    control.hold(&digest(&late), &late);
    control.publish(both("late", &late));
    control.stands(EDGE, "p", "late", |standing| !standing.is_ready).await;
    let sid = Some("device-1".to_owned());
    control.revoke(Revocation { sid, sub: None, track: None, issued_before: None, until: now() + 3_600 });
    becomes(&house, 403, "revoked").await;
    assert_eq!(house.metric(kept).await, 1.0);
    house.edge.shutdown().await;

    // Meanwhile everything is away, and the edge starts anew: from its disk.
    control.stop();
    let started = begun(&control, dir.path()).await;
    let listener = segue_signing::Claims { sid: Some("device-2".to_owned()), ..support::claims() };
    let ticket = segue_signing::mint(&support::key(), &listener).unwrap();
    let answer = started.client().await.get(&format!("/p/{ticket}/hls/{TRACK}/{SEGMENT}")).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "good"), "at the first request");
    assert_eq!(started.metric(kept).await, 1.0);
    assert_eq!(started.metric("segue_policy_ready{policy=\"p\",version=\"late\"}").await, 0.0);
    // And when all is well again, so is the edge.
    let control = control.again().await;
    control.stall(false);
    control.stands(EDGE, "p", "late", |standing| standing.is_deciding && !standing.is_kept).await;
    let answer = started.client().await.get(&format!("/p/{ticket}/hls/{TRACK}/{SEGMENT}")).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "late"));
    assert_eq!(started.metric(kept).await, 0.0);
    started.edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_never_had_a_rule_that_fails_closed_lets_nobody_in_until_it_has() {
    let control = Control::start().await;
    control.stall(true);
    let bytes = wasm::policy(ABSTAIN);
    control.hold(&digest(&bytes), &bytes);
    control.publish(vec![policy("p", Some("1"), &[("1", &bytes)])]);
    let dir = tempfile::tempdir().unwrap();
    let house = begun(&control, dir.path()).await;
    becomes(&house, 503, "policy-failed").await;
    let admin = house.edge.admin_addr().unwrap();
    let ready = support::Client::connect(admin).await.get("/readyz").await;
    assert_eq!((ready.status, ready.reason().as_str()), (503, "policies-not-ready"));
    control.stall(false);
    becomes(&house, 200, "").await;
    assert_eq!(support::Client::connect(admin).await.get("/readyz").await.status, 200);
    house.edge.shutdown().await;
}
