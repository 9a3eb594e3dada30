//! Byte ranges (RFC 9110, section 14): one or several, from the front or as suffixes.
//!
//! Invariants: what a client may ask for is bounded: ranges that overlap or touch become one, and where there are more
//! than [`PARTS_MAX`] of them the answer is the whole object, as section 14.2 allows. No answer is much longer than its object.

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

/// Parts of one answer. Readers of containers ask for two or three; each costs a head of some 100 bytes.
const PARTS_MAX: usize = 16;
/// Ranges that are looked at.
const SPECS_MAX: usize = 64;

/// What `Range` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selected {
    /// The whole: the header is absent, not understood, or asks for too much.
    All,
    One(Window),
    /// Two or more, none of which touches another, in the order of the request.
    Several(Vec<Window>),
}

/// Reads `Range` against an object of `total` bytes.
///
/// # Errors
/// [`Refusal::RangeNotSatisfiable`], where no range lies in the object.
pub(crate) fn select(headers: &HeaderMap, total: u64) -> Result<Selected, Refusal> {
    let mut values = headers.get_all(RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Ok(Selected::All) };
    let Some((unit, set)) = value.to_str().ok().and_then(|value| value.split_once('=')) else {
        return Ok(Selected::All);
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.split(',').count() > SPECS_MAX {
        return Ok(Selected::All);
    }
    let mut windows = Vec::new();
    for spec in set.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        match window(spec, total) {
            Spec::Inside(window) => windows.push(window),
            Spec::Outside => {}
            // One that is no range makes the header none (section 14.1.1).
            Spec::Invalid => return Ok(Selected::All),
        }
    }
    let windows = apart(windows);
    match windows.as_slice() {
        // A set without any range is not valid either.
        [] if set.split(',').all(|spec| spec.trim().is_empty()) => Ok(Selected::All),
        [] => Err(Refusal::RangeNotSatisfiable(total)),
        [one] => Ok(Selected::One(*one)),
        several if several.len() > PARTS_MAX => Ok(Selected::All),
        _ => Ok(Selected::Several(windows)),
    }
}

enum Spec {
    Inside(Window),
    Outside,
    Invalid,
}

fn window(spec: &str, total: u64) -> Spec {
    let Some((first, last)) = spec.split_once('-') else { return Spec::Invalid };
    let (first, last) = (first.trim_end(), last.trim_start());
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) || (first.is_empty() && last.is_empty()) {
        return Spec::Invalid;
    }
    // A number beyond 64 bits lies behind every object.
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    if first.is_empty() {
        let length = number(last).min(total);
        return if length == 0 { Spec::Outside } else { Spec::Inside(Window { first: total - length, length, total }) };
    }
    let first = number(first);
    let last = if last.is_empty() { u64::MAX } else { number(last) };
    if last < first {
        return Spec::Invalid;
    }
    if first >= total {
        return Spec::Outside;
    }
    let last = last.min(total - 1);
    Spec::Inside(Window { first, length: last - first + 1, total })
}

/// Windows that overlap or touch as one; the others stay in their order (RFC 9110, section 15.3.7.2).
fn apart(windows: Vec<Window>) -> Vec<Window> {
    let mut sorted = windows.clone();
    sorted.sort_by_key(|window| window.first);
    let mut merged: Vec<Window> = Vec::with_capacity(sorted.len());
    for window in sorted {
        match merged.last_mut() {
            Some(before) if window.first <= before.first + before.length => {
                let end = (before.first + before.length).max(window.first + window.length);
                before.length = end - before.first;
            }
            _ => merged.push(window),
        }
    }
    if merged.len() == windows.len() { windows } else { merged }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(range: &str, total: u64) -> Result<Option<(u64, u64)>, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().unwrap());
        select(&headers, total).map(|selected| match selected {
            Selected::All => None,
            Selected::One(window) => Some((window.first, window.last())),
            Selected::Several(_) => panic!("{range} is one range"),
        })
    }

    fn several(range: &str, total: u64) -> Result<Vec<(u64, u64)>, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().unwrap());
        select(&headers, total).map(|selected| match selected {
            Selected::Several(windows) => windows.iter().map(|window| (window.first, window.last())).collect(),
            Selected::One(window) => vec![(window.first, window.last())],
            Selected::All => Vec::new(),
        })
    }

    #[test]
    fn several_ranges_keep_their_order_and_become_one_where_they_touch() {
        assert_eq!(several("bytes=0-1,5-9", 10), Ok(vec![(0, 1), (5, 9)]));
        assert_eq!(several("bytes=500-700, -1", 10_000), Ok(vec![(500, 700), (9_999, 9_999)]));
        assert_eq!(several("bytes=8-9,0-1", 10), Ok(vec![(8, 9), (0, 1)]));
        assert_eq!(several("bytes=8-9,0-1,1-3", 10), Ok(vec![(0, 3), (8, 9)]));
        assert_eq!(several("bytes=0-4,5-9", 100), Ok(vec![(0, 9)]), "they touch");
        assert_eq!(several("bytes=0-0,99-", 10), Ok(vec![(0, 0)]), "one lies outside");
        assert_eq!(several("bytes=10-,20-30", 10), Err(Refusal::RangeNotSatisfiable(10)));
        assert_eq!(several("bytes=0-1,x", 10), Ok(vec![]), "not a range set");
        assert_eq!(several("bytes=,", 10), Ok(vec![]));
    }

    #[test]
    fn absurd_sets_get_the_whole() {
        let set = |count: u64| (0..count).map(|n| format!("{}-{}", n * 10, n * 10)).collect::<Vec<_>>().join(",");
        assert_eq!(several(&format!("bytes={}", set(16)), 10_000).unwrap().len(), 16);
        assert_eq!(several(&format!("bytes={}", set(17)), 10_000), Ok(vec![]));
        let same = vec!["0-"; 64].join(",");
        assert_eq!(several(&format!("bytes={same}"), 10), Ok(vec![(0, 9)]), "sixty-four times the same is once");
        assert_eq!(several(&format!("bytes={same},0-"), 10), Ok(vec![]));
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
        for ignored in ["bytes=5-2", "bytes=-", "bytes=a-b", "bytes=+1-2", "items=0-1", "bytes"] {
            assert_eq!(of(ignored, 10), Ok(None), "{ignored}");
        }
    }
}
