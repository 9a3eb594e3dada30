//! A house that encrypts: players that are not ours, ffmpeg, and everybody who must not get a key.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use reqwest::Method;
use segue_testkit::{Player, SecondEdge, Segue, songs};
use serde_json::{Value, json};
use tokio::process::Command;
use url::Url;

const SECONDS: f64 = 20.0;

/// A demo that encrypts, with a new key every second segment.
async fn start() -> anyhow::Result<Segue> {
    let variables = [
        ("SEGUE_TRANSCODE_ENCRYPTION_METHOD", "aes-128"),
        ("SEGUE_TRANSCODE_ENCRYPTION_ROTATE_SEGMENTS", "2"),
        ("SEGUE_TRANSCODE_LADDER_LOSSLESS", "true"),
    ];
    Segue::start_with(crate::SEGUE, &variables).await
}

/// The same without the lossless rendition, which a test of players has no use for.
async fn start_lossy() -> anyhow::Result<Segue> {
    let variables =
        [("SEGUE_TRANSCODE_ENCRYPTION_METHOD", "aes-128"), ("SEGUE_TRANSCODE_ENCRYPTION_ROTATE_SEGMENTS", "2")];
    Segue::start_with(crate::SEGUE, &variables).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hls_js_and_shaka_play_an_encrypted_song_and_film_in_every_mode() -> anyhow::Result<()> {
    let segue = start_lossy().await?;
    let song = songs::tone(SECONDS, "players.flac")?;
    let page = [("SEGUE_PAGE", segue.ready().page.as_str()), ("SEGUE_MEDIA", song.to_str().context("path")?)];
    crate::browser::node("players.test.mjs", &page).await?;
    let track = segue.add(&song).await?;
    for mode in ["define", "rewrite"] {
        let edge = SecondEdge::start(crate::SEGUE, &segue, mode, &format!("[tickets]\nplaylist = {mode:?}")).await?;
        let url = Url::parse(&segue.ticket(&track.id, mode).await?)?;
        let (ticket, path) = url.path().trim_start_matches("/p/").split_once('/').context("no ticket")?;
        let url = format!("{}/{path}?ticket={ticket}", edge.url());
        let played = crate::browser::node("players.test.mjs", &[("SEGUE_URL", &url)]).await;
        played.with_context(|| format!("playlist = {mode:?}\n{}", edge.log()))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_song_is_heard_while_it_is_encoded() -> anyhow::Result<()> {
    let segue = start_lossy().await?;
    crate::browser::node("early.test.mjs", &[("SEGUE_PAGE", &segue.ready().page)]).await
}

/// The samples that ffmpeg makes of a file or URL.
async fn samples(input: &str) -> anyhow::Result<Vec<u8>> {
    let arguments = ["-v", "error", "-xerror", "-nostdin", "-i", input, "-map", "0:a:0", "-f", "s16le", "-"];
    let output = Command::new("ffmpeg").args(arguments).stdin(Stdio::null()).output().await?;
    ensure!(
        output.status.success() && output.stderr.is_empty(),
        "{input}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// The media playlists of a master, and every key that they name.
async fn playlists(player: &Player, master: &str) -> anyhow::Result<(Vec<Url>, BTreeSet<String>)> {
    let master = Url::parse(master)?;
    let text = String::from_utf8(player.get(&master).await?.to_vec())?;
    let (mut found, mut keys) = (Vec::new(), BTreeSet::new());
    for uri in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let url = master.join(uri)?;
        let text = String::from_utf8(player.get(&url).await?.to_vec())?;
        for line in text.lines().filter_map(|line| line.strip_prefix("#EXT-X-KEY:METHOD=AES-128,URI=\"")) {
            keys.insert(url.join(line.split('"').next().unwrap_or_default())?.to_string());
        }
        found.push(url);
    }
    Ok((found, keys))
}

/// Whether any file under `folder` holds these bytes.
fn holds(folder: &Path, wanted: &[u8]) -> anyhow::Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let found = if path.is_dir() {
            holds(&path, wanted)?
        } else {
            std::fs::read(&path)?.windows(wanted.len()).any(|bytes| bytes == wanted)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_for_listeners_alone_and_open_the_very_samples() -> anyhow::Result<()> {
    let segue = start().await?;
    let song = songs::tone(SECONDS, "locked.flac")?;
    let track = segue.add(&song).await?;
    let cache = segue.dir().join("second-cache");
    let settings = format!(
        "[cache]\nmemory = \"4MiB\"\nmax_object = \"2MiB\"\ndisk = \"48MiB\"\ndir = {:?}\n",
        cache.display().to_string()
    );
    let edge = SecondEdge::start(crate::SEGUE, &segue, "disk", &settings).await?;
    let path = Url::parse(&segue.ticket(&track.id, "good").await?)?.path().to_owned();
    let url = format!("{}{path}", edge.url());
    let player = Player::new(&url)?;
    let (renditions, keys) = playlists(&player, &url).await?;
    // 64, 128 and 256 kbit/s and the samples themselves, two keys each.
    ensure!(renditions.len() == 4 && keys.len() == 8, "{renditions:?} {keys:?}");

    // ffmpeg gets the samples of the upload from the lossless rendition, and a sound of this length from each.
    let lossless = renditions.iter().find(|url| url.path().contains("/flac/")).context("no lossless rendition")?;
    ensure!(samples(lossless.as_str()).await? == samples(song.to_str().context("path")?).await?, "other samples");
    for rendition in &renditions {
        let seconds = songs::decoded_seconds(rendition.as_str(), 0)?;
        ensure!((seconds - SECONDS).abs() < 0.1, "{rendition}: {seconds} s");
    }

    let mut known = BTreeSet::new();
    for key in &keys {
        let response = player.send(Method::GET, &Url::parse(key)?, &[]).await?;
        ensure!(response.status() == 200, "{key}: {}", response.status());
        ensure!(response.headers().get("cache-control").is_some_and(|value| value == "no-store"));
        let bytes = response.bytes().await?;
        ensure!(bytes.len() == 16, "{key}: {} bytes", bytes.len());
        known.insert(bytes);
    }
    ensure!(known.len() == 8, "each key is another one");
    let first = Url::parse(keys.first().context("no key")?)?;
    let bare = Url::parse(&format!("{}{}", edge.url(), segue_testkit::player::object_path(&first)))?;
    ensure!(player.send(Method::GET, &bare, &[]).await?.status() == 401, "without a ticket");

    // Neither form on the disk tier, which has the segments; no open form in the bucket, and none in a log.
    let written = Instant::now();
    let segment = player.renditions().await?.first().and_then(|r| r.segments.first().cloned()).context("no segment")?.0;
    let segment = player.get(&segment).await?;
    while !holds(&cache, &segment[..4096])? {
        ensure!(written.elapsed() < Duration::from_secs(30), "the disk tier has no segment: this would prove nothing");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(!holds(&cache, b"segue-content-key")?, "a wrapped key is on the disk tier");
    ensure!(holds(&segue.dir().join("objects"), b"segue-content-key")?, "the bucket has the wrapped keys");
    let logs = format!("{}\n{}", segue.log(), edge.log());
    for key in &known {
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(!holds(segue.dir(), key)?, "a key lies open under {}", segue.dir().display());
        ensure!(!logs.contains(&hex), "a key is in a log");
    }

    // Who is revoked has no key any more, though both edges have it in memory.
    let _: Value = segue.call(Method::POST, "/v1/revocations", Some(json!({ "sid": "good" }))).await?;
    let begun = Instant::now();
    while player.send(Method::GET, &first, &[]).await?.status() != 403 {
        ensure!(begun.elapsed() < Duration::from_secs(30), "a revoked session still gets the key\n{}", edge.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// What `segue doctor` finds about the wrapping key: its health, and what was seen.
async fn examined(config: &Path) -> anyhow::Result<(String, String)> {
    let mut command = Command::new(crate::SEGUE);
    command.args(["doctor", "--json", "--config"]).arg(config).env("SEGUE_TRANSCODE_ENCRYPTION_METHOD", "aes-128");
    let output = command.output().await?;
    let said = String::from_utf8(output.stdout)?;
    for line in said.lines() {
        let finding: Value = serde_json::from_str(line)?;
        if finding["part"] == "wrapping_keys.w1" {
            let text = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
            return Ok((text("health"), text("seen")));
        }
    }
    anyhow::bail!("nothing about the wrapping key:\n{said}\n{}", String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_wrapping_key_is_told_by_the_doctor_and_by_the_edge() -> anyhow::Result<()> {
    let segue = start_lossy().await?;
    let configs = segue.dir().join("config");
    ensure!(examined(&configs.join("edge.toml")).await?.0 == "doubtful", "nothing was wrapped yet");
    let track = segue.add(&songs::tone(8.0, "wrapped.wav")?).await?;
    for role in ["edge", "transcode"] {
        let (health, seen) = examined(&configs.join(format!("{role}.toml"))).await?;
        ensure!(health == "well", "{role}: {seen}");
    }
    // The same file of another house: the same id over another secret.
    let secret = segue.dir().join("secrets/wrap-other");
    std::fs::write(&secret, "another secret under the same id, long enough")?;
    for role in ["edge", "transcode"] {
        let text = std::fs::read_to_string(configs.join(format!("{role}.toml")))?;
        let other = configs.join(format!("{role}-other.toml"));
        std::fs::write(&other, text.replace("secrets/wrap-w1", "secrets/wrap-other"))?;
        let (health, seen) = examined(&other).await?;
        ensure!(health == "ill" && seen.contains("does not open"), "{role}: {health}: {seen}");
    }
    let edge = SecondEdge::start_from(crate::SEGUE, &segue, &configs.join("edge-other.toml"), "wrong", "").await?;
    let path = Url::parse(&segue.ticket(&track.id, "listener").await?)?.path().to_owned();
    let url = format!("{}{path}", edge.url());
    let player = Player::new(&url)?;
    let (_, keys) = playlists(&player, &url).await?;
    let response = player.send(Method::GET, &Url::parse(keys.first().context("no key")?)?, &[]).await?;
    let status = response.status();
    let refused: Value = serde_json::from_slice(&response.bytes().await?)?;
    ensure!(status == 502 && refused["error"] == "content-key", "{status} {refused}");
    ensure!(edge.log().contains("does not open with the secret that [wrapping_keys] has"), "{}", edge.log());
    Ok(())
}
