//! Encoding: one run of ffmpeg, one decode, every rendition of the ladder.
//!
//! Invariants: all renditions get the very same samples with the very same time stamps, and their segment boundaries
//! are compared afterwards: a rendition that is cut differently, is too short, or names a file that is not there is
//! never published. Segments are fragmented MP4 (CMAF) of [`SEGMENT`] seconds.
//!
//! On failure: a crash or an output that is not what was asked for is retryable; the folder goes with the job.

use std::path::Path;

use ffmpeg_sidecar::child::FfmpegChild;
use tokio_util::sync::CancellationToken;

use crate::codecs::{codecs, is_whole_segment};
use crate::ffmpeg::{Bounds, INPUT, Tools, follow, run};
use crate::ladder::{Rung, Shape};
use crate::lease::{Reporter, Stage};
use crate::measure::{Limits, Measured, halted};
use crate::playlist::MediaPlaylist;
use crate::probe::Probe;
use crate::reject::{Failure, Halt, Reason, disk};
use crate::source::Source;

/// Seconds of one segment.
pub(crate) const SEGMENT: u32 = 6;
/// How far a rendition may differ from its source: the encoder's delay and its last frame are under 50 ms.
const SLACK: f64 = 0.1;
/// Name of the playlist in each rendition's folder.
pub(crate) const INDEX: &str = "index.m3u8";

/// One file of a rendition.
#[derive(Debug, Clone)]
pub(crate) struct SegmentFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

/// One rendition, encoded and checked.
#[derive(Debug, Clone)]
pub(crate) struct Rendition {
    pub(crate) name: String,
    pub(crate) init: String,
    pub(crate) segments: Vec<SegmentFile>,
    /// Target duration in seconds.
    pub(crate) target: u64,
    pub(crate) codecs: String,
}

/// Encodes the ladder into folders under `folder`.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different thing that a job owns; a struct would only rename them"
)]
pub(crate) async fn encode(
    tools: &Tools,
    source: &Source,
    probe: &Probe,
    measured: &Measured,
    rungs: &[Rung],
    folder: &Path,
    limits: Limits,
    cancel: &CancellationToken,
    progress: &Reporter,
) -> Result<Vec<Rendition>, Halt> {
    progress.at(Stage::Encode, 0.0);
    let mut command = tools.ffmpeg(folder);
    command.args(INPUT).args(["-vn", "-sn", "-dn", "-i"]).arg(&source.path);
    command.args(["-filter_complex", &graph(Shape::of(probe), measured.loudness.gain_db, rungs.len())]);
    for (n, rung) in rungs.iter().enumerate() {
        std::fs::create_dir(folder.join(&rung.name)).map_err(|error| disk("make a rendition's folder", &error))?;
        command.args(output(n, rung));
    }
    let length = measured.seconds();
    let reporter = progress.clone();
    let drive = move |child: &mut FfmpegChild| {
        child.take_stderr().map(|log| follow(log, |at| reporter.at(Stage::Encode, at / length))).unwrap_or_default()
    };
    // A segment has a few hundred kilobytes; the bound is there for an ffmpeg gone mad.
    let bounds = Bounds { wall: limits.wall(Some(length)), file_bytes: 64 << 20 };
    let ended = run(move || command.spawn(), bounds, cancel, drive).await;
    let (status, log) = ended.map_err(|error| halted(error, "encode"))?;
    let failed =
        |detail: String| Failure::new(Reason::EncoderFailed, "ffmpeg failed while encoding the file.").because(detail);
    if !status.success() {
        return Err(failed(format!("{status}: {}", log.tail())).into());
    }
    let mut renditions = Vec::with_capacity(rungs.len());
    for rung in rungs {
        let rendition = collect(&folder.join(&rung.name), rung, length);
        renditions.push(rendition.map_err(|detail| failed(format!("{}: {detail}", rung.name)))?);
    }
    aligned(&renditions).map_err(failed)?;
    progress.at(Stage::Encode, 1.0);
    Ok(renditions)
}

