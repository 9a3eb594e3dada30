//! A film's picture as ffmpeg's muxer gives it through the pipe: an init section, then fragments that each begin with a
//! key picture (ISO/IEC 14496-12, 8.8).
//!
//! Invariants: a fragment is whole or an error; one is at most [`BOX_MAX`] bytes.

use std::io::Read;

use super::fill;

/// Two seconds of the highest rate, several times over.
const BOX_MAX: usize = 64 << 20;

/// What comes out, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Once, before everything else.
    Init(Vec<u8>),
    /// Its boxes, and when it begins and how long it lasts in ticks of the track.
    Fragment { bytes: Vec<u8>, from: u64, ticks: u64 },
}

/// Reads to the end of the pipe, or until `sink` wants no more.
pub(crate) fn read(pipe: impl Read, sink: &mut dyn FnMut(Piece) -> bool) -> Result<(), String> {
    let mut pipe = std::io::BufReader::with_capacity(256 * 1024, pipe);
    let (mut init, mut opened) = (Vec::new(), false);
    let mut index: Option<(Vec<u8>, u64, u64)> = None;
    let mut head = [0u8; 8];
    while fill(&mut pipe, &mut head)? {
        let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if !(8..=BOX_MAX).contains(&size) {
            return Err(format!("a box of {size} bytes"));
        }
        let mut bytes = head.to_vec();
        bytes.resize(size, 0);
        if size > 8 && !fill(&mut pipe, &mut bytes[8..])? {
            return Err("the output ends after a header".to_owned());
        }
        let piece = match &head[4..] {
            b"ftyp" | b"moov" => {
                init.extend(bytes);
                opened = &head[4..] == b"moov";
                opened.then(|| Piece::Init(std::mem::take(&mut init)))
            }
            b"moof" => {
                let (from, ticks) = times(&bytes).ok_or("a fragment without its times")?;
                index = Some((bytes, from, ticks));
                None
            }
            b"mdat" if opened => {
                let (mut whole, from, ticks) = index.take().ok_or("samples without their index")?;
                whole.extend(bytes);
                Some(Piece::Fragment { bytes: whole, from, ticks })
            }
            // What else ffmpeg's muxer writes says nothing that a player of segments reads.
            _ => None,
        };
        if piece.is_some_and(|piece| !sink(piece)) {
            return Ok(());
        }
    }
    if index.is_some() { Err("the output ends in a fragment".to_owned()) } else { Ok(()) }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The content of the first box of that name.
fn child<'b>(mut boxes: &'b [u8], name: &[u8; 4]) -> Option<&'b [u8]> {
    loop {
        let size = be32(boxes, 0)? as usize;
        let whole = boxes.get(..size).filter(|whole| whole.len() >= 8)?;
        if &whole[4..8] == name {
            return whole.get(8..);
        }
        boxes = &boxes[size..];
    }
}

/// Begin and length of a fragment of one track.
fn times(moof: &[u8]) -> Option<(u64, u64)> {
    let traf = child(moof.get(8..)?, b"traf")?;
    let (tfhd, tfdt, trun) = (child(traf, b"tfhd")?, child(traf, b"tfdt")?, child(traf, b"trun")?);
    let from = match tfdt.first()? {
        0 => u64::from(be32(tfdt, 4)?),
        _ => u64::from(be32(tfdt, 4)?) << 32 | u64::from(be32(tfdt, 8)?),
    };
    // Flags say which fields are there, in this order: base offset (8 bytes), description, duration.
    let flags = be32(tfhd, 0)?;
    let skipped = 8 + if flags & 1 != 0 { 8 } else { 0 } + if flags & 2 != 0 { 4 } else { 0 };
    let usual = if flags & 8 != 0 { be32(tfhd, skipped) } else { None };
    let (flags, count) = (be32(trun, 0)?, be32(trun, 4)? as usize);
    let first = 8 + if flags & 1 != 0 { 4 } else { 0 } + if flags & 4 != 0 { 4 } else { 0 };
    if flags & 0x100 == 0 {
        return Some((from, u64::from(usual?) * count as u64));
    }
    let each = (flags >> 8 & 15).count_ones() as usize * 4;
    let ticks = (0..count).map(|n| be32(trun, first + n * each).map(u64::from)).sum::<Option<u64>>()?;
    Some((from, ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        [&u32::try_from(content.len() + 8).expect("size").to_be_bytes()[..], name, content].concat()
    }

    fn be(values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_be_bytes()).collect()
    }

    fn moof(from: u32, tfhd: &[u32], trun: &[u32]) -> Vec<u8> {
        let traf = [boxed(b"tfhd", &be(tfhd)), boxed(b"tfdt", &be(&[0, from])), boxed(b"trun", &be(trun))].concat();
        boxed(b"moof", &boxed(b"traf", &traf))
    }

    #[test]
    fn fragments_come_whole_with_their_times() {
        let usual = moof(100, &[0x2_0008, 1, 40], &[0x205, 2, 0, 0, 5, 6]);
        let own = moof(180, &[0x2_0000, 1], &[0x301, 2, 0, 41, 5, 42, 6]);
        let init = [boxed(b"ftyp", b"iso6"), boxed(b"moov", b"x")].concat();
        let stream =
            [init.clone(), usual.clone(), boxed(b"mdat", b"abc"), own, boxed(b"mdat", b"d"), boxed(b"mfra", b"")];
        let mut pieces = Vec::new();
        let mut take = |piece| {
            pieces.push(piece);
            true
        };
        read(&stream.concat()[..], &mut take).expect("read");
        assert_eq!(pieces[0], Piece::Init(init));
        let bytes = [usual, boxed(b"mdat", b"abc")].concat();
        assert_eq!(pieces[1], Piece::Fragment { bytes, from: 100, ticks: 80 });
        assert!(matches!(pieces[2], Piece::Fragment { from: 180, ticks: 83, .. }), "{:?}", pieces[2]);
        let whole = stream[..3].concat();
        for end in whole.len() - boxed(b"mdat", b"abc").len()..whole.len() {
            assert!(read(&whole[..end], &mut |_| true).is_err(), "{end}");
        }
    }
}
