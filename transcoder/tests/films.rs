//! Films: an H.264 ladder with the sound as a group, held against Apple's rules by npm's hls-parser and against ffprobe;
//! thumbnails; and what is no film.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop where it is")]

mod bench;

use std::path::{Path, PathBuf};
use std::process::Command;

use bench::{Bench, TONES, ffmpeg, made};
use segue_transcoder::{Ladder, Video, VideoRung};
use serde_json::Value;

/// A bench with two small rungs, so that a film costs a second.
async fn bench() -> Bench {
    let mut bench = Bench::idle().await;
    let rung = |height, bit_rate| VideoRung { height, bit_rate };
    let ladder = vec![rung(90, 80_000), rung(180, 250_000)];
    bench.config.video = Video { ladder, preset: "ultrafast", ..Video::default() };
    bench.config.ladder = Ladder { aac: vec![64_000, 128_000], ..Ladder::default() };
    bench.run().await;
    bench
}

/// A film of so many seconds, with `options` behind its codecs.
fn shot(name: &str, picture: &str, options: &str) -> Vec<u8> {
    let codecs = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac -shortest";
    made(name, &format!("-f lavfi -i {picture} {TONES} {codecs} {options}"))
}

fn names(done: &Value) -> Vec<&str> {
    done["renditions"].as_array().unwrap().iter().map(|rendition| rendition["name"].as_str().unwrap()).collect()
}

fn probed(path: &Path, entries: &[&str]) -> Vec<String> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v:0", "-of", "csv=p=0"])
        .args(entries)
        .arg(path)
        .output()
        .expect("ffprobe");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim_end_matches(',').to_owned()).collect()
}

/// Times of key pictures.
fn keys(playlist: &Path) -> Vec<String> {
    let lines = probed(playlist, &["-show_entries", "packet=pts_time,flags"]);
    lines.into_iter().filter_map(|line| line.split_once(",K").map(|(at, _)| at.to_owned())).collect()
}

fn cuts(folder: &Path, name: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(folder.join(name).join("index.m3u8")).expect("playlist");
    let lengths = text.lines().filter_map(|line| line.strip_prefix("#EXTINF:"));
    lengths.map(|length| length.trim_end_matches(',').parse().unwrap()).collect()
}

