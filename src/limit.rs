//! `segue limit`: limit classes, changed while every edge runs.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use segue_config::{Span, Value as _};
use serde_json::{Map, Value, json};

use crate::cli::{ControlArgs, say};
use crate::client::Control;

#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    #[command(subcommand)]
    command: LimitCommand,
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Debug, Subcommand)]
enum LimitCommand {
    /// List the classes that the control plane tells edges of
    List,
    /// Set a class, or change what is named of one; buckets go on with what was spent
    Set {
        /// The class's name
        name: String,
        #[command(flatten)]
        class: Class,
    },
    /// Take a class away; an edge whose own file has one of that name goes by that again
    Remove {
        /// The class's name
        name: String,
        /// The class of streams of that name
        #[arg(long)]
        streams: bool,
    },
}

/// What is said of a class. `--max`, `--grace` and `--on-excess` make it one of streams.
#[derive(Debug, Args)]
struct Class {
    /// Tokens a second
    #[arg(long)]
    rate: Option<f64>,
    /// Tokens that a bucket holds
    #[arg(long)]
    burst: Option<u32>,
    /// Whose bucket it is: track, session or address
    #[arg(long)]
    per: Option<String>,
    /// How long drawn tokens stay good, such as 300ms
    #[arg(long, value_name = "SPAN", value_parser = span)]
    lease: Option<u64>,
    /// The class is one of streams
    #[arg(long)]
    streams: bool,
    /// Sessions of one listener at once
    #[arg(long)]
    max: Option<u32>,
    /// How long past its media a session counts as playing, such as 15s
    #[arg(long, value_name = "SPAN", value_parser = span)]
    grace: Option<u64>,
    /// Who gives way: stop-oldest or refuse-newest
    #[arg(long)]
    on_excess: Option<String>,
    /// What costs a token (segment,init,playlist,key,other; none for no object), or whether a class of streams meets
    /// every ticket with a `sub` (true, false)
    #[arg(long)]
    apply: Option<String>,
    /// Whether refusals are counted and not carried out
    #[arg(long)]
    shadow: Option<bool>,
    /// What holds while Redis is away: local, open or closed
    #[arg(long)]
    on_outage: Option<String>,
    /// How long a request waits for Redis, such as 5ms
    #[arg(long, value_name = "SPAN", value_parser = span)]
    max_wait: Option<u64>,
    /// Keys that an edge remembers at once
    #[arg(long)]
    keys: Option<u64>,
}

fn span(text: &str) -> Result<u64, String> {
    Span::from_text(text).map(|span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX))
}

impl Class {
    fn is_of_streams(&self) -> bool {
        self.streams || self.max.is_some() || self.grace.is_some() || self.on_excess.is_some()
    }

    /// What was said, by its name in the API.
    fn said(&self) -> anyhow::Result<Map<String, Value>> {
        let apply = match (self.apply.as_deref(), self.is_of_streams()) {
            (None, _) => Value::Null,
            (Some("true"), true) => json!(true),
            (Some("false"), true) => json!(false),
            (Some(other), true) => bail!("--apply {other:?}: a class of streams takes true or false"),
            (Some("none"), false) => json!([]),
            (Some(words), false) => json!(words.split(',').map(str::trim).collect::<Vec<_>>()),
        };
        let all = [
            ("rate", json!(self.rate)),
            ("burst", json!(self.burst)),
            ("per", json!(self.per)),
            ("lease_ms", json!(self.lease)),
            ("max", json!(self.max)),
            ("grace_ms", json!(self.grace)),
            ("on_excess", json!(self.on_excess)),
            ("apply", apply),
            ("shadow", json!(self.shadow)),
            ("on_outage", json!(self.on_outage)),
            ("max_wait_ms", json!(self.max_wait)),
            ("keys", json!(self.keys)),
        ];
        Ok(all
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.to_owned(), value))
            .collect())
    }
}

pub(crate) async fn run(args: LimitArgs) -> anyhow::Result<ExitCode> {
    let control = Control::find(&args.control)?;
    let json = args.control.json;
    match args.command {
        LimitCommand::List => {
            let all: Value = control.get("/v1/limits").await?;
            for sort in ["classes", "streams"] {
                for (name, class) in all.get(sort).and_then(Value::as_object).into_iter().flatten() {
                    say(shown(sort, name, class, json))?;
                }
            }
        }
        LimitCommand::Set { name, class } => {
            let sort = sort(class.is_of_streams());
            let all: Value = control.get("/v1/limits").await?;
            // What is not said stays as it was.
            let mut whole = all.get(sort).and_then(|classes| classes.get(&name)).cloned().unwrap_or_else(|| json!({}));
            if let Some(whole) = whole.as_object_mut() {
                whole.extend(class.said()?);
            }
            let class: Value = control.put(&format!("/v1/limits/{sort}/{name}"), &whole).await?;
            say(shown(sort, &name, &class, json))?;
        }
        LimitCommand::Remove { name, streams } => {
            control.delete(&format!("/v1/limits/{}/{name}", sort(streams))).await?;
            say(if json { json!({ "name": name, "removed": true }).to_string() } else { format!("removed {name}") })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn sort(streams: bool) -> &'static str {
    if streams { "streams" } else { "classes" }
}

fn shown(sort: &str, name: &str, class: &Value, is_json: bool) -> String {
    if is_json {
        return json!({ "sort": sort, "name": name, "class": class }).to_string();
    }
    let mut line = format!("{sort:<8}  {name:<24}");
    for (key, value) in class.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        line.push_str(&format!("  {key} {value}"));
    }
    line
}
