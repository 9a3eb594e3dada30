//! The length that a file declares, read from its own headers where ffprobe guesses, clips or hides it.
//!
//! Sources: MP3 (Xing/Info and VBRI headers; the frame header of ISO/IEC 11172-3, 2.4.2.3), WAV (RIFF and, for RF64 and
//! BW64, `ds64` of EBU Tech 3306), Ogg (RFC 3533), ISO base media (ISO/IEC 14496-12, boxes).
//!
//! Invariants: every read is bounded and checked; a header that makes no sense declares nothing. A file without a
//! declaration cannot fall short of it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// What the file's own headers say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Declared {
    /// So many seconds.
    Seconds(f64),
    /// The file is cut off for certain; it does not say how long it was.
    Cut,
    /// Nothing: ffprobe's duration is an estimate from the bit rate, or of a container that states none.
    Nothing,
    /// Nothing of its own to say: ffprobe's duration comes from the container's header.
    AsProbed,
}

/// Reads the declaration of a file of the given demuxer.
pub(crate) fn declared(file: &mut File, demuxer: &str) -> io::Result<Declared> {
    let length = file.metadata()?.len();
    let is = |name: &str| demuxer.split(',').any(|part| part == name);
    if is("mp3") {
        return mpeg_audio(file);
    }
    if is("wav") {
        return wav(file, length);
    }
    if is("ogg") {
        return ogg(file, length);
    }
    if is("mov") {
        return Ok(if boxes_are_whole(file, length)? { Declared::AsProbed } else { Declared::Cut });
    }
    // Containers without a length of their own: ffprobe divides bytes by a bit rate.
    if ["aac", "ac3", "eac3", "dts", "mpegts", "mpeg", "amr"].into_iter().any(is) {
        return Ok(Declared::Nothing);
    }
    Ok(Declared::AsProbed)
}

fn read_at(file: &mut File, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
    file.seek(SeekFrom::Start(at))?;
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read(&mut bytes[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes)
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes)
}

fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map(u64::from_le_bytes)
}

/// Bytes of the ID3v2 tag at the front, if there is one.
fn id3_length(head: &[u8]) -> u64 {
    if !head.starts_with(b"ID3") || head.len() < 10 {
        return 0;
    }
    let size = head[6..10].iter().fold(0u64, |size, byte| size << 7 | u64::from(byte & 0x7f));
    10 + size + if head[5] & 0x10 != 0 { 10 } else { 0 }
}

fn mpeg_audio(file: &mut File) -> io::Result<Declared> {
    let mut head = [0; 10];
    let mut at = 0;
    // More than one tag is rare, more than a few is an attack on our patience.
    for _ in 0..4 {
        let read = read_at(file, at, &mut head)?;
        match id3_length(&head[..read]) {
            0 => break,
            tag => at += tag,
        }
    }
    let mut window = vec![0; 16 * 1024];
    let read = read_at(file, at, &mut window)?;
    let window = &window[..read];
    Ok(xing(window).map_or(Declared::Nothing, Declared::Seconds))
}

fn xing(window: &[u8]) -> Option<f64> {
    // Padding may stand between tag and first frame.
    let start = window.windows(2).position(|two| two[0] == 0xff && two[1] & 0xe6 == 0xe2)?;
    let frame = &window[start..];
    let (version, mode) = (frame.get(1)? >> 3 & 3, frame.get(3)? >> 6);
    let rate_index = usize::from(frame.get(2)? >> 2 & 3);
    let full = *[44_100u32, 48_000, 32_000].get(rate_index)?;
    // Layer III: 1152 samples a frame in MPEG-1, 576 in the halved rates of MPEG-2 and 2.5.
    let (rate, samples, side) = match (version, mode == 3) {
        (3, false) => (full, 1152u32, 32),
        (3, true) => (full, 1152, 17),
        (2, false) => (full / 2, 576, 17),
        (2, true) => (full / 2, 576, 9),
        (0, false) => (full / 4, 576, 17),
        (0, true) => (full / 4, 576, 9),
        _ => return None,
    };
    let tag = frame.get(4 + side..)?;
    let frames = if tag.starts_with(b"Xing") || tag.starts_with(b"Info") {
        if be32(tag, 4)? & 1 == 0 {
            return None;
        }
        be32(tag, 8)?
    } else if frame.get(36..40)? == b"VBRI" {
        be32(frame, 36 + 14)?
    } else {
        return None;
    };
    (frames > 0).then(|| f64::from(frames) * f64::from(samples) / f64::from(rate))
}

fn wav(file: &mut File, length: u64) -> io::Result<Declared> {
    let mut head = [0; 12];
    if read_at(file, 0, &mut head)? < 12 {
        return Ok(Declared::Cut);
    }
    let wide = head.starts_with(b"RF64") || head.starts_with(b"BW64");
    let (mut at, mut byte_rate, mut wide_data) = (12u64, None, None);
    for _ in 0..1024 {
        let mut chunk = [0; 32];
        let read = read_at(file, at, &mut chunk)?;
        let Some(size) = le32(&chunk[..read], 4) else { break };
        match &chunk[..4] {
            b"fmt " => byte_rate = le32(&chunk[..read], 8 + 8).filter(|rate| *rate > 0),
            b"ds64" => wide_data = le64(&chunk[..read], 8 + 8),
            b"data" => {
                let present = length.saturating_sub(at + 8);
                let declared = match (wide, wide_data, size) {
                    (true, Some(wide), u32::MAX) => wide,
                    // What a recorder that could not seek back leaves: no declaration.
                    (_, _, 0x7fff_f000..=u32::MAX) => return Ok(Declared::Nothing),
                    (_, _, 0) if present > 0 => return Ok(Declared::Nothing),
                    _ => u64::from(size),
                };
                return Ok(
                    byte_rate.map_or(Declared::Nothing, |rate| Declared::Seconds(declared as f64 / f64::from(rate)))
                );
            }
            _ => {}
        }
        at += 8 + u64::from(size) + u64::from(size & 1);
    }
    Ok(if at > length { Declared::Cut } else { Declared::Nothing })
}

