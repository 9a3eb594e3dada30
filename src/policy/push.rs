//! `segue policy push`: a version goes up, is checked, and every edge makes it ready.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::remote::{Until, name, size, wait};
use super::rollout::{Patience, ended};
use crate::cli::{ControlArgs, say};
use crate::client::Control;

/// The control plane checks within two minutes; a large file may be as long on its way.
const WITHIN: Duration = Duration::from_secs(300);
/// The most that the control plane takes.
const COMPONENT_MAX: u64 = 32 << 20;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OnFailure {
    /// Requests are refused
    Closed,
    /// Requests go on as if the policy had said nothing
    Open,
}

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The policy's name
    #[arg(value_parser = name)]
    name: String,
    /// The file; left out, a version that is there already is pushed
    #[arg(required_unless_present = "version")]
    file: Option<PathBuf>,
    /// The version's name [default: the first digits of the file's SHA-256]
    #[arg(long, value_parser = name)]
    version: Option<String>,
    /// Its configuration: JSON, or TOML as in a folder of policies (its [config]) [default: the newest version's]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What becomes of requests that it fails at [default: the newest version's]
    #[arg(long, value_enum)]
    on_failure: Option<OnFailure>,
    /// Policies are asked in this order [default: the newest version's]
    #[arg(long, allow_negative_numbers = true)]
    order: Option<i32>,
    /// An Ed25519 signature over the file: 64 bytes, raw or in base64 or hex
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Why, for the history
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    control: ControlArgs,
}

pub(super) async fn run(args: PushArgs) -> anyhow::Result<ExitCode> {
    let control = Control::find(&args.control)?;
    let is_json = args.control.json;
    let uploaded = match &args.file {
        Some(file) => Some(upload(&control, &args, file).await?),
        None => None,
    };
    let version = uploaded.as_ref().and_then(|one| one.get("version")).and_then(Value::as_str);
    let Some(version) = version.or(args.version.as_deref()) else { bail!("the control plane named no version") };
    if let (Some(uploaded), false) = (&uploaded, is_json) {
        let number = |name: &str| uploaded.get(name).and_then(Value::as_u64).unwrap_or(0);
        let vectors = match number("vectors") {
            0 => "no self-test vectors travel with it".to_owned(),
            vectors => format!("{vectors} self-test vectors passed"),
        };
        eprintln!("{} {version} is checked: {}, {vectors}", args.name, size(number("bytes")));
    }
    let body = json!({ "version": version, "note": args.note });
    let answer: Value = control.post(&format!("/v1/policies/{}/push", args.name), &body).await?;
    let waited = wait(&control, &args.name, &Until::Ready(version.to_owned()), args.patience.wait()?).await?;
    if is_json {
        let done = answer.get("done");
        say(
            json!({ "policy": args.name, "version": version, "done": done, "uploaded": uploaded, "edges": waited.json() }),
        )?;
    } else {
        say(format_args!("{} {version} is pushed; it decides nothing yet", args.name))?;
        for line in waited.lines("have it ready") {
            say(line)?;
        }
    }
    Ok(ended(&waited))
}

async fn upload(control: &Control, args: &PushArgs, file: &Path) -> anyhow::Result<Value> {
    let about = std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(about.is_file(), "{} is no file", file.display());
    ensure!(
        about.len() <= COMPONENT_MAX,
        "{} has {} bytes; a policy has {COMPONENT_MAX} at most",
        file.display(),
        about.len()
    );
    let mut form = Form::new()?;
    form.add("component", &std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?);
    if let Some(config) = &args.config {
        form.add("config", configuration(config)?.to_string().as_bytes());
    }
    if let Some(signature) = &args.signature {
        form.add(
            "signature",
            &std::fs::read(signature).with_context(|| format!("cannot read {}", signature.display()))?,
        );
    }
    let mode = args.on_failure.map(|mode| match mode {
        OnFailure::Closed => "closed".to_owned(),
        OnFailure::Open => "open".to_owned(),
    });
    let texts = [
        ("version", args.version.clone()),
        ("on_failure", mode),
        ("order", args.order.map(|order| order.to_string())),
        ("note", args.note.clone()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            form.add(name, text.as_bytes());
        }
    }
    let (kind, body) = form.end();
    control.post_bytes(&format!("/v1/policies/{}/versions", args.name), &kind, body, WITHIN).await
}

/// A configuration as it stands in JSON, or in TOML: the table `[config]` of a folder's file, else the whole.
fn configuration(file: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let bad = || format!("{} is no configuration", file.display());
    if file.extension().is_some_and(|extension| extension == "json") {
        return serde_json::from_str(&text).with_context(bad);
    }
    let mut table: toml::Table = text.parse().with_context(bad)?;
    let config = table.remove("config").unwrap_or(toml::Value::Table(table));
    serde_json::to_value(config).with_context(bad)
}

/// A form (RFC 7578). Its boundary is random: 128 bits that are in no file.
struct Form {
    boundary: String,
    body: Vec<u8>,
}

impl Form {
    fn new() -> anyhow::Result<Self> {
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no randomness from the system: {error}"))?;
        let boundary = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { boundary, body: Vec::new() })
    }

    fn add(&mut self, name: &str, value: &[u8]) {
        let head = format!("--{}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n", self.boundary);
        self.body.extend_from_slice(head.as_bytes());
        self.body.extend_from_slice(value);
        self.body.extend_from_slice(b"\r\n");
    }

    /// The content type, and the body.
    fn end(mut self) -> (String, Vec<u8>) {
        self.body.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        (format!("multipart/form-data; boundary={}", self.boundary), self.body)
    }
}
