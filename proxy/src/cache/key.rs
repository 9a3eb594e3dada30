//! The one key function: route, canonical path, purge generation of the track, and for HTTP origins the query
//! and, where the origin says `Vary`, what the request says under the headers that it names.
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
    /// What the request's selecting headers say (`vary.rs`), where the URL has variants.
    variant: Option<Box<str>>,
}

/// A key that owns nothing, for looking things up. It hashes as the [`Key`] of the same fields does: same fields, same
/// order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyRef<'k> {
    pub(super) route: u16,
    pub(super) generation: u64,
    pub(super) path: &'k str,
    pub(super) query: Option<&'k str>,
    pub(super) variant: Option<&'k str>,
}

impl<'k> KeyRef<'k> {
    /// The same route and generation, another path, no query.
    pub(crate) fn sibling(self, path: &'k str) -> Self {
        Self { path, query: None, variant: None, ..self }
    }

    /// The place of the route, as this process counts routes.
    pub(crate) fn route(self) -> u16 {
        self.route
    }

    /// Writes it in a form that outlives the process: `route` stands for what the route leads to.
    pub(crate) fn encode(self, route: u64, out: &mut Vec<u8>) {
        let Self { route: _, generation, path, query, variant } = self;
        out.extend_from_slice(&route.to_le_bytes());
        out.extend_from_slice(&generation.to_le_bytes());
        out.extend_from_slice(&(path.len() as u64).to_le_bytes());
        out.extend_from_slice(path.as_bytes());
        if let Some(query) = query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
        if let Some(variant) = variant {
            // No query holds a line end.
            out.push(b'\n');
            out.extend_from_slice(variant.as_bytes());
        }
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.borrowed()
    }
}

impl From<KeyRef<'_>> for Key {
    fn from(key: KeyRef<'_>) -> Self {
        let KeyRef { route, generation, path, query, variant } = key;
        Self { route, generation, path: path.into(), query: query.map(Into::into), variant: variant.map(Into::into) }
    }
}

impl Key {
    pub(crate) fn borrowed(&self) -> KeyRef<'_> {
        let Self { route, generation, path, query, variant } = self;
        let (query, variant) = (query.as_deref(), variant.as_deref());
        KeyRef { route: *route, generation: *generation, path, query, variant }
    }

    #[cfg(test)]
    pub(crate) fn new(route: u16, generation: u64, path: &str, query: Option<&str>) -> Self {
        KeyRef { route, generation, path, query, variant: None }.into()
    }

    /// The same route and generation, another path, no query.
    pub(crate) fn sibling(&self, path: &str) -> Self {
        Self { route: self.route, generation: self.generation, path: path.into(), query: None, variant: None }
    }

    /// The same URL, as the requests ask for it that say `variant`.
    pub(crate) fn variant(&self, variant: Box<str>) -> Self {
        Self { variant: Some(variant), ..self.clone() }
    }

    /// The URL's own key; `None` where this is it.
    pub(crate) fn primary(&self) -> Option<Self> {
        self.variant.is_some().then(|| Self { variant: None, ..self.clone() })
    }

    /// The path in what [`KeyRef::encode`] wrote, for the log.
    pub(crate) fn path_in(encoded: &[u8]) -> String {
        let length = encoded.get(16..24).and_then(|length| Some(u64::from_le_bytes(length.try_into().ok()?)));
        let path = encoded.get(24..).unwrap_or_default();
        let length = usize::try_from(length.unwrap_or_default()).unwrap_or(usize::MAX).min(path.len());
        String::from_utf8_lossy(path.get(..length).unwrap_or_default()).into_owned()
    }

    /// Bytes that it takes in memory.
    pub(crate) fn weight(&self) -> u64 {
        let optional = |part: &Option<Box<str>>| part.as_ref().map_or(0, |part| part.len());
        (size_of::<Self>() + self.path.len() + optional(&self.query) + optional(&self.variant)) as u64
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
            let key = KeyRef { route: 3, generation: 7, path: "/hls/t/seg-00000.m4s", query, variant: None };
            let owned = Key::from(key);
            assert_eq!(hasher.hash_one(&owned), hasher.hash_one(owned.borrowed()), "{query:?}");
            assert!(owned.borrowed().equivalent(&owned));
            assert_eq!(Key::from(owned.borrowed()), owned);
            assert!(!owned.borrowed().equivalent(&owned.variant("v".into())));
            assert!(!key.equivalent(&Key::from(KeyRef { generation: 8, ..key })));
        }
    }
}
