//! Measuring: one decode for loudness, true peak, exact length, the waveform, and the samples that are encoded.
//!
//! The source is decoded once, to the very samples that the encoders will get: they come through a pipe, are measured
//! here (EBU R128 by BS.1770-4, true peak with oversampling), so that no number has to be read out of a log, and are
//! laid down in the [`Spool`]. So a stranger's bytes meet one decoder in one process, and every encoder reads samples of
//! ours, from wherever in the track it likes.
//!
//! Invariants: a source is decoded to its end or refused; a decode that runs over the longest length allowed, or over
//! its time, or would fill the disk, is killed. The gain never lifts the source's true peak over [`CEILING`]; what coding
//! adds to it is seen to in [`crate::overshoot`].

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use ffmpeg_sidecar::child::FfmpegChild;
use tokio_util::sync::CancellationToken;

use crate::ffmpeg::{Bounds, INPUT, Log, RunError, Tools, crashed, follow, run};
use crate::ladder::Shape;
use crate::lease::{Reporter, Stage};
use crate::meter::Meters;
use crate::probe::{Probe, too_long, unsupported, zero_length};
use crate::queue::LoudnessReport;
use crate::reject::{Failure, Halt, Reason};
use crate::source::Source;
use crate::spool::Spool;
use crate::waveform::Peaks;

/// Integrated loudness that a track is brought to, in LUFS.
pub(crate) const TARGET: f64 = -14.0;
/// True peak that it may reach, in dBTP.
pub(crate) const CEILING: f64 = -1.0;
/// What must come out of a file, of what it declares.
const WHOLE: f64 = 0.98;
/// The absolute gate of EBU R128: what is below has no loudness.
const GATE: f64 = -70.0;
const SILENT_PEAK: f64 = -120.0;
/// Samples of one read: 64 KiB of stereo, as much as a pipe holds.
const BLOCK: usize = 8192;

/// What one decode told.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Samples per channel, at the rate of the [`Shape`].
    pub(crate) samples: u64,
    pub(crate) rate: u32,
    pub(crate) loudness: LoudnessReport,
    pub(crate) peaks: Peaks,
    /// True peaks of the source, one for each [`crate::meter::PEAK_BIN`] samples.
    pub(crate) loud: Vec<f32>,
}

impl Measured {
    pub(crate) fn millis(&self) -> u64 {
        (self.samples * 1000 + u64::from(self.rate) / 2) / u64::from(self.rate)
    }
}

/// A gain in dB as a factor.
pub(crate) fn factor(gain_db: f64) -> f64 {
    10f64.powf(gain_db / 20.0)
}

/// A factor as a gain in dB; what is silent has a level too.
pub(crate) fn decibels(factor: f64) -> f64 {
    if factor > 0.0 { (20.0 * factor.log10()).max(SILENT_PEAK) } else { SILENT_PEAK }
}

struct Decoded {
    samples: u64,
    lufs: f64,
    peak: f64,
    loud: Vec<f32>,
    peaks: Peaks,
    over: bool,
    trouble: Option<Failure>,
    log: Log,
}

