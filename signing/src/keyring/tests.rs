#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::fixtures::{HEX, NOW, PYJWT_ALL_CLAIMS, TEXT, key};
use crate::ticket::verify;

fn timed(kid: &str, not_before: Option<i64>, retire_at: Option<i64>) -> Key {
    Key { not_before, retire_at, ..key(kid, TEXT) }
}

fn error(keys: Vec<Key>) -> &'static str {
    Keyring::new(keys).unwrap_err().kind()
}

#[test]
fn a_bad_key_refuses_the_ring() {
    let long = "k".repeat(MAX_KID_BYTES + 1);
    for kid in ["", "a b", "a&b", "a=b", "a/b", "ü", "a\"b", "a\n", long.as_str()] {
        assert_eq!(error(vec![key(kid, TEXT)]), "kid-invalid", "{kid:?}");
    }
    assert!(Keyring::new(vec![key(&"k".repeat(MAX_KID_BYTES), TEXT), key("2026-07.a_b~c", TEXT)]).is_ok());
    assert_eq!(error(vec![key("k1", TEXT), key("k1", HEX)]), "kid-twice");
    assert_eq!(error(vec![timed("k1", Some(5), Some(5))]), "key-never-valid");
    let keys = |count: usize| (0..count).map(|number| key(&format!("k{number}"), TEXT)).collect();
    assert_eq!(error(keys(MAX_KEYS + 1)), "keys-too-many");
    assert_eq!(Keyring::new(keys(MAX_KEYS)).unwrap().len(), MAX_KEYS);
}

#[test]
fn the_signer_is_the_newest_usable_key() {
    let signer = |keys: Vec<Key>| Keyring::new(keys).unwrap().signer(NOW).map(|key| key.kid.clone());
    assert_eq!(signer(vec![]), None);
    assert_eq!(signer(vec![timed("old", None, None), timed("new", Some(NOW), None)]).unwrap(), "new");
    assert_eq!(signer(vec![timed("new", Some(NOW), None), timed("old", None, None)]).unwrap(), "new");
    assert_eq!(signer(vec![timed("now", Some(NOW - 9), None), timed("next", Some(NOW + 1), None)]).unwrap(), "now");
    assert_eq!(signer(vec![timed("gone", Some(NOW - 1), Some(NOW)), timed("old", None, None)]).unwrap(), "old");
    assert_eq!(signer(vec![timed("gone", None, Some(NOW))]), None);
    assert_eq!(signer(vec![timed("a", None, None), timed("b", None, None)]).unwrap(), "b");
}

#[test]
fn a_successor_goes_on_counting_for_keys_that_stay() {
    let first = Keyring::new(vec![key("k1", TEXT), key("k2", HEX)]).unwrap();
    verify(&first, PYJWT_ALL_CLAIMS, NOW, 0).unwrap();
    let retired = Key { retire_at: Some(NOW), ..key("k1", TEXT) };
    let second = first.successor(vec![key("k3", HEX), retired]).unwrap();
    assert_eq!(verify(&second, PYJWT_ALL_CLAIMS, NOW, 0), Err(Refusal::KeyRetired));
    let uses = KeyUse { accepted: 1, out_of_time: 1 };
    assert_eq!(second.key_use("k1"), Some(uses));
    assert_eq!(second.uses().collect::<Vec<_>>(), [("k3", KeyUse::default()), ("k1", uses)]);
    assert_eq!(second.key_use("k2"), None);

    let other_secret = second.successor(vec![key("k1", HEX)]).unwrap();
    assert_eq!(other_secret.key_use("k1"), Some(KeyUse::default()), "another secret is another key");
}

#[test]
fn a_generation_is_one_set_of_keys() {
    let keys = || vec![key("k1", TEXT), key("k2", HEX)];
    let first = Keyring::new(keys()).unwrap();
    assert_ne!(Keyring::new(keys()).unwrap().generation(), first.generation());
    assert_eq!(first.successor(keys()).unwrap().generation(), first.generation());
    let changes = [
        vec![key("k2", HEX), key("k1", TEXT)],
        vec![key("k1", TEXT)],
        vec![key("k1", HEX), key("k2", HEX)],
        vec![timed("k1", None, Some(NOW)), key("k2", HEX)],
        vec![key("k1", TEXT), key("k2", HEX), key("k3", HEX)],
    ];
    for (number, keys) in changes.into_iter().enumerate() {
        assert_ne!(first.successor(keys).unwrap().generation(), first.generation(), "change {number}");
    }
}

#[test]
fn uses_are_counted_exactly_by_many_threads() {
    let ring = Keyring::new(vec![key("k1", TEXT)]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    verify(&ring, PYJWT_ALL_CLAIMS, NOW, 0).unwrap();
                }
            });
        }
    });
    assert_eq!(ring.key_use("k1").unwrap().accepted, 2_000);
}

#[test]
fn debug_names_keys_and_shows_no_secret() {
    let ring = Keyring::new(vec![key("k1", TEXT)]).unwrap();
    let text = format!("{ring:?} {:?}", ring.get("k1"));
    assert!(text.contains("k1") && !text.contains("horse"), "{text}");
}
