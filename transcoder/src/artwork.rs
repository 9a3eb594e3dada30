//! The cover: the attached picture of the source, as a JPEG of at most 1,000 pixels a side.
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

/// Name of the cover in the version's folder.
pub(crate) const COVER: &str = "cover.jpg";
/// One picture is decoded and scaled in well under a second.
const WALL: Duration = Duration::from_secs(30);

/// Writes the cover into `folder`; `None` when there is none, or none that can be read.
pub(crate) async fn artwork(
    tools: &Tools,
    source: &Source,
    probe: &Probe,
    folder: &Path,
    cancel: &CancellationToken,
) -> Result<Option<PathBuf>, Halt> {
    let Some(stream) = probe.artwork else { return Ok(None) };
    let mut command = tools.ffmpeg(folder);
    // A picture of 20,000 x 20,000 pixels in a few kilobytes is an attack on memory, not a cover.
    command.args(INPUT).args(["-max_pixels", "100000000", "-an", "-i"]).arg(&source.path);
    command.args(["-map", &format!("0:{stream}"), "-frames:v", "1", "-map_metadata", "-1"]);
    command
        .args(["-vf", "scale=w='min(1000,iw)':h='min(1000,ih)':force_original_aspect_ratio=decrease,format=yuvj420p"]);
    command.args(["-c:v", "mjpeg", "-q:v", "3", "-f", "image2", "-update", "1", COVER]);
    let drive = |child: &mut FfmpegChild| child.take_stderr().map(|log| follow(log, |_| {})).unwrap_or_default();
    let bounds = Bounds { wall: WALL, file_bytes: 8 << 20, memory: MEMORY };
    let picture = folder.join(COVER);
    match run(move || command.spawn(), bounds, cancel, drive).await {
        Err(RunError::Cancelled) => Err(Halt::Cancelled),
        Ok((status, _)) if status.success() && picture.metadata().is_ok_and(|meta| meta.len() > 0) => Ok(Some(picture)),
        Ok((status, log)) => {
            tracing::info!(%status, log = log.tail(), "the cover cannot be read; the track goes without");
            Ok(None)
        }
        Err(error) => {
            tracing::info!(%error, "the cover cannot be read; the track goes without");
            Ok(None)
        }
    }
}
