//! The ready-made policies, built as `make policies` builds them, against the vectors that travel in them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use segue_policy_host::vectors::Vectors;
use segue_policy_host::{HostConfig, PolicyHost};

/// The folder with the built policies, where `make policies` puts them too. Each test is a process: who comes later finds all
/// built, and cargo's own lock keeps the order.
static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../build");
    let built = Command::new(script).env("CARGO_TARGET_DIR", target).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    target.join("policies")
});

fn vectors_hold(name: &str) {
    let bytes = std::fs::read(BUILT.join(format!("{name}.wasm"))).unwrap();
    let vectors = Vectors::inside(&bytes).unwrap().expect("vectors travel with it");
    assert!(vectors.len() >= 5, "{} vectors", vectors.len());
    let host = PolicyHost::new(HostConfig::default()).unwrap();
    let policy = host.compile(&bytes).unwrap();
    let outcomes = vectors.run(&policy).unwrap();
    let wrong: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(bytes.len() < 200 << 10, "{} bytes", bytes.len());
}

macro_rules! ready_made {
    ($($test:ident: $name:literal),* $(,)?) => { $(#[test] fn $test() { vectors_hold($name); })* };
}

ready_made! {
    addresses: "addresses",
    bunny: "bunny",
    cloudfront: "cloudfront",
    country: "country",
    devices: "devices",
    edgeauth: "edgeauth",
    household: "household",
    origin: "origin",
    preview: "preview",
    reference: "reference",
    secure_link: "secure-link",
    window: "window",
}
