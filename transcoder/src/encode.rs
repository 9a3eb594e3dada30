//! Encoding: every rendition of the ladder at once, each in chunks where chunks can be joined unheard.
//!
//! Each run of ffmpeg reads samples of ours (FLAC alone reads the source, whose very samples it keeps) and gives frames
//! through a pipe; segments are made of them here ([`crate::cmaf`]) and handed on as they are done. Runs begin in the
//! order of the track, so that the start of every rendition is there first; a rung whose gain is not known is tried for
//! it before ([`crate::overshoot`]), those that are heard first before all others.
//!
//! Invariants: at most as many runs at once as there are cores, or beginnings of renditions where those are more; all
//! AAC renditions are cut at the same samples; a rendition that is not exactly as long as the source is an error.
//!
//! On failure: a crash or an output that is not what was asked for is retryable; the first error ends every run.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use ffmpeg_sidecar::child::FfmpegChild;
use ffmpeg_sidecar::command::FfmpegCommand;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cmaf::{self, Cutter};
use crate::codecs::codecs;
use crate::ffmpeg::{Bounds, INPUT, Tools, follow, run};
use crate::film::Film;
use crate::ladder::{Coding, Rung, Shape, heard_first};
use crate::lease::{Reporter, Stage};
use crate::measure::{Limits, halted};
use crate::overshoot::Trials;
use crate::packets::{self, Frame, Setup};
use crate::pictures::Reel;
use crate::reject::{Failure, Halt, Reason};
use crate::stitch::{Chunk, REACH, chunks, seam};

/// Seconds of one segment.
pub(crate) const SEGMENT: u32 = 6;
/// Frames between an encoder and its segments: a second.
const QUEUE: usize = 48;
/// How far the resampled or untouched length may be from the measured one: one frame of any codec here.
const SLACK: f64 = 0.11;
/// How long a run that failed is waited for, once its frames have ended.
const WHY: Duration = Duration::from_secs(5);
/// The frame behind the last of a run that is not a chunk: how many there will be is not known.
const WHOLE: u64 = u64::MAX;
/// Runs of one job at most, however long the ladder.
const RUNS_MAX: usize = 32;

/// What comes out, rendition by rendition, in order.
#[derive(Debug)]
pub(crate) enum Output {
    /// Its init section, first of all.
    Opened {
        rendition: usize,
        init: Bytes,
        codecs: String,
    },
    Segment {
        rendition: usize,
        bytes: Bytes,
        seconds: f64,
    },
    /// It is whole.
    Ended {
        rendition: usize,
    },
}

/// What is encoded, and how.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) tools: Tools,
    pub(crate) source: PathBuf,
    pub(crate) spool: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) shape: Shape,
    /// The moving picture, where it has one.
    pub(crate) film: Option<Film>,
    /// Samples in the spool.
    pub(crate) samples: u64,
    /// Of the track, before what coding adds is taken off ([`crate::overshoot`]).
    pub(crate) gain_db: f64,
    /// Of each rung, in dB, once it is known.
    pub(crate) gains: Vec<OnceLock<f64>>,
    /// What tells it of those that it is not known of. `None`: it is known of all.
    pub(crate) trials: Option<Trials>,
    pub(crate) rungs: Vec<Rung>,
    pub(crate) cores: usize,
    pub(crate) limits: Limits,
    /// Of a run that encodes a film's picture.
    pub(crate) film_limits: Limits,
}

/// What a run gives.
enum Coded {
    Opens(Setup),
    Frame(Frame),
}

/// One run of ffmpeg.
struct Run {
    rendition: usize,
    chunk: Chunk,
    frames: mpsc::Sender<Coded>,
}

/// What waits for its turn.
enum Turn {
    /// A rung is tried for its gain ([`crate::overshoot`]).
    Trial {
        rendition: usize,
    },
    Encode(Run),
}

