//! Running ffmpeg and ffprobe as guests: bounded in time, memory, files and output, alone in one folder.
//!
//! Invariants: every process is the leader of a group of its own (and of a session), stands in a [`Cage`], works in the job's folder, sees
//! an environment that holds nothing of ours, and is killed with its group when its time is over, when its job is
//! cancelled, and when the future that waits for it is dropped; it is reaped before `run` returns. Inputs are opened by
//! the `file` protocol alone and by the demuxers of [`DEMUXERS`] alone, so that a playlist that poses as audio reaches
//! neither another file nor a host. What a guest gives goes through a pipe, or into one file of bounded size.
//!
//! On failure: [`RunError`]; a process that ended by itself, well or badly, is `Ok` with its status.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ffmpeg_sidecar::child::FfmpegChild;
use ffmpeg_sidecar::command::FfmpegCommand;
use ffmpeg_sidecar::event::{FfmpegEvent, LogLevel};
use ffmpeg_sidecar::log_parser::FfmpegLogParser;
use rustix::process::{Pid, Resource, Rlimit};
use tokio_util::sync::CancellationToken;

use crate::cage::Cage;
use crate::leash::{CutOnDrop, Leash, NICE, pid_of};

/// The containers that are accepted. Not in it on purpose: everything that opens other resources by name (hls, dash,
/// concat, image2, sdp, imf), and everything that reads text as media (tty, subtitles, ffmetadata).
pub(crate) const DEMUXERS: &str = "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,matroska,webm,mov,mp3,mpc,\
mpc8,mpeg,mpegts,oma,ogg,rm,tak,tta,voc,w64,wav,wv";

/// Address space of one guest. ffmpeg with its hundred libraries maps about 1 GiB before it does anything.
const ADDRESSES: u64 = 4 << 30;
/// Memory of one guest that works on sound or a picture: decoders and encoders take some tens of megabytes, a cover of
/// 100 million pixels 400. Threads are bounded by it too, since each maps a stack of 8 MiB.
pub(crate) const MEMORY: u64 = 1 << 30;
/// Open files of one guest: libraries, one source, one segment per rendition.
const OPEN_FILES: u64 = 256;
/// What is kept of ffmpeg's log for the operator.
const LOG_LINES: usize = 12;
const LOG_LINE_CHARS: usize = 240;

/// The two programs, found once.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) ffmpeg: PathBuf,
    pub(crate) ffprobe: PathBuf,
    /// First line of `ffmpeg -version`: part of every version hash.
    pub(crate) version: String,
    pub(crate) cage: Cage,
}

impl Tools {
    /// Finds both on `PATH` and asks ffmpeg for its version. The error names the program that is missing.
    pub(crate) fn find(path: Option<&OsStr>) -> Result<Self, String> {
        let ffmpeg = on_path("ffmpeg", path).ok_or("ffmpeg is not installed (not on PATH)")?;
        let ffprobe = on_path("ffprobe", path).ok_or("ffprobe is not installed (not on PATH)")?;
        let cage = Cage::find(path);
        let output = guest(&cage, &ffmpeg, Path::new("/"))
            .arg("-version")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{} does not start: {error}", ffmpeg.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().next().unwrap_or_default().trim().to_owned();
        if !output.status.success() || !version.starts_with("ffmpeg version ") {
            return Err(format!("{} does not work: it gives no version", ffmpeg.display()));
        }
        Ok(Self { ffmpeg, ffprobe, version, cage })
    }

    /// An ffmpeg command that works in `folder`, says nothing but warnings and progress, and never asks.
    pub(crate) fn ffmpeg(&self, folder: &Path) -> FfmpegCommand {
        // Not by the crate's own constructor, which puts ffmpeg's options before what stands before ffmpeg.
        let mut inner = guest(&self.cage, &self.ffmpeg, folder);
        inner.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut command = FfmpegCommand::from(inner);
        // At the info level ffmpeg prints the source's own tags, which a hostile file could dress up as log lines.
        command.hide_banner().args(["-loglevel", "level+warning", "-stats", "-nostdin", "-y", "-filter_threads", "1"]);
        command
    }

