//! What an encoder gives through its pipe, taken apart into frames: AAC in ADTS, Opus and FLAC in Ogg.
//!
//! Sources: ISO/IEC 13818-7, 6.2 (ADTS); RFC 3533 (Ogg); RFC 7845 (Opus in Ogg); RFC 9639, 9.1 (FLAC frames) and the
//! Ogg mapping of FLAC.
//!
//! Invariants: a frame is whole or an error; how much is held back is bounded by the largest frame of the format.

mod adts;
pub(crate) mod fragments;
mod ogg;

use std::io::{self, Read};

use bytes::Bytes;

pub(crate) use adts::{FRAME as AAC_FRAME, windows};

/// One coded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) data: Bytes,
    /// Samples per channel that come out of it.
    pub(crate) samples: u32,
}

/// What a decoder must know before the first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Setup {
    /// AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1).
    Aac { config: [u8; 2], rate: u32, channels: u16 },
    /// The fields of the identification header (RFC 7845, 5.1), big-endian, as `dOps` has them.
    Opus { channels: u8, pre_skip: u16, input_rate: u32 },
    /// STREAMINFO (RFC 9639, 8.2).
    Flac { info: [u8; 34] },
}

impl Setup {
    /// Ticks per second of the track: its samples.
    pub(crate) fn rate(&self) -> u32 {
        match self {
            Self::Aac { rate, .. } => *rate,
            Self::Opus { .. } => 48_000,
            Self::Flac { info } => u32::from_be_bytes([0, info[10], info[11], info[12]]) >> 4,
        }
    }

    pub(crate) fn channels(&self) -> u16 {
        match self {
            Self::Aac { channels, .. } => *channels,
            Self::Opus { channels, .. } => u16::from(*channels),
            Self::Flac { info } => u16::from((info[12] >> 1) & 7) + 1,
        }
    }

    /// Samples that come out before the first one of the sound.
    pub(crate) fn priming(&self) -> u32 {
        match self {
            // ffmpeg's encoder looks one frame ahead and says so nowhere in ADTS.
            Self::Aac { .. } => 1024,
            Self::Opus { pre_skip, .. } => u32::from(*pre_skip),
            Self::Flac { .. } => 0,
        }
    }
}

/// How an encoder's output is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrapping {
    Adts,
    Ogg,
}

/// Where the frames go. `false`: nobody wants more.
pub(crate) type Sink<'s> = &'s mut dyn FnMut(&Setup, Frame) -> bool;

/// Reads to the end of the pipe, or until `sink` wants no more. The error says what is not as it should be.
pub(crate) fn read(pipe: impl Read, wrapping: Wrapping, sink: Sink<'_>) -> Result<(), String> {
    match wrapping {
        Wrapping::Adts => adts::read(pipe, sink),
        Wrapping::Ogg => ogg::read(pipe, sink),
    }
}

/// Fills `bytes`; `false` at a clean end before the first of them.
fn fill(pipe: &mut impl Read, bytes: &mut [u8]) -> Result<bool, String> {
    let mut filled = 0;
    while filled < bytes.len() {
        match pipe.read(&mut bytes[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err("the output ends in the middle of a frame".to_owned()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(true)
}
