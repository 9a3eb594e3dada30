#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::fixtures::{EXP, HEX, NOW, TEXT, key, keyring};

/// Python's hmac over b"segue-url-v1\n/hls/aaaabbbbcccc/v1/cover.jpg\n2000000000" with TEXT.
const COVER_SIG: &str = "uo2DhVv_faEx7y5cB7lBfo0CX0NdzpxNAcC10OHLMYY";
/// Python's hmac over "segue-url-v1\n/hls/Füße 100%/cover.jpg\n2000000000" in UTF-8, with HEX.
const UNICODE_SIG: &str = "OFbcL6JTApXILfWVgJrPhafPwb2LIgdgZ67UpYXp8RM";

fn path(raw: &str) -> CanonicalPath {
    CanonicalPath::parse(raw).unwrap()
}

fn cover() -> CanonicalPath {
    path("/hls/aaaabbbbcccc/v1/cover.jpg")
}

fn check(kid: &str, exp: &str, sig: &str) -> Result<Verified, Refusal> {
    verify(&keyring(), &cover(), kid, exp, sig, NOW, 0)
}

#[test]
fn known_answers_hold() {
    assert_eq!(sign(&key("k1", TEXT), &cover(), EXP), format!("kid=k1&exp=2000000000&sig={COVER_SIG}"));
    let other = path("/hls/F%C3%BC%C3%9Fe%20100%25/cover.jpg");
    assert_eq!(sign(&key("k2", HEX), &other, EXP), format!("kid=k2&exp=2000000000&sig={UNICODE_SIG}"));

    let verified = check("k1", "2000000000", COVER_SIG).unwrap();
    assert_eq!((verified.kid.as_str(), verified.claims.exp), ("k1", EXP));
    assert_eq!(verified.admits(&cover(), None), Ok(()));
    assert_eq!(verified.admits(&path("/hls/aaaabbbbcccc/v1/cover.jpg2"), None), Err(Refusal::OutOfScope));
}

#[test]
fn a_signed_folder_is_not_a_prefix() {
    let folder = path("/hls/t/");
    let query = sign(&key("k1", TEXT), &folder, EXP);
    let sig = query.rsplit_once('=').unwrap().1;
    let verified = verify(&keyring(), &folder, "k1", "2000000000", sig, NOW, 0).unwrap();
    assert_eq!(verified.admits(&path("/hls/t/x"), None), Err(Refusal::OutOfScope));
}

#[test]
fn each_signed_thing_counts() {
    assert_eq!(check("k1", "2000000001", COVER_SIG), Err(Refusal::SignatureInvalid));
    assert_eq!(check("k2", "2000000000", COVER_SIG), Err(Refusal::SignatureInvalid));
    assert_eq!(check("k3", "2000000000", COVER_SIG), Err(Refusal::KeyUnknown));
    let other = path("/hls/aaaabbbbcccc/v1/cover.jpe");
    let refused = verify(&keyring(), &other, "k1", "2000000000", COVER_SIG, NOW, 0);
    assert_eq!(refused, Err(Refusal::SignatureInvalid));
    for at in 0..COVER_SIG.len() {
        let mut sig = COVER_SIG.as_bytes().to_vec();
        sig[at] = if sig[at] == b'A' { b'B' } else { b'A' };
        assert!(check("k1", "2000000000", &String::from_utf8(sig).unwrap()).is_err(), "{at}");
    }
}

#[test]
fn parameters_have_one_spelling_and_a_bound() {
    let long = "1".repeat(100_000);
    for exp in ["", "+2000000000", "-1", "02000000000", "2000000000 ", "2e9", "0x10", "٢٠٠٠", "123456789012", &long]
    {
        assert_eq!(check("k1", exp, COVER_SIG), Err(Refusal::TicketMalformed), "{exp:.20}");
    }
    for sig in ["", "A", &COVER_SIG[1..], &format!("{COVER_SIG}="), &COVER_SIG.replace('_', "/"), &long] {
        assert_eq!(check("k1", "2000000000", sig), Err(Refusal::TicketMalformed), "{sig:.20}");
    }
    assert_eq!(check(&long, "2000000000", COVER_SIG), Err(Refusal::KeyUnknown));
}

#[test]
fn time_is_exact_and_keys_retire() {
    let ring = keyring();
    let at = |now, leeway| verify(&ring, &cover(), "k1", "2000000000", COVER_SIG, now, leeway).map(|_| ());
    assert_eq!(at(EXP - 1, 0), Ok(()));
    assert_eq!(at(EXP, 0), Err(Refusal::Expired));
    assert_eq!(at(EXP, 1), Ok(()));
    assert_eq!(ring.key_use("k1").unwrap().accepted, 2);

    let mut retired = key("k1", TEXT);
    retired.retire_at = Some(NOW);
    let ring = Keyring::new(vec![retired]).unwrap();
    let refused = verify(&ring, &cover(), "k1", "2000000000", COVER_SIG, NOW, 60);
    assert_eq!(refused, Err(Refusal::KeyRetired));
    assert_eq!(ring.key_use("k1").unwrap().out_of_time, 1);
}

#[test]
fn an_expiry_out_of_range_is_moved_into_it() {
    assert!(sign(&key("k1", TEXT), &cover(), -5).contains("&exp=0&"));
    let query = sign(&key("k1", TEXT), &cover(), i64::MAX);
    assert!(query.contains("&exp=99999999999&"));
    let sig = query.rsplit_once('=').unwrap().1;
    assert!(check("k1", "99999999999", sig).is_ok());
}
