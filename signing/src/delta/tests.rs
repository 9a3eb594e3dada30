#![allow(clippy::unwrap_used)]
use super::*;
use crate::limits::{LimitConfig, Per};

fn key(kid: &str) -> KeyDoc {
    let secret = "0123456789abcdef0123456789abcdef".to_owned();
    KeyDoc { kid: kid.to_owned(), secret, not_before: None, retire_at: None }
}

fn revoked(id: &str, until: i64) -> NamedRevocation {
    let revocation = Revocation { sid: Some(id.to_owned()), until, ..Revocation::default() };
    NamedRevocation { id: id.to_owned(), revocation }
}

fn whole() -> SnapshotDelta {
    SnapshotDelta {
        revision: 10,
        keys_tag: "t1".to_owned(),
        keys: Some(vec![key("k1")]),
        purges: BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 5)]),
        revocations: vec![revoked("r1", 100), revoked("r2", 200)],
        ..SnapshotDelta::default()
    }
}

#[test]
fn a_part_adds_raises_and_lifts() {
    let held = Followed::default().apply(whole(), 0).unwrap();
    let part = SnapshotDelta {
        revision: 11,
        partial: true,
        keys_tag: "t1".to_owned(),
        keys: None,
        purges: BTreeMap::from([("a".to_owned(), 9), ("b".to_owned(), 3), ("c".to_owned(), 1)]),
        revocations: vec![revoked("r3", 300)],
        lifted: vec!["r2".to_owned(), "never-heard-of".to_owned()],
        ..SnapshotDelta::default()
    };
    let now = held.apply(part, 100).unwrap().document();
    assert_eq!((now.revision, now.keys.len()), (11, 1));
    assert_eq!(now.purges, BTreeMap::from([("a".to_owned(), 9), ("b".to_owned(), 5), ("c".to_owned(), 1)]));
    let left: Vec<_> = now.revocations.iter().filter_map(|revocation| revocation.sid.as_deref()).collect();
    assert_eq!(left, ["r3"], "r1 is over, r2 was lifted");
}

#[test]
fn a_whole_answer_replaces_everything() {
    let held = Followed::default().apply(whole(), 0).unwrap();
    let other = SnapshotDelta { revision: 12, keys_tag: "t1".to_owned(), ..SnapshotDelta::default() };
    let now = held.apply(other, 0).unwrap().document();
    assert_eq!((now.keys.len(), now.purges.len(), now.revocations.len()), (1, 0, 0), "keys of the same tag stay");
}

#[test]
fn what_cannot_be_built_on_is_refused() {
    let part = SnapshotDelta { partial: true, keys: Some(Vec::new()), ..SnapshotDelta::default() };
    assert_eq!(Followed::default().apply(part, 0), Err(DeltaError::Baseless));
    let held = Followed::default().apply(whole(), 0).unwrap();
    let other = SnapshotDelta { keys_tag: "t2".to_owned(), keys: None, ..whole() };
    assert_eq!(held.apply(other.clone(), 0), Err(DeltaError::KeysMissing));
    let untagged = SnapshotDelta { keys_tag: String::new(), ..other };
    assert_eq!(Followed::default().apply(untagged, 0), Err(DeltaError::KeysMissing), "no tag names no keys");
}

#[test]
fn a_whole_answer_reads_as_a_snapshot_and_comes_back_from_json() {
    let text = serde_json::to_string(&whole()).unwrap();
    let read: SnapshotDoc = serde_json::from_str(&text).unwrap();
    assert_eq!(read, Followed::default().apply(whole(), 0).unwrap().document());
    let held = Followed::default().apply(serde_json::from_str(&text).unwrap(), 0).unwrap();
    let kept: Followed = serde_json::from_str(&serde_json::to_string(&held).unwrap()).unwrap();
    assert_eq!(kept, held);
    assert!(!format!("{held:?}").contains("0123456789abcdef"), "no secret in Debug");
}

#[test]
fn policies_travel_when_their_tag_changed() {
    let policies = vec![PolicyDoc { name: "country".to_owned(), active: Some("1".to_owned()), ..PolicyDoc::default() }];
    let held = Followed::default()
        .apply(SnapshotDelta { policies_tag: "p1".to_owned(), policies: Some(policies.clone()), ..whole() }, 0)
        .unwrap();
    let part = SnapshotDelta { revision: 11, partial: true, policies_tag: "p1".to_owned(), ..whole() };
    assert_eq!(held.apply(part.clone(), 0).unwrap().document().policies, policies);
    let other = SnapshotDelta { policies_tag: "p2".to_owned(), ..part };
    assert_eq!(held.apply(other.clone(), 0), Err(DeltaError::PoliciesMissing));
    let none = SnapshotDelta { policies: Some(Vec::new()), ..other };
    assert!(held.apply(none, 0).unwrap().document().policies.is_empty());
}

#[test]
fn limit_classes_travel_when_their_tag_changed() {
    let class = LimitConfig::new(10.0, 60, Per::Track);
    let limits = LimitsConfig { classes: BTreeMap::from([("tracks".to_owned(), class)]), ..LimitsConfig::default() };
    let whole = || SnapshotDelta { limits_tag: "l1".to_owned(), ..whole() };
    let held = Followed::default().apply(SnapshotDelta { limits: Some(limits.clone()), ..whole() }, 0).unwrap();
    let part = SnapshotDelta { revision: 11, partial: true, ..whole() };
    assert_eq!(held.apply(part.clone(), 0).unwrap().document().limits, limits);
    let other = SnapshotDelta { limits_tag: "l2".to_owned(), ..part };
    assert_eq!(held.apply(other.clone(), 0), Err(DeltaError::LimitsMissing));
    let none = SnapshotDelta { limits: Some(LimitsConfig::default()), ..other };
    assert!(held.apply(none, 0).unwrap().document().limits.is_empty());
}
