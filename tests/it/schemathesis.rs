//! The control plane against its own document: Schemathesis makes requests of all routes, right ones and wrong ones, and holds the
//! answers against what the document says.
//!
//! What it checks, and what it leaves out and why, stands in `testkit/schemathesis/schemathesis.toml`. `make schemathesis` is the
//! long form.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use segue_testkit::python;
use serde_json::json;
use tokio::process::Command;

use crate::roles::{ADMIN, Role, WORKER, control_plane, objects, s3};

/// What `make test` runs; the long form says more by variables.
const SEED: &str = "20261125";
const EXAMPLES: &str = "5";

#[tokio::test(flavor = "multi_thread")]
async fn the_api_answers_as_its_document_says() -> anyhow::Result<()> {
    let given = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let within = Duration::from_secs(given("SEGUE_SCHEMATHESIS_SECONDS", "90").parse()?);
    let dir = tempfile::Builder::new().prefix("segue-schemathesis-").tempdir()?;
    let store = s3(&format!("http://{}", objects(&dir.path().join("objects")).await?));
    let mut config = control_plane(dir.path(), &store, &json!({ "admin": ADMIN, "worker": WORKER }));
    // A refusal of the limits would pass for an answer to whatever was asked.
    config["access"] = json!({ "rate": 1_000_000, "burst": 10_000_000, "failures": 1_000_000 });
    let control = Role::start(dir.path(), "control", "control", &config).await?;

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testkit/schemathesis");
    let st = Path::new(python()?.get_program()).with_file_name("st");
    let mut command = Command::new(&st);
    command
        .arg("--config-file")
        .arg(folder.join("schemathesis.toml"))
        .args(["run", &format!("{}/v1/openapi.json", control.url()?), "--no-color"])
        .args(["--header", &format!("Authorization: Bearer {ADMIN}")])
        .args(["--seed", &given("SEGUE_SCHEMATHESIS_SEED", SEED)])
        .args(["--max-examples", &given("SEGUE_SCHEMATHESIS_EXAMPLES", EXAMPLES)])
        // The hooks are found there; what it leaves behind goes with the test.
        .envs([("PYTHONPATH", folder.as_os_str()), ("PYTHONDONTWRITEBYTECODE", "1".as_ref())])
        .current_dir(dir.path())
        .kill_on_drop(true);
    let run = tokio::time::timeout(within, command.output()).await;
    let output = run.context("it takes longer than it may")?.with_context(|| format!("cannot run {}", st.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let log = std::fs::read_to_string(&control.log)?;
    ensure!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let routes: serde_json::Value =
        serde_json::from_str(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json")))?;
    let paths = routes["paths"].as_object().context("no paths")?;
    let operations: usize = paths.values().filter_map(|path| path.as_object()).map(serde_json::Map::len).sum();
    // All but the one that the document itself comes from.
    ensure!(said.contains(&format!("Tested: {}\n", operations - 1)), "not every route was asked:\n{said}");
    // Records of facts that are none are errors of the log, by right.
    ensure!(!log.contains("panicked") && !log.contains("a request failed"), "{log}");
    let summary = said.split_once("= SUMMARY =").map_or(&*said, |(_, rest)| rest);
    println!("{}", summary.trim_start_matches('='));
    Ok(())
}
