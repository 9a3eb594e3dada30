//! `segue explain`: which step would refuse or serve a URL, and why.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use segue_config::{Secret, Value as _};
use segue_proxy::{EdgeConfig, Explanation, Question};
use segue_signing::{CanonicalPath, SigningSecret, debug};
use serde_json::json;

use crate::cli::say;
use crate::client::{client_for, refuse};
use crate::demo::{self, DemoState};
use crate::roles;
use crate::when::When;

const WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The URL as a player opens it, or its path
    url: String,
    /// Ask the edge whose admin listener this is, for example http://127.0.0.1:9090
    #[arg(long, value_name = "URL", conflicts_with_all = ["config", "live", "header_only"])]
    admin: Option<String>,
    /// The admin listener's token: env:NAME or file:PATH
    #[arg(long, value_name = "SECRET", default_value = "env:SEGUE_ADMIN_TOKEN")]
    token: String,
    /// Decide by route and ticket from an edge's configuration, without an edge
    #[arg(long, value_name = "FILE", conflicts_with_all = ["live", "header_only"])]
    config: Option<PathBuf>,
    /// Send the request, with a signed debug header, and show how the live answer came about
    #[arg(long)]
    live: bool,
    /// Only print the signed debug header, for curl and its like
    #[arg(long = "debug-header")]
    header_only: bool,
    /// The key of the debug header (`[debug] key` of the edge): env:NAME or file:PATH
    #[arg(long, value_name = "SECRET", default_value = "env:SEGUE_DEBUG_KEY")]
    key: String,
    /// How long the debug header is good for
    #[arg(long, value_name = "SPAN", default_value = "5m")]
    ttl: When,
    /// The method
    #[arg(long, short = 'X', default_value = "GET")]
    method: String,
    /// A header of the request, as "Name: value" (repeat for several)
    #[arg(long = "with", short = 'H', value_name = "HEADER")]
    headers: Vec<String>,
    /// The client's address
    #[arg(long)]
    client: Option<IpAddr>,
    /// The folder of a running `segue demo`, whose edge is asked where nothing else is said
    #[arg(long, env = "SEGUE_DIR", value_name = "DIR", default_value = demo::DEFAULT_DIR)]
    dir: PathBuf,
    /// Answer with one line of JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    if args.live || args.header_only {
        return live(&args).await;
    }
    let question = Question {
        url: args.url.clone(),
        method: Some(args.method.clone()),
        headers: headers(&args)?,
        client: args.client,
    };
    let explanation = match (&args.config, &args.admin) {
        (Some(config), _) => {
            let config: EdgeConfig = roles::read(config, EdgeConfig::read)?;
            segue_proxy::explain(&config, &question).map_err(anyhow::Error::msg)?
        }
        (None, Some(admin)) => ask(admin, &secret(&args.token, "the admin token")?, &question).await?,
        (None, None) => {
            let state = DemoState::load(&args.dir).with_context(|| {
                format!(
                    "which edge? name --admin or --config, or a demo's folder with --dir (looked in {})",
                    args.dir.display()
                )
            })?;
            let token = format!("file:{}/secrets/token-edge-admin", state.dir.display());
            ask(&state.admin, &secret(&token, "the demo's admin token")?, &question).await?
        }
    };
    show(&explanation, args.json)?;
    Ok(if explanation.serves { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn headers(args: &ExplainArgs) -> anyhow::Result<BTreeMap<String, String>> {
    let pair = |header: &String| {
        let (name, value) = header.split_once(':').with_context(|| format!("{header:?} is not \"Name: value\""))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    args.headers.iter().map(pair).collect()
}

fn secret(place: &str, what: &str) -> anyhow::Result<Secret> {
    Secret::from_text(place).map_err(|message| anyhow::anyhow!("{what}: {message}"))
}

async fn ask(admin: &str, token: &Secret, question: &Question) -> anyhow::Result<Explanation> {
    let url = format!("{}/explain", admin.trim_end_matches('/'));
    let request = client_for(admin)?.post(&url).bearer_auth(token.expose()).timeout(WITHIN).json(question);
    let response = request.send().await.with_context(|| format!("{admin} does not answer; is the edge running?"))?;
    refuse(response).await?.json().await.context("the edge's answer is not an explanation")
}

fn show(explanation: &Explanation, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return say(json!(explanation));
    }
    for step in &explanation.steps {
        let mark = if step.passes { "passes " } else { "REFUSES" };
        say(format_args!("{:<9} {mark}  {}", step.step, step.found))?;
    }
    match (explanation.status, &explanation.reason, &explanation.message) {
        (Some(status), Some(reason), Some(message)) => say(format_args!("=> {status} {reason}: {message}")),
        _ => say("=> no step refuses it"),
    }
}

/// The request as it is, with a debug header; or that header alone.
async fn live(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let secret = SigningSecret::parse(secret(&args.key, "the key of the debug header")?.expose())?;
    let path = url::Url::parse(&args.url).map_or_else(|_| args.url.clone(), |url| url.path().to_owned());
    let path = path.split(['?', '#']).next().unwrap_or_default();
    // The ticket of the path carrier is no part of the canonical path.
    let path = path.strip_prefix("/p/").and_then(|rest| rest.find('/').and_then(|at| rest.get(at..))).unwrap_or(path);
    let path = CanonicalPath::parse(path).map_err(|error| anyhow::anyhow!("{path:?}: {}", error.message()))?;
    let header = debug::sign(&secret, &path, When::In(args.ttl.span()?).at()?);
    if args.header_only {
        say(format_args!("Segue-Debug: {header}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut request = client_for(&args.url)?.request(args.method.parse()?, &args.url).timeout(WITHIN);
    for (name, value) in headers(args)? {
        request = request.header(name, value);
    }
    let response = request.header(debug::HEADER, header).send().await.context("the edge does not answer")?;
    let status = response.status();
    let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (said, cache) = (text(debug::HEADER), text("cache-status"));
    if args.json {
        say(json!({ "status": status.as_u16(), "debug": said, "cache_status": cache }))?;
    } else {
        say(format_args!("{status}  {}", cache.unwrap_or_default()))?;
        match &said {
            Some(said) => say(said)?,
            None => bail!("the edge said nothing: its [debug] key is another, or the path leads to no route"),
        }
    }
    Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