fn authored(track: &Path) -> String {
    let browser = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("testkit/browser");
    assert!(browser.join("node_modules/hls-parser").is_dir(), "run `npm ci` in {}", browser.display());
    let output = Command::new("node").arg("authoring.mjs").arg(track).current_dir(&browser).output().expect("node");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn with_master(done: &Value, folder: &Path) -> PathBuf {
    let track = folder.parent().unwrap().to_owned();
    std::fs::write(track.join("master.m3u8"), done["master"].as_str().unwrap()).unwrap();
    track
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_gets_a_ladder_whose_pictures_and_sounds_begin_together() {
    let bench = bench().await;
    // Scenes change at 3 s: a cut that must not make a key picture of its own.
    let scenes = "testsrc2=s=320x180:r=30000/1001:d=8,hue=H=if(gt(t\\,3)\\,3\\,0)";
    let (done, folder) = bench.done(&shot("film.mp4", scenes, "-t 8"), "film.mp4").await;
    assert_eq!(names(&done), ["a64", "a128", "v90", "v180"]);
    assert_eq!(authored(&with_master(&done, &folder)).lines().count(), 2);
    let master = done["master"].as_str().unwrap();
    for told in ["avc1.42c0", "RESOLUTION=160x90", "RESOLUTION=320x180", "FRAME-RATE=29.970", "AUDIO=\"a64\""] {
        assert!(master.contains(told), "{told} in {master}");
    }
    let playlist = |name: &str| folder.join(name).join("index.m3u8");
    let found = keys(&playlist("v90"));
    assert_eq!(found, keys(&playlist("v180")));
    let at: Vec<f64> = found.iter().map(|at| at.parse().unwrap()).collect();
    assert_eq!(at.len(), 4, "one every two seconds, and none for a change of scene: {at:?}");
    assert!(
        at.iter().enumerate().all(|(n, at)| (0.0..0.034).contains(&(at - at_of(&found) - 2.0 * n as f64))),
        "{at:?}"
    );
    assert_eq!(cuts(&folder, "v90"), cuts(&folder, "v180"));
    // The sound is cut at its first frame on or after the same second.
    let apart = (cuts(&folder, "v90")[0] - cuts(&folder, "a64")[0]).abs();
    assert!(apart < 0.035 && cuts(&folder, "v90").len() == cuts(&folder, "a64").len(), "{apart}");
    let length: f64 = cuts(&folder, "v180").iter().sum();
    assert!((length * 1000.0 - done["duration_ms"].as_f64().unwrap()).abs() < 40.0, "{length}");
    assert_eq!(done["renditions"][3]["resolution"], "320x180");
    assert_eq!(done["renditions"][3]["frame_rate"], 29.97);

    // A poster, and small pictures for the bar.
    assert_eq!(done["artwork"], true);
    assert_eq!(probed(&folder.join("cover.jpg"), &["-show_entries", "stream=width,height"]), ["320,180"]);
    assert_eq!(probed(&folder.join("thumbnails.jpg"), &["-show_entries", "stream=width,height"]), ["1600,90"]);
    let track = std::fs::read_to_string(folder.join("thumbnails.vtt")).unwrap();
    assert!(track.starts_with("WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nthumbnails.jpg#xywh=0,0,160,90\n"), "{track}");
    assert!(!folder.join("early.m3u8").exists());
    assert_eq!(bench.job_folders(), 0);
}

/// When the first one is.
fn at_of(found: &[String]) -> f64 {
    found[0].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn films_of_every_shape_come_out_upright_even_and_no_larger() {
    let bench = bench().await;
    let turned = {
        let dir = tempfile::tempdir().unwrap();
        let (flat, turned) = (dir.path().join("flat.mp4"), dir.path().join("turned.mp4"));
        std::fs::write(&flat, shot("flat.mp4", "testsrc=s=320x180:r=25:d=3", "-t 3")).unwrap();
        let (flat, turned) = (flat.to_str().unwrap(), turned.to_str().unwrap());
        ffmpeg(["-v", "error", "-i", flat, "-c", "copy", "-metadata:s:v", "rotate=90", turned]);
        std::fs::read(turned).unwrap()
    };
    // Pictures that come as they please: half of them are missing, and time stands.
    let uneven = "testsrc=s=320x180:r=25:d=3,select=not(mod(n\\,3))+gt(mod(n\\,7)\\,4)";
    let short = made(
        "d.mkv",
        &format!("-f lavfi -i testsrc=s=320x180:r=25:d=1 {TONES} -c:v libx264 -preset ultrafast -c:a aac -t 3"),
    );
    for (tries, bytes, name, size, rungs) in [
        (
            "odd sides",
            shot("a.mkv", "testsrc=s=161x91:r=25:d=3,format=yuv444p", "-t 3 -pix_fmt yuv444p"),
            "a.mkv",
            "160x90",
            1,
        ),
        ("a camera held upright", turned, "b.mp4", "180x320", 2),
        ("pictures at odd times", shot("c.mkv", uneven, "-t 3 -vsync vfr"), "c.mkv", "320x180", 2),
        ("less picture than sound", short, "d.mkv", "320x180", 2),
    ] {
        let (done, folder) = bench.done(&bytes, name).await;
        let pictures: Vec<&Value> = done["renditions"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|rendition| rendition["resolution"].is_string())
            .collect();
        assert_eq!(pictures.len(), rungs, "{tries}: {done:#}");
        assert_eq!(pictures[rungs - 1]["resolution"], size, "{tries}");
        authored(&with_master(&done, &folder));
        let playlist = folder.join(pictures[rungs - 1]["name"].as_str().unwrap()).join("index.m3u8");
        assert_eq!(probed(&playlist, &["-show_entries", "stream=width,height"])[0].replace(',', "x"), size, "{tries}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_film_stays_what_it_was() {
    let bench = bench().await;
    // A cover in a container that films come in.
    let cover = "-f lavfi -i testsrc=d=1:s=640x480 -frames:v 1 -map 0 -map 1 -c:v mjpeg -disposition:v attached_pic";
    for (name, options) in [("song.m4a", "-c:a aac"), ("song.mp3", "-b:a 128k"), ("song.flac", "")] {
        let (done, folder) = bench.done(&made(name, &format!("{TONES} {cover} -t 3 {options}")), name).await;
        assert_eq!(names(&done), ["a64", "a128"], "{name}");
        assert_eq!(done["artwork"], true, "{name}");
        assert!(!folder.join("thumbnails.vtt").exists(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_films_are_refused_or_come_out_bounded() {
    let bench = bench().await;
    let plain = shot("a.mp4", "testsrc=s=64x64:r=25:d=2", "-t 2");
    let at = |mark: &[u8]| plain.windows(mark.len()).position(|window| window == mark).unwrap();
    let patched = |at: usize, value: &[u8]| {
        let mut bytes = plain.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    // Damage from the first byte of the samples on.
    let mut noise = plain.clone();
    let from = at(b"mdat") + 4;
    for (n, byte) in noise[from..from + 4000].iter_mut().enumerate() {
        *byte = (n as u32).wrapping_mul(2_654_435_761).rotate_left(9) as u8;
    }
    let fast = shot("a.mkv", "testsrc=s=16x16:r=1000:d=1", "-t 1");
    let large = made(
        "a.mkv",
        &format!("-f lavfi -i color=s=4096x4096:r=1:d=1 {TONES} -c:v libx264 -preset ultrafast -c:a aac -t 1"),
    );
    for (tries, bytes, name, expected) in [
        ("sixteen million pixels", large, "a.mkv", "video-too-large"),
        ("a thousand pictures a second", fast, "a.mkv", "video-too-large"),
        ("an entry that says it is 65,534 wide", patched(at(b"avc1") + 28, &[0xff, 0xfe, 0xff, 0xfe]), "a.mp4", ""),
        (
            "a first picture that comes in a million years",
            patched(at(b"stts") + 12, &[0x7f, 0xff, 0xff, 0xff]),
            "a.mp4",
            "",
        ),
        ("noise in the place of pictures", noise, "a.mp4", ""),
    ] {
        let (verb, body) = bench.end_of(&bytes, name).await;
        if verb == "complete" {
            assert!(expected.is_empty() && body["duration_ms"].as_u64().unwrap() < 10_000, "{tries}: {body:#}");
            continue;
        }
        assert!(body["retryable"] == false && !body["reason"].as_str().unwrap().is_empty(), "{tries}: {body:#}");
        assert!(expected.is_empty() || body["reason"] == expected, "{tries}: {body:#}");
    }
    assert_eq!(bench.job_folders(), 0);
}
