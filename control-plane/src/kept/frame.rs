//! One batch in a file: a label, which zstd takes for a frame to skip (RFC 8878, section 3.1.2), and a frame of JSON lines.

use std::io::{self, ErrorKind, Read, Write};

/// Bytes of a label.
pub(super) const LABEL: u64 = 32;

/// The first of the magic numbers of skippable frames.
const MAGIC: u32 = 0x184D_2A50;
const CONTENT: u32 = 24;

/// Facts pack to a tenth at the lowest levels; higher ones cost the tally more than the disk gains.
const LEVEL: i32 = 1;

/// What the frame behind a label holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) records: u32,
    /// Of the frame, as it lies in the file.
    pub(super) bytes: u32,
    /// Earliest and latest time of its records.
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Label {
    /// Reads the next label. `None`: the file ends here.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = Vec::with_capacity(LABEL as usize);
        from.by_ref().take(LABEL).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let word = |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
        let long = |at: usize| bytes.get(at..at + 8).and_then(|long| long.try_into().ok()).map(i64::from_le_bytes);
        let label = (|| {
            let known = word(0)? == MAGIC && word(4)? == CONTENT;
            known.then_some(Self { records: word(8)?, bytes: word(12)?, from: long(16)?, to: long(24)? })
        })();
        label.map(Some).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "this is no label of kept records"))
    }

    fn to_bytes(self) -> Vec<u8> {
        let words = [MAGIC, CONTENT, self.records, self.bytes].into_iter().flat_map(u32::to_le_bytes);
        words.chain([self.from, self.to].into_iter().flat_map(i64::to_le_bytes)).collect()
    }
}

/// Label and frame of a text.
pub(super) fn pack(label: Label, text: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(vec![0; LABEL as usize], LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.write_all(text)?;
    let mut packed = encoder.finish()?;
    let bytes = u32::try_from(packed.len() - LABEL as usize).map_err(io::Error::other)?;
    packed.splice(..LABEL as usize, Label { bytes, ..label }.to_bytes());
    Ok(packed)
}
