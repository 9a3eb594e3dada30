//! Look-ups in a database of a few networks.

#![allow(clippy::unwrap_used)]

#[path = "../../../tests/support/mmdb.rs"]
#[allow(unreachable_pub)]
mod mmdb;

use super::*;

#[test]
fn addresses_are_in_countries_and_another_file_is_another_world() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("country.mmdb");
    let open = |networks: &[([u8; 4], u32, &str)]| {
        std::fs::write(&path, mmdb::database(networks)).unwrap();
        Countries::open(&path).unwrap()
    };
    let of = |countries: &Countries, address: &str| {
        countries.of(address.parse().unwrap()).map(|country| country.as_str().to_owned())
    };
    let first = open(&[([192, 0, 2, 0], 24, "DE"), ([198, 51, 100, 0], 25, "fr")]);
    for _ in 0..2 {
        assert_eq!(of(&first, "192.0.2.77").as_deref(), Some("DE"));
        assert_eq!(of(&first, "::ffff:192.0.2.77").as_deref(), Some("DE"), "IPv4 in any form");
        assert_eq!(of(&first, "192.0.3.1"), None);
        assert_eq!(of(&first, "198.51.100.1"), None, "not a code");
        assert_eq!(of(&first, "2001:db8::1"), None, "a database of IPv4 alone");
    }
    let second = open(&[([192, 0, 2, 0], 24, "AT")]);
    assert_eq!(of(&second, "192.0.2.77").as_deref(), Some("AT"), "what was remembered was of the other one");
    assert_eq!(of(&first, "192.0.2.77").as_deref(), Some("DE"));
    std::fs::write(&path, "no database").unwrap();
    assert!(Countries::open(&path).unwrap_err().contains("not a MaxMind database"));
}
