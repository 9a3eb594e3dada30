//! Songs to try it with: made by ffmpeg, or real music from Debian's `asc-music`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Where made songs are kept, from one run to the next: `target/tmp/songs`, beside the test's own program.
fn folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(3).context("the test does not run from a target folder")?;
    Ok(target.join("tmp").join("songs"))
}

/// Runs ffmpeg; it must succeed.
///
/// # Errors
/// With ffmpeg's own words.
pub fn ffmpeg(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-y"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("ffmpeg {arguments:?}: {said}");
    }
    Ok(said)
}

/// A song of so many seconds that is not silence: two tones that beat, in the format of the name's extension.
///
/// # Errors
/// When ffmpeg cannot make it.
pub fn tone(seconds: f64, name: &str) -> anyhow::Result<PathBuf> {
    let folder = folder()?.join(format!("{seconds}s"));
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(name);
    if path.exists() {
        return Ok(path);
    }
    // Tests run side by side: each makes its own, and the last to finish stays.
    let part = folder.join(format!("part-{}-{name}", std::process::id()));
    let source = format!(
        "sine=f=220:d={seconds}:r=44100[a];sine=f=331:d={seconds}:r=44100[b];[a][b]amerge=inputs=2,tremolo=f=2:d=0.6"
    );
    ffmpeg(&["-filter_complex", &source, part.to_str().context("the path is not text")?])?;
    std::fs::rename(part, &path)?;
    Ok(path)
}

/// Real music, shortest first: the MP3 files of Debian's `asc-music`.
///
/// # Errors
/// When the package is not installed.
pub fn real() -> anyhow::Result<Vec<PathBuf>> {
    let folder = Path::new("/usr/share/games/asc/music");
    let mut songs: Vec<(u64, PathBuf)> = std::fs::read_dir(folder)
        .with_context(|| format!("no music in {}: apt-get install asc-music", folder.display()))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "mp3"))
        .filter_map(|path| std::fs::metadata(&path).ok().map(|meta| (meta.len(), path)))
        .collect();
    songs.sort();
    if songs.is_empty() {
        bail!("no MP3 in {}: apt-get install asc-music", folder.display());
    }
    Ok(songs.into_iter().map(|(_, path)| path).collect())
}

/// How long a file or URL decodes, in seconds: `ffmpeg -i … -f null -`, by the samples that come out.
///
/// # Errors
/// When it does not decode without an error.
pub fn decoded_seconds(input: &str, stream: usize) -> anyhow::Result<f64> {
    let map = format!("0:a:{stream}");
    let output = Command::new("ffmpeg")
        .args([
            "-hide_banner",
            "-nostdin",
            "-v",
            "error",
            "-xerror",
            "-i",
            input,
            "-map",
            &map,
            "-f",
            "s16le",
            "-ac",
            "1",
            "-ar",
            "48000",
            "-",
        ])
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() || !output.stderr.is_empty() {
        bail!("{input} stream {stream} does not decode: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout.len() as f64 / 2.0 / 48_000.0)
}
