//! How far lossy coding lifts true peaks over those of the source, measured on the encoded sound before all of it is
//! encoded.
//!
//! An encoder keeps a spectrum, not a wave: peaks come out up to a decibel higher, at low rates and on synthetic sounds
//! more. The gain must be known before the first frame leaves, so the places of the track where a peak could come over
//! [`CEILING`] are encoded for trial, each rung by its own encoder, decoded again and metered; a rung that comes over
//! it gets so much less gain. A track whose peaks stay far below the ceiling is not tried at all.
//!
//! Invariants: the places follow from the samples alone, so that every worker gives the same bytes; a trial holds at
//! most [`LONGEST`] seconds, and there are at most [`ROUNDS`] of a rung; nothing but the excerpts touches the disk.
//!
//! On failure: as in encoding, of which it is a part.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ebur128::{EbuR128, Mode};
use ffmpeg_sidecar::child::FfmpegChild;
use ffmpeg_sidecar::command::FfmpegCommand;
use tokio_util::sync::CancellationToken;

use crate::encode::{Work, failed};
use crate::ffmpeg::{Bounds, follow, read_bounded, run};
use crate::ladder::{FINE, Rung};
use crate::measure::{CEILING, decibels, factor, halted};
use crate::meter::PEAK_BIN;
use crate::packets::{AAC_FRAME, Wrapping};
use crate::reject::{Failure, Halt, disk};

/// Peaks that are this far below the ceiling (in dB) are not lifted over it by any encoder here.
const REACH: f64 = 2.0;
/// Seconds of a trial at most. A track that is not longer is tried whole.
const LONGEST: u64 = 24;
/// Samples before and after a loud place that are encoded with it: the encoder's rate control settles, and its look
/// ahead sees what follows.
const LEAD: u64 = 24 * AAC_FRAME as u64;
const TRAIL: u64 = 4 * AAC_FRAME as u64;
/// Trials of one rung: another gain quantises otherwise, and what was just under may come just over.
const ROUNDS: usize = 4;
/// dB that a rung which was brought down may be under the ceiling; further down it is tried with more again.
const SPARE: f64 = 0.5;
/// dB by which a rung is brought below the ceiling that came over it.
const MARGIN: f64 = 0.1;
/// dB that coding adds to peaks on most songs, below [`FINE`] and from there on: where a rung's trials
/// begin, so that one is mostly enough.
const USUAL: (f64, f64) = (0.6, 0.1);
/// What a trial of the highest rate takes, several times over.
const ENCODED_MAX: usize = 8 << 20;
const EXCERPTS: &str = "excerpts.f32";

/// The samples of the track that are tried: from, and the one behind the last, in order and apart from each other.
fn places(bins: &[f32], gain_db: f64, samples: u64, rate: u32) -> Vec<(u64, u64)> {
    let least = factor(CEILING - REACH - gain_db);
    let mut loud: Vec<(usize, f32)> =
        bins.iter().copied().enumerate().filter(|(_, peak)| f64::from(*peak) > least).collect();
    let most = LONGEST * u64::from(rate);
    if loud.is_empty() || samples <= most {
        return loud.first().map(|_| (0, samples)).into_iter().collect();
    }
    loud.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let bin = PEAK_BIN as u64;
    loud.truncate(usize::try_from(most / (bin + LEAD + TRAIL)).unwrap_or(1));
    loud.sort_by_key(|(at, _)| *at);
    let mut found: Vec<(u64, u64)> = Vec::new();
    for (at, _) in loud {
        let from = (at as u64 * bin).saturating_sub(LEAD);
        let to = ((at as u64 + 1) * bin + TRAIL).min(samples);
        match found.last_mut() {
            Some(last) if from <= last.1 => last.1 = to,
            _ => found.push((from, to)),
        }
    }
    found
}

