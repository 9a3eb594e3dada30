//! One file of a log: a header, then framed records.
//!
//! Layout in words of eight bytes, little-endian: `MAGIC`, base position, records, five spare; then frames. A
//! frame is one word (length in the low half; CRC-32 of the payload, mixed with the position, in the high half)
//! and the payload, padded to a whole word. Position `p` stands at word `HEADER + (p - base) / 8`.
//!
//! Invariants:
//! - One writer at a time (the log's lock). It stores the payload first and the frame's word last, with
//!   `Release`: whoever sees a length sees the whole record, even after the writer was killed.
//! - The word after the last frame is zero, or [`SEALED`] where the rest of the file is not used.
//! - Files get their final name only when they are whole, so a file named `.log` has a header and its blocks.
//!
//! On failure: a frame whose checksum is wrong (lost power, a broken disk) is told apart from the end, and
//! the reader goes on with the next file.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::mapped::{Mapped, copy_in, copy_out, words_for};
use crate::{LogError, bounds};

const MAGIC: u64 = u64::from_le_bytes(*b"SEGUELG1");
const HEADER: usize = 8;
/// In place of a frame: nothing follows in this file.
const SEALED: u64 = u64::MAX;
/// Words of the longest frame.
const LONGEST: usize = 1 + words_for(bounds::RECORD);

/// What stands at a position.
pub(crate) enum Frame {
    /// A record, copied out; the next frame is here.
    Record { next: u64 },
    /// Nothing more in this file.
    End,
    /// Not a frame, or a damaged one.
    Broken,
}

/// A mapped file of the log.
#[derive(Debug)]
pub(crate) struct Segment {
    map: Mapped,
    path: PathBuf,
    base: u64,
}

/// What opening a file that exists found.
pub(crate) enum Found {
    Segment(Segment),
    /// The name is there and the content is not: power was lost before it reached the disk.
    Hollow,
}

fn check(payload: u32, position: u64) -> u32 {
    // With the position mixed in, bytes of another place or file cannot pass for a frame of this one.
    payload ^ (position as u32) ^ ((position >> 32) as u32)
}

/// How far a record of `length` bytes moves the end.
pub(crate) fn frame_bytes(length: usize) -> u64 {
    8 + 8 * words_for(length) as u64
}

impl Segment {
    /// The file name for a base position.
    pub(crate) fn name(base: u64) -> String {
        format!("{base:020}.log")
    }

    /// Makes a file of `bytes` under a temporary name; [`Segment::adopt`] gives it its own.
    pub(crate) fn create(path: PathBuf, base: u64, bytes: u64) -> Result<Self, LogError> {
        let made = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(LogError::io("create", &path))
            .and_then(|file| Mapped::reserve(&file, bytes).map_err(LogError::io("reserve space for", &path)));
        let map = match made {
            Ok(map) => map,
            Err(error) => {
                // Half a file is of no use, and its blocks may be just what is missing elsewhere.
                let _best_effort = fs::remove_file(&path);
                return Err(error);
            }
        };
        map.words()[1].store(base, Ordering::Relaxed);
        map.words()[0].store(MAGIC, Ordering::Release);
        Ok(Self { map, path, base })
    }

    /// Moves a new file to its final name.
    pub(crate) fn adopt(&mut self, dir: &Path) -> Result<(), LogError> {
        let path = dir.join(Self::name(self.base));
        fs::rename(&self.path, &path).map_err(LogError::io("rename a new segment to", &path))?;
        self.path = path;
        Ok(())
    }