/// Decodes and measures the source, and refuses what does not hold what it declares.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different thing that a job owns; a struct would only rename them"
)]
pub(crate) async fn measure(
    tools: &Tools,
    source: &Source,
    probe: &Probe,
    folder: &Path,
    mut spool: Spool,
    limits: Limits,
    cancel: &CancellationToken,
    progress: &Reporter,
) -> Result<Measured, Halt> {
    progress.at(Stage::Measure, 0.0);
    let shape = Shape::of(probe);
    let mut command = tools.ffmpeg(folder);
    command.args(INPUT).arg("-vn").arg("-sn").arg("-dn").arg("-i").arg(&source.path);
    command.args(["-map", "0:a:0", "-af"]).arg(shape.filters());
    command.args(["-c:a", "pcm_f32le", "-f", "f32le", "pipe:1"]);
    let expected = probe.declared.or(probe.estimate);
    let most = (limits.longest.as_secs_f64() * f64::from(shape.rate)) as u64;
    let reporter = progress.clone();
    let drive = move |child: &mut FfmpegChild| {
        let (out, log) = (child.take_stdout(), child.take_stderr());
        std::thread::scope(|scope| {
            let follower = scope.spawn(|| log.map(|pipe| follow(pipe, |_| {})).unwrap_or_default());
            let mut decoded = listen(out, shape, most, &mut spool, |samples| {
                if let Some(expected) = expected {
                    reporter.at(Stage::Measure, samples as f64 / f64::from(shape.rate) / expected);
                }
            });
            // Nobody reads any more, so ffmpeg must not go on writing.
            if decoded.over || decoded.trouble.is_some() {
                let _ = child.kill();
            }
            decoded.log = follower.join().unwrap_or_default();
            decoded
        })
    };
    let bounds = Bounds::piped(limits.wall(expected));
    let ended = run(move || command.spawn(), bounds, cancel, drive).await;
    let (status, decoded) = ended.map_err(|error| halted(error, "measure"))?;
    if decoded.over {
        return Err(too_long(decoded.samples as f64 / f64::from(shape.rate), limits.longest.as_secs_f64()).into());
    }
    let trouble = format!("{status}: {}", decoded.log.tail());
    if let Some(failure) = decoded.trouble {
        return Err(failure.into());
    }
    if crashed(status) {
        let message = "ffmpeg crashed while decoding the file.";
        return Err(Failure::new(Reason::EncoderFailed, message).because(trouble).into());
    }
    if decoded.log.says("Decoder (codec") || decoded.log.says("no decoder found for") {
        return Err(unsupported("a format").because(trouble).into());
    }
    let seconds = decoded.samples as f64 / f64::from(shape.rate);
    whole(probe, seconds).map_err(|failure| failure.because(&trouble))?;
    if decoded.samples == 0 {
        let failure = match (status.success(), probe.declared.unwrap_or(0.0) > 0.0) {
            (true, false) => zero_length(),
            _ => Failure::new(Reason::NotMedia, "No audio in the file can be decoded; it is damaged or no audio file."),
        };
        return Err(failure.because(trouble).into());
    }
    if !status.success() && probe.declared.is_none() {
        let message = "The file could be decoded only in part; it is damaged.";
        return Err(Failure::new(Reason::Truncated, message).because(trouble).into());
    }
    progress.at(Stage::Measure, 1.0);
    let loudness = gain(decoded.lufs, decoded.peak);
    let Decoded { samples, peaks, loud, .. } = decoded;
    Ok(Measured { samples, rate: shape.rate, loudness, peaks, loud })
}

/// How much a run may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) longest: Duration,
    pub(crate) factor: f64,
}

impl Limits {
    /// The time limit of a run over a source of so many seconds.
    pub(crate) fn wall(self, seconds: Option<f64>) -> Duration {
        let longest = self.longest.as_secs_f64();
        let seconds = seconds.unwrap_or(longest).clamp(0.0, longest);
        Duration::try_from_secs_f64(30.0 + self.factor * seconds).unwrap_or(self.longest)
    }
}

/// A run without an end of its own, as the job's end.
pub(crate) fn halted(error: RunError, what: &str) -> Halt {
    match error {
        RunError::Cancelled => Halt::Cancelled,
        RunError::TimedOut(_) => {
            let message = format!("ffmpeg took too long to {what} the file.");
            Failure::new(Reason::TimedOut, message).because(error).into()
        }
        _ => {
            let message = "ffmpeg could not be run.";
            Failure::new(Reason::EncoderFailed, message).because(error).into()
        }
    }
}

fn whole(probe: &Probe, seconds: f64) -> Result<(), Failure> {
    if let Some(declared) = probe.declared
        && declared > 0.0
        && seconds < declared * WHOLE
    {
        let message = format!(
            "The file is cut off or damaged: it says that it is {} long, but only {} of it can be played. Upload it again.",
            spoken(declared),
            spoken(seconds)
        );
        return Err(Failure::new(Reason::Truncated, message));
    }
    if probe.cut {
        let message = "The file is cut off: it ends in the middle of a block, and its end is missing. Upload it again.";
        return Err(Failure::new(Reason::Truncated, message));
    }
    Ok(())
}

fn spoken(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    format!("{} min {:02} s", (seconds / 60.0).floor(), (seconds % 60.0).floor())
}

/// The lower of what reaches the target and what keeps true peaks under the ceiling; nothing for silence.
fn gain(lufs: f64, peak: f64) -> LoudnessReport {
    let true_peak = decibels(peak);
    let silent = !lufs.is_finite() || lufs <= GATE;
    let gain_db = if silent { 0.0f64.min(CEILING - true_peak) } else { (TARGET - lufs).min(CEILING - true_peak) };
    let round = |value: f64| (value * 100.0).round() / 100.0;
    LoudnessReport {
        input_lufs: if silent { GATE } else { round(lufs) },
        input_true_peak: round(true_peak),
        gain_db: round(gain_db),
    }
}

