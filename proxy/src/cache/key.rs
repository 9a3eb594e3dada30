//! The one key function: route, canonical path, purge generation of the track, and for HTTP origins the query
//! and, where the origin says `Vary`, what the request says under the headers that it names.
//!
//! Invariants: a ticket is never part of it; raising a track's generation makes every older key of it unreachable,
//! in memory and in fills that still run.

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

impl Key {
    pub(crate) fn new(route: u16, generation: u64, path: &str, query: Option<&str>) -> Self {
        Self { route, generation, path: path.into(), query: query.map(Into::into), variant: None }
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

    /// Bytes that it takes in memory.
    pub(crate) fn weight(&self) -> u64 {
        let optional = |part: &Option<Box<str>>| part.as_ref().map_or(0, |part| part.len());
        (size_of::<Self>() + self.path.len() + optional(&self.query) + optional(&self.variant)) as u64
    }
}
