//! What stands in deploy/: every file is held against who will read it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use segue_testkit::python;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The role whose section only its own configurations have.
fn role(file: &Path) -> anyhow::Result<&'static str> {
    let table: toml::Table = std::fs::read_to_string(file)?.parse()?;
    Ok(match () {
        () if table.contains_key("origin") => "edge",
        () if table.contains_key("edge") => "control",
        () => "transcode",
    })
}

#[test]
fn every_example_is_read_by_its_role() -> anyhow::Result<()> {
    let names = std::fs::read_to_string(deploy().join("examples/segue.env"))?;
    let names: Vec<&str> =
        names.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split('=').next()).collect();
    let value = |name: &&str| match *name {
        "SEGUE_DATABASE_URL" => "mysql://segue:secret@127.0.0.1:3306/segue",
        "SEGUE_REDIS_URL" => "redis://127.0.0.1:6379/",
        _ => "0123456789abcdef0123456789abcdef",
    };
    let mut roles = Vec::new();
    for folder in ["examples", "compose"] {
        for entry in std::fs::read_dir(deploy().join(folder))? {
            let file = entry?.path();
            if file.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let role = role(&file)?;
            // Where a unit or a container runs, nothing can be written: a folder that is not named lies there.
            let table: toml::Table = std::fs::read_to_string(&file)?.parse()?;
            let kept = table.get("facts").and_then(|facts| facts.get("dir")).and_then(toml::Value::as_str);
            let is_fine = role != "control" || kept.is_some_and(|dir| dir.starts_with("/var/lib/segue/"));
            ensure!(is_fine, "{} keeps facts in {kept:?}", file.display());
            let mut command = Command::new(crate::SEGUE);
            command.args([role, "--check", "--config"]).arg(&file);
            command.envs(names.iter().map(|name| (name, value(name))));
            let output = command.output()?;
            ensure!(output.status.success(), "{}", said(&output));
            // What a file wants, the list of secrets has: without them it is refused.
            let bare = Command::new(crate::SEGUE).args([role, "--check", "--config"]).arg(&file).output()?;
            let has_secrets = std::fs::read_to_string(&file)?.contains("\"env:");
            ensure!(bare.status.success() != has_secrets, "{}: {}", file.display(), said(&bare));
            roles.push(role);
        }
    }
    ensure!(["edge", "control", "transcode"].iter().all(|role| roles.contains(role)) && roles.len() >= 8, "{roles:?}");
    Ok(())
}

#[test]
fn systemd_takes_the_units_and_finds_little_that_is_exposed() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    for role in ["edge", "control", "transcode"] {
        let name = format!("segue-{role}.service");
        let unit = std::fs::read_to_string(deploy().join("systemd").join(&name))?;
        // The verifier wants the program to be there.
        let copy = dir.path().join(&name);
        std::fs::write(&copy, unit.replace("/usr/local/bin/segue", crate::SEGUE))?;
        let output = Command::new("systemd-analyze").arg("verify").arg(&copy).output().context("systemd-analyze")?;
        ensure!(output.status.success() && said(&output).trim().is_empty(), "{name}: {}", said(&output));
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
            .arg(&copy)
            .output()?;
        ensure!(output.status.success(), "{name} is exposed by more than 2.0:\n{}", said(&output));
    }
    Ok(())
}

#[test]
fn the_compose_file_is_one_and_names_what_is_there() -> anyhow::Result<()> {
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("testkit/deploy/check_compose.py");
    let run = |file: &Path| python()?.arg("-B").arg(&check).arg(file).output().context("python");
    let compose = deploy().join("compose");
    let output = run(&compose.join("compose.yaml"))?;
    ensure!(output.status.success(), "{}", said(&output));
    // It can fail.
    let dir = tempfile::tempdir()?;
    let text = std::fs::read_to_string(compose.join("compose.yaml"))?;
    std::fs::copy(compose.join("secrets"), dir.path().join("secrets"))?;
    std::fs::write(dir.path().join("compose.yaml"), text.replace("restart: unless-stopped", "restart: [often]"))?;
    let output = run(&dir.path().join("compose.yaml"))?;
    ensure!(!output.status.success() && said(&output).contains("restart"), "{}", said(&output));
    Ok(())
}