fn listen(out: Option<impl Read>, shape: Shape, most: u64, spool: &mut Spool, mut at: impl FnMut(u64)) -> Decoded {
    let mut decoded = Decoded {
        samples: 0,
        lufs: f64::NEG_INFINITY,
        peak: 0.0,
        loud: Vec::new(),
        peaks: Peaks::default(),
        over: false,
        trouble: None,
        log: Log::default(),
    };
    decoded.trouble = meter(out, shape, most, spool, &mut at, &mut decoded).err();
    decoded
}

fn meter(
    out: Option<impl Read>,
    shape: Shape,
    most: u64,
    spool: &mut Spool,
    at: &mut impl FnMut(u64),
    decoded: &mut Decoded,
) -> Result<(), Failure> {
    let failed =
        |error: String| Failure::new(Reason::EncoderFailed, "The loudness could not be measured.").because(error);
    let channels = usize::try_from(shape.channels).unwrap_or(2);
    let meters = Meters::new(shape).map_err(failed)?;
    let Some(mut out) = out else { return Err(failed("no pipe".to_owned())) };
    let frame = shape.frame();
    let mut bytes = vec![0u8; frame * BLOCK];
    let mut held = 0;
    loop {
        let read = match out.read(&mut bytes[held..]) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error.to_string())),
        };
        held += read;
        let whole = held - held % frame;
        let mut samples = Vec::with_capacity(whole / 4);
        for four in bytes[..whole].chunks_exact_mut(4) {
            let sample = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            if sample.is_finite() {
                samples.push(sample);
            } else {
                // One NaN would silence the meter for good, and an encoder as well.
                four.fill(0);
                samples.push(0.0);
            }
        }
        spool.write(&bytes[..whole])?;
        bytes.copy_within(whole..held, 0);
        held -= whole;
        decoded.peaks.add(&samples, channels);
        meters.add(samples);
        decoded.samples += u64::try_from(whole / frame).unwrap_or(0);
        if decoded.samples > most {
            decoded.over = true;
            return Ok(());
        }
        at(decoded.samples);
    }
    spool.finish()?;
    (decoded.lufs, decoded.peak, decoded.loud) = meters.finish().map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gain_is_the_lower_of_target_and_ceiling() {
        assert_eq!(gain(-20.0, 0.1).gain_db, 6.0);
        // Peak at 0 dBTP: the target would be +6, the ceiling allows -1.
        assert_eq!(gain(-20.0, 1.0).gain_db, -1.0);
        assert_eq!(gain(-8.0, 1.0).gain_db, -6.0);
        let silence = gain(f64::NEG_INFINITY, 0.0);
        assert_eq!((silence.gain_db, silence.input_lufs, silence.input_true_peak), (0.0, -70.0, -120.0));
    }

    #[test]
    fn a_tone_of_known_loudness_is_measured_right() {
        // EBU Tech 3341, case 1: a stereo sine of 1 kHz at -23 dBFS is -23 LUFS, within 0.1.
        let shape = Shape { rate: 48_000, channels: 2 };
        let level = 10f64.powf(-23.0 / 20.0);
        let bytes: Vec<u8> = (0..48_000 * 20)
            .flat_map(|n| {
                let sample = (level * (f64::from(n) * 1000.0 * std::f64::consts::TAU / 48_000.0).sin()) as f32;
                [sample.to_le_bytes(), sample.to_le_bytes()].concat()
            })
            .collect();
        let dir = tempfile::tempdir().expect("tempdir");
        let mut spool = Spool::create(dir.path(), 0).expect("spool");
        let decoded = listen(Some(&bytes[..]), shape, u64::MAX, &mut spool, |_| {});
        assert_eq!(std::fs::read(spool.path()).expect("spooled"), bytes);
        assert!((decoded.lufs + 23.0).abs() < 0.1, "{}", decoded.lufs);
        assert!((20.0 * decoded.peak.log10() + 23.0).abs() < 0.1);
        assert_eq!(decoded.samples, 48_000 * 20);
        assert!(listen(Some(&bytes[..]), shape, 1000, &mut spool, |_| {}).over);
    }
}
