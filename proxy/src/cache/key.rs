//! The one key function: route, canonical path, purge generation of the track, and for HTTP origins the query.
//!
//! Invariants: a ticket is never part of it; raising a track's generation makes every older key of it unreachable,
//! in memory and in fills that still run.

use quick_cache::Equivalent;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    route: u16,
    generation: u64,
    path: Box<str>,
    query: Option<Box<str>>,
}

/// A key that owns nothing, for looking things up. It hashes as the [`Key`] of the same fields does: same fields, same
/// order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyRef<'k> {
    pub(super) route: u16,
    pub(super) generation: u64,
    pub(super) path: &'k str,
    pub(super) query: Option<&'k str>,
}

impl<'k> KeyRef<'k> {
    /// The same route and generation, another path, no query.
    pub(crate) fn sibling(self, path: &'k str) -> Self {
        Self { path, query: None, ..self }
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.borrowed()
    }
}

impl From<KeyRef<'_>> for Key {
    fn from(key: KeyRef<'_>) -> Self {
        Self::new(key.route, key.generation, key.path, key.query)
    }
}

impl Key {
    pub(crate) fn borrowed(&self) -> KeyRef<'_> {
        let Self { route, generation, path, query } = self;
        KeyRef { route: *route, generation: *generation, path, query: query.as_deref() }
    }

    pub(crate) fn new(route: u16, generation: u64, path: &str, query: Option<&str>) -> Self {
        Self { route, generation, path: path.into(), query: query.map(Into::into) }
    }

    /// The same route and generation, another path, no query.
    pub(crate) fn sibling(&self, path: &str) -> Self {
        Self { route: self.route, generation: self.generation, path: path.into(), query: None }
    }

    /// Bytes that it takes in memory.
    pub(crate) fn weight(&self) -> u64 {
        (size_of::<Self>() + self.path.len() + self.query.as_ref().map_or(0, |query| query.len())) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn a_borrowed_key_is_found_where_the_owned_one_lies() {
        let hasher = std::hash::RandomState::new();
        for query in [None, Some(""), Some("a=b")] {
            let owned = Key::new(3, 7, "/hls/t/seg-00000.m4s", query);
            assert_eq!(hasher.hash_one(&owned), hasher.hash_one(owned.borrowed()), "{query:?}");
            assert!(owned.borrowed().equivalent(&owned));
            assert_eq!(Key::from(owned.borrowed()), owned);
            assert!(!owned.borrowed().equivalent(&Key::new(3, 8, "/hls/t/seg-00000.m4s", query)));
        }
    }
}
