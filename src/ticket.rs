//! `segue ticket`: minting and verifying tickets, offline, with a key from the environment or a file.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use segue_config::{Secret, Value as _};
use segue_signing::{CanonicalPath, Claims, Key, Keyring, SigningSecret, mint, verify};
use serde_json::json;

use crate::cli::say;
use crate::demo;

#[derive(Debug, Args)]
pub(crate) struct TicketArgs {
    #[command(subcommand)]
    command: TicketCommand,
}

#[derive(Debug, Subcommand)]
enum TicketCommand {
    /// Mint a ticket
    Mint(MintArgs),
    /// Verify a ticket and print its claims; status 1 with the reason where it is refused
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
struct KeyArgs {
    /// The key's secret: env:NAME or file:PATH [default: env:SEGUE_KEY_<KEY>, else the demo's folder]
    #[arg(long, value_name = "SECRET")]
    secret: Option<String>,
    /// The folder of a demo, whose key serves where --secret is not given
    #[arg(long, env = "SEGUE_DIR", value_name = "DIR", default_value = demo::DEFAULT_DIR)]
    dir: PathBuf,
    /// Answer with one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct MintArgs {
    /// The key's name (`kid`)
    #[arg(long, value_name = "KID")]
    key: String,
    /// What it opens: a canonical path prefix that ends in / or one whole path
    #[arg(long, value_name = "PATH")]
    path: String,
    /// How long it is good for, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(i64).range(1..))]
    ttl: i64,
    /// Not good for this many seconds yet
    #[arg(long, value_name = "SECONDS")]
    not_before: Option<i64>,
    /// The listener's device session
    #[arg(long)]
    sid: Option<String>,
    /// The listener
    #[arg(long)]
    sub: Option<String>,
    /// The only address or network (CIDR) that it is good from
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// The limit class
    #[arg(long, value_name = "CLASS")]
    lim: Option<String>,
    /// A JSON object for policies
    #[arg(long, value_name = "JSON")]
    ctx: Option<String>,
    #[command(flatten)]
    with: KeyArgs,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The ticket
    ticket: String,
    /// The key's name
    #[arg(long, value_name = "KID", default_value = "k1")]
    key: String,
    /// Also check that it opens this path
    #[arg(long)]
    path: Option<String>,
    #[command(flatten)]
    with: KeyArgs,
}

pub(crate) fn run(args: TicketArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        TicketCommand::Mint(args) => mint_one(args),
        TicketCommand::Verify(args) => verify_one(&args),
    }
}

fn mint_one(args: MintArgs) -> anyhow::Result<ExitCode> {
    let key = key(&args.key, &args.with)?;
    let now = now()?;
    let ctx = match &args.ctx {
        Some(text) => Some(serde_json::from_str(text).context("--ctx is not a JSON object")?),
        None => None,
    };
    let claims = Claims {
        exp: now.saturating_add(args.ttl),
        nbf: args.not_before.map(|wait| now.saturating_add(wait)),
        iat: Some(now),
        path: args.path,
        sid: args.sid,
        sub: args.sub,
        ip: args.ip,
        lim: args.lim,
        renew_until: None,
        ctx,
    };
    let ticket = mint(&key, &claims)?;
    if args.with.json {
        say(json!({ "ticket": ticket, "expires": claims.exp }))?;
    } else {
        say(ticket)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn verify_one(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let keyring = Keyring::new(vec![key(&args.key, &args.with)?])?;
    let checked = verify(&keyring, &args.ticket, now()?, 0).and_then(|verified| {
        if let Some(path) = &args.path {
            let path = CanonicalPath::parse(path).map_err(|_| segue_signing::Refusal::OutOfScope)?;
            verified.admits(&path, None)?;
        }
        Ok(verified)
    });
    match checked {
        Ok(verified) => {
            let answer = json!({ "valid": true, "kid": verified.kid, "claims": verified.claims });
            say(if args.with.json { answer.to_string() } else { format!("{answer:#}") })?;
            Ok(ExitCode::SUCCESS)
        }
        Err(refusal) => {
            if args.with.json {
                say(json!({ "valid": false, "error": refusal.reason(), "message": refusal.message() }))?;
            } else {
                say(format_args!("refused: {} ({})", refusal.message(), refusal.reason()))?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn key(kid: &str, with: &KeyArgs) -> anyhow::Result<Key> {
    let variable = format!("SEGUE_KEY_{}", kid.to_uppercase().replace('-', "_"));
    let in_folder = with.dir.join("secrets").join(format!("key-{kid}"));
    let place = match &with.secret {
        Some(place) => place.clone(),
        None if std::env::var_os(&variable).is_some() => format!("env:{variable}"),
        None if in_folder.exists() => format!("file:{}", in_folder.display()),
        None => bail!(
            "no secret for the key {kid}: set {variable}, or give --secret env:NAME or file:PATH, or name a demo's folder with --dir"
        ),
    };
    let secret = Secret::from_text(&place).map_err(|message| anyhow::anyhow!("the secret of {kid}: {message}"))?;
    let secret = SigningSecret::parse(secret.expose()).with_context(|| format!("the secret of the key {kid}"))?;
    Ok(Key { kid: kid.to_owned(), secret, not_before: None, retire_at: None })
}

fn now() -> anyhow::Result<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    Ok(i64::try_from(since.as_secs())?)
}
