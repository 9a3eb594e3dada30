//! Byte ranges (RFC 9110, section 14): one range, from the front or as a suffix.
//!
//! Several ranges in one request are answered with the whole, as section 14.2 allows: no player asks for them, and
//! assembling multipart bodies multiplies work that a client chooses.

use http::HeaderMap;
use http::header::RANGE;

use crate::refusal::Refusal;

/// A part of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) first: u64,
    length: u64,
    /// Bytes of the whole object.
    pub(crate) total: u64,
}

impl Window {
    pub(crate) fn whole(total: u64) -> Self {
        Self { first: 0, length: total, total }
    }

    pub(crate) fn length(self) -> u64 {
        self.length
    }

    /// The last byte's place; of an empty window the first's.
    pub(crate) fn last(self) -> u64 {
        self.first + self.length.saturating_sub(1)
    }
}

/// The window that `Range` asks for; `None` where the header is absent, not understood, or asks for several.
///
/// # Errors
/// [`Refusal::RangeNotSatisfiable`].
pub(crate) fn select(headers: &HeaderMap, total: u64) -> Result<Option<Window>, Refusal> {
    let mut values = headers.get_all(RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Ok(None) };
    let Some((unit, set)) = value.to_str().ok().and_then(|value| value.split_once('=')) else { return Ok(None) };
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return Ok(None);
    }
    let Some((first, last)) = set.trim().split_once('-') else { return Ok(None) };
    let (first, last) = (first.trim_end(), last.trim_start());
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) || (first.is_empty() && last.is_empty()) {
        return Ok(None);
    }
    // A number beyond 64 bits lies behind every object.
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    let refused = Err(Refusal::RangeNotSatisfiable(total));
    if first.is_empty() {
        let length = number(last).min(total);
        return if length == 0 { refused } else { Ok(Some(Window { first: total - length, length, total })) };
    }
    let first = number(first);
    let last = if last.is_empty() { u64::MAX } else { number(last) };
    if last < first {
        // Not a valid range at all, so the header is ignored (section 14.1.1).
        return Ok(None);
    }
    if first >= total {
        return refused;
    }
    let last = last.min(total - 1);
    Ok(Some(Window { first, length: last - first + 1, total }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(range: &str, total: u64) -> Result<Option<(u64, u64)>, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().unwrap());
        select(&headers, total).map(|window| window.map(|window| (window.first, window.last())))
    }

    #[test]
    fn the_examples_of_rfc_9110_section_14_1_2() {
        assert_eq!(of("bytes=0-499", 10_000), Ok(Some((0, 499))));
        assert_eq!(of("bytes=500-999", 10_000), Ok(Some((500, 999))));
        assert_eq!(of("bytes=-500", 10_000), Ok(Some((9_500, 9_999))));
        assert_eq!(of("bytes=9500-", 10_000), Ok(Some((9_500, 9_999))));
    }

    #[test]
    fn edges_and_absurdities() {
        assert_eq!(of("bytes=0-0", 1), Ok(Some((0, 0))));
        assert_eq!(of("bytes=-99999", 10), Ok(Some((0, 9))));
        assert_eq!(of("bytes=5-99999999999999999999999", 10), Ok(Some((5, 9))));
        assert_eq!(of("bytes=10-", 10), Err(Refusal::RangeNotSatisfiable(10)));
        assert_eq!(of("bytes=-0", 10), Err(Refusal::RangeNotSatisfiable(10)));
        assert_eq!(of("bytes=0-", 0), Err(Refusal::RangeNotSatisfiable(0)));
        for ignored in ["bytes=5-2", "bytes=-", "bytes=a-b", "bytes=+1-2", "items=0-1", "bytes=0-1,3-4", "bytes"] {
            assert_eq!(of(ignored, 10), Ok(None), "{ignored}");
        }
    }
}
