//! The one key function: route, canonical path, purge generation of the track, and for HTTP origins the query.
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
}

impl Key {
    pub(crate) fn new(route: u16, generation: u64, path: &str, query: Option<&str>) -> Self {
        Self { route, generation, path: path.into(), query: query.map(Into::into) }
    }

    /// The same route and generation, another path, no query.
    pub(crate) fn sibling(&self, path: &str) -> Self {
        Self { route: self.route, generation: self.generation, path: path.into(), query: None }
    }

    /// The place of the route, as this process counts routes.
    pub(crate) fn route(&self) -> u16 {
        self.route
    }

    /// Writes it in a form that outlives the process: `route` stands for what the route leads to.
    pub(crate) fn encode(&self, route: u64, out: &mut Vec<u8>) {
        let Self { route: _, generation, path, query } = self;
        out.extend_from_slice(&route.to_le_bytes());
        out.extend_from_slice(&generation.to_le_bytes());
        out.extend_from_slice(&(path.len() as u64).to_le_bytes());
        out.extend_from_slice(path.as_bytes());
        if let Some(query) = query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
    }

    /// The path in what [`Self::encode`] wrote, for the log.
    pub(crate) fn path_in(encoded: &[u8]) -> String {
        let length = encoded.get(16..24).and_then(|length| Some(u64::from_le_bytes(length.try_into().ok()?)));
        let path = encoded.get(24..).unwrap_or_default();
        let length = usize::try_from(length.unwrap_or_default()).unwrap_or(usize::MAX).min(path.len());
        String::from_utf8_lossy(path.get(..length).unwrap_or_default()).into_owned()
    }

    /// Bytes that it takes in memory.
    pub(crate) fn weight(&self) -> u64 {
        (size_of::<Self>() + self.path.len() + self.query.as_ref().map_or(0, |query| query.len())) as u64
    }
}
