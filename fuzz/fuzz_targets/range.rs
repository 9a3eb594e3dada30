//! Ranges, against RFC 9110's section 14 written out a second time.
//!
//! Input: the object's length in decimal; behind each newline the value of one `Range` header.

#![no_main]

use http::HeaderMap;
use http::header::{HeaderValue, RANGE};
use libfuzzer_sys::fuzz_target;
use segue_proxy::fuzzing::{Ranged, range};

/// Parts of an answer at most, and ranges that are looked at, in what documentation promises.
const PARTS: usize = 16;
const SPECS: usize = 64;

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|byte| *byte == b'\n');
    let total = lines.next().and_then(|line| std::str::from_utf8(line).ok()?.parse::<u64>().ok());
    let Some(total) = total else { return };
    let mut headers = HeaderMap::new();
    for line in lines.take(4) {
        let Ok(value) = HeaderValue::from_bytes(line) else { return };
        headers.append(RANGE, value);
    }
    let got = range(&headers, total);
    assert_eq!(got, reference(&headers, total), "{headers:?} of {total}");
    if let Ranged::Parts(parts) = &got {
        assert!((1..=PARTS).contains(&parts.len()), "{} parts", parts.len());
        let mut sent = 0;
        for (first, last) in parts {
            assert!(first <= last && *last < total, "{first}-{last} is not inside of {total}");
            sent += u128::from(last - first) + 1;
        }
        assert!(sent <= u128::from(total), "more is sent than there is");
        let specs: Vec<_> = parts.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        assert_eq!(range(&single(&format!("bytes={}", specs.join(","))), total), got, "written out they are others");
    }
});

fn single(value: &str) -> HeaderMap {
    HeaderMap::from_iter([(RANGE, HeaderValue::from_str(value).unwrap())])
}

fn reference(headers: &HeaderMap, total: u64) -> Ranged {
    let values: Vec<_> = headers.get_all(RANGE).iter().collect();
    let [value] = values[..] else { return Ranged::Whole };
    let Some(specs) = value.to_str().ok().and_then(specs) else { return Ranged::Whole };
    // From the first byte to the one behind the last.
    let total = u128::from(total);
    let mut parts = Vec::new();
    for spec in specs {
        let (from, end) = match spec {
            (None, Some(length)) => (total.saturating_sub(length), if length == 0 { 0 } else { total }),
            (Some(first), Some(last)) if last < first => return Ranged::Whole,
            (Some(first), last) => (first, last.map_or(total, |last| total.min(last.saturating_add(1)))),
            (None, None) => return Ranged::Whole,
        };
        if from < end {
            parts.push((from, end));
        }
    }
    if parts.is_empty() {
        return Ranged::NotSatisfiable;
    }
    if join(&mut parts) {
        parts.sort_unstable();
    }
    if parts.len() > PARTS {
        return Ranged::Whole;
    }
    let number = |value| u64::try_from(value).unwrap();
    Ranged::Parts(parts.into_iter().map(|(from, end)| (number(from), number(end - 1))).collect())
}

/// Makes two parts that overlap or touch one, as long as there are such; says whether there were.
fn join(parts: &mut Vec<(u128, u128)>) -> bool {
    let mut joined = false;
    while let Some((one, other)) = touching(parts) {
        let (from, end) = parts.remove(other);
        parts[one] = (parts[one].0.min(from), parts[one].1.max(end));
        joined = true;
    }
    joined
}

fn touching(parts: &[(u128, u128)]) -> Option<(usize, usize)> {
    (0..parts.len()).flat_map(|other| (0..other).map(move |one| (one, other))).find(|(one, other)| {
        let ((from, end), (other_from, other_end)) = (parts[*one], parts[*other]);
        from <= other_end && other_from <= end
    })
}

/// First and last of each range; none where the header is not of this unit, not valid, or too long.
fn specs(value: &str) -> Option<Vec<(Option<u128>, Option<u128>)>> {
    let (unit, set) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.matches(',').count() >= SPECS {
        return None;
    }
    // Empty elements of a list count as nothing (section 5.6.1.2), but a list of them is none.
    let specs: Option<Vec<_>> = set.split(',').map(str::trim).filter(|spec| !spec.is_empty()).map(spec).collect();
    specs.filter(|specs| !specs.is_empty())
}

/// First and last as numbers; a number beyond 128 bits lies behind every object, as one beyond 64 does.
fn spec(spec: &str) -> Option<(Option<u128>, Option<u128>)> {
    let (first, last) = spec.split_once('-')?;
    let number = |text: &str| -> Option<Option<u128>> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let beyond = u128::from(u64::MAX);
        Some(if text.is_empty() { None } else { Some(text.parse().unwrap_or(beyond).min(beyond)) })
    };
    Some((number(first.trim_end())?, number(last.trim_start())?))
}
