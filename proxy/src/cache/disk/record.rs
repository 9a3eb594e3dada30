//! One object on the disk: a head, two places for its [`Meta`], then the body in chunks.
//!
//! ```text
//! head    magic, state, checksum of the rest; epoch, sequence, birth, length, sizes, key, a checksum for each chunk
//! meta    two slots: counter, length, checksum, bytes; the higher counter that is whole counts
//! body    from the next unit on, chunks of 64 KiB
//! ```
//!
//! Invariants:
//! - Every checksum is XXH3-64, seeded with the store's own secret (head) or with the record's identity (meta, chunks):
//!   key with purge generation, ETag, Last-Modified, length and birth. A chunk of another object, of another state of
//!   this object, or at another place does not pass; nor does any changed bit, but for one chance in 2^64.
//! - The head is written after the body. `state` alone stands outside of its checksum, so that a record dies in
//!   place; the epoch is that of the region, so that what an earlier lap left behind is not taken for a record.
//! - A renewal writes the slot that does not count, so that a death in the middle leaves the other.

use std::time::Instant;

use twox_hash::XxHash3_64;

use super::meta;
use crate::cache::{Meta, Object};

/// What records are aligned to.
pub(super) const UNIT: u64 = 1024;
/// What a checksum covers, and the least that is read of a body.
pub(super) const CHUNK: usize = 64 * 1024;
/// What is read to learn a record's sizes.
pub(super) const FIXED: usize = 80;
/// Bytes of a head at most: a body of 4 GiB has 512 KiB of checksums.
pub(super) const HEAD_MAX: usize = 1 << 20;
/// Where the state stands in a record.
pub(super) const STATE_AT: u64 = 4;

const MAGIC: u32 = 0x3147_4553;
const ALIVE: u32 = 0x4556_494c;
/// What is written over [`ALIVE`].
pub(super) const DEAD: u32 = 0x4441_4544;
/// Where the checksum's cover begins.
const COVERED: usize = 16;
/// Before a slot's bytes: counter, length, checksum.
const SLOT_HEAD: usize = 20;
/// Room for a renewed `Meta` to be longer than the first.
const META_ROOM: usize = 64;
/// Spreads the places of chunks over the seeds.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// A head that was read and proven.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) alive: bool,
    pub(super) epoch: u64,
    pub(super) sequence: u64,
    pub(super) length: u64,
    /// Bytes before the body.
    pub(super) head_bytes: usize,
    pub(super) key: Vec<u8>,
    pub(super) sums: Vec<u64>,
    identity: u64,
    checked: usize,
    meta_room: usize,
}

/// The sizes that a record will have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) head_bytes: usize,
    /// All of it, padding included.
    pub(super) bytes: u64,
}

pub(super) fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

/// The most that an object of `length` bytes takes, with a key and headers of ordinary size.
pub(super) fn bytes_for(length: u64) -> u64 {
    8 * length.div_ceil(CHUNK as u64) + length + 32 * UNIT
}

/// What ties chunks and meta to one state of one object.
fn identity(seed: u64, key: &[u8], meta: &Meta, length: u64, birth: u64) -> u64 {
    let mut all = Vec::with_capacity(key.len() + 128);
    let mut part = |bytes: &[u8]| {
        all.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        all.extend_from_slice(bytes);
    };
    part(key);
    part(meta.etag.as_ref().map_or(b"", |etag| etag.as_bytes()));
    part(meta.last_modified.as_ref().map_or(b"", |(value, _)| value.as_bytes()));
    part(&length.to_le_bytes());
    part(&birth.to_le_bytes());
    checksum(seed, &all)
}

fn chunk_seed(identity: u64, place: usize) -> u64 {
    identity ^ (place as u64 + 1).wrapping_mul(SPREAD)
}

fn slot_seed(identity: u64, counter: u64) -> u64 {
    identity ^ counter.wrapping_add(1).wrapping_mul(SPREAD).rotate_left(32)
}

