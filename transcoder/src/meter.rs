//! Loudness and true peak of a stream of samples, on several cores.
//!
//! The true peak is four fifths of the work and knows no neighbour channel: each channel has a thread of its own, and
//! the loudness, which weighs all channels together, another one. The figures are the very same as from one thread.
//!
//! Invariants: a queue holds at most [`QUEUE`] blocks, so that a fast decode waits for a slow meter.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use ebur128::{EbuR128, Mode};

use crate::ladder::Shape;

/// Blocks of samples between the reader and a meter: two to work on and two to wait.
const QUEUE: usize = 4;
/// Samples of which each has one true peak of its own: a fifth of a second.
pub(crate) const PEAK_BIN: usize = 8192;

/// What one thread answers: a loudness, or the highest peak and that of each bin.
type Answer = Result<(f64, Vec<f32>), String>;

/// The queue of one thread, and the thread.
type Thread = (SyncSender<Block>, JoinHandle<Answer>);

/// Samples that every thread looks at.
type Block = Arc<Vec<f32>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Meters {
    /// The loudness first, then the true peak of each channel.
    threads: Vec<Thread>,
}

impl Meters {
    pub(crate) fn new(shape: Shape) -> Result<Self, String> {
        // The histogram bounds memory for any length and costs 0.1 LU at most.
        let mut loudness =
            EbuR128::new(shape.channels, shape.rate, Mode::I | Mode::HISTOGRAM).map_err(|error| error.to_string())?;
        let mut threads = vec![thread(move |blocks| {
            for block in blocks {
                loudness.add_frames_f32(&block).map_err(|error| error.to_string())?;
            }
            loudness.loudness_global().map(|lufs| (lufs, Vec::new())).map_err(|error| error.to_string())
        })?];
        let channels = shape.channels as usize;
        for channel in 0..channels {
            let mut peak = EbuR128::new(1, shape.rate, Mode::TRUE_PEAK).map_err(|error| error.to_string())?;
            threads.push(thread(move |blocks| {
                let (mut own, mut bins) = (Vec::new(), Vec::new());
                // Blocks are as a pipe gave them; bins are the same in every run.
                let mut bin = |samples: &[f32]| {
                    peak.add_frames_f32(samples).map_err(|error| error.to_string())?;
                    bins.push(peak.prev_true_peak(0).map_err(|error| error.to_string())? as f32);
                    Ok::<(), String>(())
                };
                for block in blocks {
                    own.extend(block.iter().skip(channel).step_by(channels));
                    let whole = own.len() - own.len() % PEAK_BIN;
                    own[..whole].chunks_exact(PEAK_BIN).try_for_each(&mut bin)?;
                    own.drain(..whole);
                }
                if !own.is_empty() {
                    bin(&own)?;
                }
                Ok((peak.true_peak(0).map_err(|error| error.to_string())?, bins))
            })?);
        }
        Ok(Self { threads })
    }

    /// Takes interleaved samples of whole frames.
    pub(crate) fn add(&self, samples: Vec<f32>) {
        let block = Arc::new(samples);
        for (queue, _) in &self.threads {
            // A meter that failed takes no more and says why at the end.
            let _ = queue.send(Arc::clone(&block));
        }
    }

    /// Integrated loudness in LUFS, the highest true peak of any channel as a factor, and that of each bin.
    pub(crate) fn finish(self) -> Result<(f64, f64, Vec<f32>), String> {
        let mut answers = Vec::with_capacity(self.threads.len());
        for (queue, thread) in self.threads {
            drop(queue);
            answers.push(thread.join().map_err(|_| "a meter panicked".to_owned())??);
        }
        let ((lufs, _), peaks) = answers.split_first().ok_or("no meter")?;
        let mut bins: Vec<f32> = Vec::new();
        for (_, own) in peaks {
            bins.resize(own.len(), 0.0);
            bins.iter_mut().zip(own).for_each(|(most, own)| *most = most.max(*own));
        }
        Ok((*lufs, peaks.iter().map(|(peak, _)| *peak).fold(0.0, f64::max), bins))
    }
}

fn thread(work: impl FnOnce(std::sync::mpsc::IntoIter<Block>) -> Answer + Send + 'static) -> Result<Thread, String> {
    let (sender, receiver) = sync_channel(QUEUE);
    let thread = std::thread::Builder::new().name("meter".to_owned()).spawn(move || work(receiver.into_iter()));
    Ok((sender, thread.map_err(|error| error.to_string())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_threads_measure_what_one_does() {
        let shape = Shape { rate: 44_100, channels: 2 };
        let samples: Vec<f32> = (0..44_100 * 8)
            .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5)
            .collect();
        let meters = Meters::new(shape).expect("meters");
        samples.chunks(10_000).for_each(|block| meters.add(block.to_vec()));
        let mut one = EbuR128::new(2, 44_100, Mode::I | Mode::TRUE_PEAK | Mode::HISTOGRAM).expect("meter");
        samples.chunks(10_000).for_each(|block| one.add_frames_f32(block).expect("frames"));
        let peak = one.true_peak(0).expect("peak").max(one.true_peak(1).expect("peak"));
        let (lufs, highest, bins) = meters.finish().expect("measured");
        assert_eq!((lufs, highest), (one.loudness_global().expect("loudness"), peak));
        assert_eq!(bins.len(), (44_100usize * 4).div_ceil(PEAK_BIN));
        assert_eq!(bins.iter().copied().fold(0.0, f32::max), peak as f32, "one of the bins holds the highest peak");
    }
}
