//! Encrypted renditions: what opens them, what is left of them without the keys, and that they are the same sound.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop where it is")]

mod bench;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_lc_rs::cipher::{AES_128, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use bench::{Bench, is_end, made};
use segue_signing::{ContentKey, SigningSecret, WrappingKey, WrappingKeys, is_wrapped};
use segue_transcoder::{Encryption, Ladder, TranscodeConfig, Video, VideoRung};

const SECRET: &str = "a wrapping secret that is long enough";
/// Twenty seconds: four segments.
const LONG: &str = "-f lavfi -i aevalsrc=0.3*sin(2*PI*(220+40*t)*t)|0.2*sin(2*PI*330*t):s=48000:d=20";

fn keys(secret: &str) -> Arc<WrappingKeys> {
    let secret = SigningSecret::parse(secret).unwrap();
    Arc::new(WrappingKeys::new(&[WrappingKey { id: "w1".to_owned(), secret }]).unwrap())
}

fn encrypt(config: &mut TranscodeConfig, secret: &str, rotate_segments: usize) {
    config.encryption = Some(Encryption { rotate_segments, keys: keys(secret), wrapping_key: "w1".to_owned() });
}

/// The same worker twice, once with encryption.
async fn benches(change: impl Fn(&mut TranscodeConfig)) -> [Bench; 2] {
    let mut benches = [Bench::idle().await, Bench::idle().await];
    for bench in &mut benches {
        change(&mut bench.config);
    }
    encrypt(&mut benches[1].config, SECRET, 2);
    for bench in &mut benches {
        bench.run().await;
    }
    benches
}

/// A segment as a playlist tells of it.
struct Told {
    key: PathBuf,
    iv: [u8; 16],
    file: PathBuf,
}

fn told(playlist: &Path) -> Vec<Told> {
    let folder = playlist.parent().unwrap();
    let text = std::fs::read_to_string(playlist).unwrap();
    let (map, first) = (text.find("#EXT-X-MAP").expect("a map"), text.find("#EXT-X-KEY").expect("a key"));
    assert!(map < first, "no key speaks of the init section\n{text}");
    let (mut all, mut lock) = (Vec::new(), None);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("#EXT-X-KEY:METHOD=AES-128,URI=\"") {
            let (uri, iv) = rest.split_once("\",IV=0x").expect("an IV");
            assert_eq!(iv.len(), 32, "{line}");
            let iv: Vec<u8> = (0..32).step_by(2).map(|at| u8::from_str_radix(&iv[at..at + 2], 16).unwrap()).collect();
            lock = Some((folder.join(uri), iv.try_into().unwrap()));
        } else if !line.starts_with('#') && !line.is_empty() {
            let (key, iv) = lock.take().expect("each segment says its own");
            all.push(Told { key, iv, file: folder.join(line) });
        }
    }
    all
}