/// Everything of a record before its body, but for its epoch: [`stamp`] goes on with that. `since_ms` is when the
/// object's head came.
pub(super) fn head_of(
    seed: u64,
    key: &[u8],
    object: &Object,
    since_ms: u64,
    sequence: u64,
) -> Option<(Vec<u8>, Sizes)> {
    let length = object.body.len() as u64;
    let mut meta = Vec::with_capacity(256);
    meta::encode(&object.meta, since_ms, &mut meta);
    let identity = identity(seed, key, &object.meta, length, sequence);
    let room = meta.len() + META_ROOM;
    let chunks = object.body.chunks(CHUNK).len();
    let checked = FIXED + key.len() + 8 * chunks;
    let head_bytes = (checked + 2 * (SLOT_HEAD + room)).next_multiple_of(usize::try_from(UNIT).ok()?);
    if head_bytes > HEAD_MAX {
        return None;
    }
    let mut out = Vec::with_capacity(head_bytes);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&ALIVE.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    for number in [0, sequence, sequence, identity, length] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for number in [key.len(), room, head_bytes, chunks] {
        out.extend_from_slice(&u32::try_from(number).ok()?.to_le_bytes());
    }
    out.resize(FIXED, 0);
    out.extend_from_slice(key);
    for (place, chunk) in object.body.chunks(CHUNK).enumerate() {
        out.extend_from_slice(&checksum(chunk_seed(identity, place), chunk).to_le_bytes());
    }
    out.extend_from_slice(&slot(identity, 1, &meta));
    out.resize(head_bytes, 0);
    let bytes = (head_bytes as u64 + length).next_multiple_of(UNIT);
    Some((out, Sizes { head_bytes, bytes }))
}

/// Gives a head its epoch and sequence, and the checksum that proves it.
pub(super) fn stamp(seed: u64, bytes: &mut [u8], epoch: u64, sequence: u64) -> Option<()> {
    let key_bytes = usize::try_from(u32_at(bytes, 56)?).ok()?;
    let chunks = usize::try_from(u32_at(bytes, 68)?).ok()?;
    let checked = FIXED.checked_add(key_bytes)?.checked_add(chunks.checked_mul(8)?)?;
    bytes.get_mut(4..8)?.copy_from_slice(&ALIVE.to_le_bytes());
    bytes.get_mut(16..24)?.copy_from_slice(&epoch.to_le_bytes());
    bytes.get_mut(24..32)?.copy_from_slice(&sequence.to_le_bytes());
    let sum = checksum(seed, bytes.get(COVERED..checked)?);
    bytes.get_mut(8..COVERED)?.copy_from_slice(&sum.to_le_bytes());
    Some(())
}

