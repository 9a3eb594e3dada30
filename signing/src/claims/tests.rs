#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn bound_to(ip: &str) -> Verified {
    let claims = Claims { ip: Some(ip.into()), ..Claims::new("/t/", 1) };
    Verified::from_ticket(claims, "k1".into(), "ticket").unwrap()
}

fn admits(ip: &str, client: &str) -> bool {
    let path = CanonicalPath::parse("/t/x").unwrap();
    bound_to(ip).admits(&path, Some(client.parse().unwrap())).is_ok()
}

#[test]
fn an_address_opens_to_itself_and_a_block_to_all_in_it() {
    assert!(admits("192.0.2.1", "192.0.2.1"));
    assert!(!admits("192.0.2.1", "192.0.2.2"));
    assert!(admits("192.0.2.0/24", "192.0.2.255"));
    assert!(admits("192.0.2.77/24", "192.0.2.1"), "host bits do not matter");
    assert!(!admits("192.0.2.0/24", "192.0.3.0"));
    assert!(admits("0.0.0.0/0", "203.0.113.9"));
    assert!(!admits("0.0.0.0/0", "2001:db8::1"));
    assert!(admits("2001:db8::/64", "2001:db8::ffff"));
    assert!(!admits("2001:db8::/64", "2001:db8:0:1::1"));
    assert!(!admits("2001:db8::1", "2001:db8::2"));
}

#[test]
fn ipv4_in_ipv6_is_the_ipv4_that_it_is() {
    assert!(admits("192.0.2.1", "::ffff:192.0.2.1"));
    assert!(admits("::ffff:192.0.2.1", "192.0.2.1"));
    assert!(admits("::ffff:192.0.2.0/120", "192.0.2.9"));
    assert!(!admits("::ffff:192.0.2.0/120", "192.0.3.9"));
}

#[test]
fn an_unknown_address_fails_only_tickets_that_are_bound() {
    let path = CanonicalPath::parse("/t/x").unwrap();
    assert_eq!(bound_to("192.0.2.1").admits(&path, None), Err(Refusal::AddressMismatch));
    let free = Verified::from_ticket(Claims::new("/t/", 1), "k1".into(), "ticket").unwrap();
    assert_eq!(free.admits(&path, None), Ok(()));
}

#[test]
fn scope_comes_before_address() {
    let path = CanonicalPath::parse("/other/x").unwrap();
    assert_eq!(bound_to("192.0.2.1").admits(&path, None), Err(Refusal::OutOfScope));
}

#[test]
fn a_ticket_without_a_session_is_its_own() {
    let session = |ticket: &str| Verified::from_ticket(Claims::new("/t/", 1), "k1".into(), ticket).unwrap().sid;
    // `printf abc | openssl sha256`, first 16 bytes: ba7816bf 8f01cfea 414140de 5dae2223.
    assert_eq!(session("abc"), "ungWv48Bz-pBQUDeXa4iIw");
    assert_ne!(session("abc"), session("abd"));
}

#[test]
fn claims_survive_json_and_unset_ones_are_not_written() {
    let claims = Claims::new("/t/", 5);
    let json = serde_json::to_string(&claims).unwrap();
    assert_eq!(json, r#"{"exp":5,"path":"/t/"}"#);
    assert_eq!(serde_json::from_str::<Claims>(&json).unwrap(), claims);
}

#[test]
fn dates_are_read_as_whole_seconds() {
    let exp = |text: &str| {
        serde_json::from_str::<Claims>(&format!(r#"{{"exp":{text},"path":"/"}}"#)).ok().map(|claims| claims.exp)
    };
    assert_eq!(exp("1.99"), Some(1));
    assert_eq!(exp("-1.5"), Some(-2));
    assert_eq!(exp("9223372036854775807"), Some(i64::MAX));
    assert_eq!(exp("9223372036854775808"), None);
    assert_eq!(exp("9007199254740993.5"), None);
}
