//! `segue revoke`: tickets that are void before they expire.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::{ControlArgs, say};
use crate::client::Control;
use crate::when::When;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RevokeArgs {
    #[command(subcommand)]
    command: Option<RevokeCommand>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    control: ControlArgs,
}

/// Which tickets: all that are named must hold.
#[derive(Debug, Args)]
struct Which {
    /// Tickets of this session
    #[arg(long)]
    sid: Option<String>,
    /// Tickets of this listener
    #[arg(long)]
    sub: Option<String>,
    /// Requests for this track
    #[arg(long)]
    track: Option<String>,
    /// Tickets issued before this time (or span ago, as -1h), and those that do not say when
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    issued_before: Option<When>,
    /// Until when: a time, or a span from now [default: when the longest-lived ticket has expired]
    #[arg(long, value_name = "WHEN")]
    until: Option<When>,
    /// Why, for whoever reads the list
    #[arg(long)]
    note: Option<String>,
}

#[derive(Debug, Subcommand)]
enum RevokeCommand {
    /// List what is revoked
    List,
    /// Take a revocation back
    Lift {
        /// Its id
        id: String,
    },
}

pub(crate) async fn run(args: RevokeArgs) -> anyhow::Result<ExitCode> {
    let json = args.control.json;
    let Which { sid, sub, track, issued_before, until, note } = args.which;
    if args.command.is_none() && sid.is_none() && sub.is_none() && track.is_none() && issued_before.is_none() {
        bail!("nothing to revoke: name --sid, --sub, --track or --issued-before (see `segue revoke --help`)");
    }
    let control = Control::find(&args.control)?;
    match args.command {
        None => {
            let (issued_before, until) = (issued_before.map(When::at).transpose()?, until.map(When::at).transpose()?);
            let wish = json!({
                "sid": sid, "sub": sub, "track": track, "issued_before": issued_before, "until": until, "note": note,
            });
            let revoked: Value = control.post("/v1/revocations", &wish).await?;
            say(if json { revoked.to_string() } else { row(&revoked) })?;
        }
        Some(RevokeCommand::List) => {
            for revoked in control.pages("/v1/revocations", "revocations").await? {
                say(if json { revoked.to_string() } else { row(&revoked) })?;
            }
        }
        Some(RevokeCommand::Lift { id }) => {
            control.delete(&format!("/v1/revocations/{id}")).await?;
            say(if json { json!({ "id": id, "lifted": true }).to_string() } else { format!("lifted {id}") })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(revoked: &Value) -> String {
    let mut line = revoked.get("id").and_then(Value::as_str).unwrap_or("-").to_owned();
    for name in ["sid", "sub", "track", "issued_before", "until", "note"] {
        match revoked.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => line.push_str(&format!("  {name} {text}")),
            Some(other) => line.push_str(&format!("  {name} {other}")),
        }
    }
    line
}
