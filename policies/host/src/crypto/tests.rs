use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn services(keys: &[(&str, Key)], signer: bool) -> Services {
    let keys = keys.iter().map(|(name, key)| ((*name).to_owned(), key.clone())).collect();
    Services { keys, signer, ..Services::default() }
}

/// RFC 1321 (appendix A.5), RFC 3174 and FIPS 180-4: the digests of `abc`.
#[test]
fn digests_of_abc() {
    assert_eq!(hex(&digest(Hash::Md5, &[b"ab", b"c"])), "900150983cd24fb0d6963f7d28e17f72");
    assert_eq!(hex(&digest(Hash::Sha1, &[b"abc"])), "a9993e364706816aba3e25717850c26c9cd0d89d");
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(hex(&digest(Hash::Sha256, &[b"", b"abc"])), sha256);
}

/// RFC 2202 (cases 2) and RFC 4231 (case 2).
#[test]
fn hmacs_by_key_name() {
    let services = services(&[("jefe", Key::secret(*b"Jefe").unwrap())], false);
    let data = b"what do ya want for nothing?";
    let of = |hash| hmac(&services, hash, "jefe", data).map(|mac| hex(&mac)).unwrap();
    assert_eq!(of(Hash::Md5), "750c783e6ab0b503eaa86e310a5db738");
    assert_eq!(of(Hash::Sha1), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    assert_eq!(of(Hash::Sha256), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_eq!(hmac(&services, Hash::Md5, "other", data), Err(KeyError::Unknown));
    assert_eq!(digest_keyed(&services, Hash::Md5, "jefe", b"a", b"b").unwrap(), digest(Hash::Md5, &[b"aJefeb"]));
}

#[test]
fn each_algorithm_verifies_what_it_signed_and_nothing_else() {
    let keys = [
        ("rsa", Key::pem(include_str!("../../tests/keys/rsa.pem")).unwrap()),
        ("p256", Key::pem(include_str!("../../tests/keys/p256.pem")).unwrap()),
        ("p384", Key::pem(include_str!("../../tests/keys/p384.pem")).unwrap()),
        ("rsa-pub", Key::pem(include_str!("../../tests/keys/rsa.pub.pem")).unwrap()),
        ("p256-pub", Key::pem(include_str!("../../tests/keys/p256.pub.pem")).unwrap()),
        ("p384-pub", Key::pem(include_str!("../../tests/keys/p384.pub.pem")).unwrap()),
        ("secret", Key::secret(*b"s").unwrap()),
    ];
    let signer = services(&keys, true);
    let edge = services(&keys, false);
    for (algorithm, key) in [
        (Algorithm::RsaSha1, "rsa"),
        (Algorithm::RsaSha256, "rsa"),
        (Algorithm::P256Sha1, "p256"),
        (Algorithm::P256Sha256, "p256"),
        (Algorithm::P384Sha384, "p384"),
    ] {
        let mut signature = sign(&signer, algorithm, key, b"data").unwrap();
        for public in [key.to_owned(), format!("{key}-pub")] {
            assert_eq!(verify(&edge, algorithm, &public, b"data", &signature), Ok(true), "{algorithm:?} {public}");
            assert_eq!(verify(&edge, algorithm, &public, b"Data", &signature), Ok(false), "{algorithm:?} {public}");
        }
        assert_eq!(sign(&edge, algorithm, key, b"data"), Err(KeyError::Forbidden));
        assert_eq!(sign(&signer, algorithm, "secret", b"data"), Err(KeyError::Unfit));
        assert_eq!(verify(&edge, algorithm, "secret", b"data", &signature), Err(KeyError::Unfit));
        *signature.last_mut().unwrap() ^= 1;
        assert_eq!(verify(&edge, algorithm, key, b"data", &signature), Ok(false));
    }
    assert_eq!(verify(&edge, Algorithm::P384Sha384, "p256", b"data", b""), Err(KeyError::Unfit));
    assert_eq!(verify(&edge, Algorithm::RsaSha1, "p256", b"data", b""), Err(KeyError::Unfit));
}
