//! Small pictures of a film for the bar that a player seeks with: one sheet of them, and a WebVTT track that says where
//! on the sheet the picture of each stretch is (`thumbnails.jpg#xywh=…`, a media fragment).
//!
//! Why this and not a playlist of pictures: Shaka Player, video.js, JW Player, Vidstack and Plyr read such a track, while
//! an image playlist is read by few and a playlist of key pictures by Apple's players alone.
//!
//! Invariants: one sheet of at most [`PICTURES`]; only key pictures of the source are decoded; a film of which none can
//! be read goes without, and the job goes on.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ffmpeg_sidecar::child::FfmpegChild;
use tokio_util::sync::CancellationToken;

use crate::ffmpeg::{Bounds, INPUT, MEMORY, RunError, Tools, follow, run};
use crate::film::Film;
use crate::probe::Probe;
use crate::reject::Halt;
use crate::source::Source;

/// Names in the version's folder.
pub(crate) const SHEET: &str = "thumbnails.jpg";
pub(crate) const TRACK: &str = "thumbnails.vtt";
/// Pictures of a sheet at most, and in one row of it: 1,600 by 900 pixels of a wide film.
const PICTURES: u32 = 100;
const ROW: u32 = 10;
/// Pixels of the longer side of one.
const SIDE: u32 = 160;
/// Seconds from one to the next at least: key pictures of the source are seldom closer.
const EVERY: f64 = 2.0;
/// Key pictures are read at some hundreds a second; a film has thousands.
const WALL: Duration = Duration::from_secs(180);

/// What was made.
pub(crate) struct Thumbnails {
    pub(crate) sheet: PathBuf,
    pub(crate) track: String,
}

/// How a film of so many seconds is divided.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Plan {
    every: f64,
    count: u32,
    width: u32,
    height: u32,
}

fn plan(film: &Film, seconds: f64) -> Plan {
    let every = EVERY.max((seconds / f64::from(PICTURES)).ceil());
    let count = ((seconds / every).ceil() as u32).clamp(1, PICTURES);
    let part = f64::from(SIDE) / f64::from(film.width.max(film.height));
    let side = |pixels: u32| ((f64::from(pixels) * part / 2.0).round() as u32 * 2).max(2);
    Plan { every, count, width: side(film.width), height: side(film.height) }
}

impl Plan {
    fn track(self, seconds: f64) -> String {
        let mut text = "WEBVTT\n".to_owned();
        for n in 0..self.count {
            let (from, to) = (f64::from(n) * self.every, (f64::from(n + 1) * self.every).min(seconds));
            let (x, y) = (n % ROW * self.width, n / ROW * self.height);
            let (from, to) = (clock(from), clock(to));
            let _ = write!(text, "\n{from} --> {to}\n{SHEET}#xywh={x},{y},{},{}\n", self.width, self.height);
        }
        text
    }
}

/// `01:02:03.500`.
fn clock(seconds: f64) -> String {
    let millis = (seconds * 1000.0).round() as u64;
    format!("{:02}:{:02}:{:02}.{:03}", millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60, millis % 1000)
}

/// Makes them in `folder`, where the source is a film.
pub(crate) async fn thumbnails(
    tools: &Tools,
    source: &Source,
    probe: &Probe,
    seconds: f64,
    folder: &Path,
    cancel: &CancellationToken,
) -> Result<Option<Thumbnails>, Halt> {
    let Some(film) = &probe.film else { return Ok(None) };
    let plan = plan(film, seconds);
    let Plan { every, count, width, height } = plan;
    let mut command = tools.ffmpeg(folder);
    command.args(INPUT).args(["-max_pixels", &film.pixels.to_string(), "-skip_frame", "nokey", "-an", "-sn", "-dn"]);
    command.arg("-i").arg(&source.path).args(["-map", &format!("0:{}", film.stream)]);
    // The last picture is held without end: `fps` drops one that nothing follows, and a sheet is written when it is full.
    let filters = format!(
        "setpts=PTS-({:.6})/TB,tpad=stop=-1:stop_mode=clone,fps=fps=1/{every}:start_time=0,scale={width}:{height},\
         setsar=1,format=yuvj420p,tile={ROW}x{}",
        film.delay,
        count.div_ceil(ROW)
    );
    command.args(["-vf", &filters, "-frames:v", "1", "-map_metadata", "-1"]);
    command.args(["-c:v", "mjpeg", "-q:v", "5", "-f", "image2", "-update", "1", SHEET]);
    let drive = |child: &mut FfmpegChild| child.take_stderr().map(|log| follow(log, |_| {})).unwrap_or_default();
    let bounds = Bounds { wall: WALL, file_bytes: 8 << 20, memory: MEMORY };
    let sheet = folder.join(SHEET);
    match run(move || command.spawn(), bounds, cancel, drive).await {
        Err(RunError::Cancelled) => Err(Halt::Cancelled),
        Ok((status, _)) if status.success() && sheet.metadata().is_ok_and(|meta| meta.len() > 0) => {
            Ok(Some(Thumbnails { sheet, track: plan.track(seconds) }))
        }
        Ok((status, log)) => {
            tracing::info!(%status, log = log.tail(), "no thumbnails can be made; the film goes without");
            Ok(None)
        }
        Err(error) => {
            tracing::info!(%error, "no thumbnails can be made; the film goes without");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cues_cover_the_film_and_lead_to_places_on_the_sheet() {
        let film = Film { stream: 0, width: 1920, height: 1080, pixels: 0, rate: (25, 1), delay: 0.0 };
        let short = plan(&film, 5.0);
        assert_eq!(short, Plan { every: 2.0, count: 3, width: 160, height: 90 });
        assert_eq!(
            short.track(5.0),
            "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nthumbnails.jpg#xywh=0,0,160,90\n\
             \n00:00:02.000 --> 00:00:04.000\nthumbnails.jpg#xywh=160,0,160,90\n\
             \n00:00:04.000 --> 00:00:05.000\nthumbnails.jpg#xywh=320,0,160,90\n"
        );
        let long = plan(&Film { width: 1080, height: 1920, ..film }, 4.0 * 3600.0);
        assert_eq!(long, Plan { every: 144.0, count: 100, width: 90, height: 160 });
        assert!(long.track(14_400.0).contains("03:57:36.000 --> 04:00:00.000\nthumbnails.jpg#xywh=810,1440,90,160\n"));
    }
}
