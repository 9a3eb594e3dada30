//! What the fuzz targets may call: the parsers that read what clients and origins send, as they are.
//!
//! Invariants: nothing here decides anything; each function passes on to the parser that the edge runs, and turns its
//! answer into plain values. Built with the feature `fuzzing` alone.

use std::net::IpAddr;

use http::HeaderMap;
use segue_signing::CanonicalPath;

use crate::client::preamble;
use crate::config::ProxyProtocol;
use crate::connection::head;
use crate::playlist::rewrite::{RewriteError, Rewriter};
use crate::respond::range::{self, Selected};
use crate::timeline::playlist;

/// What `Range` asks for, of an object of `total` bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranged {
    /// The whole object: no range, or none that is understood.
    Whole,
    /// First and last byte of each part, in the order in which they are sent.
    Parts(Vec<(u64, u64)>),
    /// 416.
    NotSatisfiable,
}

/// Reads `Range`.
pub fn range(headers: &HeaderMap, total: u64) -> Ranged {
    match range::select(headers, total) {
        Ok(Selected::All) => Ranged::Whole,
        Ok(Selected::One(window)) => Ranged::Parts(vec![(window.first, window.last())]),
        Ok(Selected::Several(windows)) => {
            Ranged::Parts(windows.iter().map(|window| (window.first, window.last())).collect())
        }
        Err(_) => Ranged::NotSatisfiable,
    }
}

/// What stands at the front of a connection's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Front {
    /// Not yet a whole head.
    Partial,
    /// Nothing that can be parsed.
    Invalid,
    /// A whole head, for the general way.
    Whole {
        /// Bytes of the head.
        length: usize,
        /// Whether nothing of this request follows it.
        bodyless: bool,
    },
    /// A plain GET or HEAD, for the short way.
    Plain {
        /// Bytes of the head.
        length: usize,
        /// The method.
        method: String,
        /// The path, still encoded.
        path: String,
        /// The query.
        query: Option<String>,
        /// Every header.
        headers: HeaderMap,
    },
}

/// Reads the head at the front of `bytes`.
pub fn front(bytes: &[u8]) -> Front {
    let mut headers = HeaderMap::new();
    match head::parse(bytes, &mut headers) {
        head::Head::Partial => Front::Partial,
        head::Head::Bad(_) | head::Head::Preface => Front::Invalid,
        head::Head::Whole { length, bodyless } => Front::Whole { length, bodyless },
        head::Head::Plain { length, method, path, query } => Front::Plain {
            length,
            method: method.to_string(),
            path: path.to_owned(),
            query: query.map(str::to_owned),
            headers,
        },
    }
}

/// The segments of a media playlist at `path`: name, start and length in milliseconds.
pub fn segments(path: &str, text: &str) -> Vec<(CanonicalPath, u64, u64)> {
    playlist::segments(path, text).into_iter().map(|(path, media)| (path, media.pos_ms, media.media_ms)).collect()
}

/// The media playlists that a master playlist at `path` names.
pub fn renditions(path: &str, text: &str) -> Vec<CanonicalPath> {
    playlist::renditions(path, text)
}

/// What the rewriter is to do.
pub use crate::playlist::rewrite::Way as Rewriting;

/// Rewrites a playlist that comes in these pieces; the reason word where it cannot be.
///
/// # Errors
/// The reason word.
pub fn rewrite(way: Rewriting<'_>, host: Option<&str>, pieces: &[&[u8]]) -> Result<Vec<u8>, &'static str> {
    let mut rewriter = Rewriter::new(way, host);
    let mut out = Vec::new();
    for piece in pieces {
        rewriter.push(piece, &mut out).map_err(RewriteError::kind)?;
    }
    rewriter.finish(&mut out).map_err(RewriteError::kind)?;
    Ok(out)
}

/// What stands at the front of a connection from a balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preamble {
    /// Not yet a whole header.
    Partial,
    /// A header, and whom it names.
    Whole {
        /// Its bytes.
        length: usize,
        /// The client.
        client: Option<IpAddr>,
    },
    /// No header.
    Wrong,
}

/// Reads a header of the PROXY protocol in the versions that are expected.
pub fn preamble(bytes: &[u8], text: bool, binary: bool) -> Preamble {
    let expected = match (text, binary) {
        (true, true) => ProxyProtocol::Any,
        (true, false) => ProxyProtocol::V1,
        (false, true) => ProxyProtocol::V2,
        (false, false) => ProxyProtocol::Off,
    };
    match preamble::parse(bytes, expected) {
        preamble::Parsed::Partial => Preamble::Partial,
        preamble::Parsed::Whole { length, client } => Preamble::Whole { length, client },
        preamble::Parsed::Wrong => Preamble::Wrong,
    }
}
