#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::fixtures::{EXP, HEX, JOSE_BARE, NOW, PYJWT_ALL_CLAIMS, TEXT, key, keyring};
use crate::{Claims, Key, mint};

fn check(cache: &TicketCache, keyring: &Keyring, ticket: &str, now: i64) -> Result<Arc<Verified>, Refusal> {
    cache.verify_cached(keyring, keyring.generation(), ticket, now, 0)
}

#[test]
fn a_second_look_costs_no_hmac_and_says_the_same() {
    let (cache, keyring) = (TicketCache::new(100), keyring());
    let first = check(&cache, &keyring, PYJWT_ALL_CLAIMS, NOW).unwrap();
    let second = check(&cache, &keyring, PYJWT_ALL_CLAIMS, NOW).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!((cache.misses(), cache.len()), (1, 1));
    assert_eq!(*first, crate::verify(&keyring, PYJWT_ALL_CLAIMS, NOW, 0).unwrap());
    assert_eq!(keyring.key_use("k1").unwrap().accepted, 3, "a hit is a use of the key");
}

#[test]
fn a_held_ticket_is_refused_the_second_that_it_expires() {
    let (cache, keyring) = (TicketCache::new(100), keyring());
    assert!(check(&cache, &keyring, PYJWT_ALL_CLAIMS, EXP - 1).is_ok());
    assert_eq!(check(&cache, &keyring, PYJWT_ALL_CLAIMS, EXP), Err(Refusal::Expired));
    assert_eq!(check(&cache, &keyring, PYJWT_ALL_CLAIMS, 1_699_999_999), Err(Refusal::NotYetValid));
    assert_eq!(cache.misses(), 1, "refused by the held entry");
    let with_leeway = cache.verify_cached(&keyring, keyring.generation(), PYJWT_ALL_CLAIMS, EXP, 1);
    assert!(with_leeway.is_ok());
}

#[test]
fn a_held_ticket_is_refused_the_second_that_its_key_retires() {
    let retiring = Key { retire_at: Some(NOW + 10), ..key("k1", TEXT) };
    let (cache, keyring) = (TicketCache::new(100), Keyring::new(vec![retiring]).unwrap());
    assert!(check(&cache, &keyring, PYJWT_ALL_CLAIMS, NOW + 9).is_ok());
    assert_eq!(check(&cache, &keyring, PYJWT_ALL_CLAIMS, NOW + 10), Err(Refusal::KeyRetired));
    assert_eq!(keyring.key_use("k1").unwrap().out_of_time, 1);
}

#[test]
fn another_keyring_vouches_anew_whatever_number_the_caller_gives() {
    let (cache, first) = (TicketCache::new(100), keyring());
    let under = |keyring: &Keyring| cache.verify_cached(keyring, 7, PYJWT_ALL_CLAIMS, NOW, 0).map(|_| ());
    assert_eq!(under(&first), Ok(()));
    assert_eq!(under(&Keyring::new(vec![key("k2", HEX)]).unwrap()), Err(Refusal::KeyUnknown));
    assert_eq!(under(&Keyring::new(vec![key("k1", HEX)]).unwrap()), Err(Refusal::SignatureInvalid));
    // The keys change places: the entry must not look at the wrong one.
    let retired = Key { retire_at: Some(NOW), ..key("k2", HEX) };
    assert_eq!(under(&first.successor(vec![retired, key("k1", TEXT)]).unwrap()), Ok(()));
    assert_eq!(cache.misses(), 4);
}

#[test]
fn another_generation_of_the_caller_verifies_anew() {
    let (cache, keyring) = (TicketCache::new(100), keyring());
    for generation in [1, 1, 2, 2] {
        assert!(cache.verify_cached(&keyring, generation, JOSE_BARE, NOW, 0).is_ok());
    }
    assert_eq!((cache.misses(), cache.len()), (2, 1));
}

#[test]
fn an_unchanged_successor_keeps_the_cache_warm() {
    let (cache, first) = (TicketCache::new(100), keyring());
    assert!(check(&cache, &first, JOSE_BARE, NOW).is_ok());
    let second = first.successor(vec![key("k1", TEXT), key("k2", HEX)]).unwrap();
    assert!(check(&cache, &second, JOSE_BARE, NOW).is_ok());
    assert_eq!(cache.misses(), 1);
}

#[test]
fn what_is_refused_is_not_kept() {
    let (cache, keyring) = (TicketCache::new(100), keyring());
    assert!(check(&cache, &keyring, JOSE_BARE, NOW).is_ok());
    for at in 0..JOSE_BARE.len() {
        let mut bytes = JOSE_BARE.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        assert!(check(&cache, &keyring, &String::from_utf8(bytes).unwrap(), NOW).is_err(), "{at}");
    }
    assert_eq!(check(&cache, &keyring, "", NOW), Err(Refusal::TicketMissing));
    assert_eq!(check(&cache, &keyring, &"a".repeat(100_000), NOW), Err(Refusal::TicketTooLong));
    assert_eq!(check(&cache, &keyring, PYJWT_ALL_CLAIMS, EXP), Err(Refusal::Expired));
    assert_eq!(cache.len(), 1);
    assert!(check(&cache, &keyring, JOSE_BARE, NOW).is_ok());
}

#[test]
fn it_is_bounded() {
    let (cache, keyring) = (TicketCache::new(64), keyring());
    for number in 0..1_000 {
        let claims = Claims { sid: Some(format!("s{number}")), ..Claims::new("/t/", EXP) };
        let ticket = mint(&key("k1", TEXT), &claims).unwrap();
        assert!(check(&cache, &keyring, &ticket, NOW).is_ok());
    }
    assert!((1..=64).contains(&cache.len()), "{}", cache.len());
}

#[test]
fn a_heavy_ctx_takes_several_places() {
    let light = Verified::from_ticket(Claims::new("/t/", EXP), "k1".into(), "ticket").unwrap();
    assert_eq!(places("ticket", &light), 1);
    let maps = Value::from(vec![serde_json::json!({"": 0}); 200]);
    let ctx = serde_json::json!({ "maps": maps }).as_object().cloned();
    let claims = Claims { ctx, ..Claims::new("/t/", EXP) };
    let ticket = mint(&key("k1", TEXT), &claims).unwrap();
    let heavy = Verified::from_ticket(claims, "k1".into(), &ticket).unwrap();
    assert!(places(&ticket, &heavy) > 30, "{}", places(&ticket, &heavy));

    // Too heavy for the whole cache: still verified, not kept.
    let (cache, keyring) = (TicketCache::new(8), keyring());
    assert!(check(&cache, &keyring, &ticket, NOW).is_ok());
    assert!(cache.is_empty());
}

#[test]
fn many_threads_agree() {
    let (cache, keyring) = (TicketCache::new(16), keyring());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..500 {
                    let now = if round % 2 == 0 { NOW } else { EXP };
                    assert_eq!(check(&cache, &keyring, JOSE_BARE, now).is_ok(), now == NOW);
                }
            });
        }
    });
    assert_eq!(keyring.key_use("k1").unwrap().accepted, 1_000);
}