/// An Ogg stream declares no length; but its last page says that it is the last, and every page says how long it is.
fn ogg(file: &mut File, length: u64) -> io::Result<Declared> {
    // A page has at most 27 + 255 + 255 * 255 bytes, so that the last one begins within this.
    const LAST: u64 = 65_307 * 2;
    let from = length.saturating_sub(LAST);
    let mut tail = vec![0; usize::try_from(length - from).unwrap_or(0)];
    let read = read_at(file, from, &mut tail)?;
    let tail = &tail[..read];
    let page_end = |start: usize| -> Option<(usize, bool)> {
        let page = &tail[start..];
        let segments = usize::from(*page.get(26)?);
        let body: usize = page.get(27..27 + segments)?.iter().map(|lace| usize::from(*lace)).sum();
        Some((start + 27 + segments + body, page[5] & 4 != 0))
    };
    let mut starts = tail.windows(5).enumerate().filter(|(_, five)| *five == b"OggS\0").map(|(at, _)| at);
    let Some(last) = starts.next_back() else { return Ok(Declared::Nothing) };
    Ok(match page_end(last) {
        // Cut within its last page. Cut exactly between two pages it looks like a recording that was stopped.
        None => Declared::Cut,
        Some((end, last_page)) if end > tail.len() && !last_page => Declared::Cut,
        Some(_) => Declared::Nothing,
    })
}

/// Whether every top-level box ends within the file and the one with the index is there.
fn boxes_are_whole(file: &mut File, length: u64) -> io::Result<bool> {
    let (mut at, mut index) = (0u64, false);
    for _ in 0..100_000 {
        if at + 8 > length {
            break;
        }
        let mut head = [0; 16];
        let read = read_at(file, at, &mut head)?;
        let Some(short) = be32(&head[..read], 0) else { break };
        index |= &head[4..8] == b"moov";
        let size = match short {
            0 => length - at,
            1 if read == 16 => {
                u64::from_be_bytes([head[8], head[9], head[10], head[11], head[12], head[13], head[14], head[15]])
            }
            small => u64::from(small),
        };
        if size < 8 {
            // Not a box: junk after the last one is common and harmless.
            break;
        }
        match at.checked_add(size) {
            Some(end) if end <= length => at = end,
            _ if !head[4..8].iter().all(u8::is_ascii_graphic) => break,
            // The index came first, so that what is missing can be measured against it.
            _ if index => return Ok(true),
            _ => return Ok(false),
        }
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("tempfile");
        file.write_all(bytes).expect("write");
        file
    }

    fn wav_of(data_size: u32, present: usize) -> Vec<u8> {
        let mut bytes = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        bytes.extend(8000u32.to_le_bytes());
        bytes.extend(16000u32.to_le_bytes());
        bytes.extend(b"\x02\0\x10\0data");
        bytes.extend(data_size.to_le_bytes());
        bytes.resize(bytes.len() + present, 0);
        bytes
    }

    #[test]
    fn a_wav_declares_by_its_data_chunk_unless_it_was_streamed() {
        let read = |bytes: &[u8]| declared(&mut file(bytes), "wav").expect("read");
        assert_eq!(read(&wav_of(32_000, 10)), Declared::Seconds(2.0));
        assert_eq!(read(&wav_of(0, 0)), Declared::Seconds(0.0));
        assert_eq!(read(&wav_of(0, 100)), Declared::Nothing);
        assert_eq!(read(&wav_of(u32::MAX, 100)), Declared::Nothing);
        assert_eq!(read(b"RIFF"), Declared::Cut);
    }

    #[test]
    fn a_xing_header_declares_frames() {
        let mut frame = vec![0xff, 0xfb, 0x90, 0x00];
        frame.resize(4 + 32, 0);
        frame.extend(b"Xing\0\0\0\x01\0\0\x03\xe8");
        frame.resize(400, 0);
        let mut tagged = b"ID3\x04\0\0\0\0\0\x05xxxxx".to_vec();
        tagged.extend(&frame);
        for bytes in [frame, tagged] {
            let Declared::Seconds(seconds) = declared(&mut file(&bytes), "mp3").expect("read") else {
                panic!("seconds")
            };
            assert!((seconds - 1000.0 * 1152.0 / 44100.0).abs() < 1e-9);
        }
        assert_eq!(declared(&mut file(b"\xff\xfb\x90\x00plain"), "mp3").expect("read"), Declared::Nothing);
    }

    #[test]
    fn an_mp4_without_its_index_is_cut() {
        let mut bytes = b"\0\0\0\x10ftypM4A \0\0\0\0\0\x01\0\0mdat".to_vec();
        bytes.resize(100, 1);
        assert_eq!(declared(&mut file(&bytes), "mov,mp4").expect("read"), Declared::Cut);
    }
}