/// `<track>/<version>/<rendition>/<key>`: what a wrapped key is bound to.
fn place(key: &Path) -> String {
    let key = std::path::absolute(key).unwrap();
    let mut parts: Vec<&str> = Vec::new();
    for part in key.to_str().unwrap().split('/') {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts[parts.len() - 4..].join("/")
}

fn opened(key: &Path) -> ContentKey {
    let wrapped = std::fs::read(key).unwrap();
    assert!(is_wrapped(&wrapped), "it does not lie open");
    keys(SECRET).unwrap(&wrapped, &place(key)).expect("the wrapping key opens it")
}

fn decrypted(told: &Told) -> Vec<u8> {
    let key = UnboundCipherKey::new(&AES_128, opened(&told.key).as_ref()).unwrap();
    let cipher = PaddedBlockDecryptingKey::cbc_pkcs7(key).unwrap();
    let mut body = std::fs::read(&told.file).unwrap();
    cipher.decrypt(&mut body, DecryptionContext::Iv128(FixedLength::from(told.iv))).expect("padding").to_vec()
}

/// A copy of a rendition whose keys lie open, as an edge gives them out.
fn served(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        let (from, to) = (entry.path(), copy.path().join(entry.file_name()));
        if from.extension().is_some_and(|extension| extension == "key") {
            std::fs::write(to, opened(&from)).unwrap();
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
    copy
}

/// What ffmpeg makes of a playlist.
fn decoded(playlist: &Path, map: &str) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-xerror", "-nostdin"])
        .args(if playlist.extension().is_some_and(|end| end == "m3u8") {
            &["-allowed_extensions", "ALL"][..]
        } else {
            &[]
        })
        .arg("-i")
        .arg(playlist)
        .args(["-map", map, "-f", if map == "0:v:0" { "rawvideo" } else { "s16le" }, "-"])
        .output()
        .expect("ffmpeg");
    assert!(output.status.success(), "{}: {}", playlist.display(), String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn same(plain: &Path, locked: &Path, rendition: &str) {
    let (plain, locked) = (plain.join(rendition), locked.join(rendition));
    assert_eq!(std::fs::read(plain.join("init.mp4")).unwrap(), std::fs::read(locked.join("init.mp4")).unwrap());
    let all = told(&locked.join("index.m3u8"));
    let mut ivs = BTreeSet::new();
    for (n, told) in all.iter().enumerate() {
        assert_eq!(
            told.key.file_name().unwrap().to_str().unwrap(),
            format!("key-{:05}.key", n / 2),
            "two segments a key"
        );
        assert!(ivs.insert(told.iv), "a vector is used once");
        let open = std::fs::read(plain.join(told.file.file_name().unwrap())).unwrap();
        let bytes = std::fs::read(&told.file).unwrap();
        assert!(bytes.len() % 16 == 0 && bytes.len() > open.len() && bytes.len() <= open.len() + 16);
        assert!(decrypted(told) == open, "{rendition} segment {n}");
    }
    let keys: BTreeSet<Vec<u8>> = all.iter().map(|told| opened(&told.key).as_ref().to_vec()).collect();
    assert_eq!(keys.len(), all.len().div_ceil(2), "each key is another one");
    let heard = decoded(&plain.join("index.m3u8"), "0:a:0");
    assert!(!heard.is_empty() && heard == decoded(&served(&locked).path().join("index.m3u8"), "0:a:0"), "{rendition}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_sounds_as_it_does_without_encryption() {
    let [plain, locked] = benches(|config| {
        config.ladder = Ladder { aac: vec![64_000, 128_000], opus: vec![64_000], lossless: true };
    })
    .await;
    let song = made("song.flac", LONG);
    let (done, open) = plain.done(&song, "song.flac").await;
    let (_, closed) = locked.done(&song, "song.flac").await;
    let version = |folder: &Path| folder.file_name().unwrap().to_str().unwrap().split('-').next().unwrap().to_owned();
    assert_ne!(version(&open), version(&closed), "another version, since its bytes are others");
    let names: Vec<&str> = done["renditions"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    let mut all = BTreeSet::new();
    for name in names {
        same(&open, &closed, name);
        all.extend(told(&closed.join(name).join("index.m3u8")).iter().map(|told| opened(&told.key).as_ref().to_vec()));
    }
    assert_eq!(all.len(), 8, "no two renditions share a key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_films_picture_and_its_sound_are_encrypted() {
    let [plain, locked] = benches(|config| {
        let ladder = vec![VideoRung { height: 90, bit_rate: 80_000 }];
        config.video = Video { ladder, preset: "ultrafast", ..Video::default() };
        config.ladder = Ladder { aac: vec![64_000], ..Ladder::default() };
    })
    .await;
    let film = made(
        "film.mp4",
        "-f lavfi -i testsrc2=s=160x90:r=25:d=14 -f lavfi -i sine=f=440:r=44100:d=14 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac -t 14",
    );
    let (_, open) = plain.done(&film, "film.mp4").await;
    let (_, closed) = locked.done(&film, "film.mp4").await;
    same(&open, &closed, "a64");
    // No two runs of the encoder of pictures give the same bytes: what is under the lock is held against itself.
    let folder = closed.join("v90");
    let segments = told(&folder.join("index.m3u8"));
    assert!(segments.len() >= 2);
    let mut whole = std::fs::read(folder.join("init.mp4")).unwrap();
    for segment in &segments {
        let bytes = decrypted(segment);
        assert_eq!(&bytes[4..8], b"styp");
        whole.extend_from_slice(&bytes);
    }
    let copy = served(&folder);
    let file = copy.path().join("whole.mp4");
    std::fs::write(&file, whole).unwrap();
    let pictures = decoded(&copy.path().join("index.m3u8"), "0:v:0");
    assert_eq!(pictures.len(), 14 * 25 * 160 * 90 * 3 / 2);
    assert!(pictures == decoded(&file, "0:v:0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_of_a_dead_attempt_go_on_with_the_keys_of_the_next_one() {
    let mut bench = Bench::idle().await;
    encrypt(&mut bench.config, SECRET, 4);
    bench.run().await;
    let bytes = made("long.flac", "-f lavfi -i anoisesrc=d=300:c=pink:r=44100:a=0.3:s=3 -ac 2 -compression_level 0");
    let job = bench.queue(&bytes, "long.flac");
    let (_, _, early) = bench.control.until(|told| told.0 == job && told.1 == "early").await;
    let dead = early["version"].as_str().unwrap().to_owned();
    let track = bench.bucket().join("hls/track0000001");
    let live = track.join(&dead).join("a128/live.m3u8");
    // What a growing playlist names is there, the keys too.
    let named = told(&live);
    assert!(named.len() >= 2 && named.iter().all(|told| told.key.exists() && told.file.exists()));
    bench.control.lease_lost.store(true, Ordering::SeqCst);
    while bench.job_folders() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    bench.control.lease_lost.store(false, Ordering::SeqCst);
    let next = bench.queue_again("track0000001", &[&dead], &bytes, "long.flac");
    let (_, _, done) = bench.control.until(|told| told.0 == next && is_end(&told.1)).await;
    let version = done["version"].as_str().expect("done").to_owned();
    let carried = told(&live);
    assert_eq!(carried.len(), 50);
    let whole = told(&track.join(&version).join("a128/index.m3u8"));
    for (carried, whole) in carried.iter().zip(&whole) {
        assert!(carried.key.to_str().unwrap().contains(&format!("/../../{version}/a128/key-")), "{:?}", carried.key);
        assert_eq!((carried.iv, place(&carried.key)), (whole.iv, place(&whole.key)));
        assert!(decrypted(carried).windows(4).any(|bytes| bytes == b"moof"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_the_bucket_does_not_know_under_its_id_wraps_nothing() {
    let mut bench = Bench::idle().await;
    encrypt(&mut bench.config, SECRET, 2);
    bench.run().await;
    let song = made("song.wav", "-f lavfi -i sine=d=8");
    bench.done(&song, "song.wav").await;
    bench.stop().await;
    let well = segue_transcoder::examine(&bench.config).await;
    let part = |findings: &[segue_config::Finding]| {
        let found = findings.iter().find(|finding| finding.part == "wrapping_keys.w1").expect("a finding");
        (found.health, found.seen.clone())
    };
    assert_eq!(part(&well).0, segue_config::Health::Well, "{well:?}");

    encrypt(&mut bench.config, "another secret under the same id, long enough", 2);
    let ill = part(&segue_transcoder::examine(&bench.config).await);
    assert!(ill.0 == segue_config::Health::Ill && ill.1.contains("\"w1\""), "{ill:?}");
    bench.run().await;
    let (verb, body) = bench.end_of(&song, "song.wav").await;
    assert_eq!((verb.as_str(), body["reason"].as_str()), ("fail", Some("worker-failed")), "{body}");
    assert_eq!(body["message"], "The transcoder could not encrypt the result.");
    assert!(!bench.bucket().join("hls/track0000002").exists(), "not a segment was written");
}
