use super::*;

#[test]
fn what_is_no_key_says_what_would_be() {
    assert_eq!(Key::secret(*b"").unwrap_err(), KeyError::Empty);
    assert_eq!(Key::pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").unwrap_err(), KeyError::Pem);
    assert_eq!(Key::pem("hello").unwrap_err(), KeyError::Pem);
    assert_eq!(Key::pem(include_str!("../../tests/keys/rsa1024.pem")).unwrap_err(), KeyError::Short(1024));
}

#[test]
fn debug_shows_no_bytes() {
    let services = Services { keys: [("k".to_owned(), Key::secret(*b"hush").unwrap())].into(), ..Services::default() };
    let shown = format!("{services:?}");
    assert!(shown.contains("Secret") && !shown.contains("hush"), "{shown}");
}
