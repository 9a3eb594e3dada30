#![allow(clippy::unwrap_used)]
use aws_lc_rs::aead::LessSafeKey;
use aws_lc_rs::aead::UnboundKey;

use super::*;

const PLACE: &str = "abcdefgh2345/0123456789abcdef-7/a128/key-00000.key";

fn key(id: &str, secret: &str) -> WrappingKey {
    WrappingKey { id: id.to_owned(), secret: SigningSecret::parse(secret).unwrap() }
}

fn one(id: &str) -> WrappingKey {
    key(id, &format!("a wrapping secret that is long enough {id}"))
}

#[test]
fn a_wrapped_key_opens_at_its_place_and_nowhere_else() {
    let keys = WrappingKeys::new(&[one("w1")]).unwrap();
    let content = ContentKey::generate().unwrap();
    let wrapped = keys.wrap("w1", &content, PLACE).unwrap();
    assert!(is_wrapped(wrapped.as_bytes()) && wrapped.starts_with("segue-content-key-v1:w1:"));
    assert_eq!(keys.unwrap(wrapped.as_bytes(), PLACE).unwrap().as_ref(), content.as_ref());
    let moved = PLACE.replace("key-00000", "key-00001");
    assert_eq!(keys.unwrap(wrapped.as_bytes(), &moved).unwrap_err(), WrapError::Wrong("w1".to_owned()));
    assert_ne!(wrapped, keys.wrap("w1", &content, PLACE).unwrap(), "another nonce each time");
}

#[test]
fn an_older_key_still_unwraps_and_a_foreign_one_never_does() {
    let older = WrappingKeys::new(&[one("w1")]).unwrap();
    let content = ContentKey::generate().unwrap();
    let wrapped = older.wrap("w1", &content, PLACE).unwrap();
    let newer = WrappingKeys::new(&[one("w1"), one("w2")]).unwrap();
    assert_eq!(newer.unwrap(wrapped.as_bytes(), PLACE).unwrap().as_ref(), content.as_ref());
    let after = WrappingKeys::new(&[one("w2")]).unwrap();
    assert_eq!(after.unwrap(wrapped.as_bytes(), PLACE).unwrap_err(), WrapError::Unknown("w1".to_owned()));
    let foreign = WrappingKeys::new(&[key("w1", "another secret under the same name, long enough")]).unwrap();
    assert_eq!(foreign.unwrap(wrapped.as_bytes(), PLACE).unwrap_err(), WrapError::Wrong("w1".to_owned()));
    assert_eq!(older.wrap("w9", &content, PLACE).unwrap_err(), WrapError::Unknown("w9".to_owned()));
}

#[test]
fn every_changed_byte_is_noticed() {
    let keys = WrappingKeys::new(&[one("w1")]).unwrap();
    let wrapped = keys.wrap("w1", &ContentKey::generate().unwrap(), PLACE).unwrap();
    for at in 0..wrapped.len() {
        let mut bytes = wrapped.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        assert!(keys.unwrap(&bytes, PLACE).is_err(), "byte {at}");
    }
    for cut in ["", "segue-content-key-v1:", "segue-content-key-v1:w1:", &wrapped[..wrapped.len() - 4]] {
        assert_eq!(keys.unwrap(cut.as_bytes(), PLACE).unwrap_err(), WrapError::Malformed, "{cut:?}");
    }
}

#[test]
fn nothing_of_a_key_is_shown() {
    let keys = WrappingKeys::new(&[one("w1")]).unwrap();
    assert_eq!(format!("{keys:?} {:?}", ContentKey::from([7; 16])), "[\"w1\"] ContentKey(…)");
    assert_eq!(WrappingKeys::new(&[one("w:1")]).unwrap_err(), WrapError::IdInvalid("w:1".to_owned()));
}

/// Known answer: test case 14 of "The Galois/Counter Mode of Operation" (McGrew, Viega), which NIST took over for
/// AES-256-GCM; it shows that the cipher behind the envelope is the one that is meant.
#[test]
fn the_cipher_is_aes_256_gcm() {
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[0; 32]).unwrap());
    let mut bytes = vec![0; 16];
    let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
    cipher.seal_in_place_append_tag(nonce, Aad::empty(), &mut bytes).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
}
