//! The demo as a person meets it: what it says when something is wrong, and how it ends.

use std::net::TcpListener;
use std::path::Path;

use anyhow::ensure;
use tokio::process::Command;

/// Runs `segue demo`, which must end by itself with a failure, and gives what it said.
async fn fails(dir: &Path, arguments: &[&str], path: Option<&str>) -> anyhow::Result<String> {
    let mut command = Command::new(crate::SEGUE);
    // The embedded store calls it an error that it is asked for what it cannot list; so the demo's own filter leaves it out, too.
    command.args(["demo", "--json", "--dir"]).arg(dir).args(arguments);
    command.env("SEGUE_LOG", "error,s3s=off").kill_on_drop(true);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let output = tokio::time::timeout(std::time::Duration::from_secs(60), command.output()).await??;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ensure!(!output.status.success(), "it started: {said}");
    ensure!(output.stdout.is_empty(), "it said that it was ready");
    ensure!(said.lines().count() == 1 && said.starts_with("segue: "), "not one clear sentence:\n{said}");
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_one_clear_sentence() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let said = fails(dir.path(), &["--port", &port.to_string()], None).await?;
    ensure!(said.contains(&port.to_string()) && said.contains("in use") && said.contains("--port"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_is_one_clear_sentence() -> anyhow::Result<()> {
    let said = fails(Path::new("/proc/segue-demo"), &["--port", "0"], None).await?;
    ensure!(said.contains("/proc/segue-demo") && said.contains("--dir"), "{said}");
    let file = tempfile::NamedTempFile::new()?;
    let said = fails(file.path(), &["--port", "0"], None).await?;
    ensure!(said.contains("--dir"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_ffmpeg_is_one_clear_sentence() -> anyhow::Result<()> {
    let (dir, empty) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let said = fails(dir.path(), &["--port", "0"], empty.path().to_str()).await?;
    ensure!(said.contains("ffmpeg") && said.contains("install"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_demo_in_the_same_folder_is_kept_out() -> anyhow::Result<()> {
    let segue = crate::start().await?;
    let said = fails(segue.dir(), &["--port", "0"], None).await?;
    ensure!(said.contains("another demo"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_the_ports_and_the_token() -> anyhow::Result<()> {
    let mut segue = crate::start().await?;
    let before = segue.ready().clone();
    let status = segue.stop().await?;
    ensure!(status.success(), "Ctrl-C ended with {status}");
    segue.restart().await?;
    ensure!(
        segue.ready().edge == before.edge && segue.ready().page == before.page,
        "{before:?} became {:?}",
        segue.ready()
    );
    Ok(())
}