fn slot(identity: u64, counter: u64, meta: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(SLOT_HEAD + meta.len());
    out.extend_from_slice(&counter.to_le_bytes());
    out.extend_from_slice(&u32::try_from(meta.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&checksum(slot_seed(identity, counter), meta).to_le_bytes());
    out.extend_from_slice(meta);
    out
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The bytes before the body and those of the whole record, off the first [`FIXED`] bytes. Nothing of it is proven yet.
pub(super) fn sizes(fixed: &[u8]) -> Option<Sizes> {
    if u32_at(fixed, 0)? != MAGIC {
        return None;
    }
    let head_bytes = usize::try_from(u32_at(fixed, 64)?).ok()?;
    let length = u64_at(fixed, 48)?;
    let is_sane = (FIXED..=HEAD_MAX).contains(&head_bytes) && length < u64::from(u32::MAX) * UNIT;
    is_sane.then(|| Sizes { head_bytes, bytes: (head_bytes as u64 + length).next_multiple_of(UNIT) })
}

impl Head {
    /// Reads and proves a head. `None`: there is no record here that was written whole.
    pub(super) fn read(seed: u64, bytes: &[u8]) -> Option<Self> {
        let sizes = sizes(bytes)?;
        let key_bytes = usize::try_from(u32_at(bytes, 56)?).ok()?;
        let meta_room = usize::try_from(u32_at(bytes, 60)?).ok()?;
        let chunks = usize::try_from(u32_at(bytes, 68)?).ok()?;
        let sums_at = FIXED.checked_add(key_bytes)?;
        let checked = sums_at.checked_add(chunks.checked_mul(8)?)?;
        let covered = bytes.get(COVERED..checked)?;
        if u64_at(bytes, 8)? != checksum(seed, covered) {
            return None;
        }
        let sums = bytes.get(sums_at..checked)?.chunks_exact(8).filter_map(|sum| u64_at(sum, 0)).collect();
        Some(Self {
            alive: u32_at(bytes, 4)? == ALIVE,
            epoch: u64_at(bytes, 16)?,
            sequence: u64_at(bytes, 24)?,
            identity: u64_at(bytes, 40)?,
            length: u64_at(bytes, 48)?,
            head_bytes: sizes.head_bytes,
            key: bytes.get(FIXED..sums_at)?.to_vec(),
            sums,
            checked,
            meta_room,
        })
    }

    /// The newest `Meta` that is whole, with its counter.
    fn newest<'b>(&self, bytes: &'b [u8]) -> Option<(u64, &'b [u8])> {
        let stored = [0, 1].into_iter().filter_map(|place| {
            let at = self.slot_at(place);
            let counter = u64_at(bytes, at)?;
            let length = usize::try_from(u32_at(bytes, at + 8)?).ok().filter(|length| *length <= self.meta_room)?;
            let meta = bytes.get(at + SLOT_HEAD..at + SLOT_HEAD + length)?;
            let is_whole = u64_at(bytes, at + 12)? == checksum(slot_seed(self.identity, counter), meta);
            (is_whole && counter > 0).then_some((counter, meta))
        });
        stored.max_by_key(|(counter, _)| *counter)
    }

    fn slot_at(&self, place: usize) -> usize {
        self.checked + place * (SLOT_HEAD + self.meta_room)
    }

    /// What is known of the object. `bytes` are those that the head was read from.
    pub(super) fn meta(&self, bytes: &[u8]) -> Option<(Meta, Instant)> {
        meta::decode(self.newest(bytes)?.1, self.length)
    }

    /// Where a renewed `Meta` goes, and what is written there. `None`: it does not fit, or tells of another state of
    /// the object, whose bytes these are not.
    pub(super) fn renewal(&self, bytes: &[u8], seed: u64, meta: &Meta, since_ms: u64) -> Option<(u64, Vec<u8>)> {
        let birth = u64_at(bytes, 32)?;
        if identity(seed, &self.key, meta, self.length, birth) != self.identity {
            return None;
        }
        let (counter, _) = self.newest(bytes)?;
        let mut encoded = Vec::with_capacity(256);
        meta::encode(meta, since_ms, &mut encoded);
        if encoded.len() > self.meta_room {
            return None;
        }
        // The first stands in place 0 with counter 1, so the one that counts is in the place of its parity.
        let place = usize::from(counter % 2 == 1);
        Some((self.slot_at(place) as u64, slot(self.identity, counter + 1, &encoded)))
    }

    /// Whether the chunks in `bytes`, from `first` on, are what was written.
    pub(super) fn proves(&self, first: usize, bytes: &[u8]) -> bool {
        bytes.chunks(CHUNK).zip(first..).all(|(chunk, place)| {
            self.sums.get(place).is_some_and(|sum| *sum == checksum(chunk_seed(self.identity, place), chunk))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;
    use crate::snapshot::unix_ms;

    fn object(etag: &'static str, body: &[u8]) -> Object {
        let meta = Meta {
            length: Some(body.len() as u64),
            etag: Some(HeaderValue::from_static(etag)),
            last_modified: None,
            content_type: HeaderValue::from_static("audio/mp4"),
            content_encoding: None,
            cache_control: HeaderValue::from_static("private"),
            fresh_for: Duration::from_secs(60),
            initial_age: Duration::ZERO,
            http: None,
            whole_only: false,
        };
        Object::new(meta, Bytes::copy_from_slice(body), Instant::now())
    }

    fn written(seed: u64, key: &[u8], object: &Object, sequence: u64) -> Vec<u8> {
        let mut bytes = head_of(seed, key, object, unix_ms(), sequence).unwrap().0;
        stamp(seed, &mut bytes, 7, sequence).unwrap();
        bytes
    }

    #[test]
    fn any_bit_that_changes_in_the_covered_head_is_found() {
        let object = object("\"a\"", &[5; CHUNK + 1]);
        let bytes = written(1, b"key", &object, 3);
        let head = Head::read(1, &bytes).unwrap();
        assert_eq!((head.epoch, head.sequence, head.length, head.sums.len()), (7, 3, CHUNK as u64 + 1, 2));
        assert!(Head::read(2, &bytes).is_none(), "another store's");
        for at in (0..4).chain(8..head.checked) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(Head::read(1, &bad).is_none(), "byte {at}");
        }
        let mut dead = bytes;
        dead[4..8].copy_from_slice(&DEAD.to_le_bytes());
        assert!(!Head::read(1, &dead).unwrap().alive);
    }

    #[test]
    fn a_chunk_passes_for_its_own_object_state_and_place_alone() {
        let body = [9_u8; 2 * CHUNK];
        let head =
            |key: &[u8], etag, sequence| Head::read(1, &written(1, key, &object(etag, &body), sequence)).unwrap();
        let right = head(b"k", "\"a\"", 1);
        assert!(right.proves(0, &body) && right.proves(1, &body[CHUNK..]));
        assert!(!right.proves(0, &body[1..]), "short");
        assert!(!right.proves(2, &body[..1]), "beyond the end");
        let sums = |head: &Head| head.sums.clone();
        for other in [head(b"l", "\"a\"", 1), head(b"k", "\"b\"", 1), head(b"k", "\"a\"", 2)] {
            assert_ne!(sums(&right), sums(&other));
        }
        assert_ne!(right.sums[0], right.sums[1], "equal chunks at two places");
        let mut bad = body;
        bad[CHUNK] ^= 1;
        assert!(!right.proves(0, &bad));
    }

    #[test]
    fn a_renewal_that_is_torn_leaves_the_meta_before_it() {
        let object = object("\"a\"", b"body");
        let mut bytes = written(1, b"k", &object, 1);
        for seconds in [100, 200, 300] {
            let head = Head::read(1, &bytes).unwrap();
            let before = head.meta(&bytes).unwrap().0.fresh_for;
            let meta = Meta { fresh_for: Duration::from_secs(seconds), ..object.meta.clone() };
            let (at, slot) = head.renewal(&bytes, 1, &meta, unix_ms()).unwrap();
            let at = usize::try_from(at).unwrap();
            let mut full = bytes.clone();
            full[at..at + slot.len()].copy_from_slice(&slot);
            for torn in 0..slot.len() {
                let mut half = bytes.clone();
                half[at..at + torn].copy_from_slice(&slot[..torn]);
                if half == full {
                    // What is left to write is zeros that stand there already.
                    continue;
                }
                assert_eq!(head.meta(&half).unwrap().0.fresh_for, before, "torn at {torn}");
            }
            bytes = full;
            assert_eq!(head.meta(&bytes).unwrap().0.fresh_for, meta.fresh_for);
        }
        let head = Head::read(1, &bytes).unwrap();
        let other = Meta { etag: Some(HeaderValue::from_static("\"b\"")), ..object.meta.clone() };
        assert!(head.renewal(&bytes, 1, &other, unix_ms()).is_none(), "another state of the object");
    }

    #[test]
    fn a_record_that_moves_keeps_its_chunks() {
        let object = object("\"a\"", &[1; 100]);
        let mut bytes = written(1, b"k", &object, 1);
        stamp(1, &mut bytes, 8, 2).unwrap();
        let moved = Head::read(1, &bytes).unwrap();
        assert_eq!((moved.epoch, moved.sequence), (8, 2));
        assert!(moved.proves(0, &object.body) && moved.meta(&bytes).is_some());
        let meta = Meta { fresh_for: Duration::from_secs(9), ..object.meta.clone() };
        assert!(moved.renewal(&bytes, 1, &meta, unix_ms()).is_some());
    }
}