/// Copies those places out of the spool, each faded in and out over a frame: a seam is not to be heard as a peak.
fn excerpts(spool: &Path, folder: &Path, frame: usize, places: &[(u64, u64)]) -> std::io::Result<(PathBuf, u64)> {
    let path = folder.join(EXCERPTS);
    let (mut input, mut output) = (File::open(spool)?, File::create(&path)?);
    let mut samples = 0;
    for (from, to) in places {
        input.seek(SeekFrom::Start(from * frame as u64))?;
        let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(0) * frame];
        input.read_exact(&mut bytes)?;
        let count = bytes.len() / frame;
        for (n, sample) in bytes.chunks_exact_mut(4).enumerate() {
            let at = n * 4 / frame;
            let edge = at.min(count - 1 - at);
            if edge < AAC_FRAME as usize {
                let faded =
                    f32::from_le_bytes([sample[0], sample[1], sample[2], sample[3]]) * edge as f32 / AAC_FRAME as f32;
                sample.copy_from_slice(&faded.to_le_bytes());
            }
        }
        output.write_all(&bytes)?;
        samples += to - from;
    }
    output.flush()?;
    Ok((path, samples))
}

/// The loudest places of a track, ready to be encoded for trial.
#[derive(Debug)]
pub(crate) struct Trials {
    input: PathBuf,
    samples: u64,
}

impl Trials {
    /// `bins` are the true peaks of the source, one for each [`PEAK_BIN`] samples. `None`: no rung needs a trial.
    pub(crate) async fn of(work: &Work, bins: &[f32]) -> Result<Option<Self>, Halt> {
        let places = places(bins, work.gain_db, work.samples, work.shape.rate);
        if places.is_empty() {
            return Ok(None);
        }
        let (spool, folder, frame, whole) = (work.spool.clone(), work.folder.clone(), work.shape.frame(), work.samples);
        if places.as_slice() == [(0, whole)] {
            return Ok(Some(Self { input: spool, samples: whole }));
        }
        let (input, samples) = tokio::task::spawn_blocking(move || excerpts(&spool, &folder, frame, &places))
            .await
            .map_err(|error| failed(format!("copying excerpts panicked: {error}")))?
            .map_err(|error| disk("copy excerpts", &error))?;
        Ok(Some(Self { input, samples }))
    }

    /// The gain of one rung in dB: that of the track, less what its coding adds to peaks at the ceiling.
    pub(crate) async fn gain(&self, work: &Work, rung: &Rung, cancel: &CancellationToken) -> Result<f64, Halt> {
        let trim = trim(work, rung, &self.input, self.samples, cancel).await?;
        let gain = ((work.gain_db - trim) * 100.0).round() / 100.0;
        tracing::debug!(rung = rung.name, gain, samples = self.samples, "tried for true peaks");
        Ok(gain)
    }
}

/// What the gain of one rung is lowered by, in dB.
async fn trim(work: &Work, rung: &Rung, input: &Path, samples: u64, cancel: &CancellationToken) -> Result<f64, Halt> {
    // The least that kept under the ceiling, and the most that did not.
    let (mut kept, mut broken): (Option<f64>, f64) = (None, f64::NEG_INFINITY);
    let mut trim = if rung.bit_rate < FINE { USUAL.0 } else { USUAL.1 };
    for _ in 0..ROUNDS {
        let encoder = work.command(rung, input, (0, samples), work.gain_db - trim);
        let encoded = output(work, encoder, ENCODED_MAX, cancel).await?;
        let over = decibels(true_peak(work, rung, &encoded, samples, cancel).await?) - CEILING;
        if over > 0.0 {
            broken = broken.max(trim);
        } else {
            kept = Some(kept.map_or(trim, |least| least.min(trim)));
            if trim == 0.0 || over >= -SPARE {
                break;
            }
        }
        trim = (trim + over + MARGIN).max(0.0);
        if trim <= broken || kept.is_some_and(|least| trim >= least) {
            break;
        }
    }
    Ok(kept.unwrap_or(trim))
}

/// The true peak of an encoded trial, as a factor.
async fn true_peak(
    work: &Work,
    rung: &Rung,
    encoded: &[u8],
    samples: u64,
    cancel: &CancellationToken,
) -> Result<f64, Halt> {
    let path = work.folder.join(format!("trial-{}", rung.name));
    tokio::fs::write(&path, encoded).await.map_err(|error| disk("write a trial", &error))?;
    let (format, rate) = match rung.wrapping() {
        Wrapping::Adts => ("aac", work.shape.rate),
        Wrapping::Ogg => ("ogg", 48_000),
    };
    let mut decoder = work.tools.ffmpeg(&work.folder);
    decoder.args(["-protocol_whitelist", "file", "-threads", "1", "-f", format, "-i"]).arg(&path);
    decoder.args(["-c:a", "pcm_f32le", "-f", "f32le", "pipe:1"]);
    let most = samples as f64 * f64::from(rate) / f64::from(work.shape.rate) * work.shape.frame() as f64 * 2.0;
    let decoded = output(work, decoder, most as usize + (1 << 20), cancel).await?;
    tokio::fs::remove_file(&path).await.map_err(|error| disk("remove a trial", &error))?;
    let channels = work.shape.channels;
    let metered = tokio::task::spawn_blocking(move || peak(&decoded, channels, rate)).await;
    metered.map_err(|error| failed(format!("a meter panicked: {error}")))?.map_err(|error| failed(error).into())
}

