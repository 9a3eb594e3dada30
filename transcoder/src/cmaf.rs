//! Fragmented MP4 (CMAF) for one audio track, written here: init sections and media segments from frames.
//!
//! Why not ffmpeg's own muxer: a segment is handed on the moment its last frame is encoded, chunks that were encoded
//! side by side become one track, the encoder's priming is declared (ffmpeg's HLS writer leaves it in, and every song
//! begins 23 ms late), and no file is written anywhere.
//!
//! Sources: ISO/IEC 14496-12 (boxes), 14496-14 (`mp4a`, `esds`), 23000-19 (CMAF), the Opus and FLAC mappings for ISO BMFF.
//!
//! Invariants: the presentation begins at the first sample of the sound and is exactly as long as it: what the encoder
//! put before is skipped by the edit list, what it put after is cut by the last frame's duration.

use crate::packets::{Frame, Setup};

/// One box.
fn boxed(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 8);
    bytes.extend(u32::try_from(content.len() + 8).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(name);
    bytes.extend(content);
    bytes
}

/// One box with version and flags.
fn full(name: &[u8; 4], version: u8, flags: u32, content: &[u8]) -> Vec<u8> {
    let head = (u32::from(version) << 24 | flags).to_be_bytes();
    boxed(name, &[&head[..], content].concat())
}

