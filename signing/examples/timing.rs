//! What a ticket costs, in nanoseconds: `cargo run --release -p segue-signing --example timing`.
//!
//! A rough figure from one thread, for a reader who weighs a change; nothing is asserted.
#![allow(clippy::unwrap_used, reason = "an example that prints")]

use std::hint::black_box;
use std::time::Instant;

use segue_signing::{CanonicalPath, Claims, Key, Keyring, SigningSecret, TicketCache, mint, url, verify};

const ROUNDS: u32 = 200_000;

fn time(what: &str, mut work: impl FnMut()) {
    (0..ROUNDS / 10).for_each(|_| work());
    let start = Instant::now();
    (0..ROUNDS).for_each(|_| work());
    println!("{what:<34} {:>6} ns", start.elapsed().as_nanos() / u128::from(ROUNDS));
}

fn main() {
    let secret = SigningSecret::parse("correct horse battery staple, at full length").unwrap();
    let key = Key { kid: "k1".into(), secret, not_before: None, retire_at: None };
    let keyring = Keyring::new(vec![key.clone()]).unwrap();
    let claims = Claims {
        sid: Some("0f8fad5bd9cb469fa16570867728950e".into()),
        sub: Some("listener-7".into()),
        iat: Some(1_000),
        ..Claims::new("/hls/aaaabbbbcccc/", 5_000)
    };
    let ticket = mint(&key, &claims).unwrap();
    let raw = "/hls/aaaabbbbcccc/0123456789abcdef-1/a128/seg-00042.m4s";
    let path = CanonicalPath::parse(raw).unwrap();
    let query = url::sign(&key, &path, 5_000);
    let sig = query.rsplit_once('=').unwrap().1;
    let cache = TicketCache::new(10_000);
    println!("ticket of {} bytes", ticket.len());

    time("mint", || drop(black_box(mint(&key, &claims))));
    time("verify", || drop(black_box(verify(&keyring, &ticket, 2_000, 0))));
    time("verify, cached", || {
        drop(black_box(cache.verify_cached(&keyring, keyring.generation(), black_box(&ticket), 2_000, 0)));
    });
    time("signed url", || drop(black_box(url::verify(&keyring, &path, "k1", "5000", sig, 2_000, 0))));
    time("canonical path", || drop(black_box(CanonicalPath::parse(black_box(raw)))));
    let verified = verify(&keyring, &ticket, 2_000, 0).unwrap();
    time("scope", || {
        let _ = black_box(verified.admits(black_box(&path), None));
    });
}
