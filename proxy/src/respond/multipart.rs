//! Several ranges in one answer: `multipart/byteranges` (RFC 9110, section 14.6).
//!
//! Invariants: the boundary is random, so that no object can hold it on purpose; the body's length is known before its
//! first byte; parts are slices of the object, not copies.

use std::collections::VecDeque;

use bytes::Bytes;
use http::HeaderValue;

use super::range::Window;
use crate::cache::Meta;
use crate::refusal::Refusal;

/// See the module.
pub(super) struct Multipart {
    boundary: String,
    windows: Vec<Window>,
    content_type: HeaderValue,
}

impl Multipart {
    /// # Errors
    /// [`Refusal::Internal`] where the system gives no randomness.
    pub(super) fn new(windows: Vec<Window>, meta: &Meta) -> Result<Self, Refusal> {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(|_| Refusal::Internal)?;
        let boundary = format!("{:032x}", u128::from_be_bytes(random));
        Ok(Self { boundary, windows, content_type: meta.content_type.clone() })
    }

    /// The `Content-Type` of the whole.
    pub(super) fn content_type(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("multipart/byteranges; boundary={}", self.boundary)).ok()
    }

    /// Bytes of the body, heads of parts included.
    pub(super) fn length(&self) -> u64 {
        let parts: u64 = self.windows.iter().map(|window| self.head_of(*window).len() as u64 + window.length()).sum();
        parts + self.end().len() as u64
    }

    /// The largest part: what is recorded of the answer, so that many small probes never count as much of an object.
    pub(super) fn largest(&self) -> Option<Window> {
        self.windows.iter().copied().max_by_key(|window| window.length())
    }

    /// The body, piece by piece.
    pub(super) fn pieces(&self, body: &Bytes) -> Option<VecDeque<Bytes>> {
        let mut pieces = VecDeque::with_capacity(self.windows.len() * 2 + 1);
        for window in &self.windows {
            let first = usize::try_from(window.first).ok()?;
            let end = first.checked_add(usize::try_from(window.length()).ok()?)?;
            pieces.push_back(Bytes::from(self.head_of(*window)));
            pieces.push_back((end <= body.len()).then(|| body.slice(first..end))?);
        }
        pieces.push_back(Bytes::from(self.end()));
        Some(pieces)
    }

    fn head_of(&self, window: Window) -> String {
        let kind = self.content_type.to_str().unwrap_or_default();
        let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        let (first, last, total) = (window.first, window.last(), window.total);
        format!("\r\n--{}\r\n{kind}Content-Range: bytes {first}-{last}/{total}\r\n\r\n", self.boundary)
    }

    fn end(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }
}
