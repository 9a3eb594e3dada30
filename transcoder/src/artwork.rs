//! The cover: the attached picture of the source, or else a picture out of its film, as JPEG in the sizes of [`COVERS`].
//!
//! Invariants: a picture that cannot be read costs the track its cover, never the job.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ffmpeg_sidecar::child::FfmpegChild;
use tokio_util::sync::CancellationToken;

use crate::ffmpeg::{Bounds, INPUT, MEMORY, RunError, Tools, follow, run};
use crate::probe::Probe;
use crate::reject::Halt;
use crate::source::Source;

/// Names in the version's folder, and pixels of the longer side at most: one to look at, one for lists.
pub(crate) const COVERS: [(&str, u32); 2] = [("cover.jpg", 1000), ("cover-320.jpg", 320)];
/// Where in a film its poster is taken, as a part of the whole.
const POSTER_AT: f64 = 0.1;
/// One picture is decoded and scaled in well under a second.
const WALL: Duration = Duration::from_secs(30);

/// Writes the covers into `folder`; none when there is none, or none that can be read.
pub(crate) async fn artwork(
    tools: &Tools,
    source: &Source,
    probe: &Probe,
    seconds: f64,
    folder: &Path,
    cancel: &CancellationToken,
) -> Result<Vec<(&'static str, PathBuf)>, Halt> {
    let film = probe.film.as_ref().filter(|_| probe.artwork.is_none()).map(|film| film.stream);
    let Some(stream) = probe.artwork.or(film) else { return Ok(Vec::new()) };
    let mut command = tools.ffmpeg(folder);
    if film.is_some() {
        // Films begin in the dark.
        command.args(["-ss", &format!("{:.3}", seconds * POSTER_AT)]);
    }
    // A picture of 20,000 x 20,000 pixels in a few kilobytes is an attack on memory, not a cover.
    command.args(INPUT).args(["-max_pixels", "100000000", "-an", "-i"]).arg(&source.path);
    for (name, side) in COVERS {
        let scale =
            format!("scale=w='min({side},iw)':h='min({side},ih)':force_original_aspect_ratio=decrease,format=yuvj420p");
        command.args(["-map", &format!("0:{stream}"), "-frames:v", "1", "-map_metadata", "-1", "-vf", &scale]);
        command.args(["-c:v", "mjpeg", "-q:v", "3", "-f", "image2", "-update", "1", name]);
    }
    let drive = |child: &mut FfmpegChild| child.take_stderr().map(|log| follow(log, |_| {})).unwrap_or_default();
    let bounds = Bounds { wall: WALL, file_bytes: 8 << 20, memory: MEMORY };
    let pictures = COVERS.map(|(name, _)| (name, folder.join(name)));
    let are_there = || pictures.iter().all(|(_, path)| path.metadata().is_ok_and(|meta| meta.len() > 0));
    match run(move || command.spawn(), bounds, cancel, drive).await {
        Err(RunError::Cancelled) => Err(Halt::Cancelled),
        Ok((status, _)) if status.success() && are_there() => Ok(pictures.to_vec()),
        Ok((status, log)) => {
            tracing::info!(%status, log = log.tail(), "the cover cannot be read; the track goes without");
            Ok(Vec::new())
        }
        Err(error) => {
            tracing::info!(%error, "the cover cannot be read; the track goes without");
            Ok(Vec::new())
        }
    }
}
