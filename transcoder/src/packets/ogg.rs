//! Opus and FLAC in Ogg, one logical stream.

use std::io::Read;

use bytes::Bytes;

use super::{Frame, Setup, Sink, fill};

const HEADER: usize = 27;
/// A packet that goes over this is no audio frame: FLAC's largest is 65,535 samples of 8 channels and 32 bits.
const PACKET_MAX: usize = 4 << 20;
/// Samples of an Opus frame as we have it encoded: 20 ms.
const OPUS: u32 = 960;

pub(super) fn read(pipe: impl Read, sink: Sink<'_>) -> Result<(), String> {
    let mut pipe = std::io::BufReader::with_capacity(256 * 1024, pipe);
    let mut setup: Option<Setup> = None;
    let mut packet = Vec::new();
    let mut head = [0u8; HEADER];
    while fill(&mut pipe, &mut head)? {
        if !head.starts_with(b"OggS\0") {
            return Err("not an Ogg page".to_owned());
        }
        let mut table = vec![0u8; usize::from(head[26])];
        if !table.is_empty() && !fill(&mut pipe, &mut table)? {
            return Err("the output ends after a page's header".to_owned());
        }
        for lace in table {
            let from = packet.len();
            packet.resize(from + usize::from(lace), 0);
            if lace > 0 && !fill(&mut pipe, &mut packet[from..])? {
                return Err("the output ends in a page".to_owned());
            }
            if packet.len() > PACKET_MAX {
                return Err("a packet is too large for a frame".to_owned());
            }
            if lace == 255 {
                continue;
            }
            let data = std::mem::take(&mut packet);
            let Some(known) = &setup else {
                setup = Some(opening(&data).ok_or("neither Opus nor FLAC")?);
                continue;
            };
            let Some(samples) = samples(known, &data)? else { continue };
            if !sink(known, Frame { data: Bytes::from(data), samples }) {
                return Ok(());
            }
        }
    }
    if packet.is_empty() { Ok(()) } else { Err("the output ends in the middle of a frame".to_owned()) }
}

/// The first packet of the stream.
fn opening(packet: &[u8]) -> Option<Setup> {
    if packet.starts_with(b"OpusHead") {
        let channels = *packet.get(9)?;
        let pre_skip = u16::from_le_bytes([*packet.get(10)?, *packet.get(11)?]);
        let input_rate = u32::from_le_bytes(packet.get(12..16)?.try_into().ok()?);
        // Family 0: one or two channels, no mapping table.
        return (packet.get(18) == Some(&0)).then_some(Setup::Opus { channels, pre_skip, input_rate });
    }
    let rest = packet.strip_prefix(b"\x7fFLAC\x01\x00")?.get(2..)?.strip_prefix(b"fLaC")?;
    Some(Setup::Flac { info: rest.get(4..38)?.try_into().ok()? })
}

/// Samples of a packet; `None` for one that carries comments.
fn samples(setup: &Setup, packet: &[u8]) -> Result<Option<u32>, String> {
    match setup {
        Setup::Opus { .. } if packet.starts_with(b"OpusTags") => Ok(None),
        Setup::Opus { .. } => Ok(Some(OPUS)),
        _ if packet.first() != Some(&0xff) => Ok(None),
        _ => block_size(packet).map(Some).ok_or_else(|| "a FLAC frame has no size".to_owned()),
    }
}

/// Samples of a FLAC frame, from its header (RFC 9639, 9.1).
fn block_size(frame: &[u8]) -> Option<u32> {
    let code = frame.get(2)? >> 4;
    let number = match frame.get(4)?.leading_ones() {
        0 => 1,
        ones => ones as usize,
    };
    let after = 4 + number;
    Some(match code {
        1 => 192,
        2..=5 => 576 << (code - 2),
        6 => u32::from(*frame.get(after)?) + 1,
        7 => u32::from(u16::from_be_bytes([*frame.get(after)?, *frame.get(after + 1)?])) + 1,
        8.. => 256 << (code - 8),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(packets: &[&[u8]]) -> Vec<u8> {
        let mut table = Vec::new();
        for packet in packets {
            table.extend(std::iter::repeat_n(255, packet.len() / 255));
            table.push((packet.len() % 255) as u8);
        }
        let mut bytes = b"OggS\0".to_vec();
        bytes.resize(26, 0);
        bytes.push(table.len() as u8);
        bytes.extend(table);
        bytes.extend(packets.concat());
        bytes
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
    fn opus_frames_come_without_their_headers() {
        let head = b"OpusHead\x01\x02\x38\x01\x44\xac\0\0\0\0\0";
        let long = vec![7u8; 600];
        let bytes = [page(&[head]), page(&[b"OpusTags...."]), page(&[b"frame", &long])].concat();
        let found = frames(&bytes).expect("frames");
        assert_eq!(found[0].0, Setup::Opus { channels: 2, pre_skip: 312, input_rate: 44_100 });
        assert_eq!((found.len(), &found[0].1.data[..], found[1].1.data.len()), (2, &b"frame"[..], 600));
        for end in 1..bytes.len() {
            // Only the ends of pages are ends.
            let clean = [page(&[head]).len(), page(&[head]).len() + page(&[b"OpusTags...."]).len()].contains(&end);
            assert_eq!(frames(&bytes[..end]).is_ok(), clean, "{end}");
        }
    }

    #[test]
    fn a_flac_frame_tells_its_samples() {
        assert_eq!(block_size(&[0xff, 0xf8, 0xc9, 0x18, 0x00]), Some(4096));
        assert_eq!(block_size(&[0xff, 0xf8, 0x59, 0x18, 0x00]), Some(4608));
        assert_eq!(block_size(&[0xff, 0xf8, 0x79, 0x18, 0xc2, 0x80, 0x01, 0x01]), Some(258));
        assert_eq!(block_size(&[0xff, 0xf8, 0x69, 0x18, 0x05, 0x0f]), Some(16));
        assert_eq!(block_size(&[0xff, 0xf8, 0x09]), None);
    }
}
