//! Which facts were counted, by their ids: a bit for each.
//!
//! An id ends in a number that grows by one with every fact of a boot of an edge (`<edge>-<boot>-<number>`), so that a block of numbers is
//! some hundred bytes in the database where its ids would be some hundred kilobytes, and a batch touches one block or two.

use std::collections::{HashMap, HashSet};

use crate::store::plays::{self, Block};
use crate::store::{StoreError, Write};

/// Numbers of a block: a kilobyte of bits.
const NUMBERS: u64 = 8192;
const BYTES: usize = (NUMBERS / 8) as usize;

/// Longest part of an id before its number.
const STEM_MAX: usize = 64;

/// The place of an id: block, byte and bit. `None`: it is no id of a fact.
fn place(id: &str) -> Option<(Block, usize, u8)> {
    let (stem, number) = id.rsplit_once('-')?;
    if stem.is_empty() || stem.len() > STEM_MAX || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    let block = i64::try_from(number / NUMBERS).ok()?;
    let within = number % NUMBERS;
    Some(((stem.to_owned(), block), usize::try_from(within / 8).ok()?, 1 << (within % 8)))
}

/// The blocks that a batch touches.
#[derive(Debug, Default)]
pub(super) struct Seen {
    blocks: HashMap<Block, Vec<u8>>,
    changed: HashSet<Block>,
}

impl Seen {
    /// Reads the blocks of these ids.
    pub(super) async fn load(tx: &mut Write, ids: impl Iterator<Item = &str>) -> Result<Self, StoreError> {
        let blocks: HashSet<Block> = ids.filter_map(place).map(|(block, ..)| block).collect();
        let blocks: Vec<Block> = blocks.into_iter().collect();
        Ok(Self { blocks: plays::seen(tx, &blocks).await?, changed: HashSet::new() })
    }

    /// Whether this is the first time; notes it. `None`: it is no id of a fact.
    pub(super) fn first(&mut self, id: &str) -> Option<bool> {
        let (block, byte, bit) = place(id)?;
        let bits = self.blocks.entry(block.clone()).or_insert_with(|| vec![0; BYTES]);
        bits.resize(BYTES, 0);
        let known = bits[byte] & bit != 0;
        bits[byte] |= bit;
        if !known {
            self.changed.insert(block);
        }
        Some(!known)
    }

    /// Stores what changed.
    pub(super) async fn store(mut self, tx: &mut Write, now: i64) -> Result<(), StoreError> {
        let changed: Vec<_> = self.changed.iter().filter_map(|block| self.blocks.remove_entry(block)).collect();
        plays::put_seen(tx, &changed, now).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_number_has_a_bit_of_its_own() {
        let mut seen = Seen::default();
        let ids: Vec<String> = (0..20_000).map(|n| format!("edge-1-mb2k-{n}")).collect();
        assert!(ids.iter().rev().all(|id| seen.first(id) == Some(true)));
        assert!(ids.iter().all(|id| seen.first(id) == Some(false)));
        assert_eq!(seen.blocks.len(), 3);
        assert_eq!(seen.first("edge-1-mb2l-5"), Some(true), "another boot");
    }

    #[test]
    fn what_is_no_id_is_told() {
        for id in
            ["", "x", "-5", "e-1-", "e-1-+5", "e-1-5x", "e-1-99999999999999999999", &format!("{}-1", "e".repeat(65))]
        {
            assert_eq!(Seen::default().first(id), None, "{id}");
        }
        assert_eq!(Seen::default().first(&format!("e-1-{}", u64::MAX)), Some(true));
    }
}
