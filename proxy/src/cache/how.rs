//! How a request was handled, for `Cache-Status` (RFC 9211).

use http::StatusCode;

/// Why a request went on to the origin (section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forward {
    /// It did not.
    No,
    /// Nothing was there.
    Miss,
    /// Other variants were.
    VaryMiss,
    /// What was there had to be validated.
    Stale,
    /// The client asked for it.
    Request,
    /// It is not for the cache.
    Bypass,
}

impl Forward {
    /// The token.
    pub(crate) fn as_str(self) -> Option<&'static str> {
        match self {
            Self::No => None,
            Self::Miss => Some("miss"),
            Self::VaryMiss => Some("vary-miss"),
            Self::Stale => Some("stale"),
            Self::Request => Some("request"),
            Self::Bypass => Some("bypass"),
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct How {
    pub(crate) forward: Forward,
    /// What the origin answered.
    pub(crate) status: Option<StatusCode>,
    pub(crate) stored: bool,
    pub(crate) collapsed: bool,
    pub(crate) detail: Option<&'static str>,
}

impl How {
    pub(crate) fn new(forward: Forward) -> Self {
        Self { forward, status: None, stored: false, collapsed: false, detail: None }
    }

    /// Served from the cache.
    pub(crate) fn hit() -> Self {
        Self::new(Forward::No)
    }

    /// Served from the cache though out of date, and why.
    pub(crate) fn stale(detail: &'static str) -> Self {
        Self { detail: Some(detail), ..Self::hit() }
    }
}
