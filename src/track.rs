//! `segue track`: songs in, URLs out.

mod add;
mod send;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{ControlArgs, say};
use crate::client::Control;

#[derive(Debug, Args)]
pub(crate) struct TrackArgs {
    #[command(subcommand)]
    command: TrackCommand,
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Debug, Subcommand)]
enum TrackCommand {
    /// Upload a file, wait until it is ready, and print a URL that plays it. A large one travels in parts: broken off, the same
    /// command goes on with those that are missing
    Add {
        /// Any audio that ffmpeg reads
        file: PathBuf,
        /// The title, instead of the file's own tag or name
        #[arg(long)]
        title: Option<String>,
    },
    /// List the tracks
    List,
    /// Show one track and its plays
    Show {
        /// The track's id
        track: String,
    },
    /// Print a signed URL that plays a track
    Play {
        /// The track's id
        track: String,
        /// How long the URL is good for, in seconds
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u64>,
        /// The listener's device session
        #[arg(long)]
        sid: Option<String>,
        /// The listener
        #[arg(long)]
        sub: Option<String>,
    },
    /// Delete a track, its objects and what edges hold of it
    Delete {
        /// The track's id
        track: String,
    },
    /// Make every edge forget what it holds of a track
    Purge {
        /// The track's id
        track: String,
    },
}

/// A track, as far as the command looks at it.
#[derive(Debug, Deserialize)]
struct Track {
    track: String,
    title: Option<String>,
    status: String,
    reason: Option<String>,
    message: Option<String>,
    duration_ms: Option<u64>,
    stage: Option<String>,
    #[serde(default)]
    progress: f64,
    #[serde(default)]
    qualified: u64,
}

pub(crate) async fn run(args: TrackArgs) -> anyhow::Result<ExitCode> {
    let control = Control::find(&args.control)?;
    let json = args.control.json;
    match args.command {
        TrackCommand::Add { file, title } => return add::run(&control, &file, title, json).await,
        TrackCommand::List => list(&control, json).await?,
        TrackCommand::Show { track } => show(&control, &track, json).await?,
        TrackCommand::Play { track, ttl, sid, sub } => {
            let now: Track = control.get(&format!("/v1/tracks/{track}")).await?;
            if now.status != "ready" {
                eprintln!("segue: {track} is {}: the URL plays once it is ready", now.status);
            }
            let ticket = ticket(&control, &track, &json!({ "ttl_s": ttl, "sid": sid, "sub": sub })).await?;
            say(if json { json!({ "url": ticket.url, "expires": ticket.expires }).to_string() } else { ticket.url })?;
        }
        TrackCommand::Purge { track } => {
            let purged: Value = control.post(&format!("/v1/tracks/{track}/purge"), &json!({})).await?;
            say(if json { purged.to_string() } else { format!("purged {track}") })?;
        }
        TrackCommand::Delete { track } => {
            control.delete(&format!("/v1/tracks/{track}")).await?;
            say(if json {
                json!({ "track": track, "deleted": true }).to_string()
            } else {
                format!("deleted {track}")
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Deserialize)]
struct Ticket {
    url: String,
    expires: i64,
}

async fn ticket(control: &Control, track: &str, wish: &Value) -> anyhow::Result<Ticket> {
    control.post(&format!("/v1/tracks/{track}/tickets"), wish).await
}

async fn list(control: &Control, json: bool) -> anyhow::Result<()> {
    let (mut after, mut first) = (String::new(), true);
    loop {
        let page: Value = control.get(&format!("/v1/tracks{after}")).await?;
        let tracks = page.get("tracks").and_then(Value::as_array).cloned().unwrap_or_default();
        match (json, first, tracks.is_empty()) {
            (false, true, true) => say("no tracks yet; add one with `segue track add FILE`")?,
            (false, true, false) => {
                say(format_args!("{:<12}  {:<11}  {:>7}  {:>6}  TITLE", "TRACK", "STATUS", "LENGTH", "PLAYS"))?;
            }
            _ => {}
        }
        for value in tracks {
            say(if json { value.to_string() } else { row(&serde_json::from_value(value)?) })?;
        }
        first = false;
        match page.get("next").and_then(Value::as_str) {
            Some(next) => after = format!("?after={next}"),
            None => return Ok(()),
        }
    }
}

fn row(track: &Track) -> String {
    let title = track.title.as_deref().unwrap_or("-");
    let why = track.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    let Track { track: id, status, qualified, duration_ms, .. } = track;
    format!("{id:<12}  {status:<11}  {:>7}  {qualified:>6}  {title}{why}", length(*duration_ms))
}

async fn show(control: &Control, id: &str, json: bool) -> anyhow::Result<()> {
    let track: Value = control.get(&format!("/v1/tracks/{id}")).await?;
    let stats: Value = control.get(&format!("/v1/tracks/{id}/stats")).await?;
    let both = json!({ "track": track, "stats": stats });
    say(if json { both.to_string() } else { format!("{both:#}") })
}

/// Minutes and seconds.
fn length(duration_ms: Option<u64>) -> String {
    duration_ms.map_or_else(|| "-".to_owned(), |ms| format!("{}:{:02}", ms / 60_000, ms / 1000 % 60))
}
