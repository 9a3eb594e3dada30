//! Tickets and signed URLs: nothing verifies but what a key signed, and every change of it ends that.
//!
//! Input: a first byte that chooses, then text. `r` a ticket as it stands; `s` header and claims as JSON, one line each
//! and then a number, signed here by an HMAC of this file's own; `u` a raw path, an `exp` and a number.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use libfuzzer_sys::fuzz_target;
use segue_signing::{
    CanonicalPath, Claims, Key, Keyring, MAX_TICKET_BYTES, Refusal, Scope, SigningSecret, TicketCache, mint, verify,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use sha2::Sha256;

const NOW: i64 = 1_800_000_000;
const LEEWAY: i64 = 5;
const SECRETS: [(&str, &str); 2] =
    [("k1", "the first of two secrets for fuzzing"), ("k2", "the second of two secrets for fuzzing")];

static KEYS: LazyLock<Keyring> = LazyLock::new(|| {
    let key = |(kid, secret): (&str, &str)| Key {
        kid: kid.to_owned(),
        secret: SigningSecret::parse(secret).unwrap(),
        not_before: None,
        retire_at: None,
    };
    Keyring::new(SECRETS.map(key).to_vec()).unwrap()
});
static CACHE: LazyLock<TicketCache> = LazyLock::new(|| TicketCache::new(64));

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.split_at_checked(1) {
        Some(("r", ticket)) => as_it_stands(ticket),
        Some(("s", rest)) => {
            let mut lines = rest.split('\n');
            if let (Some(header), Some(claims)) = (lines.next(), lines.next()) {
                signed(header, claims, lines.next().and_then(|n| n.parse().ok()).unwrap_or(0));
            }
        }
        Some(("u", rest)) => {
            let mut lines = rest.split('\n');
            if let (Some(path), Some(exp)) = (lines.next(), lines.next()) {
                url(path, exp, lines.next().and_then(|n| n.parse().ok()).unwrap_or(0));
            }
        }
        _ => {}
    }
});

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

/// A ticket that nobody here signed: if it verifies, then only because the signature over it is right.
fn as_it_stands(ticket: &str) {
    let outcome = verify(&KEYS, ticket, NOW, LEEWAY);
    for _ in 0..2 {
        let cached = CACHE.verify_cached(&KEYS, KEYS.generation(), ticket, NOW, LEEWAY);
        assert_eq!(
            cached.as_deref().map_err(Clone::clone),
            outcome.as_ref().map_err(Clone::clone),
            "the cache differs"
        );
    }
    let Ok(verified) = outcome else { return };
    let (signed, signature) = ticket.rsplit_once('.').expect("a ticket has three parts");
    let right = SECRETS.iter().any(|(kid, secret)| *kid == verified.kid && b64(hmac(secret, signed)) == signature);
    assert!(right, "verifies without its key's signature: {ticket}");
    let header = signed.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).unwrap();
    // Values that nobody asks for may be numbers that no type holds.
    let names: BTreeMap<String, IgnoredAny> = serde_json::from_slice(&header).unwrap();
    assert!(!names.contains_key("crit"), "an extension that nobody understands");
    let header: Header = serde_json::from_slice(&header).unwrap();
    assert_eq!((header.alg.as_str(), header.kid.as_str()), ("HS256", verified.kid.as_str()));
    assert!(verified.claims.exp.saturating_add(LEEWAY) > NOW && ticket.len() <= MAX_TICKET_BYTES);
    assert_eq!(Scope::parse(&verified.claims.path).as_ref(), Ok(&verified.scope));
    again(&verified);
}

/// What verified can be minted, and says the same then.
fn again(verified: &segue_signing::Verified) {
    let key = KEYS.get(&verified.kid).unwrap();
    match mint(key, &verified.claims) {
        Ok(ticket) => {
            let second = verify(&KEYS, &ticket, NOW, LEEWAY).expect("what was minted verifies");
            let ctx = |claims: &Claims| Value::from(claims.ctx.clone());
            assert!(is_same(&ctx(&second.claims), &ctx(&verified.claims)), "minted anew its ctx is another");
            let rest = |claims: &Claims| Claims { ctx: None, ..claims.clone() };
            assert_eq!(rest(&second.claims), rest(&verified.claims), "minted anew it says something else");
            assert_eq!((second.kid, second.scope), (verified.kid.clone(), verified.scope.clone()));
        }
        // JSON of ours may be longer than the minter's, and times may meet within the leeway.
        Err(error) => assert!(["ticket-too-long", "ticket-never-valid"].contains(&error.kind()), "{error}"),
    }
}

/// The same JSON; fractions as far as a double that was read by a fast parser says.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= a.abs() * 1e-14
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((m, a), (n, b))| m == n && is_same(a, b))
        }
        _ => a == b,
    }
}

/// Any header and claims, truly signed; then one character of it changed.
fn signed(header: &str, claims: &str, place: usize) {
    let parts = format!("{}.{}", b64(header), b64(claims));
    for (kid, secret) in SECRETS {
        let ticket = format!("{parts}.{}", b64(hmac(secret, &parts)));
        as_it_stands(&ticket);
        if let Ok(verified) = verify(&KEYS, &ticket, NOW, LEEWAY) {
            assert_eq!(verified.kid, kid);
            tampered(&ticket, place);
        }
    }
}

fn tampered(ticket: &str, place: usize) {
    let at = place % ticket.len();
    let mut bytes = ticket.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    let cut = &ticket[..at];
    for changed in [std::str::from_utf8(&bytes).unwrap(), cut, &format!("{ticket}A"), &format!("{ticket}=")] {
        assert!(verify(&KEYS, changed, NOW, LEEWAY).is_err(), "changed at {at} it still verifies: {changed}");
    }
}

fn url(raw: &str, exp: &str, place: usize) {
    let Ok(path) = CanonicalPath::parse(raw) else { return };
    let (kid, secret) = SECRETS[place % 2];
    let sig = b64(hmac(secret, &format!("segue-url-v1\n{path}\n{exp}")));
    let check = |path: &CanonicalPath, exp: &str, sig: &str| {
        segue_signing::url::verify(&KEYS, path, kid, exp, sig, NOW, LEEWAY)
    };
    let outcome = check(&path, exp, &sig);
    let one_spelling = exp.parse::<i64>().is_ok_and(|n| n.to_string() == exp && (0..=99_999_999_999).contains(&n));
    let expected = match exp.parse::<i64>() {
        Ok(until) if one_spelling && NOW < until + LEEWAY => Ok(()),
        Ok(_) if one_spelling => Err(Refusal::Expired),
        _ => Err(Refusal::TicketMalformed),
    };
    assert_eq!(outcome.as_ref().map(|_| ()).map_err(Clone::clone), expected, "{path} until {exp:?}");
    let Ok(verified) = outcome else { return };
    assert!(verified.scope.allows(&path));
    let other = CanonicalPath::from_decoded(&format!("{}x", path.as_str()));
    if let Ok(other) = other {
        assert!(!verified.scope.allows(&other) && check(&other, exp, &sig).is_err(), "opens {other} too");
    }
    assert!(check(&path, &format!("{exp}0"), &sig).is_err(), "lasts longer than was signed");
    let mut bytes = sig.clone().into_bytes();
    let at = place % bytes.len();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    assert!(check(&path, exp, std::str::from_utf8(&bytes).unwrap()).is_err(), "another signature opens it too");
}

fn hmac(secret: &str, text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
