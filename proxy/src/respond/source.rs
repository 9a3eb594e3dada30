//! Where an answer's bytes come from, part by part, with the last one marked.
//!
//! Invariants: parts together are exactly the window; the last part of a fill that reaches the object's end is held
//! back until the fill is verified, so that no client completes on bytes that turn out to be wrong.

use std::collections::VecDeque;

use bytes::Bytes;

use super::range::Window;
use crate::cache::{OnDisk, Parts};
use crate::fill::FillReader;
use crate::refusal::{OriginFailure, Refusal};

/// The largest part: what a client must accept within one write time-out.
pub(super) const PART_MAX: usize = 256 * 1024;

/// One write.
pub(super) struct Part {
    pub(super) bytes: Bytes,
    pub(super) last: bool,
}

/// See the module.
pub(super) enum Source {
    Memory {
        left: Bytes,
    },
    /// What is sent in this order.
    Pieces {
        left: VecDeque<Bytes>,
    },
    Fill {
        reader: FillReader,
        ready: Bytes,
        skip: u64,
        left: u64,
        to_end: bool,
    },
    Disk {
        first: Option<Part>,
        parts: Box<Parts>,
    },
}

impl Source {
    pub(super) fn memory(body: &Bytes, window: Option<Window>) -> Self {
        let left = window.and_then(|window| {
            let first = usize::try_from(window.first).ok()?;
            let end = first.checked_add(usize::try_from(window.length()).ok()?)?;
            (end <= body.len()).then(|| body.slice(first..end))
        });
        Self::Memory { left: left.unwrap_or_default() }
    }

    pub(super) fn fill(reader: FillReader, window: Option<Window>, length: u64) -> Self {
        let window = window.unwrap_or(Window::whole(0));
        let to_end = window.first + window.length() == length;
        Self::Fill { reader, ready: Bytes::new(), skip: window.first, left: window.length(), to_end }
    }

    /// The first part is read at once. `None`: it cannot be.
    pub(super) async fn disk(object: OnDisk, window: Window) -> Option<Self> {
        let mut parts = Box::new(object.parts(window.first, window.length()));
        let (bytes, last) = parts.next().await.ok()??;
        Some(Self::Disk { first: Some(Part { bytes, last }), parts })
    }

    /// The next part; `None` after the last.
    ///
    /// # Errors
    /// The bytes cannot be had.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, Refusal> {
        match self {
            Self::Memory { left } => {
                if left.is_empty() {
                    return Ok(None);
                }
                let bytes = left.split_to(left.len().min(PART_MAX));
                Ok(Some(Part { last: left.is_empty(), bytes }))
            }
            Self::Pieces { left } => {
                let Some(piece) = left.front_mut() else { return Ok(None) };
                let bytes = piece.split_to(piece.len().min(PART_MAX));
                if piece.is_empty() {
                    left.pop_front();
                }
                Ok(Some(Part { last: left.is_empty(), bytes }))
            }
            Self::Disk { first, parts } => match first.take() {
                Some(first) => Ok(Some(first)),
                None => {
                    let part = parts.next().await.map_err(|_| Refusal::Internal)?;
                    Ok(part.map(|(bytes, last)| Part { bytes, last }))
                }
            },
            Self::Fill { reader, ready, skip, left, to_end } => {
                while *left > 0 {
                    if ready.is_empty() {
                        let Some(piece) = reader.piece().await? else { return Err(OriginFailure::Broken.into()) };
                        *ready = piece;
                    }
                    let skipped = usize::try_from(*skip).unwrap_or(usize::MAX).min(ready.len());
                    *skip -= skipped as u64;
                    let _before_the_window = ready.split_to(skipped);
                    if ready.is_empty() {
                        continue;
                    }
                    let take = ready.len().min(PART_MAX).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let bytes = ready.split_to(take);
                    *left -= take as u64;
                    let last = *left == 0;
                    if last && *to_end {
                        reader.whole().await?;
                    }
                    return Ok(Some(Part { bytes, last }));
                }
                Ok(None)
            }
        }
    }
}
