#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::Claims;

const NOW: i64 = 1_000;

fn verified(iat: Option<i64>) -> Verified {
    let claims = Claims { sid: Some("s1".into()), sub: Some("u1".into()), iat, ..Claims::new("/", 9_999) };
    Verified::from_ticket(claims, "k1".into(), "ticket").unwrap()
}

fn revoked(list: &[Revocation], verified: &Verified, track: Option<&str>, now: i64) -> bool {
    let indexed = Revocations::new(list.to_vec()).unwrap().check(verified, track, now).is_err();
    let plain = list.iter().any(|revocation| revocation.hits(verified, track, now));
    assert_eq!(indexed, plain, "the index must agree with the plain walk");
    indexed
}

fn sid(sid: &str) -> Revocation {
    Revocation { sid: Some(sid.into()), until: NOW + 100, ..Revocation::default() }
}

fn sub(sub: &str) -> Revocation {
    Revocation { sub: Some(sub.into()), until: NOW + 100, ..Revocation::default() }
}

fn track(track: &str) -> Revocation {
    Revocation { track: Some(track.into()), until: NOW + 100, ..Revocation::default() }
}

fn before(issued_before: i64, until: i64) -> Revocation {
    Revocation { issued_before: Some(issued_before), until, ..Revocation::default() }
}

#[test]
fn each_condition_hits_its_own() {
    let ticket = verified(Some(500));
    assert!(!revoked(&[], &ticket, Some("t1"), NOW));
    assert!(revoked(&[sid("s1")], &ticket, Some("t1"), NOW));
    assert!(!revoked(&[sid("s2"), sid("u1"), sid("")], &ticket, Some("t1"), NOW));
    assert!(revoked(&[sub("u1")], &ticket, None, NOW));
    assert!(!revoked(&[sub("s1")], &ticket, None, NOW));
    assert!(revoked(&[track("t1")], &ticket, Some("t1"), NOW));
    assert!(!revoked(&[track("t1")], &ticket, Some("t10"), NOW));
    assert!(!revoked(&[track("t1")], &ticket, None, NOW));
    assert!(revoked(&[sid("s9"), sub("u9"), track("t1")], &ticket, Some("t1"), NOW));
}

#[test]
fn time_of_issue_is_exact_and_missing_counts_as_before() {
    let old = [before(500, NOW + 1)];
    assert!(revoked(&old, &verified(Some(499)), None, NOW));
    assert!(!revoked(&old, &verified(Some(500)), None, NOW));
    assert!(revoked(&old, &verified(None), None, NOW));
}

#[test]
fn a_revocation_ends() {
    let ticket = verified(Some(1));
    for revocation in [sid("s1"), sub("u1"), track("t1"), before(500, NOW + 100)] {
        let list = [revocation];
        assert!(revoked(&list, &ticket, Some("t1"), NOW + 99));
        assert!(!revoked(&list, &ticket, Some("t1"), NOW + 100));
    }
}

#[test]
fn conditions_together_must_all_hold() {
    let old_of_u1 = [Revocation { issued_before: Some(500), ..sub("u1") }];
    assert!(revoked(&old_of_u1, &verified(Some(499)), None, NOW));
    assert!(!revoked(&old_of_u1, &verified(Some(500)), None, NOW), "the listener's new ticket plays");
    let s1_on_t1 = [Revocation { track: Some("t1".into()), ..sid("s1") }];
    assert!(revoked(&s1_on_t1, &verified(None), Some("t1"), NOW));
    assert!(!revoked(&s1_on_t1, &verified(None), Some("t2"), NOW));
}

#[test]
fn an_anonymous_ticket_is_revoked_by_its_hash() {
    let ticket = Verified::from_ticket(Claims::new("/", 9_999), "k1".into(), "ticket").unwrap();
    assert!(revoked(&[sid(&ticket.sid)], &ticket, None, NOW));
    assert!(!revoked(&[sub("u1")], &ticket, None, NOW));
}

#[test]
fn covered_times_are_dropped_and_nothing_else() {
    let list = [before(100, 1_200), before(300, 1_100), before(200, 1_050), before(100, 1_150), before(300, 1_100)];
    assert_eq!(Revocations::new(list.to_vec()).unwrap().by_time.len(), 2);
    for iat in [None, Some(50), Some(100), Some(150), Some(250), Some(300)] {
        for now in [1_000, 1_049, 1_050, 1_099, 1_100, 1_150, 1_199, 1_200] {
            revoked(&list, &verified(iat), None, now);
        }
    }
    assert!(revoked(&list, &verified(Some(50)), None, 1_199));
    assert!(!revoked(&list, &verified(Some(150)), None, 1_100));
}

#[test]
fn one_that_says_nothing_refuses_the_set() {
    let unknown: Revocation = serde_json::from_str(r#"{"device":"x","until":2000}"#).unwrap();
    assert!(unknown.is_empty());
    assert!(!unknown.hits(&verified(None), None, NOW));
    assert_eq!(Revocations::new([sid("s1"), unknown]).unwrap_err(), RevocationError(1));
}

#[test]
fn json_is_as_the_contract_has_it() {
    assert_eq!(serde_json::to_string(&sid("s1")).unwrap(), r#"{"sid":"s1","until":1100}"#);
    assert_eq!(serde_json::from_str::<Revocation>(r#"{"issued_before":500,"until":9}"#).unwrap(), before(500, 9));
}
