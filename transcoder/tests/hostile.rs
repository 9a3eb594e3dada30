//! The hostile media set: files that try to read other files, to reach hosts, to fill the disk or the memory, or to work
//! for ever. Each says what it tries; each is refused with a reason word, or comes out bounded.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop where it is")]

mod bench;

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bench::{Bench, TONES, made};

fn tones(name: &str, options: &str) -> Vec<u8> {
    made(name, &format!("{TONES} {options}"))
}

/// A port that must not be called, and a sound that must not be heard.
struct Bait {
    listener: TcpListener,
    secret: String,
}

impl Bait {
    fn new(bench: &Bench) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let secret = bench.dir.path().join("secret.wav");
        std::fs::write(&secret, tones("a.wav", "-t 1")).unwrap();
        Self { listener, secret: secret.to_str().unwrap().to_owned() }
    }

    fn url(&self) -> String {
        format!("http://{}/x.mp3", self.listener.local_addr().unwrap())
    }

    fn is_untouched(&self) -> bool {
        self.listener.accept().is_err()
    }
}

/// The most bytes that ever lay in a folder, looked at every few milliseconds.
struct Watch {
    most: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
}

impl Watch {
    fn over(folder: &Path) -> Self {
        fn size(folder: &Path) -> u64 {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries
                .map(|entry| match entry.metadata() {
                    Ok(meta) if meta.is_dir() => size(&entry.path()),
                    Ok(meta) => meta.len(),
                    Err(_) => 0,
                })
                .sum()
        }
        let (most, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (folder, seen, over) = (folder.to_owned(), Arc::clone(&most), Arc::clone(&end));
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                seen.fetch_max(size(&folder), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { most, end }
    }

    fn most(&self) -> u64 {
        self.end.store(true, Ordering::Relaxed);
        self.most.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn playlists_that_pose_as_audio_read_no_file_and_reach_no_host() {
    let bench = Bench::start().await;
    let bait = Bait::new(&bench);
    let (url, secret) = (bait.url(), bait.secret.clone());
    let hls = |uri: &str| format!("#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{uri}\n#EXT-X-ENDLIST\n");
    for (tries, text) in [
        ("an HLS playlist that names a host", hls(&url)),
        ("an HLS playlist that names a file", hls(&format!("file://{secret}"))),
        ("an HLS playlist that names a file without a scheme", hls(&secret)),
        ("an HLS playlist that nests protocols", hls(&format!("concat:{secret}|subfile,,start,0,end,0,,:{secret}"))),
        ("an HLS key at a host", format!("#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI=\"{url}\"\n#EXTINF:6,\n{secret}\n")),
        ("a list of files for the concat demuxer", format!("ffconcat version 1.0\nfile '{secret}'\n")),
        ("the same without its first line", format!("file '{secret}'\nfile '{secret}'\n")),
        (
            "a session description that opens sockets",
            format!("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\na={url}\n"),
        ),
        (
            "a DASH manifest that names a host",
            format!("<?xml version=\"1.0\"?><MPD><Period><BaseURL>{url}</BaseURL></Period></MPD>"),
        ),
        (
            "XML with an external entity",
            format!("<?xml version=\"1.0\"?><!DOCTYPE x [<!ENTITY y SYSTEM \"file://{secret}\">]><tt>&y;</tt>"),
        ),
        ("a subtitle file", "1\n00:00:00,000 --> 99:00:00,000\n<font face=\"/etc/passwd\">x</font>\n".to_owned()),
        ("a subtitle script", "[Script Info]\nScriptType: v4.00+\n[Fonts]\nfontname: x\n".to_owned()),
        ("metadata in ffmpeg's own form", format!(";FFMETADATA1\ntitle=x\n[STREAM]\nurl={url}\n")),
        ("a radio playlist", format!("[playlist]\nFile1={url}\n")),
        ("a RealMedia pointer", format!("rtsp://{}\n", bait.listener.local_addr().unwrap())),
        ("an image sequence", "%05d.png\n".repeat(3)),
        ("a playlist behind a byte that hides it", format!("\u{1}{}", hls(&url))),
        ("a playlist before zeroes", format!("{}\0\0\0\0", hls(&url))),
        ("a playlist behind an empty ID3 tag", format!("ID3\u{3}\0\0\0\0\0\0{}", hls(&secret))),
        ("a playlist in a RIFF frame", format!("RIFF\u{24}\0\0\0WAVE{}", hls(&secret))),
        ("a playlist in an Ogg frame", format!("OggS\0\u{2}{}", hls(&secret))),
        ("a playlist behind a FLAC mark", format!("fLaC{}", hls(&secret))),
    ] {
        for filename in ["song.mp3", "song"] {
            let (reason, message) = bench.refusal(text.as_bytes(), filename).await;
            assert!(
                ["not-media", "zero-length", "truncated", "no-audio"].contains(&reason.as_str()),
                "{tries}: {reason}: {message}"
            );
            assert!(!message.contains(&secret) && !message.contains("127.0.0.1"), "{tries}: {message}");
        }
    }
    assert!(bait.is_untouched(), "nobody called");
}

/// Puts `entry` in the place of the one data reference of a QuickTime file whose index stands at its end.
fn with_reference(file: &[u8], entry: &[u8]) -> Vec<u8> {
    let mut bytes = file.to_vec();
    let at = bytes.windows(4).position(|four| four == b"dref").unwrap() + 12;
    let grown = u32::try_from(entry.len()).unwrap() - 12;
    bytes.splice(at..at + 12, entry.iter().copied());
    for name in [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"] {
        let at = bytes.windows(4).position(|four| four == name).unwrap() - 4;
        let size = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) + grown;
        bytes[at..at + 4].copy_from_slice(&size.to_be_bytes());
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_that_point_elsewhere_are_not_followed() {
    let bench = Bench::start().await;
    let bait = Bait::new(&bench);
    let plain = tones("a.mov", "-c:a pcm_s16be -t 2");
    // Samples of silence in the file itself, so that those of the bait would be heard.
    let silent = made("a.mov", "-f lavfi -i anullsrc=r=44100:cl=stereo -c:a pcm_s16be -t 2");
    assert!(with_reference(&plain, b"\0\0\0\x0curl \0\0\0\x01").len() == plain.len());
    for target in [bait.url(), format!("file://{}", bait.secret), bait.secret.clone(), "secret.wav".to_owned()] {
        let mut url = vec![0, 0, 0, 0, b'u', b'r', b'l', b' ', 0, 0, 0, 0];
        url.extend(target.as_bytes());
        url.push(0);
        let length = u32::try_from(url.len()).unwrap().to_be_bytes();
        url[..4].copy_from_slice(&length);
        // A Macintosh alias: 150 bytes of fixed fields, then the absolute path (type 18) and the end.
        let mut alias = vec![0, 0, 0, 0, b'a', b'l', b'i', b's', 0, 0, 0, 0];
        alias.resize(12 + 150, 0);
        alias[12 + 4..12 + 8].copy_from_slice(&[0, 0, 0, 2]);
        for kind in [18u16, 2] {
            alias.extend(kind.to_be_bytes());
            alias.extend(u16::try_from(target.len()).unwrap().to_be_bytes());
            alias.extend(target.as_bytes());
            alias.extend(vec![0; target.len() % 2]);
        }
        alias.extend([0xff, 0xff, 0, 0]);
        let length = u32::try_from(alias.len()).unwrap().to_be_bytes();
        alias[..4].copy_from_slice(&length);
        for entry in [url, alias] {
            let (verb, body) = bench.end_of(&with_reference(&silent, &entry), "film.mov").await;
            if verb == "complete" {
                assert_eq!(body["loudness"]["input_lufs"], -70.0, "{target}: another file was heard");
            } else {
                assert_eq!(body["retryable"], false, "{target}: {body}");
            }
        }
    }
    assert!(bait.is_untouched(), "nobody called");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_never_more_than_names() {
    let bench = Bench::start().await;
    let wav = tones("a.wav", "-t 1");
    for name in
        ["-i.wav", "concat:/etc/passwd|/etc/hosts.wav", "../../../../tmp/x.wav", "%05d.wav", "|cat.wav", "a\n-y\nb.wav"]
    {
        bench.done(&wav, name).await;
    }
    assert_eq!(bench.job_folders(), 0);
}

/// FLAC whose header says how many samples at which rate.
fn flac_that_claims(rate: u32, samples: u64) -> Vec<u8> {
    let mut bytes = tones("a.flac", "-t 1");
    let info = 8;
    bytes[info + 10] = (rate >> 12) as u8;
    bytes[info + 11] = (rate >> 4) as u8;
    bytes[info + 12] = (rate << 4) as u8 | (bytes[info + 12] & 0x0f);
    bytes[info + 13] = (bytes[info + 13] & 0xf0) | (samples >> 32) as u8;
    bytes[info + 14..info + 18].copy_from_slice(&(samples as u32).to_be_bytes());
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_that_claim_years_cost_nothing() {
    let bench = Bench::start().await;
    let watch = Watch::over(&bench.dir.path().join("work"));
    let patched = |name: &str, options: &str, mark: &[u8], offset: usize, value: &[u8]| {
        let mut bytes = tones(name, options);
        let at = bytes.windows(mark.len()).position(|window| window == mark).unwrap() + mark.len() + offset;
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let mut last_page = tones("a.ogg", "-c:a libvorbis -t 1");
    let at = last_page.windows(4).rposition(|four| four == b"OggS").unwrap() + 6;
    last_page[at..at + 8].copy_from_slice(&(1u64 << 62).to_le_bytes());
    for (tries, bytes, filename) in [
        ("FLAC of 2,000 years", flac_that_claims(1, (1 << 36) - 1), "a.flac"),
        ("FLAC of 18 days", flac_that_claims(44_100, (1 << 36) - 1), "a.flac"),
        (
            "an MP3 with four thousand million frames",
            patched("a.mp3", "-t 1", b"Info\0\0\0\x0f", 0, &[0xff; 4]),
            "a.mp3",
        ),
        (
            "an MP4 whose track lasts for years",
            patched("a.m4a", "-t 1", b"mdhd", 16, &[0x7f, 0xff, 0xff, 0xff]),
            "a.m4a",
        ),
        ("a WAV that promises 4 GB", patched("a.wav", "-t 1", b"data", 0, &[0xf0, 0xff, 0xff, 0xff]), "a.wav"),
        ("an AIFF with four thousand million frames", patched("a.aiff", "-t 1", b"COMM", 6, &[0xff; 4]), "a.aiff"),
        ("Ogg that ends after a million years", last_page, "a.ogg"),
    ] {
        let (verb, body) = bench.end_of(&bytes, filename).await;
        let bounded = match verb.as_str() {
            "complete" => body["duration_ms"].as_u64().unwrap() < 20_000,
            _ => {
                ["too-long", "truncated", "not-media"].contains(&body["reason"].as_str().unwrap())
                    && body["retryable"] == false
            }
        };
        assert!(bounded, "{tries}: {body:#}");
    }
    assert!(watch.most() < 64 << 20, "{} bytes lay on the disk", watch.most());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_decodes_without_end_is_stopped_at_the_limit() {
    let mut bench = Bench::idle().await;
    bench.config.max_duration = Duration::from_secs(60);
    bench.run().await;
    let watch = Watch::over(&bench.dir.path().join("work"));
    // An hour of silence in a few hundred kilobytes, in containers that do not say how long they are.
    let silence =
        |name: &str, codec: &str| made(name, &format!("-f lavfi -i anullsrc=r=48000:cl=stereo -t 3600 {codec}"));
    let mut flac = silence("a.flac", "");
    flac[8 + 13] &= 0xf0;
    flac[8 + 14..8 + 18].fill(0);
    for (tries, bytes, filename) in [
        ("silence in FLAC that hides its length", flac, "a.flac"),
        ("silence in ADTS", silence("a.aac", "-b:a 16k"), "a.aac"),
    ] {
        assert!(bytes.len() < 4 << 20, "{tries}: {}", bytes.len());
        let (reason, message) = bench.refusal(&bytes, filename).await;
        assert_eq!(reason, "too-long", "{tries}: {message}");
    }
    // 60 s of decoded stereo are 22 MiB; nothing of the other 59 minutes was laid down.
    assert!(watch.most() < 40 << 20, "{} bytes lay on the disk", watch.most());
    assert_eq!(bench.job_folders(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_streams_are_too_many() {
    let bench = Bench::start().await;
    let maps = "-map 0 ".repeat(400);
    let many = made("many.mka", &format!("-f lavfi -i sine=d=0.1 {maps} -c:a pcm_s16le"));
    let (reason, message) = bench.refusal(&many, "many.mka").await;
    assert_eq!(reason, "not-media", "{message}");
}

/// A PNG that says it is so large, with next to nothing in it.
fn png(width: u32, height: u32) -> Vec<u8> {
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
        })
    };
    let chunk = |name: &[u8; 4], content: &[u8]| {
        let body = [&name[..], content].concat();
        [&u32::try_from(content.len()).unwrap().to_be_bytes()[..], &body, &crc(&body).to_be_bytes()].concat()
    };
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 6, 0, 0, 0]].concat();
    let pixels = [0x78, 0x9c, 0x63, 0, 0, 0, 1, 0, 1];
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header), &chunk(b"IDAT", &pixels), &chunk(b"IEND", &[])].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cover_that_unpacks_to_gigabytes_costs_the_cover_alone() {
    let bench = Bench::start().await;
    let sound = tones("a.mp3", "-t 2 -b:a 64k -id3v2_version 0 -write_id3v1 0");
    for (width, height) in [(60_000, 60_000), (2_147_483_647, 1), (9_999, 9_999)] {
        let picture = [&b"\0image/png\0\x03\0"[..], &png(width, height)].concat();
        let frame = [&b"APIC"[..], &u32::try_from(picture.len()).unwrap().to_be_bytes(), &[0, 0], &picture].concat();
        let size = frame.len();
        let synchsafe = [(size >> 21) as u8, (size >> 14) as u8 & 127, (size >> 7) as u8 & 127, size as u8 & 127];
        let tagged = [&b"ID3\x03\0\0"[..], &synchsafe, &frame, &sound].concat();
        let (done, _) = bench.done(&tagged, "song.mp3").await;
        assert!(done["duration_ms"].as_u64().unwrap() > 1_900, "{width} x {height}");
    }
    assert_eq!(bench.job_folders(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_every_container_may_be_noise() {
    let mut bench = Bench::idle().await;
    bench.config.slots = 2;
    bench.run().await;
    let bait = Bait::new(&bench);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize
    };
    let mut jobs = Vec::new();
    for (name, options) in [
        ("a.wav", ""),
        ("a.flac", ""),
        ("a.mp3", ""),
        ("a.ogg", "-c:a libvorbis"),
        ("a.opus", "-c:a libopus"),
        ("a.m4a", "-movflags +faststart"),
        ("a.mka", "-c:a flac"),
        ("a.aiff", ""),
        ("a.wma", ""),
        ("a.avi", "-c:a pcm_s16le"),
        ("a.caf", ""),
        ("a.w64", ""),
        ("a.au", ""),
        ("a.wv", ""),
        ("a.flv", "-c:a mp3"),
    ] {
        let whole = tones(name, &format!("{options} -t 1"));
        for _ in 0..3 {
            let mut bytes = whole.clone();
            let head = bytes.len().min(600);
            for _ in 0..8 {
                bytes[next() % head] = next() as u8;
            }
            jobs.push((name, bench.queue(&bytes, name)));
        }
    }
    for (name, job) in jobs {
        let (_, verb, body) = bench.control.until(|told| told.0 == job && bench::is_end(&told.1)).await;
        // A crash of ffmpeg is retried and ends by the attempts' bound; everything else is told in a word.
        let word = body["reason"].as_str().unwrap_or_default();
        assert!(verb == "complete" || !["", "worker-failed", "timed-out"].contains(&word), "{name}: {verb} {body}");
    }
    assert!(bait.is_untouched());
    assert_eq!(bench.job_folders(), 0);
}
