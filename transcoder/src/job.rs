//! One job, from its claim to its end.
//!
//! Invariants: the control plane is told of one end at most; the job's folder is gone afterwards, whatever the end; no
//! upload and no report follows a lost lease.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::artwork::artwork;
use crate::config::TranscodeConfig;
use crate::encode::{Work, encode};
use crate::encrypt::vouch;
use crate::ffmpeg::Tools;
use crate::film;
use crate::ladder::{Shape, ladder};
use crate::lease::{Reporter, Stage, hold};
use crate::master::master;
use crate::measure::{Limits, factor, measure};
use crate::overshoot::Trials;
use crate::probe::{Probe, probe};
use crate::publish::{Press, file, version};
use crate::queue::{Backoff, Claim, Completion, Queue, QueueError, RenditionReport};
use crate::reject::{Failure, Halt, Reason, disk};
use crate::source::{Source, fetch};
use crate::spool::{Spool, room};
use crate::store::Store;
use crate::thumbnails::{SHEET, TRACK, Thumbnails, thumbnails};
use crate::workspace::Workspace;

/// Segments between the encoders and the store: what a slow store may hold back, some megabytes.
const OUTPUTS: usize = 8;
/// A track that is encoded in a second or two needs no early listeners.
const EARLY_LEAST_MS: u64 = 30_000;

/// What every job of a worker uses.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) config: TranscodeConfig,
    pub(crate) queue: Queue,
    pub(crate) store: Store,
    pub(crate) tools: Tools,
    pub(crate) workspace: Workspace,
}

/// How long the end of a job is reported for, beyond which its lease ends by itself.
const REPORTING: Duration = Duration::from_secs(60);

/// Works one job off. `stop` is the worker's own end.
pub(crate) async fn work(bench: &Bench, claim: Claim, stop: &CancellationToken) {
    let started = Instant::now();
    tracing::info!(job = %claim.job, track = %claim.track, fence = claim.fence, attempt = claim.attempt, bytes = claim.source.bytes, "job begun");
    let job = stop.child_token();
    let (ending, end) = (CancellationToken::new(), CancellationToken::new());
    let (reporter, watched) = Reporter::new();
    let staged = async {
        // Reported inside the lease: until the control plane has the end, the job must stay ours.
        let outcome = stages(bench, &claim, &job, &reporter).await;
        ending.cancel();
        settle(bench, &claim, outcome, &job, stop).await;
        end.cancel();
    };
    // Stages are large futures; on the heap they cost one allocation a job.
    let (_, lost) = tokio::join!(Box::pin(staged), hold(&bench.queue, &claim, watched, &job, &ending, &end));
    tracing::info!(job = %claim.job, lost, seconds = started.elapsed().as_secs_f64(), "job left");
}

async fn stages(
    bench: &Bench,
    claim: &Claim,
    job: &CancellationToken,
    reporter: &Reporter,
) -> Result<Completion, Halt> {
    let folder = bench.workspace.job().map_err(|error| disk("make the job's folder", &error))?;
    produce(bench, claim, folder.path(), job, reporter).await
}

async fn produce(
    bench: &Bench,
    claim: &Claim,
    folder: &Path,
    job: &CancellationToken,
    reporter: &Reporter,
) -> Result<Completion, Halt> {
    let Bench { config, queue, tools, store, .. } = bench;
    let limits = Limits { longest: config.max_duration, factor: config.time_limit_factor };
    room(folder, claim.source.bytes.min(config.max_bytes).saturating_add(config.keep_free))?;
    if let Some(encryption) = &config.encryption {
        vouch(store, encryption).await?;
    }
    let source = fetch(store, &claim.source, folder, config.max_bytes, job, reporter).await?;
    reporter.at(Stage::Probe, 0.0);
    let probe = probe(tools, &source, &claim.source.filename, folder, config.max_duration, &config.video, job).await?;
    let spool = Spool::create(folder, config.keep_free)?;
    let samples = spool.path().to_owned();
    let measured = measure(tools, &source, &probe, folder, spool, limits, job, reporter).await?;
    let mut rungs = ladder(&config.ladder, &probe);
    rungs.extend(probe.film.iter().flat_map(|film| film::rungs(&config.video, film)));
    let encryption = config.encryption.as_ref();
    let version = version(&source.sha256, &rungs, encryption, &tools.version, claim.fence);
    let (duration_ms, loudness) = (measured.millis(), measured.loudness.clone());
    let waveform = measured.peaks.finish(duration_ms, factor(loudness.gain_db));
    let mut work = Work {
        tools: tools.clone(),
        source: source.path.clone(),
        spool: samples,
        folder: folder.to_owned(),
        shape: Shape::of(&probe),
        film: probe.film.clone(),
        samples: measured.samples,
        gain_db: loudness.gain_db,
        gains: vec![OnceLock::new(); rungs.len()],
        trials: None,
        rungs: rungs.clone(),
        cores: config.cores,
        limits,
        film_limits: Limits { factor: config.video.time_limit_factor, ..limits },
    };
    tracing::debug!(job = %claim.job, "measured");
    work.trials = Trials::of(&work, &measured.loud).await?;
    for (rung, gain) in rungs.iter().zip(&mut work.gains) {
        if work.trials.is_none() || !rung.is_levelled() {
            *gain = OnceLock::from(work.gain_db);
        }
    }
    let work = Arc::new(work);
    let mut press = Press::new(store, queue, claim, &version, &rungs, encryption);
    // A picture may be encoded more slowly than it plays, and those who came early would wait for ever again.
    if config.early && duration_ms >= EARLY_LEAST_MS && probe.film.is_none() {
        press.open_early();
    }
    press.add("waveform.json", waveform.into(), "application/json").await?;
    let made = make(tools, &source, &probe, Arc::clone(&work), &mut press, job, reporter).await;
    let (mut renditions, cover) = match made {
        Ok(made) => made,
        Err(Halt::Failed(failure)) if !failure.reason.is_retryable() => {
            press.abandon().await;
            return Err(failure.into());
        }
        Err(halt) => return Err(halt),
    };
    for (n, (rendition, rung)) in renditions.iter_mut().zip(&rungs).enumerate() {
        rendition.gain_db = work.gain(n).filter(|_| rung.is_levelled());
    }
    Ok(Completion {
        fence: claim.fence,
        master: master(&version, &renditions),
        version,
        duration_ms,
        renditions,
        title: probe.tags.title,
        artist: probe.tags.artist,
        album: probe.tags.album,
        artwork: cover,
        waveform: true,
        loudness,
    })
}

