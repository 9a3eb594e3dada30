//! Ranges, against RFC 9110's section 14 written out a second time.
//!
//! Input: the object's length in decimal; behind each newline the value of one `Range` header.

#![no_main]

use http::HeaderMap;
use http::header::{HeaderValue, RANGE};
use libfuzzer_sys::fuzz_target;
use segue_proxy::fuzzing::{Ranged, range};

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
    if let Ranged::Part(first, last) = got {
        assert!(first <= last && last < total, "{first}-{last} is not inside of {total}");
        assert_eq!(range(&single(&format!("bytes={first}-{last}")), total), got, "written out it is another range");
    }
});

fn single(value: &str) -> HeaderMap {
    HeaderMap::from_iter([(RANGE, HeaderValue::from_str(value).unwrap())])
}

fn reference(headers: &HeaderMap, total: u64) -> Ranged {
    let values: Vec<_> = headers.get_all(RANGE).iter().collect();
    let [value] = values[..] else { return Ranged::Whole };
    let Some(spec) = value.to_str().ok().and_then(spec) else { return Ranged::Whole };
    let total = u128::from(total);
    let (first, last) = match spec {
        (None, Some(length)) => (total.saturating_sub(length), if length == 0 { 0 } else { total }),
        (Some(first), Some(last)) if last < first => return Ranged::Whole,
        (Some(first), last) => (first, last.map_or(total, |last| total.min(last.saturating_add(1)))),
        (None, None) => return Ranged::Whole,
    };
    if first >= last {
        return Ranged::NotSatisfiable;
    }
    Ranged::Part(u64::try_from(first).unwrap(), u64::try_from(last - 1).unwrap())
}

/// First and last as numbers; a number beyond 128 bits lies behind every object, as one beyond 64 does.
fn spec(value: &str) -> Option<(Option<u128>, Option<u128>)> {
    let (unit, set) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    let number = |text: &str| -> Option<Option<u128>> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let beyond = u128::from(u64::MAX);
        Some(if text.is_empty() { None } else { Some(text.parse().unwrap_or(beyond).min(beyond)) })
    };
    Some((number(first.trim_end())?, number(last.trim_start())?))
}
