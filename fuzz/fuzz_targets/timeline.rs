//! Playlists as the timeline reads them: places are the sums of the lengths, whatever stands between them.
//!
//! Input: the playlist's path; behind the first newline its text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use segue_proxy::fuzzing::{renditions, segments};
use segue_signing::CanonicalPath;

fuzz_target!(|data: &[u8]| {
    let Ok(input) = std::str::from_utf8(data) else { return };
    let Some((path, text)) = input.split_once('\n') else { return };
    let found = segments(path, text);
    let named = renditions(path, text);
    for path in found.iter().map(|(path, ..)| path).chain(&named) {
        assert_eq!(CanonicalPath::from_decoded(path.as_str()).as_ref(), Ok(path), "a name that is not canonical");
    }
    assert!(found.is_empty() && named.is_empty() || CanonicalPath::from_decoded(path).is_ok());
    let mut distinct = named.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), named.len(), "a rendition is named twice");
    if !found.is_empty() {
        follow(&found, &places(text));
    }
    let more = format!("{text}\n#\n\n# a comment, https://nowhere.example/\n");
    assert_eq!((segments(path, &more), renditions(path, &more)), (found.clone(), named), "a comment changed it");
    if !text.contains('\r') {
        assert_eq!(segments(path, &text.replace('\n', "\r\n")), found, "line ends changed it");
    }
});

/// Every segment that was found has the place of one that the text holds, in the text's order.
fn follow(found: &[(CanonicalPath, u64, u64)], places: &[(u64, u64)]) {
    let mut rest = places.iter();
    for (path, at, length) in found {
        assert!(rest.any(|place| *place == (*at, *length)), "{path} is not at {at} ms for {length} ms");
    }
}

/// Start and length of every URI line that has a length, in milliseconds, reckoned without any rounding on the way.
fn places(text: &str) -> Vec<(u64, u64)> {
    let mut places = Vec::new();
    let (mut at, mut length) = (0_u128, None);
    for line in text.lines().map(str::trim) {
        if let Some(value) = line.strip_prefix("#EXTINF:") {
            length = microseconds(value.split(',').next().unwrap());
        } else if !line.is_empty()
            && !line.starts_with('#')
            && let Some(length) = length.take()
        {
            let limit = u128::from(u64::MAX);
            let rounded = |us: u128| u64::try_from((us.min(limit) + 500).min(limit) / 1000).unwrap();
            places.push((rounded(at), rounded(length)));
            at = (at + length).min(limit);
        }
    }
    places
}

fn microseconds(text: &str) -> Option<u128> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') || fraction.contains('.') {
        return None;
    }
    let six: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let us = whole.parse::<u128>().ok()?.checked_mul(1_000_000)?.checked_add(six.parse().ok()?)?;
    u64::try_from(us).ok().map(u128::from)
}
