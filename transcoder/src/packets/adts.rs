//! AAC in ADTS, and the one thing inside an AAC frame that a cut must know: its windows.

use std::io::Read;

use bytes::Bytes;

use super::{Frame, Setup, Sink, fill};

const HEADER: usize = 7;
const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// Samples of one frame of AAC-LC.
pub(crate) const FRAME: u32 = 1024;

pub(super) fn read(pipe: impl Read, sink: Sink<'_>) -> Result<(), String> {
    let mut pipe = std::io::BufReader::with_capacity(64 * 1024, pipe);
    let mut setup = None;
    let mut head = [0u8; HEADER];
    while fill(&mut pipe, &mut head)? {
        let (found, length) = header(&head).ok_or("not an ADTS frame")?;
        let setup = setup.get_or_insert_with(|| found.clone());
        if *setup != found {
            return Err("the output changes its format".to_owned());
        }
        let mut data = vec![0u8; length];
        if !fill(&mut pipe, &mut data)? {
            return Err("the output ends after a header".to_owned());
        }
        if !sink(setup, Frame { data: Bytes::from(data), samples: FRAME }) {
            return Ok(());
        }
    }
    Ok(())
}

/// Setup and length of the frame after the header; `None`: not what ffmpeg writes (one block, no checksum).
fn header(head: &[u8; HEADER]) -> Option<(Setup, usize)> {
    if head[0] != 0xff || head[1] & 0xf7 != 0xf1 || head[6] & 3 != 0 {
        return None;
    }
    let (profile, index) = (head[2] >> 6, (head[2] >> 2) & 15);
    let channels = (head[2] & 1) << 2 | head[3] >> 6;
    let rate = *RATES.get(usize::from(index))?;
    let length = usize::from(head[3] & 3) << 11 | usize::from(head[4]) << 3 | usize::from(head[5] >> 5);
    let config = [(profile + 1) << 3 | index >> 1, (index & 1) << 7 | channels << 3];
    let length = length.checked_sub(HEADER).filter(|length| *length > 0)?;
    ((1..=7).contains(&channels)).then_some((Setup::Aac { config, rate, channels: u16::from(channels) }, length))
}

/// Which windows a frame was transformed with (ISO/IEC 14496-3, 4.4.2.1): sequence and shape, the same in every channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Windows {
    pub(crate) sequence: u8,
    pub(crate) shape: u8,
}

impl Windows {
    /// Long before and long after: what overlaps on both sides is the plain half of a long window.
    pub(crate) fn is_long(self) -> bool {
        self.sequence == 0
    }
}

/// The windows of a raw frame; `None` where the channels of a pair have windows of their own.
pub(crate) fn windows(frame: &[u8]) -> Option<Windows> {
    let bits = |at: usize, count: usize| {
        (at..at + count).try_fold(0u8, |value, bit| {
            let byte = frame.get(bit / 8)?;
            Some(value << 1 | byte >> (7 - bit % 8) & 1)
        })
    };
    // Element (3), its tag (4); a pair says first whether both channels share their windows (1), a single one gives its
    // gain (8). Then a reserved bit, the sequence (2) and the shape (1).
    let at = match bits(0, 3)? {
        0 => 3 + 4 + 8,
        1 if bits(7, 1)? == 1 => 3 + 4 + 1,
        _ => return None,
    };
    Some(Windows { sequence: bits(at + 1, 2)?, shape: bits(at + 3, 1)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AAC-LC, 44.1 kHz, stereo.
    fn adts(content: &[u8]) -> Vec<u8> {
        let length = content.len() + HEADER;
        let head =
            [0xff, 0xf1, 0x50, 0x80 | (length >> 11) as u8, (length >> 3) as u8, (length << 5) as u8 | 0x1f, 0xfc];
        [&head[..], content].concat()
    }

    fn frames(bytes: &[u8]) -> Result<Vec<(Setup, Frame)>, String> {
        let mut found = Vec::new();
        read(bytes, &mut |setup, frame| {
            found.push((setup.clone(), frame));
            true
        })?;
        Ok(found)
    }

    #[test]
    fn frames_come_out_whole_or_not_at_all() {
        let whole = [adts(b"one"), adts(b"second")].concat();
        let found = frames(&whole).expect("frames");
        assert_eq!(found.len(), 2);
        assert_eq!(&found[1].1.data[..], b"second");
        assert_eq!(found[0].0, Setup::Aac { config: [0x12, 0x10], rate: 44_100, channels: 2 });
        let first = adts(b"one").len();
        for end in 0..whole.len() {
            assert_eq!(frames(&whole[..end]).is_ok(), end == 0 || end == first, "{end}");
        }
        assert!(frames(b"not audio at all").is_err());
    }

    #[test]
    fn windows_are_read_where_channels_share_them() {
        // 001 0000 1 | 0 00 1: a pair, common window, long, the second shape.
        assert_eq!(windows(&[0b0010_0001, 0b0001_0000]), Some(Windows { sequence: 0, shape: 1 }));
        assert_eq!(windows(&[0b0010_0001, 0b0100_0000]), Some(Windows { sequence: 2, shape: 0 }));
        assert_eq!(windows(&[0b0010_0000, 0]), None, "windows of their own");
        assert_eq!(windows(&[0, 0, 0b0101_0000]).map(|w| w.sequence), Some(1), "a single channel");
        assert_eq!(windows(&[0b0010_0001]), None, "cut off");
    }
}
