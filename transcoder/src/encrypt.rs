//! Segments behind a lock: AES-128 in CBC mode over whole segments, padded as PKCS#7 says (RFC 8216, section 4.3.2.4).
//!
//! Each rendition has keys of its own, and a new one every so many segments: who may have one rendition may have its keys
//! and no others. A key lies wrapped beside its segments, under the name that the playlist gives as its URI. Init
//! sections stay open: they hold no sound, and stand before the first key in every playlist (section 4.3.2.5).
//!
//! Invariants: each segment has an initialisation vector of its own, random, as CBC wants it; a content key is neither
//! on a disk nor in a log; nothing is encrypted for which no edge could have the key.
//!
//! On failure: a wrapping key that is not the one that this bucket knows under its id fails the job before its first
//! segment, and says so.

use aws_lc_rs::cipher::{AES_128, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use bytes::Bytes;
use segue_signing::{ContentKey, WrapError, WrappingKeys, check_object, check_place};

use crate::config::Encryption;
use crate::reject::{Failure, Reason};
use crate::store::{Store, StoreError};

/// Bytes of an initialisation vector: one block of AES.
const BLOCK: usize = 16;
/// Bytes of the object that shows whether a wrapping key is the right one.
const CHECK_MAX: usize = 1024;

/// How one segment is locked, as its playlist says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lock {
    /// The key's name, beside the segment.
    pub(crate) key: String,
    pub(crate) iv: [u8; BLOCK],
}

/// A key that is to be there before the segment that it opens.
#[derive(Debug)]
pub(crate) struct Wrapped {
    pub(crate) name: String,
    pub(crate) body: Bytes,
}

/// Locks the segments of one rendition, in order.
#[derive(Debug)]
pub(crate) struct Locksmith {
    encryption: Encryption,
    /// `<track>/<version>/<rendition>/`.
    place: String,
    current: Option<(String, PaddedBlockEncryptingKey)>,
}

impl Locksmith {
    pub(crate) fn new(encryption: &Encryption, place: String) -> Self {
        Self { encryption: encryption.clone(), place, current: None }
    }

    /// Locks the segment `number`; the key comes with the first segment that it locks.
    pub(crate) fn lock(&mut self, number: usize, segment: &Bytes) -> Result<(Bytes, Lock, Option<Wrapped>), Failure> {
        let rotate = self.encryption.rotate_segments.max(1);
        let wrapped = if number.is_multiple_of(rotate) { Some(self.turn(number / rotate)?) } else { None };
        let (name, cipher) = self.current.as_ref().ok_or_else(|| failed("segments came out of order"))?;
        let mut iv = [0; BLOCK];
        getrandom::fill(&mut iv).map_err(|_| failed(WrapError::NoRandomness))?;
        let body = cipher_text(cipher, iv, segment)?;
        Ok((body, Lock { key: name.clone(), iv }, wrapped))
    }

    /// Makes the key `index` and turns to it.
    fn turn(&mut self, index: usize) -> Result<Wrapped, Failure> {
        let Encryption { keys, wrapping_key, .. } = &self.encryption;
        let name = format!("key-{index:05}.key");
        let key = ContentKey::generate().map_err(failed)?;
        let body = keys.wrap(wrapping_key, &key, &format!("{}{name}", self.place)).map_err(failed)?;
        self.current = Some((name.clone(), encrypting(&key)?));
        Ok(Wrapped { name, body: body.into() })
    }
}

fn encrypting(key: &ContentKey) -> Result<PaddedBlockEncryptingKey, Failure> {
    let key = UnboundCipherKey::new(&AES_128, key.as_ref()).and_then(PaddedBlockEncryptingKey::cbc_pkcs7);
    key.map_err(|_| failed("the cipher took no key"))
}

/// `plain` under this key and vector. A vector is used once: whoever calls this makes a new one each time.
fn cipher_text(cipher: &PaddedBlockEncryptingKey, iv: [u8; BLOCK], plain: &[u8]) -> Result<Bytes, Failure> {
    let mut body = Vec::with_capacity(plain.len() + BLOCK);
    body.extend_from_slice(plain);
    let context = EncryptionContext::Iv128(FixedLength::from(iv));
    cipher.less_safe_encrypt(&mut body, context).map_err(|_| failed("the cipher failed"))?;
    Ok(body.into())
}

fn failed(detail: impl std::fmt::Display) -> Failure {
    Failure::new(Reason::WorkerFailed, "The transcoder could not encrypt the result.").because(detail)
}

/// What a bucket says about a wrapping key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Workers wrap with this very key.
    Right,
    /// Nobody has wrapped with it yet.
    New,
    Wrong(WrapError),
}

