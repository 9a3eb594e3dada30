//! Reading kept records: in the order in which they were counted, unpacked a little at a time.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;

use super::frame::{LABEL, Label};
use super::{Kept, KeptError, Kind};
use crate::store::{Store, StoreError, kept};

/// A record is at most this long; a longer line is a file that is not ours.
const LINE_MAX: u64 = 2 * segue_events::bounds::RECORD as u64;

/// Which records.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// Times, ms since the epoch: from this on, up to but not this.
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    /// The number of the first.
    pub(crate) position: u64,
    /// Of this track alone.
    pub(crate) track: Option<String>,
}

/// A file to read, and how far.
#[derive(Debug)]
struct Piece {
    path: PathBuf,
    first: u64,
    bytes: u64,
}

/// What there is to read as of a moment. Whatever is kept later does not belong to it.
#[derive(Debug)]
pub(crate) struct Shelved {
    pieces: Vec<Piece>,
    span: Span,
    /// The number that the next record will have.
    pub(crate) next: u64,
}

/// Looks up what there is.
pub(crate) async fn lines(kept: &Kept, store: &Store, kind: Kind, span: Span) -> Result<Shelved, StoreError> {
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    let files = kept::files(store, kept.shelf(kind)).await?;
    let next = files.last().map_or(0, |file| number(file.first + file.records));
    let pieces = files
        .iter()
        .filter(|file| file.to_ms >= span.from_ms && file.from_ms < span.to_ms)
        .filter(|file| number(file.first + file.records) > span.position)
        .map(|file| Piece { path: kept.path(kind, file.first), first: number(file.first), bytes: number(file.bytes) })
        .collect();
    Ok(Shelved { pieces, span, next })
}

/// What is looked at to choose.
#[derive(Deserialize)]
struct Chosen<'a> {
    ts: i64,
    #[serde(borrow, default)]
    track: Option<std::borrow::Cow<'a, str>>,
}

impl Span {
    fn has(&self, line: &str) -> bool {
        // What is kept was read as a record once.
        serde_json::from_str::<Chosen<'_>>(line).is_ok_and(|one| {
            (self.from_ms..self.to_ms).contains(&one.ts)
                && self.track.as_deref().is_none_or(|track| one.track.as_deref() == Some(track))
        })
    }
}

impl Shelved {
    /// Calls `each` with the number and the text of every record until it says stop (`false`). Blocks.
    pub(crate) fn read(&self, mut each: impl FnMut(u64, &str) -> bool) -> Result<(), KeptError> {
        for piece in &self.pieces {
            let failed = KeptError::at(&piece.path);
            let done = self.read_piece(piece, &mut each).map_err(failed)?;
            if !done {
                break;
            }
        }
        Ok(())
    }

    fn read_piece(&self, piece: &Piece, each: &mut impl FnMut(u64, &str) -> bool) -> std::io::Result<bool> {
        let mut file = File::open(&piece.path)?;
        let (mut at, mut number) = (0, piece.first);
        while at < piece.bytes {
            let label = Label::read(&mut file)?.ok_or(ErrorKind::UnexpectedEof)?;
            at += LABEL + u64::from(label.bytes);
            let after = number + u64::from(label.records);
            let wanted = after > self.span.position && label.to >= self.span.from_ms && label.from < self.span.to_ms;
            if wanted && !self.read_frame((&mut file).take(label.bytes.into()), number, each)? {
                return Ok(false);
            }
            file.seek(SeekFrom::Start(at))?;
            number = after;
        }
        Ok(true)
    }

    fn read_frame(
        &self,
        packed: impl Read,
        mut number: u64,
        each: &mut impl FnMut(u64, &str) -> bool,
    ) -> std::io::Result<bool> {
        let mut text = BufReader::with_capacity(1 << 16, zstd::Decoder::new(packed)?);
        let mut line = String::new();
        loop {
            line.clear();
            if text.by_ref().take(LINE_MAX).read_line(&mut line)? == 0 {
                return Ok(true);
            }
            let Some(record) = line.strip_suffix('\n') else {
                return Err(std::io::Error::new(ErrorKind::InvalidData, "a line is too long or cut off"));
            };
            if number >= self.span.position && self.span.has(record) && !each(number, record) {
                return Ok(false);
            }
            number += 1;
        }
    }
}
