#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::fixtures::{JOSE_BARE, NOW, TEXT};
use crate::{Refusal, verify};

fn doc() -> SnapshotDoc {
    SnapshotDoc {
        revision: 7,
        keys: vec![KeyDoc { kid: "k1".into(), secret: TEXT.into(), not_before: None, retire_at: Some(NOW + 5) }],
        purges: BTreeMap::from([("aaaabbbbcccc".into(), 1_800_000_000_123)]),
        revocations: vec![Revocation { sid: Some("s-2".into()), until: NOW + 60, ..Revocation::default() }],
        policies: Vec::new(),
        limits: LimitsConfig::default(),
    }
}

#[test]
fn it_travels_and_works_on_the_other_side() {
    let json = serde_json::to_string(&doc()).unwrap();
    let there: SnapshotDoc = serde_json::from_str(&json).unwrap();
    assert_eq!(there, doc());
    let keyring = there.keyring().unwrap();
    let verified = verify(&keyring, JOSE_BARE, NOW, 0).unwrap();
    let revocations = there.revocations().unwrap();
    assert_eq!(revocations.check(&verified, None, NOW), Err(Refusal::Revoked));
    assert_eq!(revocations.check(&verified, None, NOW + 60), Ok(()));
    let next = there.keyring_after(&keyring).unwrap();
    assert_eq!(next.generation(), keyring.generation());
    assert_eq!(next.key_use("k1").unwrap().accepted, 1);
}

#[test]
fn missing_sections_are_empty_and_unknown_ones_ignored() {
    let read: SnapshotDoc = serde_json::from_str(r#"{"revision":1,"limits":{"free":{}}}"#).unwrap();
    assert_eq!(read, SnapshotDoc { revision: 1, ..SnapshotDoc::default() });
    assert!(read.keyring().unwrap().is_empty());
    assert!(read.revocations().unwrap().is_empty());
}

#[test]
fn a_bad_section_is_an_error_that_names_it() {
    let mut bad = doc();
    bad.keys[0].secret = "too short".into();
    let error = bad.keyring().unwrap_err();
    assert_eq!(error.kind(), "secret-too-short");
    assert!(error.to_string().contains("\"k1\"") && !error.to_string().contains("too short"), "{error}");

    let mut bad = doc();
    bad.keys.push(bad.keys[0].clone());
    assert_eq!(bad.keyring().unwrap_err().kind(), "kid-twice");

    let mut bad = doc();
    bad.revocations.push(Revocation::default());
    assert_eq!(bad.revocations().unwrap_err().kind(), "revocation-empty");
}

#[test]
fn debug_shows_no_secret() {
    let text = format!("{:?}", doc());
    assert!(text.contains("k1") && !text.contains("horse"), "{text}");
}
