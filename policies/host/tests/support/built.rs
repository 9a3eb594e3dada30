//! The ready-made policies, built as `make policies` builds them.

#![allow(unreachable_pub, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The target folder.
pub fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder")
}

/// Builds those named (all in Rust where none is), and says in which folder they lie. Each test is a process: who comes later finds
/// them built, and the script lets in one at a time.
pub fn built(names: &[&str]) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../build");
    let built =
        Command::new(script).args(names).env("CARGO_TARGET_DIR", target()).output().expect("policies/build runs");
    assert!(built.status.success(), "policies/build: {}", String::from_utf8_lossy(&built.stderr));
    target().join("policies")
}