fn graph(shape: Shape, gain_db: f64, outputs: usize) -> String {
    let pads: String = (0..outputs).map(|n| format!("[o{n}]")).collect();
    format!("[0:a:0]{},volume={gain_db:.2}dB:precision=float,asplit={outputs}{pads}", shape.filters())
}

fn output(n: usize, rung: &Rung) -> Vec<String> {
    let Rung { name, bit_rate } = rung;
    let bit_rate = bit_rate.to_string();
    let (pad, time, segments, index) =
        (format!("[o{n}]"), SEGMENT.to_string(), format!("{name}/seg-%05d.m4s"), format!("{name}/{INDEX}"));
    #[rustfmt::skip]
    let container = [
        // Nothing of the source's tags goes into the renditions, and no build string: same input, same bytes.
        "-map_metadata", "-1", "-map_chapters", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact",
        "-f", "hls", "-hls_time", &time, "-hls_playlist_type", "vod", "-hls_list_size", "0",
        "-hls_segment_type", "fmp4", "-hls_flags", "independent_segments", "-hls_fmp4_init_filename", "init.mp4",
        "-hls_segment_filename", &segments, &index,
    ];
    let coding = ["-map", &pad, "-c:a", "aac", "-b:a", &bit_rate];
    coding.iter().chain(rung.coder()).chain(&container).map(|option| (*option).to_owned()).collect()
}

fn collect(folder: &Path, rung: &Rung, length: f64) -> Result<Rendition, String> {
    let read = |name: &str| std::fs::read(folder.join(name)).map_err(|error| format!("{name}: {error}"));
    let playlist = MediaPlaylist::parse(&String::from_utf8_lossy(&read(INDEX)?))?;
    if (playlist.seconds() - length).abs() > SLACK {
        return Err(format!("{:.3} s were encoded of {length:.3}", playlist.seconds()));
    }
    let codecs = codecs(&read(&playlist.map)?)?;
    let mut segments = Vec::with_capacity(playlist.segments.len());
    for segment in playlist.segments {
        let content = read(&segment.uri)?;
        // The muxer does not always tell of a write that failed: a disk that filled up shows here.
        if !is_whole_segment(&content) {
            return Err(format!("{} is not a whole segment", segment.uri));
        }
        segments.push(SegmentFile { name: segment.uri, bytes: content.len() as u64, seconds: segment.seconds });
    }
    Ok(Rendition { name: rung.name.clone(), init: playlist.map, segments, target: playlist.target, codecs })
}

fn aligned(renditions: &[Rendition]) -> Result<(), String> {
    let cuts = |rendition: &Rendition| rendition.segments.iter().map(|segment| segment.seconds).collect::<Vec<_>>();
    let Some((first, rest)) = renditions.split_first() else { return Err("no renditions".to_owned()) };
    match rest.iter().find(|other| cuts(other) != cuts(first) || other.target != first.target) {
        Some(other) => Err(format!("{} and {} are cut differently", first.name, other.name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendition(name: &str, cuts: &[f64]) -> Rendition {
        let segments = cuts.iter().map(|s| SegmentFile { name: "x".into(), bytes: 1, seconds: *s }).collect();
        Rendition { name: name.into(), init: "init.mp4".into(), segments, target: 6, codecs: String::new() }
    }

    #[test]
    fn renditions_that_are_cut_differently_are_refused() {
        assert!(aligned(&[rendition("a", &[6.0, 1.0]), rendition("b", &[6.0, 1.0])]).is_ok());
        assert!(aligned(&[rendition("a", &[6.0, 1.0]), rendition("b", &[6.0, 1.1])]).is_err());
        assert!(aligned(&[rendition("a", &[6.0, 1.0]), rendition("b", &[6.0])]).is_err());
        assert!(aligned(&[]).is_err());
    }

    #[test]
    fn one_decode_feeds_every_rendition() {
        let graph = graph(Shape { rate: 44_100, channels: 2 }, -1.5, 3);
        assert!(graph.starts_with("[0:a:0]aresample=44100,"));
        assert!(graph.ends_with("volume=-1.50dB:precision=float,asplit=3[o0][o1][o2]"), "{graph}");
    }
}
