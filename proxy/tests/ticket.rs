//! Who may have what: carriers, refusals, revocations, keys that change.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use segue_signing::{Claims, KeyDoc, Revocation, SnapshotDoc, mint};
use support::{Behaviour, House, TRACK, claims, house, house_with, key, now, pattern, signed_query, ticket};

async fn at(house: &House, target: &str, headers: &str) -> (u16, String) {
    let answer = house.client().await.request("GET", target, headers).await;
    (answer.status, answer.reason())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_carrier_opens_and_the_first_one_decides() {
    let house = house().await;
    house.origin.track("cover.jpg", Behaviour::Serve(pattern(10)));
    let (path, good) = (format!("/hls/{TRACK}/cover.jpg"), ticket());
    assert_eq!(at(&house, &format!("/p/{good}{path}"), "").await.0, 200);
    assert_eq!(at(&house, &path, &format!("Authorization: Bearer {good}\r\n")).await.0, 200);
    assert_eq!(at(&house, &path, &format!("Cookie: a=b; segue={good}\r\n")).await.0, 200);
    assert_eq!(at(&house, &format!("{path}?ticket={good}"), "").await.0, 200);
    assert_eq!(at(&house, &format!("{path}?{}", signed_query(&path)), "").await.0, 200);
    let bad_first = at(&house, &format!("/p/bad{path}?ticket={good}"), "").await;
    assert_eq!(bad_first, (401, "ticket-malformed".to_owned()), "a good carrier does not rescue a bad one");
    let twice = at(&house, &format!("{path}?ticket={good}&ticket={good}"), "").await;
    assert_eq!(twice, (400, "ticket-ambiguous".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_reason_and_no_byte_of_media() {
    let house = house().await;
    house.origin.track("cover.jpg", Behaviour::Serve(b"MEDIA".to_vec()));
    let path = format!("/hls/{TRACK}/cover.jpg");
    let with = |change: fn(&mut Claims)| {
        let mut claims = claims();
        change(&mut claims);
        mint(&key(), &claims).unwrap()
    };
    let good = ticket();
    let mut flipped = good.clone().into_bytes();
    let place = good.rfind('.').unwrap() + 5;
    flipped[place] = if flipped[place] == b'A' { b'B' } else { b'A' };
    let stranger = segue_signing::Key { kid: "k9".to_owned(), ..key() };
    let cases: Vec<(String, u16, &str)> = vec![
        (String::new(), 401, "ticket-missing"),
        ("x.y.z".to_owned(), 401, "ticket-malformed"),
        (String::from_utf8(flipped).unwrap(), 401, "signature-invalid"),
        (with(|claims| claims.exp = now() - 60), 401, "expired"),
        (with(|claims| claims.nbf = Some(now() + 60)), 401, "not-yet-valid"),
        (with(|claims| claims.path = "/hls/other/".to_owned()), 403, "out-of-scope"),
        (with(|claims| claims.path = "/hls/abcdefgh234/".to_owned()), 403, "out-of-scope"),
        (with(|claims| claims.ip = Some("192.0.2.1".to_owned())), 403, "address-mismatch"),
        (mint(&stranger, &claims()).unwrap(), 401, "key-unknown"),
        ("e".repeat(3_000), 401, "ticket-too-long"),
    ];
    for (ticket, status, reason) in &cases {
        let answer = house.client().await.request("GET", &path, &format!("Authorization: Bearer {ticket}\r\n")).await;
        assert_eq!((answer.status, answer.reason().as_str()), (*status, *reason), "{ticket}");
        assert!(!answer.body.windows(5).any(|window| window == b"MEDIA"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    assert_eq!(at(&house, &path, "").await, (401, "ticket-missing".to_owned()));
    assert_eq!(house.origin.count("cover.jpg"), 0, "the origin was not even asked");
    let reasons: Vec<_> = house.denials().iter().map(|denial| denial["reason"].clone()).collect();
    assert_eq!(reasons.len(), cases.len() + 1);
    assert_eq!(reasons[2], "signature-invalid");
    assert!(house.denials().iter().all(|denial| denial["path"] == path.as_str()), "no ticket in a denial");
    assert!(house.facts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_denial_holds_a_ticket_however_crooked_the_path() {
    let house = house().await;
    let good = ticket();
    for path in [format!("//p/{good}/hls/a/b"), format!("/./p/{good}/hls/a/b"), format!("/p/x/p/{good}/hls//y")] {
        house.client().await.get(&path).await;
    }
    let denials = house.denials();
    assert!(!denials.is_empty());
    for denial in denials {
        assert!(!denial.to_string().contains(&good[..20]), "{denial}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_of_alg_none_or_of_absurd_length_is_refused() {
    let house = house().await;
    // {"alg":"none","typ":"JWT","kid":"k1"} and a body with exp and path, no signature.
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIiwia2lkIjoiazEifQ.eyJleHAiOjk5OTk5OTk5OTksInBhdGgiOiIvIn0.";
    let (status, reason) = at(&house, &format!("/p/{none}/hls/{TRACK}/cover.jpg"), "").await;
    assert_eq!(status, 401);
    assert!(["algorithm-refused", "ticket-malformed"].contains(&reason.as_str()), "{reason}");
    let long = "t".repeat(50_000);
    let (status, reason) = at(&house, &format!("/hls/{TRACK}/cover.jpg"), &format!("Cookie: segue={long}\r\n")).await;
    assert_eq!((status, reason.as_str()), (401, "ticket-too-long"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_required_tickets_it_is_a_plain_cache_but_a_bad_ticket_stays_bad() {
    let house = house_with(|config| config.tickets.required = false).await;
    house.origin.track("cover.jpg", Behaviour::Serve(pattern(10)));
    assert_eq!(at(&house, &format!("/hls/{TRACK}/cover.jpg"), "").await.0, 200);
    assert_eq!(at(&house, &format!("/p/bad/hls/{TRACK}/cover.jpg"), "").await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_changes_keys_and_revokes_at_once_and_a_bad_one_changes_nothing() {
    let house = house().await;
    house.origin.track("cover.jpg", Behaviour::Serve(pattern(10)));
    let path = format!("/hls/{TRACK}/cover.jpg");
    let new = segue_signing::Key { kid: "k2".to_owned(), ..key() };
    let by_new = mint(&new, &claims()).unwrap();
    assert_eq!(at(&house, &format!("/p/{by_new}{path}"), "").await.1, "key-unknown");
    let k2 = KeyDoc { kid: "k2".to_owned(), secret: support::SECRET.to_owned(), not_before: None, retire_at: None };
    let publish = |revision, keys: Vec<KeyDoc>, revocations| {
        house.snapshots.send_replace(Arc::new(SnapshotDoc { revision, keys, revocations, ..SnapshotDoc::default() }));
    };
    publish(1, vec![k2.clone()], vec![]);
    settled(&house, &format!("/p/{by_new}{path}"), 200).await;
    let broken = KeyDoc { secret: "short".to_owned(), ..k2.clone() };
    publish(2, vec![broken], vec![]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(at(&house, &format!("/p/{by_new}{path}"), "").await.0, 200, "the last good snapshot serves");
    let revoked = Revocation { sid: Some("device-1".to_owned()), until: now() + 600, ..Revocation::default() };
    publish(3, vec![k2], vec![revoked]);
    settled(&house, &format!("/p/{by_new}{path}"), 403).await;
    assert_eq!(at(&house, &format!("/p/{by_new}{path}"), "").await.1, "revoked");
}

/// Waits for the snapshot to be taken over, which is asynchronous.
async fn settled(house: &House, target: &str, status: u16) {
    for _ in 0..100 {
        if at(house, target, "").await.0 == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{target} never became {status}");
}