    /// Opens a file that an earlier process left.
    pub(crate) fn open(path: PathBuf, base: u64) -> Result<Found, LogError> {
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(LogError::io("open", &path))?;
        let bytes = file.metadata().map_err(LogError::io("stat", &path))?.len();
        if bytes < (HEADER + LONGEST) as u64 * 8 || !bytes.is_multiple_of(8) {
            return Ok(Found::Hollow);
        }
        let map = Mapped::reserve(&file, bytes).map_err(LogError::io("reserve space for", &path))?;
        match map.words()[0].load(Ordering::Acquire) {
            MAGIC => {}
            0 => return Ok(Found::Hollow),
            other => return Err(LogError::Format { path, found: format!("magic {other:016x}") }),
        }
        let written = map.words()[1].load(Ordering::Relaxed);
        if written != base {
            return Err(LogError::Format { path, found: format!("base {written} under the name of {base}") });
        }
        Ok(Found::Segment(Self { map, path, base }))
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The first position past this file.
    pub(crate) fn end(&self) -> u64 {
        self.base + (self.map.words().len() - HEADER) as u64 * 8
    }

    /// Size on the disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.map.words().len() as u64 * 8
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How many records were put here. After a crash it may be one short until the file is scanned.
    pub(crate) fn records(&self) -> u64 {
        self.map.words()[2].load(Ordering::Relaxed)
    }

    pub(crate) fn populate(&self) {
        self.map.populate();
    }

    /// The words from a position on; none outside the file.
    fn at(&self, position: u64) -> &[AtomicU64] {
        let words = self.map.words();
        let index = position
            .checked_sub(self.base)
            .and_then(|offset| usize::try_from(offset / 8).ok())
            .map_or(words.len(), |offset| (HEADER + offset).min(words.len()));
        &words[index..]
    }

    /// Writes a record at a position where it fits ([`frame_bytes`]). The caller is the one writer.
    pub(crate) fn put(&self, position: u64, payload: &[u8], crc: u32) {
        if let [frame, rest @ ..] = self.at(position) {
            copy_in(rest, payload);
            let word = payload.len() as u64 | u64::from(check(crc, position)) << 32;
            frame.store(word, Ordering::Release);
            let records = &self.map.words()[2];
            records.store(records.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// Marks the rest of the file as not used.
    pub(crate) fn seal(&self, position: u64) {
        if let Some(frame) = self.at(position).first() {
            frame.store(SEALED, Ordering::Release);
        }
    }

    /// Reads the frame at a position, its payload into `out` (cleared first).
    pub(crate) fn frame(&self, position: u64, out: &mut Vec<u8>) -> Frame {
        out.clear();
        if !position.is_multiple_of(8) {
            return Frame::Broken;
        }
        let [frame, rest @ ..] = self.at(position) else { return Frame::End };
        let word = frame.load(Ordering::Acquire);
        if word == 0 || word == SEALED {
            return Frame::End;
        }
        let length = word as u32 as usize;
        if length == 0 || length > bounds::RECORD || words_for(length) > rest.len() {
            return Frame::Broken;
        }
        copy_out(rest, length, out);
        if check(crc32fast::hash(out), position) != (word >> 32) as u32 {
            return Frame::Broken;
        }
        Frame::Record { next: position + frame_bytes(length) }
    }

    /// Whether the rest of the file was given up at `position`.
    pub(crate) fn is_sealed(&self, position: u64) -> bool {
        self.at(position).first().is_none_or(|frame| frame.load(Ordering::Acquire) == SEALED)
    }

    /// Finds where the last whole record ends and makes the file fit to be written from there: a record that
    /// the last process did not finish is wiped. Says whether something other than that was found.
    pub(crate) fn recover(&self) -> (u64, bool) {
        let mut buffer = Vec::new();
        let mut position = self.base;
        let mut records = 0;
        let broken = loop {
            match self.frame(position, &mut buffer) {
                Frame::Record { next } => {
                    position = next;
                    records += 1;
                }
                Frame::End => break false,
                Frame::Broken => break true,
            }
        };
        self.map.words()[2].store(records, Ordering::Relaxed);
        if broken {
            for word in self.at(position) {
                word.store(0, Ordering::Relaxed);
            }
        } else if !self.is_sealed(position) {
            // One writer, so at most one unfinished record, and it began right here.
            for word in self.at(position).iter().take(LONGEST) {
                word.store(0, Ordering::Relaxed);
            }
        }
        (position, broken)
    }
}
