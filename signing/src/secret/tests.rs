#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn hex(text: &str) -> Vec<u8> {
    decode_hex(text).unwrap()
}

/// RFC 4231 section 4, test cases 1 to 7: key, data, HMAC-SHA-256 (case 5 is cut to 128 bits).
#[test]
fn hmac_agrees_with_rfc_4231() {
    let long: &[u8] = b"This is a test using a larger than block-size key and a larger than block-size data. \
        The key needs to be hashed before being used by the HMAC algorithm.";
    let cases: [(Vec<u8>, Vec<u8>, &str); 7] = [
        (vec![0x0b; 20], b"Hi There".to_vec(), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?".to_vec(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (vec![0xaa; 20], vec![0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        ((1..=25).collect(), vec![0xcd; 50], "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
        (vec![0x0c; 20], b"Test With Truncation".to_vec(), "a3b6167473100ee06e0c796c2955552b"),
        (
            vec![0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (vec![0xaa; 131], long.to_vec(), "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
    ];
    for (number, (key, data, expected)) in (1..).zip(cases) {
        let secret = SigningSecret::of_any_length(key.into()).unwrap();
        let expected = hex(expected);
        let signature = secret.sign(&[&data]);
        assert_eq!(signature[..expected.len()], expected, "case {number}");
        // In parts, as tickets and URLs are signed, and a second time from the same prepared key.
        let (head, tail) = data.split_at(data.len() / 2);
        assert!(secret.verifies(&[head, tail], &signature), "case {number}");
        // A cut signature is not a signature.
        assert!(!secret.verifies(&[&data], &signature[..16]), "case {number}");
        assert!(!secret.verifies(&[&data], &[]), "case {number}");
    }
}

#[test]
fn prefixes_decode_and_the_rest_is_taken_as_it_is() {
    let bytes: Vec<u8> = (0xf0..=0xff).chain(0..16).collect();
    let expected = SigningSecret::from_bytes(bytes).unwrap();
    for text in [
        "hex:f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f",
        "hex:F0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF000102030405060708090A0B0C0D0E0F",
        "base64:8PHy8/T19vf4+fr7/P3+/wABAgMEBQYHCAkKCwwNDg8=",
        "base64:8PHy8/T19vf4+fr7/P3+/wABAgMEBQYHCAkKCwwNDg8",
        "base64:8PHy8_T19vf4-fr7_P3-_wABAgMEBQYHCAkKCwwNDg8",
    ] {
        assert!(SigningSecret::parse(text).unwrap() == expected, "{text}");
    }
    let text = " with spaces, ünïcode and a newline at the end\n";
    assert!(SigningSecret::parse(text).unwrap() == SigningSecret::from_bytes(text.as_bytes()).unwrap());
    assert!(SigningSecret::parse(text.trim()).unwrap() != SigningSecret::parse(text).unwrap());
}

#[test]
fn the_length_is_that_of_the_decoded_bytes() {
    let digits = "hex:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e";
    assert_eq!(SigningSecret::parse(digits).unwrap_err(), SecretError::TooShort(31));
    assert_eq!(SigningSecret::parse(&"x".repeat(31)).unwrap_err(), SecretError::TooShort(31));
    assert!(SigningSecret::parse(&"x".repeat(32)).is_ok());
    assert_eq!(SigningSecret::parse("").unwrap_err(), SecretError::TooShort(0));
    assert_eq!(SigningSecret::parse("hex:").unwrap_err(), SecretError::TooShort(0));
}

#[test]
fn broken_encodings_are_refused_without_being_repeated() {
    let odd = format!("hex:{}", "a".repeat(65));
    let not_hex = format!("hex:{}", "+1".repeat(32));
    let multibyte = format!("hex:{}", "é".repeat(32));
    for text in [odd, not_hex, multibyte] {
        assert_eq!(SigningSecret::parse(&text).unwrap_err(), SecretError::NotHex, "{text}");
    }
    let error = SigningSecret::parse("base64:*this is no base64 at all, however long*").unwrap_err();
    assert_eq!(error, SecretError::NotBase64);
    assert!(!error.to_string().contains("however"));
    // One text must not mix the two alphabets: it was put together from two secrets.
    let mixed = "base64:8PHy8_T19vf4+fr7/P3+/wABAgMEBQYHCAkKCwwNDg8=";
    assert_eq!(SigningSecret::parse(mixed).unwrap_err(), SecretError::NotBase64);
}

#[test]
fn a_generated_secret_is_read_back_and_is_new_each_time() {
    let (one, two) = (SigningSecret::generate().unwrap(), SigningSecret::generate().unwrap());
    assert_ne!(one, two);
    assert_eq!(one.len(), 4 + 64);
    assert_eq!(SigningSecret::parse(&one).unwrap().bytes.len(), MIN_SECRET_BYTES);
}

#[test]
fn debug_shows_nothing() {
    let secret = SigningSecret::parse("correct horse battery staple, at full length").unwrap();
    assert_eq!(format!("{secret:?}"), "SigningSecret(…)");
}
