//! `segue doctor`: looks at every part that a configuration names, says what is wrong and what to do about it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use segue_config::{Finding, Health};
use segue_control_plane::ControlConfig;
use segue_transcoder::TranscodeConfig;
use serde_json::json;

use crate::cli::say;
use crate::roles;

#[derive(Debug, Args)]
#[command(
    after_help = "Run it as the user that the role runs as, with the same environment: what it cannot reach, the role cannot.\n\
Nothing is changed; what is written to see whether it can be is removed again. Exit status 1 where something is ill."
)]
pub(crate) struct DoctorArgs {
    /// The configuration file of a role
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Which role it is of; told by its sections where it is left out
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// Answer with one JSON value a line, for machines
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    Edge,
    Control,
    Transcode,
}

pub(crate) async fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let role = match args.role {
        Some(role) => role,
        None => of(&args.config)?,
    };
    let findings = match role {
        Role::Edge => segue_proxy::examine(&roles::read(&args.config, segue_proxy::EdgeConfig::read)?).await,
        Role::Control => segue_control_plane::examine(&roles::read(&args.config, ControlConfig::read)?).await,
        Role::Transcode => segue_transcoder::examine(&roles::read(&args.config, TranscodeConfig::read)?).await,
    };
    for finding in &findings {
        if args.json {
            say(json!(finding))?;
        } else {
            show(finding)?;
        }
    }
    let count = |health| findings.iter().filter(|finding| finding.health == health).count();
    let (ill, doubtful) = (count(Health::Ill), count(Health::Doubtful));
    if !args.json {
        say(match (ill, doubtful) {
            (0, 0) => "All is well.".to_owned(),
            (0, doubtful) => format!("It can run; {doubtful} to look at."),
            (ill, doubtful) => format!("{ill} to mend, {doubtful} to look at."),
        })?;
    }
    Ok(if ill == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(finding: &Finding) -> anyhow::Result<()> {
    let mark = match finding.health {
        Health::Well => "well     ",
        Health::Doubtful => "doubtful ",
        Health::Ill => "ILL      ",
    };
    say(format_args!("{mark} {}: {}", finding.part, finding.seen))?;
    match &finding.advice {
        Some(advice) => say(format_args!("           → {advice}")),
        None => Ok(()),
    }
}

/// Each role has a section that no other has.
fn of(path: &std::path::Path) -> anyhow::Result<Role> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the configuration {}", path.display()))?;
    let table: toml::Table = text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
    Ok(match () {
        () if table.contains_key("origin") => Role::Edge,
        () if table.contains_key("edge") => Role::Control,
        () if table.contains_key("objects") => Role::Transcode,
        () => bail!("{} could be of any role; say which with --role", path.display()),
    })
}
