//! Which renditions a source gets, and in what shape its samples go into them.
//!
//! Rule: the configured rates of each codec, never above the source's own bit rate: a copy cannot hold more than its
//! original. A lossless source bounds nothing, and gets a FLAC rendition of its own samples where that is configured.
//! A source below the lowest rung gets one rung at its own rate.

use crate::config::Ladder;
use crate::film::Picture;
use crate::packets::Wrapping;
use crate::probe::Probe;

/// Below this AAC-LC makes nothing that one would want to hear.
const LEAST: u64 = 16_000;

/// Bits per second from which a lossy encoder keeps close to the wave: AAC is then searched fast, and how far its peaks
/// come over the source's is foreseeable.
pub(crate) const FINE: u64 = 96_000;

/// How a rendition is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Aac,
    Opus,
    /// The source's own samples, bit by bit: no gain, no other rate, no other channels.
    Flac,
    /// H.264 of a film's picture, without its sound.
    Avc(Picture),
}

/// One rendition to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rung {
    /// Its folder: `a64`, `opus96`, `flac`, `v360`.
    pub(crate) name: String,
    pub(crate) coding: Coding,
    /// Target bits per second; for FLAC what it takes at most, which is what it would take without coding.
    pub(crate) bit_rate: u64,
}

impl Rung {
    /// Options of the encoder for this rate, and of what it gives through the pipe.
    ///
    /// AAC, measured on three songs against their sources: without noise substitution and intensity stereo the error is
    /// smaller and true peaks overshoot less (at 64 kbit/s by up to 2 dB, and less still without noise shaping in time);
    /// from about 96 kbit/s the `fast` search is another 5 dB closer to the source in half the time, and below that it
    /// is worse than the default one.
    pub(crate) fn coder(&self) -> Vec<String> {
        let rate = self.bit_rate.to_string();
        let words: &[&str] = match self.coding {
            Coding::Aac if self.bit_rate >= FINE => {
                &["-c:a", "aac", "-b:a", &rate, "-aac_coder", "fast", "-aac_pns", "0", "-aac_is", "0", "-f", "adts"]
            }
            #[rustfmt::skip]
            Coding::Aac => &[
                "-c:a", "aac", "-b:a", &rate, "-aac_coder", "twoloop", "-aac_pns", "0", "-aac_is", "0", "-aac_tns", "0",
                "-f", "adts",
            ],
            // Constrained variable rate: what BANDWIDTH promises holds.
            #[rustfmt::skip]
            Coding::Opus => &[
                "-c:a", "libopus", "-b:a", &rate, "-vbr", "constrained", "-frame_duration", "20", "-ar", "48000",
                "-f", "ogg",
            ],
            Coding::Flac => &["-c:a", "flac", "-f", "ogg"],
            Coding::Avc(picture) => return picture.coder(self.bit_rate),
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// Whether the gain is applied to it.
    pub(crate) fn is_levelled(&self) -> bool {
        matches!(self.coding, Coding::Aac | Coding::Opus)
    }

    /// The film's picture, where it is one.
    pub(crate) fn picture(&self) -> Option<Picture> {
        if let Coding::Avc(picture) = self.coding { Some(picture) } else { None }
    }

    /// Everything that its bytes depend on beside the source and the encoder, as a part of the version.
    pub(crate) fn settings(&self) -> String {
        let picture = self
            .picture()
            .map(|Picture { width, height, rate, preset }| format!(":{width}x{height}:{}/{}:{preset}", rate.0, rate.1));
        format!("{}:{}{}", self.name, self.bit_rate, picture.unwrap_or_default())
    }

    pub(crate) fn wrapping(&self) -> Wrapping {
        if self.coding == Coding::Aac { Wrapping::Adts } else { Wrapping::Ogg }
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

    /// Bytes of one sample in every channel, as decoded.
    pub(crate) fn frame(self) -> usize {
        self.channels as usize * 4
    }
}

/// Which rungs are heard first: those whose gain needs one trial as a rule, or else all of them.
pub(crate) fn heard_first(rungs: &[Rung]) -> Vec<bool> {
    let first = |rung: &Rung| !rung.is_levelled() || rung.bit_rate >= FINE;
    let none = !rungs.iter().any(first);
    rungs.iter().map(|rung| none || first(rung)).collect()
}

/// The rungs for a source.
pub(crate) fn ladder(config: &Ladder, probe: &Probe) -> Vec<Rung> {
    let rung =
        |prefix: &str, coding, bit_rate: u64| Rung { name: format!("{prefix}{}", bit_rate / 1000), coding, bit_rate };
    let most = probe.bit_rate.unwrap_or(u64::MAX);
    let under = |rates: &[u64]| rates.iter().copied().filter(|rate| *rate <= most).collect::<Vec<_>>();
    let mut rungs: Vec<Rung> = under(&config.aac).into_iter().map(|rate| rung("a", Coding::Aac, rate)).collect();
    if rungs.is_empty() && !config.aac.is_empty() {
        rungs.push(rung("a", Coding::Aac, (most / 1000 * 1000).max(LEAST)));
    }
    rungs.extend(under(&config.opus).into_iter().map(|rate| rung("opus", Coding::Opus, rate)));
    if let Some(rate) = probe.lossless.filter(|_| config.lossless || rungs.is_empty()) {
        rungs.push(Rung { name: "flac".to_owned(), coding: Coding::Flac, bit_rate: rate });
    }
    if rungs.is_empty() {
        rungs.push(rung("opus", Coding::Opus, (most / 1000 * 1000).max(LEAST)));
    }
    rungs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(config: &Ladder, bit_rate: Option<u64>) -> Vec<String> {
        let probe = Probe { bit_rate, lossless: bit_rate.is_none().then_some(1_411_200), ..Probe::default() };
        ladder(config, &probe).into_iter().map(|rung| rung.name).collect()
    }

    #[test]
    fn no_rung_is_above_the_source() {
        let names = |bit_rate| names(&Ladder::default(), bit_rate);
        assert_eq!(names(None), ["a64", "a128", "a256"]);
        assert_eq!(names(Some(320_000)), ["a64", "a128", "a256"]);
        assert_eq!(names(Some(255_999)), ["a64", "a128"]);
        assert_eq!(names(Some(128_000)), ["a64", "a128"]);
        assert_eq!(names(Some(80_000)), ["a64"]);
        assert_eq!(names(Some(40_400)), ["a40"]);
        assert_eq!(names(Some(8_000)), ["a16"]);
    }

    #[test]
    fn what_needs_many_trials_is_not_heard_first() {
        let first = |bit_rate| {
            let probe = Probe { bit_rate, lossless: bit_rate.is_none().then_some(1_411_200), ..Probe::default() };
            let config = Ladder { aac: vec![48_000, 64_000, 96_000, 256_000], opus: vec![64_000], lossless: true };
            heard_first(&ladder(&config, &probe))
        };
        assert_eq!(first(None), [false, false, true, true, false, true]);
        assert_eq!(first(Some(80_000)), [true; 3], "nothing better is there");
    }

    #[test]
    fn a_ladder_is_what_the_configuration_says() {
        let config = Ladder { aac: vec![128_000], opus: vec![64_000, 96_000], lossless: true };
        assert_eq!(names(&config, None), ["a128", "opus64", "opus96", "flac"]);
        assert_eq!(names(&config, Some(70_000)), ["a70", "opus64"], "a lossy source is not made lossless");
        let opus = Ladder { aac: vec![], opus: vec![96_000], lossless: false };
        assert_eq!(names(&opus, Some(40_000)), ["opus40"], "there is always one");
        let flac = Ladder { aac: vec![], opus: vec![], lossless: true };
        assert_eq!(names(&flac, None), ["flac"]);
    }
}
