//! `segue policy test`: runs vectors, and shows member by member what came otherwise than expected.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use segue_policy_host::vectors::{Outcome, Vectors};
use segue_policy_host::{HostConfig, PolicyHost};
use serde_json::{Value, json};

use super::check::read;
use super::project::Project;
use crate::cli::say;

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// A policy's folder, or a built policy
    #[arg(default_value = ".")]
    path: PathBuf,
    /// The vectors [default: the folder's vectors.json, else those that travel in the policy]
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
    /// Answer with one line of JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let (file, vectors) = places(args)?;
    let bytes = read(&file)?;
    let policy = PolicyHost::new(HostConfig::default())?.compile(&bytes).with_context(|| file.display().to_string())?;
    let vectors = match &vectors {
        Some(file) => {
            let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            Vectors::parse(&text).with_context(|| file.display().to_string())?
        }
        None => {
            Vectors::inside(&bytes)?.context("no vectors travel in this policy; name a file of them by --vectors")?
        }
    };
    ensure!(!vectors.is_empty(), "there is no vector: nothing would be tested");
    let tally = Tally(vectors.run(&policy)?);
    say(if args.json { tally.json().to_string() } else { tally.text(true) })?;
    Ok(if tally.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The policy, and where its vectors lie if not in itself.
fn places(args: &TestArgs) -> anyhow::Result<(PathBuf, Option<PathBuf>)> {
    if !args.path.is_dir() {
        return Ok((args.path.clone(), args.vectors.clone()));
    }
    let project = Project::open(&args.path)?;
    let wasm = project.wasm();
    ensure!(wasm.exists(), "{} is not there; run `segue policy build {}` first", wasm.display(), args.path.display());
    Ok((wasm, args.vectors.clone().or_else(|| Some(project.vectors()).filter(|file: &PathBuf| Path::exists(file)))))
}

/// How vectors went.
pub(super) struct Tally(pub(super) Vec<Outcome>);

impl Tally {
    pub(super) fn failed(&self) -> usize {
        self.0.iter().filter(|outcome| !outcome.passed).count()
    }

    pub(super) fn json(&self) -> Value {
        json!({ "passed": self.0.len() - self.failed(), "failed": self.failed(), "outcomes": self.0 })
    }

    /// One line for each that failed (and, with `all`, for each that passed), with what differs under it; the sum last.
    pub(super) fn text(&self, all: bool) -> String {
        let mut text = String::new();
        for outcome in self.0.iter().filter(|outcome| all || !outcome.passed) {
            text += &format!("{} {}\n", if outcome.passed { "passed" } else { "FAILED" }, outcome.name);
            if !outcome.passed {
                differences("", &outcome.expected, &outcome.came, &mut text);
            }
        }
        text + &format!("{} passed, {} failed", self.0.len() - self.failed(), self.failed())
    }
}

/// Writes `- member: expected` and `+ member: came`, for the members that differ.
fn differences(place: &str, expected: &Value, came: &Value, out: &mut String) {
    let (Value::Object(wanted), Value::Object(there)) = (expected, came) else {
        if expected != came {
            let place = if place.is_empty() { "answer" } else { place };
            *out += &format!("    - {place}: {expected}\n    + {place}: {came}\n");
        }
        return;
    };
    let inner = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
    for (name, value) in wanted {
        match there.get(name) {
            Some(came) => differences(&inner(name), value, came, out),
            None => *out += &format!("    - {}: {value}\n", inner(name)),
        }
    }
    // A verdict is compared whole. Of claims more may come than is expected; but where the answer is of another kind, what it is helps.
    let whole = wanted.contains_key("verdict") || !wanted.keys().any(|name| there.contains_key(name));
    for (name, value) in there.iter().filter(|(name, _)| whole && !wanted.contains_key(*name)) {
        *out += &format!("    + {}: {value}\n", inner(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_shown() {
        let shown = |expected: Value, came: Value| {
            let mut out = String::new();
            differences("", &expected, &came, &mut out);
            out
        };
        assert_eq!(shown(json!({ "refused": "expired" }), json!({ "refused": "expired" })), "");
        assert_eq!(
            shown(
                json!({ "verdict": "deny", "status": 403, "reason": "a" }),
                json!({ "verdict": "deny", "status": 451, "reason": "a", "redirect": "/x" })
            ),
            "    - status: 403\n    + status: 451\n    + redirect: \"/x\"\n"
        );
        assert_eq!(
            shown(json!({ "claims": { "scope": "/a/" } }), json!({ "claims": { "scope": "/b/", "expires": 7 } })),
            "    - claims.scope: \"/a/\"\n    + claims.scope: \"/b/\"\n"
        );
        assert_eq!(
            shown(json!({ "claims": {} }), json!({ "refused": "expired" })),
            "    - claims: {}\n    + refused: \"expired\"\n"
        );
    }
}
