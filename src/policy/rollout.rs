//! `segue policy shadow|canary|activate|rollback`: who is tried, and who decides.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use super::remote::{Policy, Until, Waited, name, wait};
use crate::cli::{ControlArgs, say};
use crate::client::Control;
use crate::when::When;

/// Status of a change that is made, and on which some edges do not stand yet.
const NOT_EVERYWHERE: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct Patience {
    /// How long to wait for edges
    #[arg(long, value_name = "SPAN", default_value = "10s")]
    wait: When,
}

impl Patience {
    pub(super) fn wait(&self) -> anyhow::Result<Duration> {
        Ok(Duration::from_secs(u64::try_from(self.wait.span()?)?))
    }
}

#[derive(Debug, Args)]
struct Common {
    /// The policy's name
    #[arg(value_parser = name)]
    name: String,
    /// Why, for the history
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShadowArgs {
    #[command(flatten)]
    common: Common,
    /// The version [default: the newest that is not active]
    #[arg(value_parser = name)]
    version: Option<String>,
    /// End the trial, a shadow's or a canary's
    #[arg(long, conflicts_with = "version")]
    off: bool,
    /// Only where every edge has the version ready
    #[arg(long)]
    only_if_ready: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CanaryArgs {
    #[command(flatten)]
    common: Common,
    /// The version [default: the one that is tried, else the newest that is not active]
    #[arg(value_parser = name)]
    version: Option<String>,
    /// The share of sessions for which it decides: 0.01 to 100
    #[arg(long, value_name = "SHARE")]
    percent: f64,
    /// Only where every edge has the version ready
    #[arg(long)]
    only_if_ready: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ActivateArgs {
    #[command(flatten)]
    common: Common,
    /// The version [default: the one that is tried]
    #[arg(value_parser = name)]
    version: Option<String>,
    /// Let no version decide: nobody enforces the rule from then on
    #[arg(long, conflicts_with = "version")]
    none: bool,
    /// Only where every edge has the version ready
    #[arg(long)]
    only_if_ready: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    common: Common,
}

pub(super) async fn shadow(args: ShadowArgs) -> anyhow::Result<ExitCode> {
    let control = Control::find(&args.common.control)?;
    if args.off {
        let policy = Policy::get(&control, &args.common.name).await?;
        let path = with_note(&format!("/v1/policies/{}/candidate", args.common.name), args.common.note.as_deref());
        let answer = control.delete_for(&path).await?;
        return told(&control, &args.common, answer, Until::Decides(policy.active)).await;
    }
    let version = match args.version {
        Some(version) => version,
        None => newest(&Policy::get(&control, &args.common.name).await?)?,
    };
    let body = json!({ "version": version, "only_if_ready": args.only_if_ready, "note": args.common.note });
    let answer = control.post(&format!("/v1/policies/{}/shadow", args.common.name), &body).await?;
    told(&control, &args.common, answer, Until::Ready(version)).await
}

pub(super) async fn canary(args: CanaryArgs) -> anyhow::Result<ExitCode> {
    let control = Control::find(&args.common.control)?;
    let version = match args.version {
        Some(version) => version,
        None => {
            let policy = Policy::get(&control, &args.common.name).await?;
            match &policy.candidate {
                Some(candidate) => candidate.version.clone(),
                None => newest(&policy)?,
            }
        }
    };
    let body = json!({
        "version": version, "percent": args.percent, "only_if_ready": args.only_if_ready, "note": args.common.note,
    });
    let answer = control.post(&format!("/v1/policies/{}/canary", args.common.name), &body).await?;
    told(&control, &args.common, answer, Until::Ready(version)).await
}

pub(super) async fn activate(args: ActivateArgs) -> anyhow::Result<ExitCode> {
    let control = Control::find(&args.common.control)?;
    let name = &args.common.name;
    if args.none {
        let path = with_note(&format!("/v1/policies/{name}/active"), args.common.note.as_deref());
        let answer = control.delete_for(&path).await?;
        return told(&control, &args.common, answer, Until::Decides(None)).await;
    }
    let version = match args.version {
        Some(version) => version,
        None => {
            let policy = Policy::get(&control, name).await?;
            let tried = policy.candidate.map(|candidate| candidate.version);
            tried.with_context(|| format!("no version of {name} is tried at this time: name the one to activate"))?
        }
    };
    let body = json!({ "version": version, "only_if_ready": args.only_if_ready, "note": args.common.note });
    let answer = control.post(&format!("/v1/policies/{name}/active"), &body).await?;
    told(&control, &args.common, answer, Until::Decides(Some(version))).await
}

pub(super) async fn roll_back(args: RollbackArgs) -> anyhow::Result<ExitCode> {
    let control = Control::find(&args.common.control)?;
    let name = &args.common.name;
    let policy = Policy::get(&control, name).await?;
    // What is taken back is what was just looked at: two who roll back at the same time go one step, not two.
    let from = policy.rollback.and_then(|rollback| rollback.from);
    let body = json!({ "from": from, "note": args.common.note });
    let answer: Value = control.post(&format!("/v1/policies/{name}/rollback"), &body).await?;
    let decides = answer.get("version").and_then(Value::as_str).map(str::to_owned);
    told(&control, &args.common, answer, Until::Decides(decides)).await
}

fn newest(policy: &Policy) -> anyhow::Result<String> {
    let newest = policy.versions.iter().find(|one| one.state != "active");
    match newest {
        Some(newest) => Ok(newest.version.clone()),
        None => bail!("{} has no version beside the active one; push one first", policy.policy),
    }
}

fn with_note(path: &str, note: Option<&str>) -> String {
    match note {
        Some(note) => {
            let query: String = url::form_urlencoded::Serializer::new(String::new()).append_pair("note", note).finish();
            format!("{path}?{query}")
        }
        None => path.to_owned(),
    }
}

/// Waits for edges, and says what was done.
async fn told(control: &Control, common: &Common, answer: Value, until: Until) -> anyhow::Result<ExitCode> {
    let waited = wait(control, &common.name, &until, common.patience.wait()?).await?;
    if common.control.json {
        let part = |name: &str| answer.get(name).cloned().unwrap_or_default();
        say(json!({
            "policy": common.name, "done": part("done"), "version": part("version"), "from": part("from"),
            "active": answer.pointer("/policy/active"), "candidate": answer.pointer("/policy/candidate"),
            "revision": part("revision"), "edges": waited.json(),
        }))?;
    } else {
        say(sentence(&common.name, &answer))?;
        let what = match until {
            Until::Ready(_) => "have it ready",
            Until::Decides(None) => "ask no version of it",
            Until::Decides(Some(_)) => "stand on it",
        };
        for line in waited.lines(what) {
            say(line)?;
        }
        if !waited.not_on.is_empty() {
            say("  an edge that is not ready goes on with the version that it last had")?;
        }
    }
    Ok(ended(&waited))
}

fn sentence(name: &str, answer: &Value) -> String {
    let part = |part: &str| answer.get(part).and_then(Value::as_str);
    let none = "none";
    let (version, from) = (part("version").unwrap_or(none), part("from").unwrap_or(none));
    match part("done").unwrap_or_default() {
        "shadow" => {
            format!("{name} {version} is a shadow: it is asked, and not heeded; see `segue policy diff {name}`")
        }
        "canary" => {
            let percent = answer.pointer("/policy/candidate/percent").and_then(Value::as_f64).unwrap_or_default();
            format!("{name} {version} decides for {percent} % of sessions")
        }
        "activate" => format!("{name} {version} decides (before: {from})"),
        "rollback" => format!("{name} {version} decides again ({from} is taken back)"),
        "end-canary" => format!("{name}: the canary {from} is over; {version} decides for all"),
        "end-trial" => format!("{name}: {version} is no longer tried"),
        "disable" => format!("{name}: no version decides ({from} did)"),
        _ => format!("{name}: nothing to do, it stands so already"),
    }
}

pub(super) fn ended(waited: &Waited) -> ExitCode {
    if waited.not_on.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NOT_EVERYWHERE) }
}
