//! Real music in, a playable ladder out.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use segue_testkit::{Player, songs};
use serde_json::Value;
use tokio::process::Command;

/// The real song's first 40 s in another format.
fn cut(dir: &Path, source: &Path, extension: &str, codec: &[&str]) -> anyhow::Result<PathBuf> {
    let target = dir.join(format!("cut.{extension}"));
    let (from, to) = (source.to_str().context("path")?, target.to_str().context("path")?);
    songs::ffmpeg(&[&["-i", from, "-map", "0:a:0", "-t", "40"], codec, &[to]].concat())?;
    Ok(target)
}

/// `track add` with a file: its progress lines, its answer, and every rendition decoded to the end.
async fn add_and_decode(dir: &Path, file: &Path) -> anyhow::Result<()> {
    let output =
        Command::new(crate::SEGUE).args(["track", "add", "--json", "--dir"]).arg(dir).arg(file).output().await?;
    let (said, answer) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    ensure!(output.status.success(), "{}: {said}", file.display());
    for stage in ["upload 100 %", "encode"] {
        ensure!(said.contains(stage), "no {stage:?} in the progress:\n{said}");
    }
    let answer: Value = serde_json::from_str(answer.lines().last().context("no answer")?)?;
    ensure!(answer["status"] == "ready", "{answer}");
    let url = answer["url"].as_str().context("no url")?;

    let renditions = Player::new(url)?.renditions().await?;
    let lengths = |n: usize| renditions[n].segments.iter().map(|(_, seconds)| *seconds).collect::<Vec<_>>();
    for n in 1..renditions.len() {
        ensure!(lengths(n) == lengths(0), "the segments of rendition {n} are not aligned with those of the first");
    }
    let whole = songs::decoded_seconds(file.to_str().context("path")?, 0)?;
    let told = answer["duration_ms"].as_f64().context("no duration")? / 1000.0;
    ensure!((told - whole).abs() <= 0.1, "told {told} s, the source decodes to {whole} s");
    for n in 0..renditions.len() {
        let decoded = songs::decoded_seconds(url, n)?;
        ensure!(
            (decoded - whole).abs() <= 0.1,
            "{}: rendition {n} decodes to {decoded} s, the source to {whole} s",
            file.display()
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn real_music_in_four_formats_plays_whole_on_every_rendition() -> anyhow::Result<()> {
    let segue = crate::start().await?;
    let dir = tempfile::tempdir()?;
    let mp3 = songs::real()?.into_iter().next().context("no song")?;
    add_and_decode(segue.dir(), &mp3).await?;
    for (extension, codec) in [
        ("ogg", ["-c:a", "libvorbis", "-q:a", "6"].as_slice()),
        ("flac", &["-c:a", "flac"]),
        ("wav", &["-c:a", "pcm_s16le"]),
    ] {
        add_and_decode(segue.dir(), &cut(dir.path(), &mp3, extension, codec)?).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_tells_what_was_encoded_and_never_goes_above_the_source() -> anyhow::Result<()> {
    let segue = crate::start().await?;
    let wav = segue.add(&songs::tone(14.0, "lossless.wav")?).await?;
    let low = segue.add(&songs::tone(14.0, "low.mp3")?).await?;
    for (id, renditions) in [(&wav.id, 3), (&low.id, 2)] {
        let master = Player::new(&segue.ticket(id, "s").await?)?;
        let found = master.renditions().await?.len();
        ensure!(found == renditions, "{id}: {found} renditions, not {renditions}");
    }
    Ok(())
}
