#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::fixtures::{
    EXP, HEX, JOSE_BARE, JOSE_TIMES, NOW, PYJWT_ALL_CLAIMS, PYJWT_FRACTIONS, PYJWT_HS512, PYJWT_MORE_CLAIMS,
    PYJWT_NONE, PYJWT_UNICODE, TEXT, key, keyring,
};
use crate::{CanonicalPath, SigningSecret};

/// Signs any header and any payload with k1's secret, as nobody honest would.
fn forge(header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = SigningSecret::parse(TEXT).unwrap().sign(&[signed.as_bytes()]);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn refusal(ticket: &str) -> Refusal {
    verify(&keyring(), ticket, NOW, 0).unwrap_err()
}

const GOOD_HEADER: &str = r#"{"alg":"HS256","kid":"k1","typ":"JWT"}"#;
const GOOD_CLAIMS: &str = r#"{"exp":2000000000,"path":"/hls/t/"}"#;

fn all_claims() -> Claims {
    Claims {
        nbf: Some(1_700_000_000),
        iat: Some(1_700_000_000),
        sid: Some("s-1".into()),
        sub: Some("listener-7".into()),
        ip: Some("192.0.2.0/24".into()),
        lim: Some("free".into()),
        renew_until: Some(2_000_003_600),
        ctx: serde_json::json!({"plan": "gold"}).as_object().cloned(),
        ..Claims::new("/hls/aaaabbbbcccc/", EXP)
    }
}

/// RFC 7515 appendix A.1: the signature holds under the RFC's key; as a ticket it names no key.
#[test]
fn rfc_7515_a1_holds() {
    let secret = SigningSecret::parse(
        "base64:AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
    )
    .unwrap();
    let signed = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    assert_eq!(URL_SAFE_NO_PAD.encode(secret.sign(&[signed.as_bytes()])), signature);
    assert_eq!(refusal(&format!("{signed}.{signature}")), Refusal::KeyUnknown);
}

#[test]
fn tickets_of_pyjwt_verify() {
    let verified = verify(&keyring(), PYJWT_ALL_CLAIMS, NOW, 0).unwrap();
    assert_eq!(verified.claims, all_claims());
    assert_eq!((verified.kid.as_str(), verified.sid.as_str()), ("k1", "s-1"));

    let verified = verify(&keyring(), PYJWT_MORE_CLAIMS, NOW, 0).unwrap();
    assert_eq!(verified.claims.ctx, serde_json::json!({"plan": "gold", "n": [1, 2]}).as_object().cloned());

    let verified = verify(&keyring(), PYJWT_UNICODE, NOW, 0).unwrap();
    let path = CanonicalPath::parse("/hls/F%C3%BC%C3%9Fe%20100%25/index.m3u8").unwrap();
    assert_eq!(verified.admits(&path, None), Ok(()));
}

#[test]
fn tickets_of_jose_verify() {
    let verified = verify(&keyring(), JOSE_BARE, NOW, 0).unwrap();
    assert_eq!((verified.claims.exp, verified.sid.as_str()), (EXP, "s-2"));
    let verified = verify(&keyring(), JOSE_TIMES, NOW, 0).unwrap();
    assert_eq!((verified.kid.as_str(), verified.claims.iat), ("k2", Some(1_700_000_000)));
}

#[test]
fn fractions_are_rounded_to_the_stricter_second() {
    let verified = verify(&keyring(), PYJWT_FRACTIONS, NOW, 0).unwrap();
    assert_eq!((verified.claims.exp, verified.claims.nbf), (EXP, Some(1_700_000_001)));
    assert_eq!(verify(&keyring(), PYJWT_FRACTIONS, 1_700_000_000, 0), Err(Refusal::NotYetValid));
    // Python's hashlib: base64url(sha256(ticket)[:16]) stands in for the session.
    assert_eq!(verified.sid, "vTauGt-wLPH9s6n6EqhTcw");
}

/// Byte for byte what PyJWT 2.15.1 makes of the same claims.
#[test]
fn mint_agrees_with_pyjwt() {
    assert_eq!(mint(&key("k1", TEXT), &all_claims()).unwrap(), PYJWT_ALL_CLAIMS);
}

#[test]
fn times_are_exact_to_the_second_and_leeway_moves_them() {
    let keyring = keyring();
    let at = |now, leeway| verify(&keyring, PYJWT_ALL_CLAIMS, now, leeway).map(|_| ());
    assert_eq!(at(EXP - 1, 0), Ok(()));
    assert_eq!(at(EXP, 0), Err(Refusal::Expired));
    assert_eq!(at(EXP + 4, 5), Ok(()));
    assert_eq!(at(EXP + 5, 5), Err(Refusal::Expired));
    assert_eq!(at(1_700_000_000, 0), Ok(()));
    assert_eq!(at(1_699_999_999, 0), Err(Refusal::NotYetValid));
    assert_eq!(at(1_699_999_995, 5), Ok(()));
    assert_eq!(at(1_699_999_994, 5), Err(Refusal::NotYetValid));
    assert_eq!(at(EXP - 1, -100), Ok(()), "a leeway below zero counts as zero");
    assert_eq!(at(i64::MAX, i64::MAX), Err(Refusal::Expired));
    let verifier = Verifier { leeway: 5 };
    assert!(verifier.verify(&keyring, PYJWT_ALL_CLAIMS, EXP + 4).is_ok());
    assert_eq!(verifier.verify(&keyring, PYJWT_ALL_CLAIMS, EXP + 5), Err(Refusal::Expired));
}

#[test]
fn a_key_is_good_from_not_before_until_retire_at() {
    let mut limited = key("k1", TEXT);
    (limited.not_before, limited.retire_at) = (Some(NOW), Some(NOW + 100));
    let ring = Keyring::new(vec![limited]).unwrap();
    let at = |now, leeway| verify(&ring, PYJWT_ALL_CLAIMS, now, leeway).map(|_| ());
    assert_eq!(at(NOW - 1, 0), Err(Refusal::KeyNotYetValid));
    assert_eq!(at(NOW - 1, 1), Ok(()));
    assert_eq!(at(NOW, 0), Ok(()));
    assert_eq!(at(NOW + 99, 0), Ok(()));
    assert_eq!(at(NOW + 100, 0), Err(Refusal::KeyRetired));
    assert_eq!(at(NOW + 100, 60), Err(Refusal::KeyRetired), "leeway does not revive a key");
    let uses = ring.key_use("k1").unwrap();
    assert_eq!((uses.accepted, uses.out_of_time), (3, 3));
    // A forgery under a retired key is not a use of it.
    assert!(verify(&ring, &tampered(PYJWT_ALL_CLAIMS, PYJWT_ALL_CLAIMS.len() - 5, b'A'), NOW + 100, 0).is_err());
    assert_eq!(ring.key_use("k1").unwrap(), uses);
}

fn tampered(ticket: &str, at: usize, with: u8) -> String {
    let mut bytes = ticket.as_bytes().to_vec();
    bytes[at] = with;
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_changed_character_is_refused() {
    let keyring = keyring();
    for ticket in [PYJWT_ALL_CLAIMS, JOSE_BARE] {
        for at in 0..ticket.len() {
            for with in [b'A', b'B', b'_', b'-', b'.', b'=', b'+', b'/', b' ', b'0', 0] {
                let changed = tampered(ticket, at, with);
                if changed != ticket {
                    assert!(verify(&keyring, &changed, NOW, 0).is_err(), "{at} {with:#x}");
                }
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_the_signature_is_refused_with_one_word() {
    let keyring = keyring();
    let (signed, signature) = JOSE_BARE.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    assert_eq!(bytes.len(), 32);
    for at in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        let ticket = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(flipped));
        assert_eq!(verify(&keyring, &ticket, NOW, 0), Err(Refusal::SignatureInvalid), "bit {at}");
    }
    for length in (0..32).chain([33, 64]) {
        let mut other = bytes.clone();
        other.resize(length, 0);
        let ticket = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(other));
        assert_eq!(verify(&keyring, &ticket, NOW, 0), Err(Refusal::SignatureInvalid), "{length} bytes");
    }
}

#[test]
fn a_ticket_has_one_spelling() {
    // The last of 43 characters carries two bits that decode to nothing: all but zero are refused.
    let last = JOSE_BARE.len() - 1;
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let accepted =
        alphabet.iter().filter(|&&with| verify(&keyring(), &tampered(JOSE_BARE, last, with), NOW, 0).is_ok());
    assert_eq!(accepted.count(), 1);
    for ticket in [
        format!("{JOSE_BARE}="),
        format!(" {JOSE_BARE}"),
        format!("{JOSE_BARE}\n"),
        format!("{JOSE_BARE}."),
        format!(".{JOSE_BARE}"),
        JOSE_BARE.replace('.', ".."),
        JOSE_BARE.replace('.', " ."),
    ] {
        assert_eq!(refusal(&ticket), Refusal::TicketMalformed, "{ticket}");
    }
}

#[test]
fn a_moved_expiry_with_the_old_signature_is_refused() {
    let (signed, signature) = JOSE_BARE.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    let moved = claims.replace("2000000000", "2000000001");
    assert_ne!(moved, claims);
    let ticket = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(moved));
    assert_eq!(refusal(&ticket), Refusal::SignatureInvalid);
}

#[test]
fn unsigned_claims_are_never_read() {
    // Neither base64 nor JSON nor within depth: were the claims looked at first, the word would be another.
    for payload in ["!!!".to_owned(), String::new(), URL_SAFE_NO_PAD.encode("[".repeat(1000))] {
        let signature = "A".repeat(43);
        let ticket = format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(GOOD_HEADER));
        assert_eq!(refusal(&ticket), Refusal::SignatureInvalid, "{payload}");
    }
}

#[test]
fn only_hs256_is_an_algorithm() {
    assert_eq!(refusal(PYJWT_NONE), Refusal::AlgorithmRefused);
    assert_eq!(refusal(PYJWT_HS512), Refusal::AlgorithmRefused);
    for alg in [r#""none""#, r#""None""#, r#""hs256""#, r#""HS256 ""#, r#""HS384""#, r#""RS256""#, r#""""#, "null"] {
        let header = format!(r#"{{"alg":{alg},"kid":"k1"}}"#);
        assert_eq!(refusal(&forge(&header, GOOD_CLAIMS)), Refusal::AlgorithmRefused, "{alg}");
    }
    assert_eq!(refusal(&forge(r#"{"kid":"k1"}"#, GOOD_CLAIMS)), Refusal::AlgorithmRefused);
}

#[test]
fn headers_are_read_strictly() {
    assert!(verify(&keyring(), &forge(GOOD_HEADER, GOOD_CLAIMS), NOW, 0).is_ok());
    for (header, expected) in [
        (r#"{"alg":"HS256","kid":"k1","crit":["b64"],"b64":false}"#, Refusal::CriticalHeaderRefused),
        (r#"{"alg":"HS256","kid":"k1","crit":[]}"#, Refusal::CriticalHeaderRefused),
        (r#"{"alg":"HS256","kid":"k1","crit":null}"#, Refusal::CriticalHeaderRefused),
        (r#"{"alg":"none","alg":"HS256","kid":"k1"}"#, Refusal::TicketMalformed),
        (r#"{"alg":"HS256","kid":"k2","kid":"k1"}"#, Refusal::TicketMalformed),
        (r#"{"alg":"HS256","kid":"k1","\u006bid":"k1"}"#, Refusal::TicketMalformed),
        (r#"{"alg":["HS256"],"kid":"k1"}"#, Refusal::TicketMalformed),
        (r#"{"alg":"HS256","kid":1}"#, Refusal::TicketMalformed),
        (r#"{"alg":"HS256","kid":"k1","typ":"at+jwt"}"#, Refusal::TicketMalformed),
        (r#"["HS256","k1",null,false]"#, Refusal::TicketMalformed),
        (r#"{"alg":"HS256","kid":"k1"} x"#, Refusal::TicketMalformed),
        (r#"{"alg":"HS256","kid":"k1""#, Refusal::TicketMalformed),
        (r#""HS256""#, Refusal::TicketMalformed),
        ("", Refusal::TicketMalformed),
        (r#"{"alg":"HS256"}"#, Refusal::KeyUnknown),
        (r#"{"alg":"HS256","kid":null}"#, Refusal::KeyUnknown),
        (r#"{"alg":"HS256","kid":""}"#, Refusal::KeyUnknown),
        (r#"{"alg":"HS256","kid":"k3"}"#, Refusal::KeyUnknown),
        (r#"{"alg":"HS256","kid":"K1"}"#, Refusal::KeyUnknown),
        // The right name with another key's secret.
        (r#"{"alg":"HS256","kid":"k2"}"#, Refusal::SignatureInvalid),
    ] {
        assert_eq!(refusal(&forge(header, GOOD_CLAIMS)), expected, "{header}");
    }
    // What is not understood and not critical is ignored, a key that the ticket brings along above all.
    let brought =
        r#"{"alg":"HS256","kid":"k1","jwk":{"kty":"oct","k":"AAAA"},"jku":"http://evil.example/","x":1,"x":2}"#;
    assert!(verify(&keyring(), &forge(brought, GOOD_CLAIMS), NOW, 0).is_ok());
    let typ = r#"{ "typ" : "jwt", "kid" : "k1", "alg" : "HS256" }"#;
    assert!(verify(&keyring(), &forge(typ, GOOD_CLAIMS), NOW, 0).is_ok());
}

#[test]
fn signed_claims_of_the_wrong_form_are_refused() {
    for claims in [
        r#"{"path":"/t/"}"#,
        r#"{"exp":2000000000}"#,
        r#"{"exp":null,"path":"/t/"}"#,
        r#"{"exp":"2000000000","path":"/t/"}"#,
        r#"{"exp":true,"path":"/t/"}"#,
        r#"{"exp":1e300,"path":"/t/"}"#,
        r#"{"exp":18446744073709551615,"path":"/t/"}"#,
        r#"{"exp":2000000000,"exp":3000000000,"path":"/t/"}"#,
        r#"{"exp":2000000000,"path":"/t/","path":"/"}"#,
        r#"{"exp":2000000000,"path":"/t/../"}"#,
        r#"{"exp":2000000000,"path":"t/"}"#,
        r#"{"exp":2000000000,"path":""}"#,
        r#"{"exp":2000000000,"path":["/t/"]}"#,
        r#"{"exp":2000000000,"path":"/t\u0000/"}"#,
        r#"{"exp":2000000000,"path":"/t/","nbf":"now"}"#,
        r#"{"exp":2000000000,"path":"/t/","ip":""}"#,
        r#"{"exp":2000000000,"path":"/t/","ip":"localhost"}"#,
        r#"{"exp":2000000000,"path":"/t/","ip":"192.0.2.0/33"}"#,
        r#"{"exp":2000000000,"path":"/t/","sid":""}"#,
        r#"{"exp":2000000000,"path":"/t/","sid":7}"#,
        r#"{"exp":2000000000,"path":"/t/","ctx":[]}"#,
        r#"[2000000000,null,null,"/t/",null,null,null,null,null,null]"#,
        r#"{"exp":2000000000,"path":"/t/"}{}"#,
        "",
        "null",
    ] {
        assert_eq!(refusal(&forge(GOOD_HEADER, claims)), Refusal::ClaimsInvalid, "{claims}");
    }
    let deep = format!(r#"{{"exp":2000000000,"path":"/t/","ctx":{}{}}}"#, r#"{"a":"#.repeat(200), "}".repeat(200));
    assert_eq!(refusal(&forge(GOOD_HEADER, &deep)), Refusal::ClaimsInvalid);
    let unset = r#"{"exp":2e9,"path":"/t/","nbf":null,"sid":null,"ip":null,"ctx":null}"#;
    assert!(verify(&keyring(), &forge(GOOD_HEADER, unset), NOW, 0).is_ok());
}

#[test]
fn size_is_bounded_before_anything_is_parsed() {
    assert_eq!(refusal(""), Refusal::TicketMissing);
    assert_eq!(refusal(&"a".repeat(MAX_TICKET_BYTES)), Refusal::TicketMalformed);
    assert_eq!(refusal(&"a".repeat(MAX_TICKET_BYTES + 1)), Refusal::TicketTooLong);
    assert_eq!(refusal(&"a.".repeat(50_000)), Refusal::TicketTooLong);
    assert_eq!(refusal(&forge(GOOD_HEADER, &format!("{GOOD_CLAIMS}{}", " ".repeat(100_000)))), Refusal::TicketTooLong);
    for shape in ["a", "a.b", ".", "..", "...", "a.b.c.d.e", "\0.\0.\0", "é.é.é"] {
        assert_eq!(refusal(shape), Refusal::TicketMalformed, "{shape:?}");
    }
}

#[test]
fn mint_refuses_what_verify_would() {
    let k1 = key("k1", TEXT);
    let error = |claims: &Claims| mint(&k1, claims).unwrap_err().kind();
    assert_eq!(error(&Claims::new("/a/../", EXP)), "scope-invalid");
    assert_eq!(error(&Claims { ip: Some("nowhere".into()), ..Claims::new("/a/", EXP) }), "ip-invalid");
    assert_eq!(error(&Claims { sid: Some(String::new()), ..Claims::new("/a/", EXP) }), "claim-empty");
    assert_eq!(error(&Claims { nbf: Some(EXP), ..Claims::new("/a/", EXP) }), "ticket-never-valid");
    assert_eq!(mint(&key("k 1", TEXT), &Claims::new("/a/", EXP)).unwrap_err().kind(), "kid-invalid");
    let mut longest = None;
    for length in 1..2000 {
        match mint(&k1, &Claims { sub: Some("x".repeat(length)), ..Claims::new("/a/", EXP) }) {
            Ok(ticket) => longest = Some(ticket),
            Err(error) => {
                assert_eq!(error.kind(), "ticket-too-long");
                break;
            }
        }
    }
    let longest = longest.unwrap();
    assert!((MAX_TICKET_BYTES - 1..=MAX_TICKET_BYTES).contains(&longest.len()), "{}", longest.len());
    assert!(verify(&keyring(), &longest, NOW, 0).is_ok());
}

#[test]
fn renewal_looks_at_renew_until_in_place_of_exp() {
    let keyring = keyring();
    let at = |ticket: &str, now, leeway| verify_for_renewal(&keyring, ticket, now, leeway).map(|_| ());
    assert_eq!(at(PYJWT_ALL_CLAIMS, NOW, 0), Ok(()));
    assert_eq!(at(PYJWT_ALL_CLAIMS, EXP + 3_599, 0), Ok(()), "expired, and still to be renewed");
    assert_eq!(at(PYJWT_ALL_CLAIMS, EXP + 3_600, 0), Err(Refusal::NotRenewable));
    assert_eq!(at(PYJWT_ALL_CLAIMS, EXP + 3_600, 1), Ok(()));
    assert_eq!(at(JOSE_BARE, NOW, 0), Err(Refusal::NotRenewable), "it has no renew_until");
    assert_eq!(at(&tampered(PYJWT_ALL_CLAIMS, 200, b'A'), NOW, 0), Err(Refusal::SignatureInvalid));
}

#[test]
fn a_url_signature_is_no_ticket_signature() {
    let path = CanonicalPath::parse("/a").unwrap();
    let query = crate::url::sign(&key("k2", HEX), &path, EXP);
    let sig = query.rsplit_once('=').unwrap().1;
    let (signed, _) = JOSE_TIMES.rsplit_once('.').unwrap();
    assert_eq!(refusal(&format!("{signed}.{sig}")), Refusal::SignatureInvalid);
}
