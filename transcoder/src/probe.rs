//! Probing: is this audio that we take, and what does it say about itself.
//!
//! Invariants: ffprobe runs bounded, on the file alone; its answer is data of a stranger and is read as such. What the
//! file is to blame for becomes a [`Failure`] with a reason word; the content is named before its name is blamed.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::config::Video;
use crate::declared::{Declared, declared};
use crate::ffmpeg::{Bounds, INPUT, RunError, Tools, crashed, read_bounded, run};
use crate::film::{Film, film, is_still};
use crate::reject::{Failure, Halt, Reason, disk};
use crate::sniff::{Content, Family, HEAD, container, content, promised};
use crate::source::Source;
use crate::tags::Tags;

/// ffprobe's answer on a file with many tags is some kilobytes; lyrics and chapters make it a few hundred.
const ANSWER_MAX: usize = 4 << 20;
const LOG_MAX: usize = 64 * 1024;
/// ffprobe reads the first 5 MB.
const WALL: Duration = Duration::from_secs(60);

/// What is known about a source before it is decoded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probe {
    /// Samples per second of the source.
    pub(crate) sample_rate: u32,
    pub(crate) channels: u32,
    /// Bits per second of the audio stream; `None` for lossless sources, which bound nothing.
    pub(crate) bit_rate: Option<u64>,
    /// Bits per second of the samples themselves, where FLAC holds them bit by bit.
    pub(crate) lossless: Option<u64>,
    /// Seconds that the file's own headers declare.
    pub(crate) declared: Option<f64>,
    /// Cut off for certain, by an unknown length.
    pub(crate) cut: bool,
    /// ffprobe's duration, which may be an estimate: good for progress, for nothing else.
    pub(crate) estimate: Option<f64>,
    /// Index of the stream that holds the artwork.
    pub(crate) artwork: Option<u32>,
    /// The moving picture, where there is one.
    pub(crate) film: Option<Film>,
    pub(crate) tags: Tags,
}

/// Judges and describes the source.
pub(crate) async fn probe(
    tools: &Tools,
    source: &Source,
    filename: &str,
    folder: &Path,
    max_duration: Duration,
    video: &Video,
    cancel: &CancellationToken,
) -> Result<Probe, Halt> {
    let promise = promised(filename);
    let mut head = Vec::new();
    let mut file = File::open(&source.path).map_err(|error| disk("open the source", &error))?;
    file.by_ref().take(HEAD as u64).read_to_end(&mut head).map_err(|error| disk("read the source", &error))?;
    sniffed(content(&head), promise.as_ref())?;

    let answer = ask(tools, source, folder, cancel).await?;
    let Some(answer) = answer else {
        return Err(unreadable(&mut file, &head, promise.as_ref()).into());
    };
    let demuxer = text(&answer["format"]["format_name"]).unwrap_or_default().to_owned();
    let streams = answer["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(audio) = streams.iter().find(|stream| stream["codec_type"] == "audio") else {
        let what = container(&demuxer).0;
        let message = format!(
            "The file is {what} without a sound track: there is nothing to listen to.{}",
            named(promise.as_ref())
        );
        return Err(Failure::new(Reason::NoAudio, message).into());
    };
    extension(&demuxer, promise.as_ref())?;
    codec(audio)?;
    let (sample_rate, channels) = (number(&audio["sample_rate"]), number(&audio["channels"]));
    let said = declared(&mut file, &demuxer).map_err(|error| disk("read the source", &error))?;
    let probed = stream_seconds(&answer, streams, audio);
    let probe = Probe {
        sample_rate: sample_rate.and_then(|rate| u32::try_from(rate).ok()).filter(|rate| *rate > 0).unwrap_or(44_100),
        channels: channels.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(2),
        bit_rate: bit_rate(&answer, streams, audio, source.bytes, probed),
        lossless: lossless(audio),
        declared: match said {
            Declared::Seconds(seconds) => Some(seconds),
            Declared::AsProbed => probed,
            Declared::Cut | Declared::Nothing => None,
        },
        cut: said == Declared::Cut,
        estimate: probed,
        artwork: artwork(streams),
        film: film(video, &answer, streams, audio)?,
        tags: Tags::read(&answer["format"]["tags"], &audio["tags"], filename),
    };
    let longest = max_duration.as_secs_f64();
    if let Some(seconds) = probe.declared.filter(|seconds| *seconds > longest) {
        return Err(too_long(seconds, longest).into());
    }
    if probe.declared == Some(0.0) && said == Declared::Seconds(0.0) {
        return Err(zero_length().into());
    }
    Ok(probe)
}

