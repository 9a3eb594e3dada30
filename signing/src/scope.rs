//! The scope of a ticket: which canonical paths it opens.
//!
//! # Invariants
//! - A prefix ends in `/`, so that it can only match at a segment boundary: `/hls/s1/` never opens `/hls/s10/`.
//! - A scope is itself a canonical path. It carries no escapes: `%` in it is the character `%`.

use std::fmt;

use crate::path::{CanonicalPath, PathError};

/// What the claim `path` opens: everything below a prefix, or one whole path.
#[derive(Clone, PartialEq, Eq)]
pub struct Scope {
    path: CanonicalPath,
    extent: Extent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Below,
    Whole,
}

/// Why a scope is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the scope is not a canonical path: {0}; write it decoded, as /hls/<track>/ or one whole path")]
pub struct ScopeError(#[from] pub PathError);

impl ScopeError {
    /// The reason word.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        "scope-invalid"
    }
}

impl Scope {
    /// Reads the claim `path`: a prefix where it ends in `/`, else one whole path.
    ///
    /// # Errors
    /// Where it is not a canonical path.
    pub fn parse(claim: &str) -> Result<Self, ScopeError> {
        let path = CanonicalPath::from_decoded(claim)?;
        let extent = if claim.ends_with('/') { Extent::Below } else { Extent::Whole };
        Ok(Self { path, extent })
    }

    /// The scope of a signed URL: this one path, even where it ends in `/`.
    #[must_use]
    pub fn whole(path: CanonicalPath) -> Self {
        Self { path, extent: Extent::Whole }
    }

    /// Whether `path` lies within the scope.
    #[must_use]
    pub fn allows(&self, path: &CanonicalPath) -> bool {
        match self.extent {
            Extent::Below => path.as_str().starts_with(self.path.as_str()),
            Extent::Whole => path == &self.path,
        }
    }

    /// The prefix, or the whole path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.path.as_str()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extent = match self.extent {
            Extent::Below => "below",
            Extent::Whole => "whole",
        };
        write!(f, "Scope({extent} {:?})", self.as_str())
    }
}

#[cfg(test)]
mod tests;
