//! `segue token`: API tokens, made, rotated and revoked while everything runs.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::cli::{ControlArgs, say};
use crate::client::Control;
use crate::when::When;

#[derive(Debug, Args)]
#[command(after_long_help = "\
Scopes (a route's is in /v1/openapi.json; give each token only what its bearer needs):
  read     see tracks, jobs, sums, events and facts
  play     issue tickets for tracks
  publish  add, change and remove tracks and their jobs
  edge     what an edge does: follow the snapshot, report, hand over facts
  worker   what a transcode worker does: claim jobs and report on them
  admin    everything, tokens, keys, limits and policies among it

Examples:
  segue token new 'shop backend' --scope play --expires 90d
  segue token list
  segue token rotate qv7j2m4kxw3nbt5d --overlap 1h     # both secrets are taken for an hour
  segue token revoke qv7j2m4kxw3nbt5d                  # refused within a second everywhere

Tokens of the configuration ([tokens]) are listed too, and are changed there alone.")]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token; its secret is printed this once
    New {
        /// Who or what will have it, for whoever reads the list
        name: String,
        /// What it may do; can be given several times
        #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',')]
        scopes: Vec<ScopeWord>,
        /// When it ends: a time, or a span from now such as 90d [default: never]
        #[arg(long, value_name = "WHEN")]
        expires: Option<When>,
    },
    /// List the tokens: what each may do, and when it was used last
    List,
    /// Give a token a new secret, printed this once; the one before it goes on for a while
    Rotate {
        /// The token's id, as in `segue token list`; it is also the middle part of the token
        id: String,
        /// How long the secret before goes on, at most 30d; 0s ends it at once [default: 24h]
        #[arg(long, value_name = "SPAN")]
        overlap: Option<When>,
    },
    /// End a token: refused within a second everywhere
    Revoke {
        /// The token's id
        id: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScopeWord {
    Admin,
    Publish,
    Play,
    Read,
    Edge,
    Worker,
}

pub(crate) async fn run(args: TokenArgs) -> anyhow::Result<ExitCode> {
    let control = Control::find(&args.control)?;
    let json = args.control.json;
    match args.command {
        TokenCommand::New { name, scopes, expires } => {
            let scopes: Vec<String> =
                scopes.iter().filter_map(|scope| Some(scope.to_possible_value()?.get_name().to_owned())).collect();
            let expires = expires.map(When::at).transpose()?;
            let wish = json!({ "name": name, "scopes": scopes, "expires_at": expires });
            show(&control.post("/v1/tokens", &wish).await?, json)?;
        }
        TokenCommand::List => {
            if !json {
                say(format_args!(
                    "{:<16}  {:<24}  {:<8}  {:<24}  {:>12}  {}",
                    "TOKEN", "NAME", "SOURCE", "SCOPES", "EXPIRES", "LAST USED (MS)"
                ))?;
            }
            for token in control.pages("/v1/tokens", "tokens").await? {
                say(if json { token.to_string() } else { row(&token) })?;
            }
        }
        TokenCommand::Rotate { id, overlap } => {
            let wish = json!({ "overlap_s": overlap.map(When::span).transpose()? });
            show(&control.post(&format!("/v1/tokens/{id}/rotate"), &wish).await?, json)?;
        }
        TokenCommand::Revoke { id } => {
            control.delete(&format!("/v1/tokens/{id}")).await?;
            say(if json { json!({ "id": id, "revoked": true }).to_string() } else { format!("revoked {id}") })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A token with its secret: the secret alone on standard output, so that it can be piped where it belongs.
fn show(made: &Value, json: bool) -> anyhow::Result<()> {
    if json {
        return say(made);
    }
    eprintln!("{}", row(made.get("token").unwrap_or(&Value::Null)));
    eprintln!("This is shown once; keep it where secrets are kept:");
    say(made.get("secret").and_then(Value::as_str).unwrap_or("-"))
}

fn row(token: &Value) -> String {
    let text = |name: &str| match token.get(name) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        Some(other) => other.to_string(),
    };
    format!(
        "{:<16}  {:<24}  {:<8}  {:<24}  {:>12}  {}",
        text("id"),
        text("name"),
        text("source"),
        text("scopes"),
        text("expires_at"),
        text("last_used_ms"),
    )
}
