//! Chunks of AAC, encoded side by side, joined so that nothing is heard.
//!
//! A frame of AAC-LC depends on its neighbours by one thing only: what is heard between two frames is the sum of the
//! second half of the one's window and the first half of the other's (ISO/IEC 14496-3, 4.6.11). The aliasing in both
//! halves cancels where the windows fit, whatever was quantised into them. So each chunk is encoded with some frames
//! more on both sides, and the cut is made after a frame that both encoders gave the same windows: the chunk after it
//! was encoded to follow exactly such a frame.
//!
//! Invariants: frames are numbered over the whole track, and none is missing or there twice; where no such frame is
//! found, there is no cut ([`seam`] answers `None`) and the chunk before must go on.

use crate::packets::{AAC_FRAME, Frame, windows};

/// Frames that a chunk begins early (0.7 s): its encoder's rate control and its memory of the signal have settled by the
/// time that it is listened to.
pub(crate) const LEAD: u64 = 32;
/// Frames around a boundary in which the cut may be.
pub(crate) const REACH: u64 = 8;
/// Frames that a chunk goes on beyond that, so that it does not hear its own end.
const TRAIL: u64 = 4;
/// Seconds of a chunk at least: starting ffmpeg costs a twentieth of encoding so much. It depends on nothing but the
/// track, so that every worker gives the same bytes, however many cores it has.
const LEAST: u64 = 120;

/// A part of a track, in frames of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Its first frame, and the one behind its last.
    pub(crate) frames: (u64, u64),
    /// The number of the first frame that its encoder gives.
    pub(crate) first: u64,
    /// The samples that its encoder is given: the first, and the one behind the last.
    pub(crate) samples: (u64, u64),
}

/// Cuts a track of so many samples.
pub(crate) fn chunks(samples: u64, rate: u32) -> Vec<Chunk> {
    let frame = u64::from(AAC_FRAME);
    // One more than the sound has: the encoder's priming.
    let frames = samples.div_ceil(frame) + 1;
    let count = (samples / u64::from(rate.max(1)) / LEAST).max(1);
    let each = frames.div_ceil(count);
    (0..count)
        .map(|n| {
            let (from, to) = (n * each, ((n + 1) * each).min(frames));
            let first = from.saturating_sub(LEAD);
            let last = if to == frames { samples } else { ((to + REACH + TRAIL) * frame).min(samples) };
            Chunk { frames: (from, to), first, samples: (first * frame, last) }
        })
        .filter(|chunk| chunk.frames.0 < chunk.frames.1)
        .collect()
}

/// The last frame of the chunk before, given the frames of both around their boundary, each with its number.
pub(crate) fn seam(before: &[(u64, Frame)], after: &[(u64, Frame)]) -> Option<u64> {
    before.iter().find_map(|(number, frame)| {
        let (_, other) = after.iter().find(|(other, _)| other == number)?;
        let (ours, theirs) = (windows(&frame.data)?, windows(&other.data)?);
        (ours == theirs && ours.is_long()).then_some(*number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn chunks_cover_the_track_without_a_gap() {
        for (seconds, count) in [(10, 1), (239, 1), (240, 2), (440, 3), (14_400, 120)] {
            let samples = seconds * 44_100 + 7;
            let found = chunks(samples, 44_100);
            assert_eq!(found.len(), count, "{seconds} s");
            assert_eq!((found[0].samples.0, found[0].frames.0), (0, 0));
            assert!(found.windows(2).all(|two| two[0].frames.1 == two[1].frames.0));
            assert!(found.iter().all(|chunk| chunk.samples.0 == chunk.first * 1024 && chunk.samples.1 <= samples));
            let last = found.last().expect("one");
            assert_eq!((last.samples.1, last.frames.1), (samples, samples.div_ceil(1024) + 1));
        }
    }

    /// A stereo frame with those windows.
    fn frame(number: u64, sequence: u8, shape: u8) -> (u64, Frame) {
        (number, Frame { data: Bytes::from(vec![0b0010_0001, sequence << 5 | shape << 4]), samples: 1024 })
    }

    #[test]
    fn a_cut_is_made_where_the_windows_fit_and_nowhere_else() {
        let before = [frame(7, 0, 0), frame(8, 2, 0), frame(9, 0, 1), frame(10, 0, 0)];
        let after = [frame(8, 2, 0), frame(9, 0, 0), frame(10, 0, 0), frame(11, 0, 0)];
        assert_eq!(seam(&before, &after), Some(10), "not at short windows, not where shapes differ");
        assert_eq!(seam(&before[..3], &after), None);
        assert_eq!(seam(&[], &after), None);
    }
}