    /// An ffprobe command that works in `folder` and prints errors only.
    pub(crate) fn ffprobe(&self, folder: &Path) -> Command {
        let mut command = guest(&self.cage, &self.ffprobe, folder);
        command.args(["-hide_banner", "-loglevel", "error"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Input options that go before every `-i` of a source. A song has one or two streams and a film a dozen; each costs
/// a decoder, and a decoder as many threads as the machine has cores, where one is enough for any sound.
pub(crate) const INPUT: [&str; 8] =
    ["-protocol_whitelist", "file", "-format_whitelist", DEMUXERS, "-max_streams", "64", "-threads", "1"];

pub(crate) fn on_path(program: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    let executable = |file: &PathBuf| {
        use std::os::unix::fs::PermissionsExt;
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path?).map(|folder| folder.join(program)).find(executable)
}

fn guest(cage: &Cage, program: &Path, folder: &Path) -> Command {
    let (program, words) = cage.around(program);
    let mut command = Command::new(program);
    command.args(words);
    isolate(&mut command, folder);
    if !cage.is_session() {
        command.process_group(0);
    }
    command
}

fn isolate(command: &mut Command, folder: &Path) {
    command.env_clear().env("LC_ALL", "C").env("AV_LOG_FORCE_NOCOLOR", "1").env("HOME", "/nonexistent");
    if let Some(libraries) = std::env::var_os("LD_LIBRARY_PATH") {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command.current_dir(folder);
}

/// What a run may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Time on the clock.
    pub(crate) wall: Duration,
    /// Bytes of the largest file that it may write; 0 for a guest whose output goes through a pipe.
    pub(crate) file_bytes: u64,
    /// Bytes of memory.
    pub(crate) memory: u64,
}

impl Bounds {
    /// For a guest that writes no file.
    pub(crate) fn piped(wall: Duration) -> Self {
        Self { wall, file_bytes: 0, memory: MEMORY }
    }
}

/// Why a run has no exit status of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("could not be started: {0}")]
    Spawn(io::Error),
    #[error("took longer than {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("was cancelled")]
    Cancelled,
    #[error("its reader panicked")]
    Panicked,
}

/// A child process, bare or wrapped.
pub(crate) trait Guest: Send + 'static {
    fn child(&mut self) -> &mut Child;
}

impl Guest for Child {
    fn child(&mut self) -> &mut Child {
        self
    }
}

impl Guest for FfmpegChild {
    fn child(&mut self) -> &mut Child {
        self.as_inner_mut()
    }
}

/// Runs one guest to its end. `drive` reads its pipes on a thread of its own and must return once they are closed.
pub(crate) async fn run<G: Guest, T: Send + 'static>(
    spawn: impl FnOnce() -> io::Result<G> + Send + 'static,
    bounds: Bounds,
    cancel: &CancellationToken,
    drive: impl FnOnce(&mut G) -> T + Send + 'static,
) -> Result<(ExitStatus, T), RunError> {
    let leash = Arc::new(Leash::default());
    let _cut = CutOnDrop(Arc::clone(&leash));
    let held = Arc::clone(&leash);
    let mut thread = tokio::task::spawn_blocking(move || {
        let mut guest = spawn().map_err(RunError::Spawn)?;
        if let Some(pid) = pid_of(guest.child()) {
            held.attach(pid);
            // It is a few milliseconds from reading the first byte of its input: the loader comes first.
            if let Err(error) = restrain(pid, bounds) {
                held.cut();
                held.reap(guest.child()).map_err(RunError::Spawn)?;
                return Err(RunError::Spawn(error));
            }
        }
        let value = drive(&mut guest);
        let status = held.reap(guest.child()).map_err(RunError::Spawn)?;
        Ok((status, value))
    });
    let calmed = async {
        leash.calm().await;
        std::future::pending().await
    };
    let stopped = tokio::select! {
        ended = &mut thread => return ended.map_err(|_| RunError::Panicked)?,
        () = cancel.cancelled() => RunError::Cancelled,
        () = tokio::time::sleep(bounds.wall) => RunError::TimedOut(bounds.wall),
        stopped = calmed => stopped,
    };
    leash.cut();
    // Killed, so its pipes close and the thread ends; waiting here means that nothing is left when the folder goes.
    let _ = thread.await;
    Err(stopped)
}

/// Limits that a process inherits to nobody else: set from outside, since code between fork and exec is unsafe. A
/// guest that cannot be bounded does not run.
fn restrain(pid: Pid, bounds: Bounds) -> io::Result<()> {
    let limits = [
        (Resource::As, ADDRESSES.max(2 * bounds.memory)),
        (Resource::Data, bounds.memory),
        (Resource::Fsize, bounds.file_bytes),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Core, 0),
        // CPU time of all threads; a process that outlives its worker ends here at the latest.
        (Resource::Cpu, bounds.wall.as_secs().saturating_mul(8).max(60)),
    ];
    for (resource, most) in limits {
        // Not above what we are bound to ourselves: raising a limit is nobody's right.
        let most = rustix::process::getrlimit(resource).maximum.map_or(most, |own| own.min(most));
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::prlimit(Some(pid), resource, limit).or_else(gone)?;
    }
    rustix::process::setpriority_process(Some(pid), NICE).or_else(|error| gone(error).map(|_| ()))?;
    Ok(())
}

/// A process that has ended already needs no limit.
fn gone(error: rustix::io::Errno) -> io::Result<Rlimit> {
    let none = Rlimit { current: None, maximum: None };
    if error == rustix::io::Errno::SRCH { Ok(none) } else { Err(error.into()) }
}

/// The last warnings and errors of a run.
#[derive(Debug, Default)]
pub(crate) struct Log(VecDeque<String>);

impl Log {
    fn note(&mut self, line: &str) {
        if self.0.len() == LOG_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line.chars().take(LOG_LINE_CHARS).collect());
    }

    pub(crate) fn says(&self, words: &str) -> bool {
        self.0.iter().any(|line| line.contains(words))
    }

    pub(crate) fn tail(&self) -> String {
        self.0.iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
    }
}

