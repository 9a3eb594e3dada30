//! When a certificate ends: the one field of X.509 that the edge reads itself, for its operators' alarm.
//!
//! Source: RFC 5280, section 4.1 (the structure) and 4.1.2.5 (the two forms of time); X.690 for the encoding.
//!
//! On failure: `None`; nothing is guessed.

/// Seconds since the epoch after which the certificate (DER) is no longer valid.
pub(super) fn ends(certificate: &[u8]) -> Option<i64> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if let Some((_, behind)) = element(rest, VERSION) {
        rest = behind;
    }
    // Serial number, algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        rest = element(rest, tag)?.1;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_begins, ends) = any(validity)?;
    let (tag, text, _) = tagged(ends)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        // Two digits stand for 1950 to 2049.
        UTC_TIME => {
            let year: i64 = digits(text.get(..2)?)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        GENERALIZED_TIME => (digits(text.get(..4)?)?, text.get(4..)?),
        _ => return None,
    };
    if rest.len() != 10 {
        return None;
    }
    let part = |n: usize| digits(rest.get(2 * n..2 * n + 2)?);
    let (month, day) = (part(0)?, part(1)?);
    let whole = (1..=12).contains(&month) && (1..=31).contains(&day);
    whole.then_some(days(year, month, day) * 86_400 + part(2)? * 3_600 + part(3)? * 60 + part(4)?)
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`, which is absent in version 1.
const VERSION: u8 = 0xa0;

fn digits(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Content of the element with `tag` at the front, and what stands behind it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = tagged(bytes)?;
    (found == tag).then_some((content, rest))
}

fn any(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, content, rest) = tagged(bytes)?;
    Some((content, rest))
}

fn tagged(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(short), rest),
        // Lengths of certificates fit into four bytes.
        long @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Days from 1970-01-01 in the Gregorian calendar: years begin in March, so that the leap day is the last of one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // From 0000-03-01 to 1970-01-01.
    year * 365 + leap_days + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate's beginning, as far as it is read.
    fn certificate(version: bool, tag: u8, time: &str) -> Vec<u8> {
        let wrap = |tag: u8, content: &[u8]| {
            let mut bytes = vec![tag, 0x82];
            bytes.extend_from_slice(&u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend_from_slice(content);
            bytes
        };
        let begins = wrap(UTC_TIME, b"200101000000Z");
        let validity = wrap(SEQUENCE, &[begins, wrap(tag, time.as_bytes())].concat());
        let mut parts = Vec::new();
        if version {
            parts.extend(wrap(VERSION, &[2, 1, 2]));
        }
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            parts.extend(wrap(tag, &[1, 2, 3]));
        }
        parts.extend(validity);
        wrap(SEQUENCE, &wrap(SEQUENCE, &parts))
    }

    #[test]
    fn both_forms_of_time_are_read() {
        for (version, tag, time, seconds) in [
            (true, UTC_TIME, "700101000000Z", 0),
            (true, UTC_TIME, "260229120000Z", 1_772_366_400),
            (true, UTC_TIME, "491231235959Z", 2_524_607_999),
            (false, UTC_TIME, "240229000000Z", 1_709_164_800),
            (true, GENERALIZED_TIME, "20500101000000Z", 2_524_608_000),
            (true, GENERALIZED_TIME, "20000301000000Z", 951_868_800),
        ] {
            assert_eq!(ends(&certificate(version, tag, time)), Some(seconds), "{time}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        for (tag, time) in [
            (UTC_TIME, "261301000000Z"),
            (UTC_TIME, "2601010000Z"),
            (UTC_TIME, "26010100000+Z"),
            (UTC_TIME, "260101000000+0100"),
            (0x16, "260101000000Z"),
        ] {
            assert_eq!(ends(&certificate(true, tag, time)), None, "{time}");
        }
        let whole = certificate(true, UTC_TIME, "260101000000Z");
        for end in 0..whole.len() {
            assert_eq!(ends(&whole[..end]), None);
        }
    }
}
