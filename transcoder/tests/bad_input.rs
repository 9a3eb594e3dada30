//! Every kind of bad input ends with its reason word and a message that a person understands, and the next job runs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop where it is")]

mod bench;

use bench::{Bench, TONES, made};

fn tones(name: &str, options: &str) -> Vec<u8> {
    made(name, &format!("{TONES} {options}"))
}

fn half(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_audio_is_named() {
    let bench = Bench::start().await;
    let png = made("a.png", "-f lavfi -i testsrc=d=1:s=64x64 -frames:v 1");
    let jpg = made("a.jpg", "-f lavfi -i testsrc=d=1:s=64x64 -frames:v 1");
    let silent_video = made("a.mp4", "-f lavfi -i testsrc=d=1:s=64x64 -c:v mpeg4");
    let noise: Vec<u8> = (0..60_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (bytes, filename, reason, word) in [
        (&b"Dear listener,\nthis is a letter.\n"[..], "letter.txt", "not-media", "text file"),
        (&b"Dear listener,\nthis is a letter.\n"[..], "song.mp3", "not-media", "text file"),
        (&b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"[..], "song.m3u8", "not-media", "playlist"),
        (&b""[..], "empty.mp3", "empty-file", "empty"),
        (&png, "cover.png", "no-audio", "PNG"),
        (&png, "song.mp3", "no-audio", "PNG"),
        (&jpg, "photo.jpg", "no-audio", "JPEG"),
        (&silent_video, "film.mp4", "no-audio", "without a sound track"),
        (&b"PK\x03\x04 and so on, which is a zip \0\x01\x02"[..], "album.zip", "not-media", "ZIP"),
        (&noise, "noise.bin", "not-media", "audio"),
    ] {
        let (got, message) = bench.refusal(bytes, filename).await;
        assert_eq!(got, reason, "{filename}: {message}");
        assert!(message.contains(word), "{filename}: {message}");
    }
    let (done, _) = bench.done(&tones("a.wav", "-t 1"), "after.wav").await;
    assert_eq!(done["title"], "after");
    assert_eq!(bench.job_folders(), 0, "every folder was swept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_lies_is_told_what_the_file_is() {
    let bench = Bench::start().await;
    for (bytes, filename, word) in [
        (tones("a.flac", ""), "song.mp3", "FLAC"),
        (tones("a.mp3", ""), "song.wav", "MP3"),
        (tones("a.wav", ""), "song.ogg", "WAV"),
        (tones("a.m4a", ""), "picture.png", "MP4"),
    ] {
        let (reason, message) = bench.refusal(&bytes, filename).await;
        assert_eq!(reason, "extension-mismatch", "{filename}: {message}");
        assert!(message.contains(word) && message.contains("Rename"), "{message}");
    }
    // A name that promises nothing cannot lie.
    for filename in ["song", "song.live"] {
        bench.done(&tones("a.flac", "-t 1"), filename).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_length_is_no_song() {
    let bench = Bench::start().await;
    for bytes in [
        made("a.wav", "-f lavfi -i anullsrc -t 0"),
        b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x44\xac\0\0\x88\x58\x01\0\x02\0\x10\0data\0\0\0\0".to_vec(),
    ] {
        let (reason, message) = bench.refusal(&bytes, "nothing.wav").await;
        assert_eq!(reason, "zero-length", "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_off_is_truncated() {
    let bench = Bench::start().await;
    let faststart = tones("a.m4a", "-b:a 128k -movflags +faststart");
    let plain = tones("a.m4a", "-b:a 128k");
    for (bytes, filename) in [
        (tones("a.mp3", "-b:a 128k"), "xing.mp3"),
        (tones("a.mp3", "-q:a 4"), "vbr.mp3"),
        (tones("a.wav", ""), "cut.wav"),
        (tones("a.flac", ""), "cut.flac"),
        (tones("a.ogg", "-c:a libvorbis"), "cut.ogg"),
        (tones("a.opus", "-c:a libopus"), "cut.opus"),
        (tones("a.aiff", ""), "cut.aiff"),
        (tones("a.mka", "-c:a flac"), "cut.mka"),
        (faststart, "faststart.m4a"),
        (plain, "index-at-end.m4a"),
    ] {
        let (reason, message) = bench.refusal(half(&bytes), filename).await;
        assert_eq!(reason, "truncated", "{filename}: {message}");
        assert!(message.contains("cut off"), "{message}");
        // The whole file is fine: the refusal was about the cut.
        bench.done(&bytes, filename).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_percent_missing_is_let_through() {
    let bench = Bench::start().await;
    let wav = tones("a.wav", "");
    bench.done(&wav[..wav.len() - wav.len() / 100], "almost.wav").await;
    let (reason, _) = bench.refusal(&wav[..wav.len() - wav.len() / 33], "less.wav").await;
    assert_eq!(reason, "truncated");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_said_to_be_so() {
    let bench = Bench::start().await;
    let mut protected = tones("a.m4a", "-b:a 128k");
    // The sample entry of a protected song (FairPlay) in place of a plain one.
    let entry = protected.windows(8).rposition(|eight| &eight[4..] == b"mp4a").unwrap() + 4;
    protected[entry..entry + 4].copy_from_slice(b"drms");
    let mut unknown = tones("a.wav", "");
    unknown[20..22].copy_from_slice(&[0x99, 0x99]);
    for (bytes, filename, word) in [(protected, "bought.m4a", "encrypted"), (unknown, "odd.wav", "cannot be decoded")] {
        let (reason, message) = bench.refusal(&bytes, filename).await;
        assert_eq!(reason, "unsupported-codec", "{filename}: {message}");
        assert!(message.contains(word), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_held() {
    let mut bench = Bench::idle().await;
    bench.config.max_bytes = 1_000_000;
    bench.config.max_duration = std::time::Duration::from_secs(5);
    bench.run().await;
    let (reason, message) = bench.refusal(&vec![0; 1_000_001], "large.wav").await;
    assert_eq!(reason, "too-large", "{message}");
    // The header says so, before a second of it is decoded.
    let (reason, message) = bench.refusal(&tones("a.flac", "-ac 1"), "long.flac").await;
    assert_eq!(reason, "too-long", "{message}");
    // Nothing says so: the decode is stopped when it gets there.
    let (reason, message) = bench.refusal(&tones("a.aac", "-b:a 64k"), "long.aac").await;
    assert_eq!(reason, "too-long", "{message}");
}