/// The failure for a source over the limit.
pub(crate) fn too_long(seconds: f64, longest: f64) -> Failure {
    let message = format!(
        "The file plays for {} minutes or more; at most {} are taken.",
        (seconds / 60.0).floor(),
        (longest / 60.0).floor()
    );
    Failure::new(Reason::TooLong, message)
}

/// The failure for a source without a single sample.
pub(crate) fn zero_length() -> Failure {
    Failure::new(Reason::ZeroLength, "The file is 0 seconds long: it has a header, but no audio after it.")
}

fn sniffed(content: Content, promise: Option<&(String, Family)>) -> Result<(), Failure> {
    let (reason, what) = match content {
        Content::Unknown => return Ok(()),
        Content::Image(what) => (Reason::NoAudio, what),
        Content::Text(what) | Content::Other(what) => (Reason::NotMedia, what),
    };
    Err(Failure::new(reason, format!("The file is {what}: there is no audio in it.{}", named(promise))))
}

/// Mentions a name that promises audio, since it is probably why the file was uploaded.
fn named(promise: Option<&(String, Family)>) -> String {
    match promise {
        Some((extension, Family::Media(_))) => format!(" Its name ends in .{extension} all the same."),
        _ => String::new(),
    }
}

/// What to say about a file that no accepted demuxer could open.
fn unreadable(file: &mut File, head: &[u8], promise: Option<&(String, Family)>) -> Failure {
    let cut = head.get(4..8) == Some(b"ftyp") && matches!(declared(file, "mov"), Ok(Declared::Cut));
    if cut {
        let message = "The file is cut off: the end of it, with the index that it needs, is missing. Upload it again.";
        return Failure::new(Reason::Truncated, message);
    }
    Failure::new(Reason::NotMedia, format!("The file is not audio that can be read.{}", named(promise)))
}

async fn ask(tools: &Tools, source: &Source, folder: &Path, cancel: &CancellationToken) -> Result<Option<Value>, Halt> {
    let mut command = tools.ffprobe(folder);
    command.args(INPUT).args(["-of", "json=compact=1", "-show_entries"]).arg(
        "format=format_name,start_time,duration,bit_rate,probe_score:format_tags:stream=index,codec_type,codec_name,codec_tag_string,\
         sample_rate,sample_fmt,channels,duration,bit_rate,bits_per_raw_sample,start_time,width,height,avg_frame_rate,\
         r_frame_rate,nb_frames,sample_aspect_ratio:stream_disposition=attached_pic,still_image,timed_thumbnails:\
         stream_side_data=rotation:stream_tags",
    );
    command.arg("-i").arg(&source.path);
    let drive = |child: &mut Child| {
        let (out, log) = (child.stdout.take(), child.stderr.take());
        std::thread::scope(|scope| {
            let log = scope.spawn(move || log.map(|pipe| read_bounded(pipe, LOG_MAX).0).unwrap_or_default());
            let out = out.map(|pipe| read_bounded(pipe, ANSWER_MAX)).unwrap_or_default();
            (out, log.join().unwrap_or_default())
        })
    };
    let bounds = Bounds::piped(WALL);
    let (status, ((out, over), log)) = match run(move || command.spawn(), bounds, cancel, drive).await {
        Ok(ended) => ended,
        Err(RunError::Cancelled) => return Err(Halt::Cancelled),
        Err(error @ RunError::TimedOut(_)) => {
            let message = "The file took too long to look at; it may be damaged.";
            return Err(Failure::new(Reason::TimedOut, message).because(error).into());
        }
        Err(error) => {
            let message = "ffprobe could not be run.";
            return Err(Failure::new(Reason::EncoderFailed, message).because(error).into());
        }
    };
    let log = String::from_utf8_lossy(&log);
    if crashed(status) {
        let message = "ffprobe crashed on the file.";
        return Err(Failure::new(Reason::EncoderFailed, message)
            .because(format_args!("{status}: {}", log.trim()))
            .into());
    }
    if over {
        let message = "The file describes itself at such length that it cannot be a piece of music.";
        return Err(Failure::new(Reason::NotMedia, message).into());
    }
    if !status.success() {
        tracing::debug!(%status, log = log.trim(), "ffprobe refused the source");
        return Ok(None);
    }
    Ok(serde_json::from_slice::<Value>(&out).ok().filter(|answer| answer["format"]["format_name"].is_string()))
}

fn extension(demuxer: &str, promise: Option<&(String, Family)>) -> Result<(), Failure> {
    let Some((extension, family)) = promise else { return Ok(()) };
    let fits = |demuxers: &[&str]| demuxer.split(',').any(|part| demuxers.contains(&part));
    if matches!(family, Family::Media(demuxers) if fits(demuxers)) {
        return Ok(());
    }
    let (what, better) = container(demuxer);
    let message = format!(
        "The file's name ends in .{extension}, but it is {what}. Rename it to end in .{better} and upload it again."
    );
    Err(Failure::new(Reason::ExtensionMismatch, message))
}