fn peak(decoded: &[u8], channels: u32, rate: u32) -> Result<f64, String> {
    let samples: Vec<f32> =
        decoded.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect();
    let mut meter = EbuR128::new(channels, rate, Mode::TRUE_PEAK).map_err(|error| error.to_string())?;
    let whole = samples.len() - samples.len() % channels.max(1) as usize;
    meter.add_frames_f32(&samples[..whole]).map_err(|error| error.to_string())?;
    (0..channels).try_fold(0.0, |most, channel| {
        meter.true_peak(channel).map(|peak| f64::max(most, peak)).map_err(|error| error.to_string())
    })
}

/// Everything that a run gives through its pipe.
async fn output(
    work: &Work,
    mut command: FfmpegCommand,
    most: usize,
    cancel: &CancellationToken,
) -> Result<Vec<u8>, Halt> {
    let drive = move |child: &mut FfmpegChild| {
        let (pipe, log) = (child.take_stdout(), child.take_stderr());
        std::thread::scope(|scope| {
            let follower = scope.spawn(|| log.map(|log| follow(log, |_| {})).unwrap_or_default());
            let read = pipe.map(|pipe| read_bounded(pipe, most)).unwrap_or_default();
            (read, follower.join().unwrap_or_default())
        })
    };
    let bounds = Bounds::piped(work.limits.wall(Some(LONGEST as f64)));
    let ended = run(move || command.spawn(), bounds, cancel, drive).await;
    let (status, ((bytes, over), log)) = ended.map_err(|error| halted(error, "encode"))?;
    if over || !status.success() || bytes.is_empty() {
        let failure: Failure = failed(format!("a trial gave {} bytes: {status}: {}", bytes.len(), log.tail()));
        return Err(failure.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_could_come_over_the_ceiling_is_tried() {
        let quiet = vec![0.5; 1000];
        let minutes = 1000 * PEAK_BIN as u64;
        assert_eq!(places(&quiet, 0.0, minutes, 44_100), [], "-6 dBTP is far enough away");
        assert_eq!(places(&quiet[..10], 5.0, 10 * PEAK_BIN as u64, 44_100), [(0, 10 * PEAK_BIN as u64)], "whole");
        let mut peaks = quiet.clone();
        peaks[10] = 0.9;
        peaks[11] = 0.8;
        peaks[500] = 0.89;
        let bin = PEAK_BIN as u64;
        let expected = [(10 * bin - LEAD, 12 * bin + TRAIL), (500 * bin - LEAD, 501 * bin + TRAIL)];
        assert_eq!(places(&peaks, 0.0, minutes, 44_100), expected);
        let loud = places(&vec![0.9; 1000], 0.0, minutes, 44_100);
        assert!(loud.iter().map(|(from, to)| to - from).sum::<u64>() <= LONGEST * 44_100, "{loud:?}");
    }

    #[test]
    fn excerpts_begin_and_end_in_silence() {
        let dir = tempfile::tempdir().expect("tempdir");
        let spool = dir.path().join("spool");
        let samples: Vec<u8> = (0..20_000).flat_map(|_| [0.5f32.to_le_bytes(), 1f32.to_le_bytes()].concat()).collect();
        std::fs::write(&spool, samples).expect("spool");
        let (path, count) = excerpts(&spool, dir.path(), 8, &[(0, 5000), (9000, 15_000)]).expect("excerpts");
        let bytes = std::fs::read(path).expect("read");
        let heard: Vec<f32> =
            bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("4"))).collect();
        assert_eq!((count, heard.len()), (11_000, 22_000));
        for edge in [0, 4999, 5000, 10_999] {
            assert_eq!((heard[edge * 2], heard[edge * 2 + 1]), (0.0, 0.0), "{edge}");
        }
        assert_eq!((heard[5000], heard[5001]), (0.5, 1.0), "and are what they were between");
    }
}
