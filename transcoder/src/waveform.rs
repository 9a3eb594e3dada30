//! The waveform that a page draws: peaks as wavesurfer.js reads them.
//!
//! Format: `{"version":1,"duration_ms":…,"peaks":[[max,min,max,min,…]]}`, one channel, values between -1 and 1, rounded
//! to three decimals, as they sound after the gain.
//!
//! Invariants: memory grows by eight bytes for every 1,024 samples, whatever the source's length turns out to be.

use serde::Serialize;

/// Samples per channel in one fine bin.
const BIN: usize = 1024;
/// Pairs of maximum and minimum in the file: more than the pixels of a wide player.
const POINTS: usize = 900;

/// Collects extremes while samples go by.
#[derive(Debug, Default)]
pub(crate) struct Peaks {
    bins: Vec<(f32, f32)>,
    current: (f32, f32),
    filled: usize,
}

#[derive(Serialize)]
struct Document {
    version: u8,
    duration_ms: u64,
    peaks: [Vec<f64>; 1],
}

impl Peaks {
    /// Takes interleaved samples of whole frames.
    pub(crate) fn add(&mut self, samples: &[f32], channels: usize) {
        for frame in samples.chunks_exact(channels.max(1)) {
            for sample in frame.iter().copied().filter(|sample| sample.is_finite()) {
                self.current = (self.current.0.max(sample), self.current.1.min(sample));
            }
            self.filled += 1;
            if self.filled == BIN {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        self.bins.push(self.current);
        self.current = (0.0, 0.0);
        self.filled = 0;
    }

    /// The document, scaled by `gain` (a factor).
    pub(crate) fn finish(mut self, duration_ms: u64, gain: f64) -> Vec<u8> {
        if self.filled > 0 {
            self.close();
        }
        let round = |value: f32| ((f64::from(value) * gain).clamp(-1.0, 1.0) * 1000.0).round() / 1000.0;
        let points = self.bins.len().min(POINTS);
        let mut peaks = Vec::with_capacity(points * 2);
        for point in 0..points {
            let (from, to) = (point * self.bins.len() / points, (point + 1) * self.bins.len() / points);
            let (most, least) = self.bins[from..to]
                .iter()
                .fold((0.0f32, 0.0f32), |(a, b), (most, least)| (a.max(*most), b.min(*least)));
            peaks.extend([round(most), round(least)]);
        }
        serde_json::to_vec(&Document { version: 1, duration_ms, peaks: [peaks] }).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_loud_second_half_shows_and_the_gain_is_in_it() {
        let mut peaks = Peaks::default();
        peaks.add(&vec![0.0; BIN * 2000], 2);
        peaks.add(&[0.5, -0.25].repeat(BIN * 1000), 2);
        let document: Value = serde_json::from_slice(&peaks.finish(1234, 0.5)).expect("json");
        let values = document["peaks"][0].as_array().expect("peaks");
        assert_eq!(document["duration_ms"], 1234);
        assert_eq!(values.len(), POINTS * 2);
        assert_eq!((values[0].as_f64(), values[1].as_f64()), (Some(0.0), Some(0.0)));
        assert_eq!((values[POINTS * 2 - 2].as_f64(), values[POINTS * 2 - 1].as_f64()), (Some(0.25), Some(-0.125)));
    }

    #[test]
    fn a_sound_shorter_than_a_bin_has_one_point() {
        let mut peaks = Peaks::default();
        peaks.add(&[2.0, f32::NAN, -0.5], 1);
        let document: Value = serde_json::from_slice(&peaks.finish(1, 1.0)).expect("json");
        assert_eq!(document["peaks"][0], serde_json::json!([1.0, -0.5]));
    }
}
