//! The page, driven in headless Chromium by `testkit/browser`.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use segue_testkit::songs;
use tokio::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testkit/browser")
}

pub(crate) async fn node(test: &str, variables: &[(&str, &str)]) -> anyhow::Result<()> {
    ensure!(
        folder().join("node_modules").is_dir(),
        "the browser tests are not installed: run `npm ci` in {}",
        folder().display()
    );
    let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    std::fs::create_dir_all(&shots)?;
    let output = Command::new("node")
        .args(["--test", test])
        .current_dir(folder())
        .envs(variables.iter().copied())
        .env("SEGUE_SHOTS", &shots)
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run node")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{test}:\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
    ensure!(said.contains("# skipped 0"), "something was skipped:\n{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_takes_a_song_plays_it_and_shows_the_play() -> anyhow::Result<()> {
    let segue = crate::start().await?;
    let song = songs::tone(36.0, "browser.mp3")?;
    let song = song.to_str().context("path")?;
    node("console.test.mjs", &[("SEGUE_PAGE", &segue.ready().page), ("SEGUE_MEDIA", song)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn players_that_are_not_ours_play_the_stream_from_another_origin() -> anyhow::Result<()> {
    let segue = crate::start().await?;
    let song = songs::tone(20.0, "players.flac")?;
    let song = song.to_str().context("path")?;
    node("players.test.mjs", &[("SEGUE_PAGE", &segue.ready().page), ("SEGUE_MEDIA", song)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_song_is_heard_while_it_is_encoded() -> anyhow::Result<()> {
    let segue = crate::start().await?;
    node("early.test.mjs", &[("SEGUE_PAGE", &segue.ready().page)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_players_say_of_themselves_is_read_as_their_library_decodes_it() -> anyhow::Result<()> {
    let segue = crate::start().await?;
    let song = songs::tone(20.0, "cmcd.flac")?;
    let song = song.to_str().context("path")?;
    node("cmcd.test.mjs", &[("SEGUE_PAGE", &segue.ready().page), ("SEGUE_MEDIA", song)]).await
}
