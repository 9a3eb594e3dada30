//! `docs/operate.md`, followed word for word on a machine of its own: what the page says works.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use segue_testkit::{python, songs};
use tokio::process::Command;

/// From nothing to a song that was played three times.
const WITHIN: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread")]
async fn the_page_for_operators_leads_to_a_song_that_plays_through_two_edges() -> anyhow::Result<()> {
    let song = songs::tone(62.0, "song.flac")?;
    // Layers want a real file system below them: beside the build, and not in /tmp.
    let work = song.parent().and_then(Path::parent).and_then(Path::parent).context("no folder")?;
    let follow = Path::new(env!("CARGO_MANIFEST_DIR")).join("testkit/deploy/operate.py");
    let mut command = Command::from(python()?);
    let python = command.as_std().get_program().to_owned();
    command.arg("-B").arg(follow).arg(crate::SEGUE).arg(python).arg(&song).env("OPERATE_WORK", work);
    let run = tokio::time::timeout(WITHIN, command.kill_on_drop(true).output()).await;
    let output = run.context("the page takes too long")??;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if let Some(file) = std::env::var_os("SEGUE_OPERATE_TRANSCRIPT") {
        std::fs::write(file, &said)?;
    }
    ensure!(output.status.success(), "{said}");
    // Each section was come to, and nothing of it was passed over but what wants systemd.
    for words in
        ["## 1. The parts", "## 2. Secrets", "## 4. Control plane and worker", "## 5. Two edges", "## 6. A song"]
    {
        ensure!(said.contains(words), "the page has no {words:?} any more, or it was not come to:\n{said}");
    }
    ensure!(said.contains("three plays are counted, and both edges are alive and current"), "{said}");
    Ok(())
}