/// Whether the secret that is known here as `id` is the one that this bucket's workers wrap with.
pub(crate) async fn standing(store: &Store, keys: &WrappingKeys, id: &str) -> Result<Standing, StoreError> {
    match store.small(&check_object(id), CHECK_MAX).await {
        Ok(wrapped) => Ok(match keys.unwrap(&wrapped, &check_place(id)) {
            Ok(_) => Standing::Right,
            Err(error) => Standing::Wrong(error),
        }),
        Err(StoreError::Missing(_)) => Ok(Standing::New),
        Err(error) => Err(error),
    }
}

/// Refuses to wrap with a secret that is not the one that this bucket knows under its id; the first worker to wrap with
/// an id says which it is.
pub(crate) async fn vouch(store: &Store, encryption: &Encryption) -> Result<(), Failure> {
    let Encryption { keys, wrapping_key: id, .. } = encryption;
    let unavailable = |error: StoreError| {
        Failure::new(Reason::StoreUnavailable, "The object store did not answer as it should.").because(error)
    };
    match standing(store, keys, id).await.map_err(unavailable)? {
        Standing::Right => Ok(()),
        Standing::Wrong(error) => Err(failed(error)),
        Standing::New => {
            // It opens nothing: no segment is encrypted with it.
            let shown = ContentKey::generate().and_then(|key| keys.wrap(id, &key, &check_place(id))).map_err(failed)?;
            store.put(&check_object(id), Bytes::from(shown), "text/plain").await.map_err(unavailable)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use segue_signing::{SigningSecret, WrappingKey};

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
    }

    /// NIST SP 800-38A, F.2.1, CBC-AES128.Encrypt.
    const KEY: &str = "2b7e151628aed2a6abf7158809cf4f3c";
    const IV: &str = "000102030405060708090a0b0c0d0e0f";
    const PLAIN: &str = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";
    const CIPHER: &str = "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b273bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7";

    fn cipher() -> PaddedBlockEncryptingKey {
        let key = <[u8; 16]>::try_from(bytes(KEY)).expect("16 bytes");
        encrypting(&ContentKey::from(key)).expect("a key")
    }

    #[test]
    fn the_cipher_gives_what_nist_says() {
        let iv = bytes(IV).try_into().expect("16 bytes");
        let body = cipher_text(&cipher(), iv, &bytes(PLAIN)).expect("encrypted");
        assert_eq!(body[..64], bytes(CIPHER));
        // A whole block of padding follows a whole block (RFC 5652, section 6.3): sixteen bytes of sixteen.
        assert_eq!(body.len(), 80);
        let last = <[u8; 16]>::try_from(&body[48..64]).expect("16 bytes");
        assert_eq!(body[64..], cipher_text(&cipher(), last, &[]).expect("encrypted")[..]);
    }

    fn locksmith(rotate_segments: usize) -> Locksmith {
        let secret = SigningSecret::parse("a wrapping secret that is long enough").expect("secret");
        let keys = WrappingKeys::new(&[WrappingKey { id: "w1".to_owned(), secret }]).expect("keys");
        let encryption = Encryption { rotate_segments, keys: Arc::new(keys), wrapping_key: "w1".to_owned() };
        Locksmith::new(&encryption, "t/v-1/a64/".to_owned())
    }

    #[test]
    fn keys_rotate_and_no_two_segments_are_locked_alike() {
        let mut locksmith = locksmith(2);
        let segment = Bytes::from_static(b"the same bytes each time");
        let locked: Vec<_> = (0..5).map(|n| locksmith.lock(n, &segment).expect("locked")).collect();
        let keys: Vec<&str> = locked.iter().map(|(_, lock, _)| lock.key.as_str()).collect();
        assert_eq!(keys, ["key-00000.key", "key-00000.key", "key-00001.key", "key-00001.key", "key-00002.key"]);
        let made: Vec<bool> = locked.iter().map(|(.., wrapped)| wrapped.is_some()).collect();
        assert_eq!(made, [true, false, true, false, true], "a key comes with the first segment that it locks");
        for (n, (body, lock, _)) in locked.iter().enumerate() {
            assert_eq!(body.len(), 32);
            assert!(locked[..n].iter().all(|(other, earlier, _)| other != body && earlier.iv != lock.iv));
        }
    }

    #[test]
    fn a_wrapped_key_is_bound_to_where_it_lies() {
        let mut locksmith = locksmith(1);
        let (_, _, wrapped) = locksmith.lock(0, &Bytes::from_static(b"x")).expect("locked");
        let wrapped = wrapped.expect("a key");
        let keys = &locksmith.encryption.keys;
        assert!(keys.unwrap(&wrapped.body, "t/v-1/a64/key-00000.key").is_ok());
        assert!(keys.unwrap(&wrapped.body, "t/v-1/a128/key-00000.key").is_err());
    }
}