impl Turn {
    /// Whether it can begin, beside so many others that are short. The beginnings of renditions are encoded together, on
    /// however few cores, since somebody listens; everything else waits for a core of its own.
    fn is_ready(&self, work: &Work, short: usize) -> bool {
        let room = short < work.cores.max(1);
        match self {
            Self::Trial { .. } => room,
            Self::Encode(run) => work.gain(run.rendition).is_some() && (room || run.chunk.first == 0),
        }
    }

    /// Whether it takes as long as the track does: nothing may wait for that, or renditions in chunks would stand still
    /// for their listeners.
    fn is_whole(&self) -> bool {
        matches!(self, Self::Encode(run) if run.chunk.frames.1 == WHOLE)
    }

    async fn take(self, work: &Work, cancel: &CancellationToken) -> Result<(), Halt> {
        match self {
            Self::Encode(run) => one(work, run, cancel).await,
            Self::Trial { rendition } => {
                let trials = work.trials.as_ref().ok_or_else(|| failed("nothing to try"))?;
                let gain = trials.gain(work, work.rung(rendition)?, cancel).await?;
                let place = work.gains.get(rendition).ok_or_else(|| failed("no such rendition"))?;
                place.set(gain).map_err(|_| failed("tried twice"))?;
                Ok(())
            }
        }
    }
}

impl Work {
    pub(crate) fn seconds(&self) -> f64 {
        self.samples as f64 / f64::from(self.shape.rate)
    }

