//! `segue track add`: upload, wait, URL; with progress for people and one line for machines.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::json;

use super::send::{self, Source, Upload};
use super::{Track, length, ticket};
use crate::cli::say;
use crate::client::{Control, Refused};

/// Between two looks at a track that is being made.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A job that shows no movement at all for this long is given up on (the job itself goes on).
const STILL_FOR_AT_MOST: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Deserialize)]
struct Created {
    track: Track,
    upload: Upload,
}

pub(super) async fn run(control: &Control, file: &Path, title: Option<String>, json: bool) -> anyhow::Result<ExitCode> {
    let mut id = None;
    let ended = add(control, file, title, &mut id).await;
    let answer = match &ended {
        Ok(Added::Ready { track, url }) => {
            json!({ "track": track.track, "status": "ready", "duration_ms": track.duration_ms, "url": url })
        }
        Ok(Added::Failed { reason, message }) => {
            json!({ "track": id, "status": "failed", "reason": reason, "message": message })
        }
        Err(error) => {
            let reason = error.downcast_ref::<Refused>().map_or("not-added", |refused| refused.word.as_str());
            json!({ "track": id, "status": "failed", "reason": reason, "message": format!("{error:#}") })
        }
    };
    if json {
        say(&answer)?;
    }
    match ended? {
        Added::Ready { track, url } => {
            if !json {
                let title = track.title.as_deref().unwrap_or("the track");
                eprintln!("{title} is ready: {} ({})", track.track, length(track.duration_ms));
                say(url)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Added::Failed { reason, message } => {
            eprintln!("segue: {}: {message} ({reason})", file.display());
            Ok(ExitCode::FAILURE)
        }
    }
}

/// How it ended, where nothing refused.
enum Added {
    Ready { track: Track, url: String },
    Failed { reason: String, message: String },
}

async fn add(control: &Control, file: &Path, title: Option<String>, id: &mut Option<String>) -> anyhow::Result<Added> {
    let meta = std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
    if !meta.is_file() {
        bail!("{} is not a file", file.display());
    }
    let Some(filename) = file.file_name().map(|name| name.to_string_lossy().into_owned()) else {
        bail!("{} has no file name", file.display());
    };
    let meter = Meter::new();
    let source = Source::read(file, meta.len(), &meter).await?;
    let (track, upload) = match send::broken_off(control, &source).await? {
        Some(found) => found,
        None => {
            let wish = json!({
                "filename": filename, "size": source.bytes, "title": title,
                "sha256": source.sha256, "fingerprint": source.fingerprint(),
            });
            let Created { track, upload } = control.post("/v1/tracks", &wish).await?;
            (track.track, upload)
        }
    };
    let track = id.insert(track);
    send::send(control, track, &source, &upload, &meter).await?;
    let track = wait(control, track, &meter).await?;
    meter.finish();
    if track.status != "ready" {
        let or = |text: Option<String>, otherwise: &str| text.unwrap_or_else(|| otherwise.to_owned());
        return Ok(Added::Failed {
            reason: or(track.reason, "unknown"),
            message: or(track.message, "no reason was given"),
        });
    }
    let url = ticket(control, &track.track, &json!({})).await?.url;
    Ok(Added::Ready { track, url })
}

async fn wait(control: &Control, id: &str, meter: &Meter) -> anyhow::Result<Track> {
    let (mut last, mut moved) = (String::new(), Instant::now());
    loop {
        let track: Track = control.get(&format!("/v1/tracks/{id}")).await?;
        if track.status == "ready" || track.status == "failed" {
            return Ok(track);
        }
        let stage = track.stage.as_deref().unwrap_or(&track.status);
        let now = format!("{stage} {}", track.progress);
        if now != last {
            (last, moved) = (now, Instant::now());
        } else if moved.elapsed() > STILL_FOR_AT_MOST {
            bail!(
                "{id} has not moved for {} minutes (at {stage}); see `segue track show {id}`",
                STILL_FOR_AT_MOST.as_secs() / 60
            );
        }
        meter.show(stage, track.progress);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A bar on a terminal; elsewhere a line for each stage and each tenth.
#[derive(Clone)]
pub(super) struct Meter {
    bar: Option<ProgressBar>,
    told: std::sync::Arc<std::sync::Mutex<(String, u64)>>,
}

impl Meter {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(1000);
            if let Ok(style) = ProgressStyle::with_template("{msg:>9} {wide_bar:.cyan/dim} {percent:>3} % {elapsed}") {
                bar.set_style(style.progress_chars("━╸─"));
            }
            bar
        });
        Self { bar, told: std::sync::Arc::default() }
    }

    /// Shows how far a stage is: `part` from 0 to 1.
    pub(super) fn show(&self, stage: &str, part: f64) {
        let mille = (part.clamp(0.0, 1.0) * 1000.0) as u64;
        if let Some(bar) = &self.bar {
            bar.set_message(stage.to_owned());
            bar.set_position(mille);
            return;
        }
        let tenth = mille / 100;
        let Ok(mut told) = self.told.lock() else { return };
        if told.0 != stage || told.1 != tenth {
            *told = (stage.to_owned(), tenth);
            eprintln!("{stage} {} %", tenth * 10);
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
