//! `segue policy check`: what an upload is looked at for, before anybody uploads.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use segue_policy_host::vectors::Vectors;
use segue_policy_host::{
    AccessPolicy, Checked, FailMode, Failure, HostConfig, Policy, PolicyHost, Services, TicketScheme, World,
};
use serde_json::{Value, json};

use super::test::Tally;
use crate::cli::say;

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The policy: a component or a core module
    file: PathBuf,
    /// Also try this configuration: JSON, or TOML as in a folder of policies (its [config])
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Answer with one line of JSON
    #[arg(long)]
    json: bool,
}

/// What was found out; each step only where the one before it went well.
struct Found {
    checked: Checked,
    compile_ms: u128,
    configured: Option<Result<(), Failure>>,
    tally: Option<Tally>,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let bytes = read(&args.file)?;
    let config = args.config.as_deref().map(configuration).transpose()?;
    let host = PolicyHost::new(HostConfig::default())?;
    let began = Instant::now();
    let policy = match host.compile(&bytes) {
        Ok(policy) => policy,
        Err(refused) => {
            if args.json {
                say(
                    json!({ "file": args.file, "ok": false, "error": refused.kind(), "message": refused.to_string() }),
                )?;
            } else {
                say(format_args!("{}: refused: {refused} ({})", args.file.display(), refused.kind()))?;
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    let compile_ms = began.elapsed().as_millis();
    let configured = config.map(|config| configure(&policy, &config));
    let vectors = Vectors::inside(&bytes).with_context(|| args.file.display().to_string())?;
    let tally = vectors.map(|vectors| vectors.run(&policy)).transpose()?.map(Tally);
    let found = Found { checked: policy.checked().clone(), compile_ms, configured, tally };
    say(if args.json { found.json(&args.file).to_string() } else { found.text(&args.file) })?;
    Ok(if found.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A file, but no more of it than the host will look at.
pub(super) fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read as _;
    let bound = HostConfig::default().bounds.upload as u64 + 1;
    let open = std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(open.metadata()?.is_file(), "{} is no file", file.display());
    let mut bytes = Vec::new();
    open.take(bound).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(bytes)
}

fn configuration(file: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let bad = || format!("{} is no configuration", file.display());
    if file.extension().is_some_and(|extension| extension == "json") {
        return serde_json::from_str(&text).with_context(bad);
    }
    let mut table: toml::Table = text.parse().with_context(bad)?;
    let config = table.remove("config").unwrap_or_else(|| toml::Value::Table(toml::Table::new()));
    serde_json::to_value(config).with_context(bad)
}

fn configure(policy: &Policy, config: &Value) -> Result<(), Failure> {
    let services = Arc::new(Services::default());
    match policy.checked().world {
        World::Access => AccessPolicy::new(policy.clone(), "check", config, services, FailMode::Closed).map(drop),
        World::TicketScheme => TicketScheme::new(policy.clone(), "check", config, services).map(drop),
    }
}

impl Found {
    fn is_well(&self) -> bool {
        !matches!(self.configured, Some(Err(_))) && self.tally.as_ref().is_none_or(|tally| tally.failed() == 0)
    }

    fn json(&self, file: &Path) -> Value {
        let configured = self.configured.as_ref().map(|configured| match configured {
            Ok(()) => json!({ "ok": true }),
            Err(failure) => json!({ "ok": false, "error": failure.kind(), "message": failure.to_string() }),
        });
        let mut answer = json!({
            "file": file, "ok": self.is_well(), "world": self.checked.world, "imports": self.checked.imports, "size": self.checked.size,
            "digest": self.checked.digest, "compile_ms": self.compile_ms,
        });
        // What was not tried is not there.
        if let Some(configured) = configured {
            answer["configure"] = configured;
        }
        if let Some(tally) = &self.tally {
            answer["vectors"] = tally.json();
        }
        answer
    }

    fn text(&self, file: &Path) -> String {
        let checked = &self.checked;
        let imports = if checked.imports.is_empty() { "nothing".to_owned() } else { checked.imports.join(", ") };
        let configured = match &self.configured {
            None => "not tried (--config FILE tries one)".to_owned(),
            Some(Ok(())) => "accepted".to_owned(),
            Some(Err(failure)) => format!("REFUSED: {failure}"),
        };
        let vectors = match &self.tally {
            None => "none travel in it".to_owned(),
            Some(tally) => tally.text(false),
        };
        format!(
            "{}\n  world      {}\n  imports    {imports}\n  size       {} bytes, compiled in {} ms\n  digest     {}\n  configure  {configured}\n  vectors    {}",
            file.display(),
            checked.world.name(),
            checked.size,
            self.compile_ms,
            checked.digest,
            vectors.trim_end().replace('\n', "\n             "),
        )
    }
}