fn codec(audio: &Value) -> Result<(), Failure> {
    let tag = text(&audio["codec_tag_string"]).unwrap_or_default();
    if matches!(tag, "drms" | "enca" | "encs" | "aavd" | "p608") {
        let message = "The file is encrypted (protected by its seller). Upload a copy without copy protection.";
        return Err(Failure::new(Reason::UnsupportedCodec, message));
    }
    match text(&audio["codec_name"]) {
        Some("unknown" | "none") | None => Err(unsupported("an unknown format")),
        Some(_) => Ok(()),
    }
}

/// The failure for audio that cannot be decoded here.
pub(crate) fn unsupported(what: &str) -> Failure {
    let message = format!("The audio in the file is of {what} that cannot be decoded. Convert it to FLAC, WAV or MP3.");
    Failure::new(Reason::UnsupportedCodec, message)
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

fn seconds(value: &Value) -> Option<f64> {
    text(value)?.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| text(value)?.parse().ok())
}

/// Seconds of the audio stream. A container's duration is that of its longest stream, so it stands for the audio only
/// where nothing else plays.
fn stream_seconds(answer: &Value, streams: &[Value], audio: &Value) -> Option<f64> {
    let tagged = || clock(text(&audio["tags"]["DURATION"])?);
    let alone = streams.iter().filter(|stream| !is_still(stream) && stream["codec_type"] != "data").count() == 1;
    seconds(&audio["duration"]).or_else(tagged).or_else(|| seconds(&answer["format"]["duration"]).filter(|_| alone))
}

/// Matroska's `00:03:29.040000000`.
fn clock(text: &str) -> Option<f64> {
    let mut parts = text.splitn(3, ':').map(|part| part.parse::<f64>().ok());
    let seconds = parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??;
    (seconds.is_finite() && seconds >= 0.0).then_some(seconds)
}

fn is_lossless(codec: &str) -> bool {
    let companded = matches!(codec, "pcm_alaw" | "pcm_mulaw");
    (codec.starts_with("pcm_") && !companded)
        || codec.starts_with("dsd_")
        || matches!(
            codec,
            "flac"
                | "alac"
                | "wavpack"
                | "ape"
                | "tta"
                | "tak"
                | "mlp"
                | "truehd"
                | "shorten"
                | "wmalossless"
                | "mp4als"
        )
}

/// Bits per second of samples that ffmpeg's FLAC encoder keeps as they are: whole numbers of 16 or 24 bits, up to eight
/// channels. `None` for everything else, lossy sources first.
fn lossless(audio: &Value) -> Option<u64> {
    let codec = text(&audio["codec_name"]).filter(|codec| is_lossless(codec) && !codec.starts_with("dsd_"))?;
    let declared = number(&audio["bits_per_raw_sample"]).filter(|bits| *bits > 0);
    let bits = match text(&audio["sample_fmt"])? {
        "s16" | "s16p" => 16,
        "s32" | "s32p" => declared.or_else(|| codec.starts_with("pcm_s24").then_some(24)).filter(|bits| *bits <= 24)?,
        _ => return None,
    };
    let (rate, channels) = (number(&audio["sample_rate"])?, number(&audio["channels"])?);
    ((1..=192_000).contains(&rate) && (1..=8).contains(&channels)).then_some(rate * channels * bits)
}

fn bit_rate(answer: &Value, streams: &[Value], audio: &Value, bytes: u64, probed: Option<f64>) -> Option<u64> {
    if is_lossless(text(&audio["codec_name"]).unwrap_or_default()) {
        return None;
    }
    let tagged = || number(&audio["tags"]["BPS"]);
    // With nothing beside the audio, the whole file's rate is the audio's, a little over.
    let whole = || {
        let lone = streams.len() == 1;
        number(&answer["format"]["bit_rate"]).filter(|_| lone)
    };
    let computed = || probed.filter(|seconds| *seconds > 0.0).map(|seconds| (bytes as f64 * 8.0 / seconds) as u64);
    number(&audio["bit_rate"]).filter(|rate| *rate > 0).or_else(tagged).or_else(whole).or_else(computed)
}

fn artwork(streams: &[Value]) -> Option<u32> {
    let picture = streams.iter().find(|stream| is_still(stream) && stream["codec_type"] == "video")?;
    number(&picture["index"]).and_then(|index| u32::try_from(index).ok())
}
