//! Which renditions a source gets, and in what shape its samples go into them.
//!
//! Rule: AAC at 64, 128 and 256 kbit/s, never above the source's own bit rate: a copy cannot hold more than its
//! original. A lossless source bounds nothing. A source below the lowest rung gets one rung at its own rate.

use crate::probe::Probe;

/// The rungs, in bits per second.
const RUNGS: [u64; 3] = [64_000, 128_000, 256_000];
/// Below this AAC-LC makes nothing that one would want to hear.
const LEAST: u64 = 16_000;

/// One rendition to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rung {
    /// Its folder: `a64`.
    pub(crate) name: String,
    /// Target bits per second.
    pub(crate) bit_rate: u64,
}

impl Rung {
    /// Options of ffmpeg's own AAC encoder for this rate.
    ///
    /// Measured on three songs against their sources: without noise substitution and intensity stereo the error is
    /// smaller and true peaks overshoot less (at 64 kbit/s by up to 2 dB, and less still without noise shaping in time);
    /// from about 96 kbit/s the `fast` search is another 5 dB closer to the source in half the time, and below that it
    /// is worse than the default one.
    pub(crate) fn coder(&self) -> &'static [&'static str] {
        if self.bit_rate >= 96_000 {
            &["-aac_coder", "fast", "-aac_pns", "0", "-aac_is", "0"]
        } else {
            &["-aac_coder", "twoloop", "-aac_pns", "0", "-aac_is", "0", "-aac_tns", "0"]
        }
    }
}

/// How samples are laid out after decoding: the same for measuring and for encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Samples per second: 48,000 for its own family of rates, 44,100 for everything else.
    pub(crate) rate: u32,
    /// 1 stays 1; everything else becomes stereo.
    pub(crate) channels: u32,
}

impl Shape {
    pub(crate) fn of(probe: &Probe) -> Self {
        let rate = if probe.sample_rate.is_multiple_of(8_000) { 48_000 } else { 44_100 };
        Self { rate, channels: if probe.channels == 1 { 1 } else { 2 } }
    }

    /// ffmpeg's filter chain to this shape, with time stamps that count samples: gaps and offsets of the container
    /// would otherwise shift segment boundaries.
    pub(crate) fn filters(self) -> String {
        let layout = if self.channels == 1 { "mono" } else { "stereo" };
        format!("aresample={},aformat=sample_fmts=fltp:channel_layouts={layout},asetpts=N/SR/TB", self.rate)
    }
}

/// The rungs for a source of that bit rate; `None` is lossless.
pub(crate) fn ladder(bit_rate: Option<u64>) -> Vec<Rung> {
    let rung = |bit_rate: u64| Rung { name: format!("a{}", bit_rate / 1000), bit_rate };
    let most = bit_rate.unwrap_or(u64::MAX);
    let rungs: Vec<Rung> = RUNGS.into_iter().filter(|rung| *rung <= most).map(rung).collect();
    if rungs.is_empty() {
        return vec![rung((most / 1000 * 1000).max(LEAST))];
    }
    rungs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(bit_rate: Option<u64>) -> Vec<String> {
        ladder(bit_rate).into_iter().map(|rung| rung.name).collect()
    }

    #[test]
    fn no_rung_is_above_the_source() {
        assert_eq!(names(None), ["a64", "a128", "a256"]);
        assert_eq!(names(Some(320_000)), ["a64", "a128", "a256"]);
        assert_eq!(names(Some(255_999)), ["a64", "a128"]);
        assert_eq!(names(Some(128_000)), ["a64", "a128"]);
        assert_eq!(names(Some(80_000)), ["a64"]);
        assert_eq!(names(Some(40_400)), ["a40"]);
        assert_eq!(names(Some(8_000)), ["a16"]);
    }
}
