//! Encoding a film's picture: one run of ffmpeg for each rendition, whose fragments become segments here.
//!
//! Each run decodes the source for itself: a rendition's picture is far cheaper to decode than to encode, decoded
//! pictures would fill any disk, and a guest has one pipe to answer through. What comes out of the decoder is brought to
//! one rate and to the length of the sound, so that frames that are missing, late or doubled in the source shift
//! nothing.
//!
//! Invariants: key pictures stand at the same times in every rendition, and segments are cut at the first of them on or
//! after each multiple of a segment's length, as those of the sound are; a picture that is larger than the probe said is
//! not decoded; a rendition that is not as long as the sound is an error.
//!
//! On failure: a crash is retryable; a picture of which nothing can be decoded is the source's fault.

use std::sync::Arc;

use bytes::Bytes;
use ffmpeg_sidecar::child::FfmpegChild;
use ffmpeg_sidecar::command::FfmpegCommand;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::codecs::codecs;
use crate::encode::{Done, Output, SEGMENT, Work, failed};
use crate::ffmpeg::{Bounds, INPUT, crashed, follow, run};
use crate::film::{Film, Picture};
use crate::ladder::Rung;
use crate::measure::halted;
use crate::packets::fragments::{Piece, read};
use crate::reject::{Failure, Halt, Reason};

/// Fragments between an encoder and its segments: some seconds.
const QUEUE: usize = 4;
/// Memory of a run: a decoder holds up to 17 of the largest pictures and an encoder looks forty ahead.
const MEMORY: u64 = 2 << 30;
/// The `styp` box of a CMAF segment.
const STYP: &[u8] = b"\0\0\0\x18stypmsdh\0\0\0\0msdhmsix";

/// Where one rendition of the picture goes.
pub(crate) struct Reel {
    pub(crate) rendition: usize,
    pub(crate) picture: Picture,
    pub(crate) out: mpsc::Sender<Output>,
    pub(crate) done: Arc<Done>,
}

