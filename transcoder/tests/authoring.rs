//! Renditions against tools that are not ours: npm's hls-parser for Apple's authoring rules, PyPI's pyloudnorm for
//! loudness, ffmpeg for what comes out of the lossless rendition and how long everything is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop where it is")]

mod bench;

use std::path::{Path, PathBuf};
use std::process::Command;

use bench::{Bench, TONES, ffmpeg, made, song};
use segue_transcoder::Ladder;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn lines(output: &std::process::Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("json")).collect()
}

/// Apple's rules, on the folder that holds `master.m3u8`.
fn authored(folder: &Path) -> Vec<Value> {
    let browser = root().join("testkit/browser");
    assert!(browser.join("node_modules/hls-parser").is_dir(), "run `npm ci` in {}", browser.display());
    let output = Command::new("node").arg("authoring.mjs").arg(folder).current_dir(&browser).output().expect("node");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lines(&output)
}

/// LUFS and dBTP by pyloudnorm.
fn measured(files: &[PathBuf]) -> Vec<(f64, f64)> {
    let made = || Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("venv/bin/python");
    let python = std::env::var_os("SEGUE_TEST_PYTHON").map_or_else(made, PathBuf::from);
    assert!(python.exists(), "there is no {}: run `make python`", python.display());
    let script = root().join("testkit/loudness/meter.py");
    let output = Command::new(python).arg("-B").arg(script).args(files).output().expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lines(&output).iter().map(|told| (told["lufs"].as_f64().unwrap(), told["true_peak"].as_f64().unwrap())).collect()
}