/// Encodes and uploads side by side; the cover is made meanwhile.
async fn make(
    tools: &Tools,
    source: &Source,
    probe: &Probe,
    work: Arc<Work>,
    press: &mut Press<'_>,
    job: &CancellationToken,
    reporter: &Reporter,
) -> Result<(Vec<RenditionReport>, bool), Halt> {
    let (folder, seconds) = (work.folder.clone(), work.seconds());
    let (out, outputs) = mpsc::channel(OUTPUTS);
    let pictures = async {
        let covers = artwork(tools, source, probe, seconds, &folder, job).await?;
        Ok((covers, thumbnails(tools, source, probe, seconds, &folder, job).await?))
    };
    let ((), (), (covers, small)) =
        tokio::try_join!(encode(work, out, job, reporter), press.run(outputs, job), pictures)?;
    for (name, path) in &covers {
        press.add(name, file(path).await?, "image/jpeg").await?;
    }
    if let Some(Thumbnails { sheet, track }) = small {
        press.add(SHEET, file(&sheet).await?, "image/jpeg").await?;
        press.add(TRACK, track.into(), "text/vtt").await?;
    }
    Ok((press.finish(reporter).await?, !covers.is_empty()))
}

async fn settle(
    bench: &Bench,
    claim: &Claim,
    outcome: Result<Completion, Halt>,
    job: &CancellationToken,
    stop: &CancellationToken,
) {
    let Bench { queue, .. } = bench;
    match outcome {
        Ok(completion) => {
            deliver(claim, job, "complete", || queue.complete(claim, &completion)).await;
        }
        Err(Halt::Failed(failure)) => {
            tracing::warn!(job = %claim.job, track = %claim.track, reason = failure.reason.kind(), %failure, "job failed");
            deliver(claim, job, "fail", || queue.fail(claim, &failure, Duration::from_secs(10))).await;
        }
        // The worker stops: saying so lets another one begin at once instead of after the lease.
        Err(Halt::Cancelled) if stop.is_cancelled() => {
            let failure = Failure::new(Reason::WorkerStopped, "The transcoder was stopped.");
            if let Err(error) = queue.fail(claim, &failure, Duration::from_secs(2)).await {
                tracing::info!(job = %claim.job, %error, "the job's lease is left to its end");
            }
        }
        Err(Halt::Cancelled) => {}
    }
}

/// Sends the end of a job until it is taken, refused, or no longer ours to send.
async fn deliver<F>(claim: &Claim, job: &CancellationToken, what: &str, send: impl Fn() -> F)
where
    F: Future<Output = Result<(), QueueError>>,
{
    let until = Instant::now() + REPORTING;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        let sent = tokio::select! {
            () = job.cancelled() => return,
            sent = send() => sent,
        };
        match sent {
            Ok(()) => return,
            Err(error) if error.is_retryable() && Instant::now() < until => {
                tracing::warn!(job = %claim.job, what, %error, "not delivered; trying again");
            }
            Err(error) => {
                tracing::warn!(job = %claim.job, what, %error, "not delivered; the lease is left to its end");
                return;
            }
        }
        tokio::select! {
            () = job.cancelled() => return,
            () = tokio::time::sleep(backoff.wait()) => {}
        }
    }
}