fn command(work: &Work, film: &Film, rung: &Rung, picture: Picture) -> FfmpegCommand {
    let Picture { width, height, rate, .. } = picture;
    let mut command = work.tools.ffmpeg(&work.folder);
    // As much as the probe saw, in whatever way it is turned: a stream that grows on its way is not followed.
    command.args(INPUT).args(["-max_pixels", &film.pixels.to_string(), "-an", "-sn", "-dn", "-i"]).arg(&work.source);
    let filters = format!(
        "yadif=deint=interlaced,scale={width}:{height}:flags=bicubic,setsar=1,format=yuv420p,\
         setpts=PTS-({:.6})/TB,fps=fps={}/{}:start_time=0,tpad=stop=-1:stop_mode=clone",
        film.delay, rate.0, rate.1
    );
    command.args(["-map", &format!("0:{}", film.stream), "-vf", &filters, "-t", &format!("{:.6}", work.seconds())]);
    command.args(["-map_metadata", "-1", "-map_chapters", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact"]);
    command.args(rung.coder()).arg("pipe:1");
    command
}

impl Reel {
    /// Encodes all of it.
    pub(crate) async fn run(
        self,
        work: Arc<Work>,
        permits: Arc<Semaphore>,
        cancel: CancellationToken,
    ) -> Result<(), Halt> {
        let _permit = permits.acquire_owned().await.map_err(|_| Halt::Cancelled)?;
        let film = work.film.as_ref().ok_or_else(|| failed("no film for a picture"))?;
        let rung = work.rung(self.rendition)?;
        let mut command = command(&work, film, rung, self.picture);
        // What the encoder's buffer lets through at most, and headers.
        let most = (work.seconds() * rung.bit_rate as f64 / 8.0 * 3.0) as u64 + (4 << 20);
        let (pieces, mut given) = mpsc::channel(QUEUE);
        let drive = move |child: &mut FfmpegChild| {
            let (pipe, log) = (child.take_stdout(), child.take_stderr());
            std::thread::scope(|scope| {
                let follower = scope.spawn(|| log.map(|log| follow(log, |_| {})).unwrap_or_default());
                let read = pipe.map_or_else(|| Err("no pipe".to_owned()), |pipe| hand_on(pipe, most, &pieces));
                if read != Ok(true) {
                    // Nobody reads any more, so ffmpeg must not go on writing.
                    let _ = child.kill();
                }
                drop(pieces);
                (read, follower.join().unwrap_or_default())
            })
        };
        let bounds = Bounds { wall: work.film_limits.wall(Some(work.seconds())), file_bytes: 0, memory: MEMORY };
        let encoded = async {
            let ended = run(move || command.spawn(), bounds, &cancel, drive).await;
            let (status, (read, log)) = ended.map_err(|error| halted(error, "encode"))?;
            let said = || format!("{}: {status}: {}", rung.name, log.tail());
            match read {
                Ok(true) if status.success() => Ok(()),
                Ok(false) => Ok(()),
                // ffmpeg gave up by itself: it found nothing in the picture that it could read.
                Ok(true) if !crashed(status) => Err(unreadable().because(said()).into()),
                Ok(true) => Err(Halt::from(failed(said()))),
                Err(detail) => Err(failed(format!("{detail}: {}", said())).into()),
            }
        };
        let cut = async {
            let mut cutter = Cutter { reel: &self, pending: Vec::new(), from: 0, end: 0, cuts: 0, opened: false };
            while let Some(piece) = given.recv().await {
                cutter.take(piece).await?;
            }
            Ok::<_, Halt>(cutter)
        };
        let ((), cutter) = tokio::try_join!(encoded, cut)?;
        cutter.close(&work).await
    }

    /// A receiver that is gone has ended the job already, and says why itself.
    async fn give(&self, output: Output) -> Result<(), Halt> {
        self.out.send(output).await.map_err(|_| Halt::Cancelled)
    }
}

fn unreadable() -> Failure {
    let message = "The picture of the film cannot be decoded; it is damaged, or of a format that is not read here.";
    Failure::new(Reason::UnsupportedCodec, message)
}

/// Takes fragments out of the pipe to its end. `false`: nobody wants them any more, which is no fault of the run.
fn hand_on(pipe: impl std::io::Read, most: u64, pieces: &mpsc::Sender<Piece>) -> Result<bool, String> {
    let (mut bytes, mut wanted) = (0u64, true);
    read(pipe, &mut |piece| {
        bytes += match &piece {
            Piece::Init(init) => init.len() as u64,
            Piece::Fragment { bytes, .. } => bytes.len() as u64,
        };
        wanted = pieces.blocking_send(piece).is_ok();
        wanted && bytes <= most
    })?;
    if bytes > most { Err(format!("over {most} bytes came out")) } else { Ok(wanted) }
}

/// Puts fragments together to segments.
struct Cutter<'r> {
    reel: &'r Reel,
    pending: Vec<u8>,
    /// Ticks at which the pending segment begins, and at which what came so far ends.
    from: u64,
    end: u64,
    cuts: u64,
    opened: bool,
}

impl Cutter<'_> {
    async fn take(&mut self, piece: Piece) -> Result<(), Halt> {
        let (bytes, from, ticks) = match piece {
            Piece::Init(init) => {
                self.opened = true;
                let (rendition, codecs) = (self.reel.rendition, codecs(&init).map_err(failed)?);
                return self.reel.give(Output::Opened { rendition, init: Bytes::from(init), codecs }).await;
            }
            Piece::Fragment { bytes, from, ticks } => (bytes, from, ticks),
        };
        if from != self.end {
            return Err(failed(format!("a fragment begins at {from} where {} was due", self.end)).into());
        }
        if from >= (self.cuts + 1) * u64::from(SEGMENT) * self.rate() {
            self.flush().await?;
            self.cuts += 1;
        }
        if self.pending.is_empty() {
            self.pending.extend(STYP);
            self.from = from;
        }
        self.pending.extend(bytes);
        self.end = from + ticks;
        Ok(())
    }

    fn rate(&self) -> u64 {
        u64::from(self.reel.picture.ticks().0)
    }

    async fn flush(&mut self) -> Result<(), Halt> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let seconds = (self.end - self.from) as f64 / self.rate() as f64;
        let bytes = Bytes::from(std::mem::take(&mut self.pending));
        self.reel.done.add(seconds);
        self.reel.give(Output::Segment { rendition: self.reel.rendition, bytes, seconds }).await
    }

    async fn close(mut self, work: &Work) -> Result<(), Halt> {
        if !self.opened || self.end == 0 {
            return Err(unreadable().into());
        }
        work.is_as_long(self.reel.rendition, self.end as f64 / self.rate() as f64)?;
        self.flush().await?;
        self.reel.give(Output::Ended { rendition: self.reel.rendition }).await
    }
}