fn be(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// No rotation, no scale (ISO/IEC 14496-12, 8.2.2).
const MATRIX: [u32; 9] = [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000];

/// The init section.
pub(crate) fn init(setup: &Setup) -> Vec<u8> {
    let rate = setup.rate();
    let mvhd = [be(&[0, 0, 1000, 0, 0x0001_0000, 0x0100_0000, 0, 0]), be(&MATRIX), be(&[0, 0, 0, 0, 0, 0, 2])].concat();
    let tkhd = [be(&[0, 0, 1, 0, 0, 0, 0, 0, 0x0100_0000]), be(&MATRIX), be(&[0, 0])].concat();
    let edit = match setup.priming() {
        0 => Vec::new(),
        // All of the track but its first samples.
        priming => boxed(b"edts", &full(b"elst", 0, 0, &be(&[1, 0, priming, 0x0001_0000]))),
    };
    // `und`, in three letters of five bits.
    let mdhd = full(b"mdhd", 0, 0, &be(&[0, 0, rate, 0, 0x55c4_0000]));
    let hdlr = full(b"hdlr", 0, 0, &[&be(&[0])[..], b"soun", &[0; 12], b"Sound\0"].concat());
    let dinf = boxed(b"dinf", &full(b"dref", 0, 0, &[be(&[1]), full(b"url ", 0, 1, &[])].concat()));
    let tables = [
        full(b"stsd", 0, 0, &[be(&[1]), entry(setup)].concat()),
        full(b"stts", 0, 0, &be(&[0])),
        full(b"stsc", 0, 0, &be(&[0])),
        full(b"stsz", 0, 0, &be(&[0, 0])),
        full(b"stco", 0, 0, &be(&[0])),
    ];
    let minf = [full(b"smhd", 0, 0, &be(&[0])), dinf, boxed(b"stbl", &tables.concat())].concat();
    let mdia = [mdhd, hdlr, boxed(b"minf", &minf)].concat();
    let trak = [full(b"tkhd", 0, 7, &tkhd), edit, boxed(b"mdia", &mdia)].concat();
    let mvex = full(b"trex", 0, 0, &be(&[1, 1, 0, 0, 0]));
    let moov = [full(b"mvhd", 0, 0, &mvhd), boxed(b"trak", &trak), boxed(b"mvex", &mvex)].concat();
    [boxed(b"ftyp", b"iso6\0\0\0\0iso6cmfcmp41"), boxed(b"moov", &moov)].concat()
}

fn entry(setup: &Setup) -> Vec<u8> {
    let (name, bits, specific) = match setup {
        Setup::Aac { config, .. } => (b"mp4a", 16, esds(*config)),
        Setup::Opus { channels, pre_skip, input_rate } => {
            let fields = [&[0, *channels][..], &pre_skip.to_be_bytes(), &input_rate.to_be_bytes(), &[0, 0, 0]].concat();
            (b"Opus", 16, boxed(b"dOps", &fields))
        }
        Setup::Flac { info } => {
            let bits = (u16::from(info[12] & 1) << 4 | u16::from(info[13] >> 4)) + 1;
            (b"fLaC", bits, full(b"dfLa", 0, 0, &[&[0x80, 0, 0, 34][..], info].concat()))
        }
    };
    // The field holds 16 bits of whole hertz; above that it is 0 and the codec's own box says it.
    let rate = u16::try_from(setup.rate()).map_or(0, |rate| u32::from(rate) << 16);
    let mut fields = vec![0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    fields.extend(setup.channels().to_be_bytes());
    fields.extend(bits.to_be_bytes());
    fields.extend([0, 0, 0, 0]);
    fields.extend(rate.to_be_bytes());
    boxed(name, &[fields, specific].concat())
}

fn esds(config: [u8; 2]) -> Vec<u8> {
    let specific = [5, 2, config[0], config[1]];
    // Object type AAC, audio stream; buffer and rates are left open.
    let decoder = [&[0x40, 0x15][..], &[0; 11], &specific].concat();
    let decoder = [&[4, decoder.len() as u8][..], &decoder].concat();
    let stream = [&[0, 0, 0][..], &decoder, &[6, 1, 2]].concat();
    full(b"esds", 0, 0, &[&[3, stream.len() as u8][..], &stream].concat())
}

/// A media segment: number `sequence` (from 1), at `decode_time`, with these frames.
pub(crate) fn segment(sequence: u32, decode_time: u64, frames: &[Frame]) -> Vec<u8> {
    let usual = frames.first().map_or(0, |frame| frame.samples);
    let uniform = frames.iter().all(|frame| frame.samples == usual);
    let payload: usize = frames.iter().map(|frame| frame.data.len()).sum();
    // Base is the fragment itself; duration and flags (no dependencies) are the same for all samples.
    let tfhd = full(b"tfhd", 0, 0x02_0028, &be(&[1, usual, 0x0200_0000]));
    let tfdt = full(b"tfdt", 1, 0, &decode_time.to_be_bytes());
    let trun = |offset: u32| {
        let mut fields = be(&[u32::try_from(frames.len()).unwrap_or(u32::MAX), offset]);
        for frame in frames {
            if !uniform {
                fields.extend(frame.samples.to_be_bytes());
            }
            fields.extend(u32::try_from(frame.data.len()).unwrap_or(u32::MAX).to_be_bytes());
        }
        full(b"trun", 0, if uniform { 0x201 } else { 0x301 }, &fields)
    };
    let moof = |offset: u32| {
        let traf = [tfhd.as_slice(), &tfdt, &trun(offset)].concat();
        boxed(b"moof", &[full(b"mfhd", 0, 0, &be(&[sequence])), boxed(b"traf", &traf)].concat())
    };
    let offset = u32::try_from(moof(0).len() + 8).unwrap_or(u32::MAX);
    let mut bytes = boxed(b"styp", b"msdh\0\0\0\0msdhmsixcmfs");
    bytes.extend(moof(offset));
    bytes.extend(u32::try_from(payload + 8).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(b"mdat");
    frames.iter().for_each(|frame| bytes.extend_from_slice(&frame.data));
    bytes
}

/// One media segment, finished.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cut {
    pub(crate) bytes: Vec<u8>,
    pub(crate) seconds: f64,
}

/// Cuts a track into segments at the first frame on or after each multiple of a segment's length, so that lengths do
/// not drift and all renditions with frames of one size are cut alike.
#[derive(Debug)]
pub(crate) struct Cutter {
    setup: Setup,
    /// Samples of a segment.
    every: u64,
    /// Where the track ends in decode time, its priming and its sound; `u64::MAX` where the encoder says it.
    end: u64,
    decode_time: u64,
    pending: Vec<Frame>,
    pending_from: u64,
    cut: u32,
}

impl Cutter {
    /// For `samples` of sound at the setup's own rate; `None`: every sample that comes is the sound's.
    pub(crate) fn new(setup: &Setup, samples: Option<u64>, seconds: u32) -> Self {
        Self {
            every: u64::from(seconds) * u64::from(setup.rate()),
            end: samples.map_or(u64::MAX, |samples| samples + u64::from(setup.priming())),
            decode_time: 0,
            pending: Vec::new(),
            pending_from: 0,
            cut: 0,
            setup: setup.clone(),
        }
    }

    /// Takes the next frame; what is behind the end of the sound is left out.
    pub(crate) fn push(&mut self, mut frame: Frame) -> Option<Cut> {
        let left = u32::try_from(self.end - self.decode_time).unwrap_or(u32::MAX);
        frame.samples = frame.samples.min(left);
        if frame.samples == 0 {
            return None;
        }
        let boundary = u64::from(self.cut + 1) * self.every + u64::from(self.setup.priming());
        let cut = (self.decode_time >= boundary).then(|| self.flush()).flatten();
        self.decode_time += u64::from(frame.samples);
        self.pending.push(frame);
        cut
    }

    /// The last segment.
    pub(crate) fn finish(mut self) -> Option<Cut> {
        self.flush()
    }

    /// Seconds of sound so far.
    pub(crate) fn seconds(&self) -> f64 {
        self.decode_time.saturating_sub(u64::from(self.setup.priming())) as f64 / f64::from(self.setup.rate())
    }

    fn flush(&mut self) -> Option<Cut> {
        if self.pending.is_empty() {
            return None;
        }
        self.cut += 1;
        let bytes = segment(self.cut, self.pending_from, &self.pending);
        let priming = u64::from(self.setup.priming());
        let shown = |at: u64| at.saturating_sub(priming);
        let seconds = (shown(self.decode_time) - shown(self.pending_from)) as f64 / f64::from(self.setup.rate());
        self.pending.clear();
        self.pending_from = self.decode_time;
        Some(Cut { bytes, seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codecs::{codecs, is_whole_segment};
    use bytes::Bytes;

    const AAC: Setup = Setup::Aac { config: [0x12, 0x10], rate: 44_100, channels: 2 };

    #[test]
    fn the_init_section_names_its_codec() {
        assert_eq!(codecs(&init(&AAC)).as_deref(), Ok("mp4a.40.2"));
        assert_eq!(
            codecs(&init(&Setup::Opus { channels: 2, pre_skip: 312, input_rate: 48_000 })).as_deref(),
            Ok("Opus")
        );
        let mut info = [0u8; 34];
        // 44,100 Hz, stereo, 16 bits.
        info[10..14].copy_from_slice(&[0x0a, 0xc4, 0x42, 0xf0]);
        let flac = Setup::Flac { info };
        assert_eq!((flac.rate(), flac.channels()), (44_100, 2));
        assert_eq!(codecs(&init(&flac)).as_deref(), Ok("fLaC"));
    }

    #[test]
    fn cuts_do_not_drift_and_the_track_is_as_long_as_the_sound() {
        let samples = 44_100 * 20 + 17;
        let mut cutter = Cutter::new(&AAC, Some(samples), 6);
        let mut cuts = Vec::new();
        for n in 0..2000u32 {
            cuts.extend(cutter.push(Frame { data: Bytes::copy_from_slice(&n.to_be_bytes()), samples: 1024 }));
        }
        cuts.extend(cutter.finish());
        assert_eq!(cuts.len(), 4);
        assert!(cuts.iter().all(|cut| is_whole_segment(&cut.bytes)));
        let whole: f64 = cuts.iter().map(|cut| cut.seconds).sum();
        assert!((whole - samples as f64 / 44_100.0).abs() < 1e-9, "{whole}");
        let mut at = 0.0;
        for (n, cut) in cuts[..3].iter().enumerate() {
            at += cut.seconds;
            let nominal = 6.0 * (n + 1) as f64;
            assert!(at >= nominal && at < nominal + 1024.0 / 44_100.0, "{at}");
        }
    }
}
