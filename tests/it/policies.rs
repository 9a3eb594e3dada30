//! Policies from the author's chair: a project of each kind is made, built outside of this repository, checked and tested by the
//! command alone; and what is wrong with one is said.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

/// Where policies in Rust are built, as `policies/build` does: the standard library for WebAssembly is built once for both.
fn target() -> PathBuf {
    let own = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target"));
    own.join("policies/build")
}

fn segue(folder: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(crate::SEGUE);
    command.arg("policy").args(arguments).current_dir(folder).env("CARGO_TARGET_DIR", target());
    Ok(command.output()?)
}

/// What it answers with `--json`, and whether its status was 0.
fn asked(folder: &Path, arguments: &[&str]) -> anyhow::Result<(Value, bool)> {
    let output = segue(folder, &[arguments, &["--json"]].concat())?;
    let answer = serde_json::from_slice(&output.stdout);
    let answer = answer.with_context(|| format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((answer, output.status.success()))
}

/// Makes, builds, checks and tests one project; and shows that a vector that no longer holds is found.
fn from_nothing(name: &str, language: &str, world: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let (made, well) = asked(folder, &["new", name, "--lang", language, "--world", world])?;
    ensure!(well && made["name"] == name, "{made}");
    let again = segue(folder, &["new", name])?;
    ensure!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("is there already"));

    let untested = segue(folder, &["test", name])?;
    ensure!(String::from_utf8_lossy(&untested.stderr).contains("segue policy build"), "not built yet: {untested:?}");
    let (built, well) = asked(folder, &["build", name])?;
    ensure!(well && built["world"] == world, "{built}");

    let file = format!("{name}/{name}.wasm");
    let (checked, well) = asked(folder, &["check", &file])?;
    ensure!(well && checked["ok"] == true && checked["digest"] == built["digest"], "{checked}");
    ensure!(checked["vectors"]["failed"] == 0 && checked["vectors"]["passed"].as_u64() >= Some(4), "{checked}");
    let imports = checked["imports"].as_array().context("imports")?;
    ensure!(imports.iter().all(|import| import.as_str().is_some_and(|import| import.starts_with("segue:policy/"))));

    // A configuration as an edge's folder of policies has it.
    std::fs::write(folder.join("bad.toml"), "mode = \"active\"\n[config]\nnobody_knows = 1\n")?;
    let (refused, well) = asked(folder, &["check", &file, "--config", "bad.toml"])?;
    ensure!(!well && refused["configure"]["error"] == "configuration", "{refused}");

    let vectors = folder.join(name).join("vectors.json");
    let mut text: Value = serde_json::from_slice(&std::fs::read(&vectors)?)?;
    text["vectors"][0]["expect"] = json!({ "verdict": "deny", "status": 418, "reason": "teapot" });
    std::fs::write(&vectors, text.to_string())?;
    let (tested, well) = asked(folder, &["test", name])?;
    ensure!(!well && tested["failed"] == 1, "{tested}");
    let shown = segue(folder, &["test", name])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    ensure!(shown.contains("FAILED") && shown.contains("- status: 418") && shown.contains("1 failed"), "{shown}");
    Ok(())
}

#[test]
fn in_rust() -> anyhow::Result<()> {
    from_nothing("evening", "rust", "access")?;
    from_nothing("their-links", "rust", "ticket-scheme")
}

#[test]
fn in_javascript() -> anyhow::Result<()> {
    from_nothing("evening-js", "js", "access")?;
    from_nothing("their-links-js", "js", "ticket-scheme")
}

#[test]
fn in_c() -> anyhow::Result<()> {
    from_nothing("evening-c", "c", "access")?;
    let folder = tempfile::tempdir()?;
    let refused = segue(folder.path(), &["new", "x", "--lang", "c", "--world", "ticket-scheme"])?;
    ensure!(
        !refused.status.success() && !folder.path().join("x").exists(),
        "what it cannot do it says before it writes"
    );
    Ok(())
}

#[test]
fn what_is_no_policy_is_refused_with_its_reason() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let wasi = wat::parse_str(r#"(component (import "wasi:cli/exit@0.2.0" (instance)))"#)?;
    for (name, bytes, word) in [
        ("text.wasm", b"#!/bin/sh".to_vec(), "not-wasm"),
        ("empty.wasm", b"\0asm\x01\0\0\0".to_vec(), "missing-export"),
        ("wasi.wasm", wasi, "forbidden-import"),
        ("large.wasm", vec![0; 33 << 20], "too-large"),
    ] {
        std::fs::write(folder.join(name), bytes)?;
        let (answer, well) = asked(folder, &["check", name])?;
        ensure!(!well && answer["ok"] == false && answer["error"] == word, "{name}: {answer}");
    }
    let nothing = segue(folder, &["build", "."])?;
    ensure!(!nothing.status.success() && String::from_utf8_lossy(&nothing.stderr).contains("segue policy new"));
    for name in ["Evening", "../x/-", "a_b", ""] {
        ensure!(!segue(folder, &["new", name])?.status.success(), "{name:?} names no policy");
    }
    Ok(())
}