/// Follows ffmpeg's events to the end of its log; `at` gets the media time reached, in seconds.
///
/// The parser is driven directly: the crate's iterator gives the same events, but ends for good, with its channel held
/// open, at the first line that it cannot place.
pub(crate) fn follow(log: impl Read, mut at: impl FnMut(f64)) -> Log {
    let mut parser = FfmpegLogParser::new(io::BufReader::new(log));
    let mut kept = Log::default();
    loop {
        match parser.parse_next_event() {
            Ok(FfmpegEvent::LogEOF) => return kept,
            Ok(FfmpegEvent::Progress(progress)) => {
                if let Some(seconds) = clock(&progress.time) {
                    at(seconds);
                }
            }
            Ok(FfmpegEvent::Log(LogLevel::Warning | LogLevel::Error | LogLevel::Fatal, line)) => kept.note(&line),
            Ok(_) => {}
            Err(error) if error.downcast_ref::<io::Error>().is_some() => return kept,
            Err(_) => {}
        }
    }
}

/// `00:07:20.78` in seconds; `None` for `N/A`.
fn clock(text: &str) -> Option<f64> {
    let mut parts = text.trim_start_matches('-').splitn(3, ':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    Some(hours.parse::<f64>().ok()? * 3600.0 + minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
}

/// Reads at most `most` bytes and then drains the rest unseen, so that the writer never blocks.
pub(crate) fn read_bounded(mut pipe: impl Read, most: usize) -> (Vec<u8>, bool) {
    let mut kept = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    let _ = pipe.by_ref().take(limit).read_to_end(&mut kept);
    let over = io::copy(&mut pipe, &mut io::sink()).unwrap_or(0) > 0;
    (kept, over)
}

/// Whether a process died of a signal: a crash or the kernel's memory killer, not a verdict about its input.
pub(crate) fn crashed(status: ExitStatus) -> bool {
    status.signal().is_some() || status.code().is_some_and(|code| (129..=159).contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(folder: &Path) -> impl FnOnce() -> io::Result<Child> + Send + 'static {
        let folder = folder.to_owned();
        // The shell's child holds the pipe too: only killing the whole group lets the reader end.
        move || {
            guest(&Cage::default(), Path::new("/bin/sh"), &folder)
                .args(["-c", "/bin/sleep 60 & wait"])
                .stdout(Stdio::piped())
                .spawn()
        }
    }

    fn drain(child: &mut Child) -> usize {
        child.stdout.take().map_or(0, |pipe| read_bounded(pipe, 10).0.len())
    }

    const BOUNDS: Bounds = Bounds { wall: Duration::from_millis(100), file_bytes: 1 << 20, memory: MEMORY };

    #[tokio::test]
    async fn a_run_over_its_time_is_killed_with_its_group() {
        let started = std::time::Instant::now();
        let ended = run(sleeper(Path::new("/tmp")), BOUNDS, &CancellationToken::new(), drain).await;
        assert!(matches!(ended, Err(RunError::TimedOut(_))));
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[tokio::test]
    async fn cancelling_kills_and_an_early_cancel_too() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let bounds = Bounds { wall: Duration::from_secs(50), ..BOUNDS };
        let started = std::time::Instant::now();
        let ended = run(sleeper(Path::new("/tmp")), bounds, &cancel, drain).await;
        assert!(matches!(ended, Err(RunError::Cancelled)));
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[tokio::test]
    async fn a_guest_comes_after_everybody_else() {
        let cage = Cage::find(std::env::var_os("PATH").as_deref());
        if !cage.is_session() || !Path::new("/proc/self/autogroup").exists() {
            // Nothing groups tasks by sessions here.
            return;
        }
        let spawn = move || {
            let script =
                "while read group word nice </proc/$$/autogroup; do [ \"$nice\" = 10 ] && echo $nice && exit; done";
            guest(&cage, Path::new("/bin/sh"), Path::new("/tmp")).args(["-c", script]).stdout(Stdio::piped()).spawn()
        };
        let group = || std::fs::read_to_string("/proc/self/autogroup").expect("autogroup");
        let before = group();
        let bounds = Bounds { wall: Duration::from_secs(30), ..BOUNDS };
        let (status, bytes) = run(spawn, bounds, &CancellationToken::new(), drain).await.expect("it ends");
        assert!(status.success() && bytes == 3, "{status}, {bytes}");
        assert_eq!(group(), before, "and its worker is what it was");
    }

    #[test]
    fn a_hostile_log_line_does_not_end_the_following() {
        let text = "[error] bad\n    Stream #0:0: Audio: nonsense\nsize=N/A time=00:01:02.50 bitrate=N/A speed=  23x\r[fatal] end\n";
        let mut times = Vec::new();
        let log = follow(text.as_bytes(), |at| times.push(at));
        assert_eq!(times, [62.5]);
        assert!(log.says("bad") && log.says("end"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Tools::find(Some(OsStr::new("/nonexistent"))).expect_err("nothing there");
        assert!(error.contains("ffmpeg is not installed"));
    }
}
