//! The ready-made policies, built.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder with the ready-made policies, where `make policies` puts them too. Each test is a process: who comes later finds all
/// built, and cargo's own lock keeps the order.
pub fn ready_made(name: &str) -> Vec<u8> {
    let target: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/build");
    let built = Command::new(script).env("CARGO_TARGET_DIR", &target).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    std::fs::read(target.join("policies").join(format!("{name}.wasm"))).unwrap()
}
