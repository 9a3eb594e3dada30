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

/// What one thread answers: a loudness or a peak.
type Answer = Result<f64, String>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Meters {
    /// The loudness first, then the true peak of each channel.
    threads: Vec<(SyncSender<Arc<Vec<f32>>>, JoinHandle<Answer>)>,
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
            loudness.loudness_global().map_err(|error| error.to_string())
        })?];
        let channels = shape.channels as usize;
        for channel in 0..channels {
            let mut peak = EbuR128::new(1, shape.rate, Mode::TRUE_PEAK).map_err(|error| error.to_string())?;
            threads.push(thread(move |blocks| {
                let mut own = Vec::new();
                for block in blocks {
                    own.clear();
                    own.extend(block.iter().skip(channel).step_by(channels));
                    peak.add_frames_f32(&own).map_err(|error| error.to_string())?;
                }
                peak.true_peak(0).map_err(|error| error.to_string())
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

    /// Integrated loudness in LUFS, and the highest true peak of any channel as a factor.
    pub(crate) fn finish(self) -> Result<(f64, f64), String> {
        let mut answers = Vec::with_capacity(self.threads.len());
        for (queue, thread) in self.threads {
            drop(queue);
            answers.push(thread.join().map_err(|_| "a meter panicked".to_owned())??);
        }
        let (lufs, peaks) = answers.split_first().ok_or("no meter")?;
        Ok((*lufs, peaks.iter().copied().fold(0.0, f64::max)))
    }
}

fn thread(
    work: impl FnOnce(std::sync::mpsc::IntoIter<Arc<Vec<f32>>>) -> Answer + Send + 'static,
) -> Result<(SyncSender<Arc<Vec<f32>>>, JoinHandle<Answer>), String> {
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
        assert_eq!(meters.finish(), Ok((one.loudness_global().expect("loudness"), peak)));
    }
}