    /// A run of the encoder over samples of `input`: the first, and the one behind the last.
    pub(crate) fn command(&self, rung: &Rung, input: &Path, samples: (u64, u64), gain_db: f64) -> FfmpegCommand {
        let mut command = self.tools.ffmpeg(&self.folder);
        if rung.coding == Coding::Flac {
            command.args(INPUT).args(["-vn", "-sn", "-dn", "-i"]).arg(&self.source).args(["-map", "0:a:0"]);
        } else {
            let Shape { rate, channels } = self.shape;
            let skipped = samples.0 * self.shape.frame() as u64;
            command.args(["-protocol_whitelist", "file", "-f", "f32le"]);
            command.args(["-ar", &rate.to_string(), "-ac", &channels.to_string()]);
            command.args(["-skip_initial_bytes", &skipped.to_string(), "-i"]).arg(input);
            let count = samples.1 - samples.0;
            command.args(["-af", &format!("atrim=end_sample={count},volume={gain_db:.2}dB:precision=float")]);
        }
        // Nothing of the source's tags goes into the renditions, and no build string: same input, same bytes.
        command.args(["-map_metadata", "-1", "-map_chapters", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact"]);
        command.args(rung.coder()).arg("pipe:1");
        command
    }

    pub(crate) fn rung(&self, rendition: usize) -> Result<&Rung, Failure> {
        self.rungs.get(rendition).ok_or_else(|| failed("no such rendition"))
    }

    /// Refuses a rendition that is not as long as the source.
    pub(crate) fn is_as_long(&self, rendition: usize, seconds: f64) -> Result<(), Failure> {
        if (seconds - self.seconds()).abs() <= SLACK {
            return Ok(());
        }
        let name = &self.rung(rendition)?.name;
        Err(failed(format!("{name}: {seconds:.3} s were encoded of {:.3}", self.seconds())))
    }

    /// The gain of a rung in dB, once it is known.
    pub(crate) fn gain(&self, rendition: usize) -> Option<f64> {
        self.gains.get(rendition)?.get().copied()
    }
}

pub(crate) fn failed(detail: impl std::fmt::Display) -> Failure {
    Failure::new(Reason::EncoderFailed, "ffmpeg failed while encoding the file.").because(detail)
}

/// Encodes all of it into `out`.
pub(crate) async fn encode(
    work: Arc<Work>,
    out: mpsc::Sender<Output>,
    cancel: &CancellationToken,
    progress: &Reporter,
) -> Result<(), Halt> {
    progress.at(Stage::Encode, 0.0);
    let whole = Chunk { frames: (0, WHOLE), first: 0, samples: (0, work.samples) };
    let cut = chunks(work.samples, work.shape.rate);
    let of = work.seconds() * work.rungs.len() as f64;
    let done = Arc::new(Done { millis: AtomicU64::new(0), of, progress: progress.clone() });
    let mut joined = JoinSet::new();
    let first = heard_first(&work.rungs);
    // Each with its place in the order.
    let mut waiting: Vec<(u64, Turn)> = Vec::new();
    let permits = Arc::new(Semaphore::new(work.cores.max(work.rungs.len()).min(RUNS_MAX)));
    for (rendition, rung) in work.rungs.iter().enumerate() {
        if let Some(picture) = rung.picture() {
            let reel = Reel { rendition, picture, out: out.clone(), done: Arc::clone(&done) };
            joined.spawn(reel.run(Arc::clone(&work), Arc::clone(&permits), cancel.clone()));
            continue;
        }
        let late = if first[rendition] { 0 } else { 2 };
        if work.gain(rendition).is_none() {
            waiting.push((late, Turn::Trial { rendition }));
        }
        let chunks = if rung.coding == Coding::Aac { cut.clone() } else { vec![whole] };
        let mut parts = Vec::with_capacity(chunks.len());
        for (n, chunk) in chunks.into_iter().enumerate() {
            // The first is listened to at once; the others wait for their turn and must not hold up a core meanwhile.
            let room = if n == 0 { QUEUE } else { usize::try_from(chunk.frames.1 - chunk.first).unwrap_or(QUEUE) + 64 };
            let (frames, given) = mpsc::channel(room);
            let order = if n == 0 { late + 1 } else { 3 + n as u64 };
            waiting.push((order, Turn::Encode(Run { rendition, chunk, frames })));
            parts.push((chunk, given));
        }
        let shelf = Shelf { rendition, cutter: None, next: 0, out: out.clone(), done: Arc::clone(&done) };
        joined.spawn(join(Arc::clone(&work), shelf, parts, cancel.clone()));
    }
    drop(out);
    // A stable sort: trial and beginning of what is heard first, then of the others, then the second chunk of each.
    waiting.sort_by_key(|(order, _)| *order);
    let mut running = JoinSet::new();
    let mut short = 0;
    loop {
        let next = waiting.iter().position(|(_, turn)| turn.is_ready(&work, short));
        tokio::select! {
            permit = Arc::clone(&permits).acquire_owned(), if next.is_some() => {
                let (Some(next), Ok(permit)) = (next, permit) else { continue };
                let (_, turn) = waiting.remove(next);
                let takes = usize::from(!turn.is_whole());
                short += takes;
                let (work, cancel) = (Arc::clone(&work), cancel.clone());
                running.spawn(async move {
                    let ended = turn.take(&work, &cancel).await;
                    drop(permit);
                    ended.map(|()| takes)
                });
            }
            Some(ended) = running.join_next(), if !running.is_empty() => short -= finished(ended)?,
            Some(ended) = joined.join_next(), if !joined.is_empty() => {
                if let Err(halt) = finished(ended) {
                    // A rendition that is too short is what a run that failed leaves: that one knows why.
                    let why = async {
                        while let Some(ended) = running.join_next().await {
                            finished(ended)?;
                        }
                        Ok::<(), Halt>(())
                    };
                    tokio::time::timeout(WHY, why).await.unwrap_or(Ok(()))?;
                    return Err(halt);
                }
            }
            else => break,
        }
    }
    progress.at(Stage::Encode, 1.0);
    Ok(())
}

fn finished<T>(ended: Result<Result<T, Halt>, tokio::task::JoinError>) -> Result<T, Halt> {
    ended.map_err(|error| failed(format!("an encoder's task panicked: {error}")))?
}

async fn one(work: &Work, asked: Run, cancel: &CancellationToken) -> Result<(), Halt> {
    let Run { rendition, chunk, frames } = asked;
    let rung = work.rung(rendition)?;
    let gain = work.gain(rendition).ok_or_else(|| failed("no gain for a rendition"))?;
    let mut command = work.command(rung, &work.spool, chunk.samples, gain);
    let seconds = (chunk.samples.1 - chunk.samples.0) as f64 / f64::from(work.shape.rate);
    // Twice of what was asked for is an encoder gone mad; samples of noise make FLAC a little larger than they are.
    let most = (seconds * rung.bit_rate as f64 / 8.0 * 2.0) as u64 + (1 << 20);
    let wrapping = rung.wrapping();
    let drive = move |child: &mut FfmpegChild| {
        let (pipe, log) = (child.take_stdout(), child.take_stderr());
        std::thread::scope(|scope| {
            let follower = scope.spawn(|| log.map(|log| follow(log, |_| {})).unwrap_or_default());
            let read = pipe.map_or_else(|| Err("no pipe".to_owned()), |pipe| hand_on(pipe, wrapping, most, &frames));
            if read != Ok(true) {
                // Nobody reads any more, so ffmpeg must not go on writing.
                let _ = child.kill();
            }
            (read, follower.join().unwrap_or_default())
        })
    };
    let bounds = Bounds::piped(work.limits.wall(Some(work.seconds())));
    let ended = run(move || command.spawn(), bounds, cancel, drive).await;
    let (status, (read, log)) = ended.map_err(|error| halted(error, "encode"))?;
    match read {
        Ok(true) if status.success() => Ok(()),
        Ok(true) => Err(failed(format!("{}: {status}: {}", rung.name, log.tail())).into()),
        Ok(false) => Ok(()),
        Err(detail) => Err(failed(format!("{}: {detail}: {status}: {}", rung.name, log.tail())).into()),
    }
}

/// Takes frames out of the pipe to its end. `false`: nobody wants them any more, which is no fault of the run.
fn hand_on(
    pipe: impl std::io::Read,
    wrapping: packets::Wrapping,
    most: u64,
    frames: &mpsc::Sender<Coded>,
) -> Result<bool, String> {
    let (mut opened, mut bytes, mut wanted) = (false, 0u64, true);
    packets::read(pipe, wrapping, &mut |setup, frame| {
        bytes += frame.data.len() as u64;
        let opens = (!opened).then(|| Coded::Opens(setup.clone()));
        opened = true;
        wanted = opens.into_iter().chain([Coded::Frame(frame)]).all(|coded| frames.blocking_send(coded).is_ok());
        wanted && bytes <= most
    })?;
    if bytes > most { Err(format!("over {most} bytes came out")) } else { Ok(wanted) }
}

/// Where the frames of one rendition become segments.
struct Shelf {
    rendition: usize,
    cutter: Option<Cutter>,
    /// The number of the frame that comes next.
    next: u64,
    out: mpsc::Sender<Output>,
    done: Arc<Done>,
}

/// How far all renditions are together.
pub(crate) struct Done {
    millis: AtomicU64,
    of: f64,
    progress: Reporter,
}

impl Done {
    pub(crate) fn add(&self, seconds: f64) {
        let millis = (seconds * 1000.0) as u64;
        let done = self.millis.fetch_add(millis, Ordering::Relaxed) + millis;
        self.progress.at(Stage::Encode, done as f64 / 1000.0 / self.of);
    }
}

impl Shelf {
    async fn open(&mut self, work: &Work, setup: &Setup) -> Result<(), Halt> {
        let rung = work.rung(self.rendition)?;
        let samples = match rung.coding {
            Coding::Aac => Some(work.samples),
            Coding::Opus => Some(work.samples * u64::from(setup.rate()) / u64::from(work.shape.rate)),
            // It ends with the source, to the sample.
            Coding::Flac | Coding::Avc(_) => None,
        };
        self.cutter = Some(Cutter::new(setup, samples, SEGMENT));
        let init = cmaf::init(setup);
        let codecs = codecs(&init).map_err(failed)?;
        self.give(Output::Opened { rendition: self.rendition, init: Bytes::from(init), codecs }).await
    }

    async fn put(&mut self, frame: Frame) -> Result<(), Halt> {
        let cutter = self.cutter.as_mut().ok_or_else(|| failed("a frame came before its setup"))?;
        let cut = cutter.push(frame);
        self.next += 1;
        if let Some(cut) = cut {
            self.done.add(cut.seconds);
            let (rendition, bytes) = (self.rendition, Bytes::from(cut.bytes));
            self.give(Output::Segment { rendition, bytes, seconds: cut.seconds }).await?;
        }
        Ok(())
    }

    async fn close(mut self, work: &Work) -> Result<(), Halt> {
        let cutter = self.cutter.take().ok_or_else(|| failed("nothing came out"))?;
        let (seconds, rendition) = (cutter.seconds(), self.rendition);
        work.is_as_long(rendition, seconds)?;
        if let Some(cut) = cutter.finish() {
            self.give(Output::Segment { rendition, bytes: Bytes::from(cut.bytes), seconds: cut.seconds }).await?;
        }
        self.give(Output::Ended { rendition }).await
    }

    /// A receiver that is gone has ended the job already, and says why itself.
    async fn give(&self, output: Output) -> Result<(), Halt> {
        self.out.send(output).await.map_err(|_| Halt::Cancelled)
    }
}

/// Joins the chunks of one rendition and cuts them into segments.
async fn join(
    work: Arc<Work>,
    mut shelf: Shelf,
    parts: Vec<(Chunk, mpsc::Receiver<Coded>)>,
    cancel: CancellationToken,
) -> Result<(), Halt> {
    let count = parts.len();
    let mut tail: Vec<(u64, Frame)> = Vec::new();
    let mut before: Option<Chunk> = None;
    for (n, (chunk, mut given)) in parts.into_iter().enumerate() {
        let setup = match given.recv().await {
            Some(Coded::Opens(setup)) => setup,
            _ => return Err(failed("an encoder gave nothing").into()),
        };
        let mut number = chunk.first;
        if let Some(before) = before.replace(chunk) {
            let mut head = Vec::new();
            while number < chunk.frames.0 + REACH {
                let Some(Coded::Frame(frame)) = given.recv().await else { break };
                head.push((number, frame));
                number += 1;
            }
            let Some(last) = seam(&tail, &head) else {
                tracing::info!(rendition = shelf.rendition, chunk = n, "no seam; the chunk before goes on to the end");
                drop(given);
                return go_on(&work, shelf, before, &cancel).await;
            };
            for (_, frame) in tail.drain(..).filter(|(at, _)| *at <= last) {
                shelf.put(frame).await?;
            }
            for (_, frame) in head.into_iter().filter(|(at, _)| *at > last) {
                shelf.put(frame).await?;
            }
        } else {
            shelf.open(&work, &setup).await?;
        }
        // The frames around the next boundary are kept back until it is known where the cut is.
        let kept = if n + 1 < count { chunk.frames.1 - REACH } else { u64::MAX };
        while let Some(Coded::Frame(frame)) = given.recv().await {
            if number < kept {
                shelf.put(frame).await?;
            } else if number < chunk.frames.1 + REACH {
                tail.push((number, frame));
            }
            number += 1;
        }
    }
    shelf.close(&work).await
}

/// Encodes on from the start of a chunk to the end of the track: an encoder gives the same frames for the same samples,
/// so what was put already is passed over and the rest follows without a cut.
async fn go_on(work: &Arc<Work>, mut shelf: Shelf, chunk: Chunk, cancel: &CancellationToken) -> Result<(), Halt> {
    let chunk = Chunk { samples: (chunk.samples.0, work.samples), ..chunk };
    let (frames, mut given) = mpsc::channel(QUEUE);
    let run = Run { rendition: shelf.rendition, chunk, frames };
    let taken = async {
        let mut number = chunk.first;
        while let Some(coded) = given.recv().await {
            let Coded::Frame(frame) = coded else { continue };
            if number >= shelf.next {
                shelf.put(frame).await?;
            }
            number += 1;
        }
        Ok(())
    };
    tokio::try_join!(one(work, run, cancel), taken)?;
    shelf.close(work).await
}
