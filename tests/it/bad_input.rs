//! Files that are no songs, and songs that are broken: each fails with a reason, and the next job runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use segue_testkit::songs;
use tokio::process::Command;

fn write(dir: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, bytes)?;
    Ok(path)
}

fn made(dir: &Path, name: &str, arguments: &[&str]) -> anyhow::Result<PathBuf> {
    let path = dir.join(name);
    songs::ffmpeg(&[arguments, &[path.to_str().context("path")?]].concat())?;
    Ok(path)
}

/// The first `part` of a file's bytes.
fn torn(dir: &Path, whole: &Path, name: &str, part: f64) -> anyhow::Result<PathBuf> {
    let bytes = std::fs::read(whole)?;
    write(dir, name, &bytes[..(bytes.len() as f64 * part) as usize])
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_file_fails_with_a_reason_and_the_next_job_runs() -> anyhow::Result<()> {
    let segue = crate::start().await?;
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let wav = songs::tone(30.0, "whole.wav")?;
    let flac = songs::tone(30.0, "whole.flac")?;
    let mp3 = songs::tone(30.0, "whole.mp3")?;
    let picture = made(dir, "picture.png", &["-f", "lavfi", "-i", "testsrc=s=320x200:d=1", "-frames:v", "1"])?;
    let cases = [
        (write(dir, "notes.txt", b"These are the words of the song, and no song.\n")?, "not-media"),
        (write(dir, "notes.mp3", "Words that call themselves a song.\n".repeat(200).as_bytes())?, "not-media"),
        (write(dir, "empty.mp3", b"")?, "empty-file"),
        (picture, "no-audio"),
        (made(dir, "nothing.wav", &["-f", "lavfi", "-i", "anullsrc=r=44100:cl=stereo", "-t", "0"])?, "zero-length"),
        (write(dir, "liar.mp3", &std::fs::read(&flac)?)?, "extension-mismatch"),
        (torn(dir, &wav, "torn.wav", 0.6)?, "truncated"),
        (torn(dir, &flac, "torn.flac", 0.6)?, "truncated"),
        (torn(dir, &mp3, "torn.mp3", 0.6)?, "truncated"),
    ];
    for (file, reason) in &cases {
        let output = Command::new(crate::SEGUE)
            .args(["track", "add", "--json", "--dir"])
            .arg(segue.dir())
            .arg(file)
            .output()
            .await?;
        let (answer, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let name = file.file_name().context("name")?.to_string_lossy();
        ensure!(output.status.code() == Some(1), "{name}: {:?}: {answer}{said}", output.status);
        let answer: serde_json::Value = serde_json::from_str(answer.lines().last().context("no answer")?)?;
        ensure!(answer["status"] == "failed" && answer["reason"] == *reason, "{name}: {answer}");
        let message = answer["message"].as_str().context("no message")?;
        ensure!(
            message.len() > 20 && said.contains(message),
            "{name}: is {message:?} something that a person understands?\n{said}"
        );
    }
    segue.add(&songs::tone(7.0, "after.wav")?).await?;
    Ok(())
}
