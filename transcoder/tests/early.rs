//! Played while it is encoded: growing playlists that name only what is there, and listeners who outlive an attempt.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop where it is")]

mod bench;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bench::{Bench, decoded_seconds, is_end, made};

/// Five minutes that take some seconds to encode.
fn long() -> Vec<u8> {
    made("long.flac", "-f lavfi -i anoisesrc=d=300:c=pink:r=44100:a=0.3:s=3 -ac 2 -compression_level 0")
}

fn uris(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn growing_playlists_name_only_what_is_there_and_end_as_the_whole() {
    let bench = Bench::start().await;
    let job = bench.queue(&long(), "long.flac");
    let (_, _, early) = bench.control.until(|told| told.0 == job && told.1 == "early").await;
    let version = early["version"].as_str().unwrap();
    let folder = bench.bucket().join("hls/track0000001").join(version);
    let all = ["a64/live.m3u8", "a128/live.m3u8", "a256/live.m3u8"];
    let mut master =
        std::fs::read_to_string(folder.join("early.m3u8")).expect("the master was there before it was told");
    assert!(uris(&master).ends_with(&all[1..]), "what is heard first: {master}");
    assert!(!folder.join("a64/index.m3u8").exists(), "it is still encoded");

    let mut seen = vec![String::new(); 3];
    let mut steps = 0;
    let started = Instant::now();
    loop {
        let over = bench.control.told().iter().any(|told| told.0 == job && is_end(&told.1));
        let now = std::fs::read_to_string(folder.join("early.m3u8")).unwrap();
        if now.ends_with("live.m3u8\n") {
            assert!(uris(&now).ends_with(&uris(&master)), "renditions are added to it: {master}{now}");
            master = now;
        }
        for (n, name) in ["a64", "a128", "a256"].into_iter().enumerate() {
            let Ok(text) = std::fs::read_to_string(folder.join(name).join("live.m3u8")) else {
                assert!(!uris(&master).contains(&all[n]), "{name} is named before it is there");
                continue;
            };
            // The bucket writes in place: what is read in the middle of a write is looked at the next time.
            if !over && !text.ends_with(".m4s\n") {
                continue;
            }
            assert!(uris(&text).len() >= 2 || over, "{text}");
            for uri in uris(&text).into_iter().chain(["init.mp4"]) {
                assert!(folder.join(name).join(uri).exists(), "{name}/{uri} is named before it is there");
            }
            assert!(text.starts_with(seen[n].trim_end_matches("#EXT-X-ENDLIST\n")), "{}\n{text}", seen[n]);
            steps += usize::from(text != seen[n]);
            seen[n] = text;
        }
        if over {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(120));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(steps > 6, "they grew step by step: {steps}");
    assert_eq!(uris(&master), all);
    assert_eq!(master.matches("CODECS=\"mp4a.40.2\"").count(), 3, "{master}");
    for (n, name) in ["a64", "a128", "a256"].into_iter().enumerate() {
        let whole = std::fs::read_to_string(folder.join(name).join("index.m3u8")).unwrap();
        assert!(whole.contains("#EXT-X-PLAYLIST-TYPE:VOD\n"));
        assert_eq!(whole.replace("TYPE:VOD", "TYPE:EVENT"), seen[n], "{name}");
    }
    assert!((decoded_seconds(&folder.join("early.m3u8")) - 300.0).abs() < 0.03);
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_of_a_dead_attempt_are_carried_on_by_the_next_one() {
    let bench = Bench::start().await;
    let bytes = long();
    let job = bench.queue(&bytes, "long.flac");
    let (_, _, early) = bench.control.until(|told| told.0 == job && told.1 == "early").await;
    let dead = early["version"].as_str().unwrap().to_owned();
    bench.control.lease_lost.store(true, Ordering::SeqCst);
    while bench.job_folders() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bench.control.lease_lost.store(false, Ordering::SeqCst);
    let track = bench.bucket().join("hls/track0000001");
    let live = |name: &str| std::fs::read_to_string(track.join(&dead).join(name).join("live.m3u8")).unwrap();
    let before = uris(&live("a128")).len();
    assert!(before >= 2 && !live("a128").contains("ENDLIST"));
    // It may have died before its lowest rung was heard.
    let heard = uris(&std::fs::read_to_string(track.join(&dead).join("early.m3u8")).unwrap()).len();
    let heard = ["a256", "a128", "a64"].into_iter().take(heard);

    // A version of other settings is a stranger: its listeners are told by an end.
    let stranger = "ffffffffffffffff-0";
    std::fs::create_dir_all(track.join(stranger).join("a128")).unwrap();
    std::fs::write(track.join(stranger).join("a128/live.m3u8"), live("a128")).unwrap();

    let next = bench.queue_again("track0000001", &[stranger, &dead], &bytes, "long.flac");
    let (_, _, done) = bench.control.until(|told| told.0 == next && is_end(&told.1)).await;
    let version = done["version"].as_str().expect("done").to_owned();
    assert_ne!(version, dead);
    for name in heard.clone() {
        let text = live(name);
        assert!(text.ends_with("#EXT-X-ENDLIST\n") && uris(&text).len() == 50, "{text}");
        assert!(uris(&text).iter().all(|uri| uri.starts_with(&format!("../../{version}/{name}/seg-"))), "{text}");
    }
    // What a listener had is the same as what it gets from the new one.
    let segment = |version: &str| std::fs::read(track.join(version).join("a128/seg-00001.m4s")).unwrap();
    assert_eq!(segment(&dead), segment(&version));
    // The dead attempt's own files may go: its playlists lead to the living one.
    for name in heard {
        remove_media(&track.join(&dead).join(name));
    }
    assert!((decoded_seconds(&track.join(&dead).join("early.m3u8")) - 300.0).abs() < 0.03);
    let told = std::fs::read_to_string(track.join(stranger).join("a128/live.m3u8")).unwrap();
    assert!(told.ends_with("#EXT-X-ENDLIST\n") && uris(&told).len() == before);
}

fn remove_media(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".m3u8") && entry.path().is_file() {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn short_tracks_and_houses_that_do_not_want_it_have_nothing_early() {
    let mut bench = Bench::idle().await;
    bench.config.early = false;
    bench.run().await;
    let (_, folder) = bench.done(&long(), "long.flac").await;
    assert!(!folder.join("early.m3u8").exists() && !folder.join("a64/live.m3u8").exists());
    assert!(bench.control.told().iter().all(|told| told.1 != "early"));
}