/// Samples of a rendition at its own rate and how they hash, as whole numbers of so many bits.
fn hashed(path: &Path, bits: u32) -> String {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i", path.to_str().unwrap(), "-map", "0:a:0"])
        .args(["-c:a", &format!("pcm_s{bits}le"), "-f", "md5", "-"])
        .output()
        .expect("ffmpeg");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// ffmpeg gives the encoder's priming too, at times before the start that the edit list sets (which it hides without
/// `-copyts`); players do not.
const FROM_THE_START: [&str; 2] = ["-af", "atrim=start=0"];

/// Samples that are heard.
fn samples(path: &Path, rate: u32) -> u64 {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-copyts", "-i", path.to_str().unwrap(), "-map", "0:a:0"])
        .args(FROM_THE_START)
        .args(["-ac", "1", "-ar", &rate.to_string(), "-f", "s16le", "-"])
        .output()
        .expect("ffmpeg");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout.len() as u64 / 2
}

/// dB by which two meters of the true peak may differ: each interpolates four times by a filter of its own, and the trial
/// of a track that is longer than its excerpts did not hear all of it.
const METERS_APART: f64 = 0.2;

fn full_ladder() -> Ladder {
    Ladder { aac: vec![64_000, 128_000, 256_000], opus: vec![96_000], lossless: true }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_keeps_apples_rules_the_target_and_the_length() {
    let mut bench = Bench::idle().await;
    bench.config.ladder = full_ladder();
    bench.run().await;
    let dir = tempfile::tempdir().unwrap();
    let (mp3, flac) = (dir.path().join("song.mp3"), dir.path().join("song.flac"));
    std::fs::write(&mp3, song()).unwrap();
    ffmpeg([
        "-v",
        "error",
        "-i",
        mp3.to_str().unwrap(),
        "-t",
        "50",
        "-ar",
        "44100",
        "-sample_fmt",
        "s16",
        flac.to_str().unwrap(),
    ]);
    let (done, folder) = bench.done(&std::fs::read(&flac).unwrap(), "song.flac").await;
    let track = folder.parent().unwrap();
    std::fs::write(track.join("master.m3u8"), done["master"].as_str().unwrap()).unwrap();
    let variants = authored(track);
    assert_eq!(variants.len(), 5, "{variants:?}");

    let source = samples(&flac, 44_100);
    let names = ["a64", "a128", "a256", "opus96", "flac"];
    let playlists = names.map(|name| folder.join(name).join("index.m3u8"));
    for (name, playlist) in names.iter().zip(&playlists) {
        // One frame is 1,024 samples of AAC, 960 of Opus; what is cut at the end may be a frame that the decoder gives whole.
        let (rate, expected) = if *name == "opus96" { (48_000, source * 48_000 / 44_100) } else { (44_100, source) };
        let off = samples(playlist, rate).abs_diff(expected);
        let frame = if *name == "flac" { 0 } else { 1024 };
        assert!(off <= frame, "{name}: {off} samples off");
    }
    for ((name, (lufs, peak)), target) in names.iter().zip(measured(&playlists)).zip([true, true, true, true, false]) {
        let at_target = (lufs + 14.0).abs() <= 0.5;
        let at_ceiling = lufs < -14.0 && peak >= -2.5;
        assert!(!target || at_target || at_ceiling, "{name}: {lufs} LUFS, {peak} dBTP");
        assert!(!target || peak <= -1.0 + METERS_APART, "{name}: {peak} dBTP");
    }
    assert_eq!(hashed(&folder.join("flac/index.m3u8"), 16), hashed(&flac, 16), "the lossless rendition is untouched");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_coding_adds_to_peaks_is_taken_off_again() {
    let mut bench = Bench::idle().await;
    bench.config.ladder = Ladder { aac: vec![64_000, 128_000], opus: vec![96_000], lossless: false };
    bench.run().await;
    // Sparse drums: loud peaks and little loudness, so that the ceiling binds. At 64 kbit/s an AAC encoder lifts them by
    // more than a decibel.
    let drums = "-f lavfi -i aevalsrc=0.5*sin(2*PI*(100+3000*exp(-mod(t\\,2)*60))*mod(t\\,2))*exp(-mod(t\\,2)*8)\
                 +0.03*sin(2*PI*440*t):d=20:s=44100 -ac 2 -sample_fmt s16";
    let (done, folder) = bench.done(&made("drums.flac", drums), "drums.flac").await;
    let gain = done["loudness"]["gain_db"].as_f64().unwrap();
    let peak = gain + done["loudness"]["input_true_peak"].as_f64().unwrap();
    assert!((peak + 1.0).abs() < 0.02, "the ceiling binds: {:#}", done["loudness"]);
    let names = ["a64", "a128", "opus96"];
    for (name, (_, peak)) in names.iter().zip(measured(&names.map(|name| folder.join(name).join("index.m3u8")))) {
        assert!((-2.5..=-1.0 + METERS_APART).contains(&peak), "{name}: {peak} dBTP");
    }
    let applied = |n: usize| done["renditions"][n]["gain_db"].as_f64().unwrap();
    assert!(applied(0) < applied(1) && applied(1) <= gain, "the low rate pays for itself: {done:#}");
    assert_eq!(bench.job_folders(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn lossless_is_lossless_in_every_shape() {
    let mut bench = Bench::idle().await;
    bench.config.ladder = Ladder { aac: vec![128_000], lossless: true, ..Ladder::default() };
    bench.run().await;
    let dir = tempfile::tempdir().unwrap();
    for (name, options, bits) in [
        ("high.flac", "-ar 96000 -sample_fmt s32 -bits_per_raw_sample 24", 24),
        ("mono.wav", "-ac 1 -ar 48000 -c:a pcm_s24le", 24),
        ("cd.wav", "-c:a pcm_s16le", 16),
        ("apple.m4a", "-c:a alac -sample_fmt s16p", 16),
    ] {
        let source = dir.path().join(name);
        std::fs::write(&source, made(name, &format!("{TONES} {options}"))).unwrap();
        let (done, folder) = bench.done(&std::fs::read(&source).unwrap(), name).await;
        assert_eq!(done["renditions"][1]["codecs"], "fLaC", "{name}: {done:#}");
        assert_eq!(hashed(&folder.join("flac/index.m3u8"), bits), hashed(&source, bits), "{name}");
    }
    // Floats are not whole numbers, and what was lossy stays so.
    for (name, options) in [("float.wav", "-c:a pcm_f32le"), ("lossy.mp3", "-b:a 192k")] {
        let (done, _) = bench.done(&made(name, &format!("{TONES} {options}")), name).await;
        assert_eq!(done["renditions"].as_array().unwrap().len(), 1, "{name}");
    }
}

/// Interleaved samples as floats.
fn decoded(path: &Path, format: &[&str]) -> Vec<f32> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-copyts"])
        .args(format)
        .args(["-i", path.to_str().unwrap()])
        .args(FROM_THE_START)
        .args(["-f", "f32le", "-"])
        .output()
        .expect("ffmpeg");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

/// The largest difference within each frame of AAC.
fn differences(a: &[f32], b: &[f32], gain: f32) -> Vec<f32> {
    a.chunks(2048)
        .zip(b.chunks(2048))
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b * gain).abs()).fold(0.0, f32::max))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_joined_where_nobody_hears_it() {
    let mut bench = Bench::idle().await;
    bench.config.ladder = Ladder { aac: vec![128_000], ..Ladder::default() };
    bench.run().await;
    let dir = tempfile::tempdir().unwrap();
    // Four minutes of two sweeps: two chunks. A click would have nothing to hide behind.
    let sweep = "-f lavfi -i aevalsrc=0.2*sin(2*PI*(200+2*t)*t)|0.2*sin(2*PI*(3000-2*t)*t):s=44100:d=242";
    let (source, plain) = (dir.path().join("sweep.wav"), dir.path().join("plain.aac"));
    std::fs::write(&source, made("sweep.wav", sweep)).unwrap();
    let (done, folder) = bench.done(&std::fs::read(&source).unwrap(), "sweep.wav").await;
    // The same encoder in one piece, by ffmpeg alone; ADTS does not tell of the 1,024 samples of its priming.
    let gain = done["loudness"]["gain_db"].as_f64().unwrap();
    let volume = format!("volume={gain:.2}dB:precision=float");
    let coder = "-c:a aac -b:a 128000 -aac_coder fast -aac_pns 0 -aac_is 0";
    let input = ["-v", "error", "-i", source.to_str().unwrap(), "-af", &volume];
    ffmpeg(input.into_iter().chain(coder.split(' ')).chain([plain.to_str().unwrap()]));
    let original = decoded(&source, &[]);
    let joined = decoded(&folder.join("a128/index.m3u8"), &[]);
    let whole = &decoded(&plain, &["-f", "aac"])[2048..][..original.len()];
    assert!(joined.len().abs_diff(original.len()) <= 2048, "{} of {}", joined.len(), original.len());

    let apart = differences(whole, &joined, 1.0);
    let differing = apart.iter().filter(|most| **most > 0.0).count();
    assert!(
        differing > 0 && differing < apart.len(),
        "chunks were encoded apart, the first one as the whole: {differing}"
    );
    // Against the source, frame by frame, what was joined is nowhere further off than what was encoded in one piece: a
    // click, a gap or a sample too many at a seam would be.
    let factor = 10f32.powf((gain / 20.0) as f32);
    let most = |heard: &[f32]| differences(heard, &original, factor).into_iter().fold(0.0, f32::max);
    let (whole, joined) = (most(whole), most(&joined));
    assert!(joined <= whole * 1.1 + 1e-4, "{joined} where the whole has {whole}");
}
