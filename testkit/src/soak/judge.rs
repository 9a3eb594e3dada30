//! Whether an answer is right: bytes, version, ranges, statuses, and whether a failure had a cause.
//!
//! Invariants: a wrong byte is wrong whatever else happened; a failure is forgiven only if the origin misbehaved for that
//! very object, or the edge was killed, at a time that the request can have felt.

use std::time::Instant;

use super::Run;
use super::client::{Asking, Carrier, Condition};
use super::edge::{STALE_IF_ERROR, TTL};
use super::truth::{Kind, Object};
use super::wire::Answer;

/// What a loaded machine may add to the time between an origin's answer and a client's.
const SLACK: std::time::Duration = std::time::Duration::from_secs(5);

/// What came of one request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    /// It failed, said so, and had a cause.
    HonestFailure,
    Wrong(String),
}

/// Judges an answer to `asking`, which was sent at `began`; an error is what kept it from coming.
pub(crate) fn judge(
    run: &Run,
    object: &Object,
    asking: &Asking,
    began: Instant,
    got: &anyhow::Result<Answer>,
) -> Verdict {
    match got {
        Ok(answer) => match check(run, object, asking, began, answer) {
            Ok(true) => Verdict::Right,
            Ok(false) => failed(run, object, began, &format!("{}, whole: {}", answer.status, answer.whole)),
            Err(wrong) => Verdict::Wrong(wrong),
        },
        Err(error) => failed(run, object, began, &format!("{error:#}")),
    }
}

fn failed(run: &Run, object: &Object, began: Instant, how: &str) -> Verdict {
    if object.may_fail(began) || run.edge.was_away(began) {
        return Verdict::HonestFailure;
    }
    Verdict::Wrong(format!("failed without a cause: {how}"))
}

/// Whether it is a success; a failure that says so is `false`.
fn check(run: &Run, object: &Object, asking: &Asking, began: Instant, answer: &Answer) -> Result<bool, String> {
    match (asking.carrier, answer.status) {
        (Carrier::None | Carrier::Forged, 401 | 403) => return Ok(true),
        (Carrier::None | Carrier::Forged, 500..) if object.kind != Kind::Absent => return Ok(false),
        (Carrier::None | Carrier::Forged, status) => return Err(format!("{status} without a ticket that is good")),
        _ => {}
    }
    match answer.status {
        404 if object.kind == Kind::Absent => return Ok(true),
        status if object.kind == Kind::Absent && status < 500 => return Err(format!("{status} for what is not there")),
        500..=599 => return Ok(false),
        200 | 206 | 304 | 416 => {}
        status => return Err(format!("{status} for {:?}", asking.method)),
    }
    let lie = object.lie(began);
    if answer.status == 416 {
        return unsatisfiable(run, object, asking, answer, lie);
    }
    let version = version(object, began, run, answer)?;
    let truth = run.world.bytes(object, version);
    match answer.status {
        304 => not_modified(object, asking, version),
        200 => whole(asking, answer, &truth, lie),
        _ => part(object, asking, version, answer, &truth, lie),
    }
}

/// The version that the answer says it is of, if it may still be served.
fn version(object: &Object, began: Instant, run: &Run, answer: &Answer) -> Result<usize, String> {
    let etag = answer.header("etag").ok_or("no ETag")?;
    let version = object.version_of(etag).ok_or_else(|| format!("ETag {etag} is not one of this object"))?;
    let (_, until) = object.reign(version).ok_or_else(|| format!("version {version} is yet to come"))?;
    let Some(until) = until else { return Ok(version) };
    if until + TTL + STALE_IF_ERROR + SLACK < began {
        let ago = began.duration_since(until);
        return Err(format!("version {version} was replaced {ago:?} before it was asked for"));
    }
    if run.world.purge_before(object.track, began).is_some_and(|purged| until < purged) {
        return Err(format!("version {version} was purged, and came back"));
    }
    Ok(version)
}

fn not_modified(object: &Object, asking: &Asking, version: usize) -> Result<bool, String> {
    match &asking.condition {
        Condition::IfNoneMatch(etag) if *etag == object.etag(version) => Ok(true),
        _ => Err(format!("304 of version {version}, which nobody has")),
    }
}

fn whole(asking: &Asking, answer: &Answer, truth: &[u8], lie: Option<u64>) -> Result<bool, String> {
    if asking.method == "HEAD" {
        let length = answer.header("content-length").and_then(|length| length.parse().ok());
        return match length {
            Some(length) if length == truth.len() as u64 => Ok(true),
            Some(length) if lie == Some(length) => Ok(false),
            _ => Err(format!("HEAD says {length:?} bytes")),
        };
    }
    same(&answer.body, truth, answer.whole)
}

/// What came is the truth, or its beginning where it broke off.
fn same(body: &[u8], truth: &[u8], is_whole: bool) -> Result<bool, String> {
    if let Some(at) = body.iter().zip(truth).position(|(got, right)| got != right) {
        return Err(format!("WRONG BYTE at {at} of {}", truth.len()));
    }
    if body.len() > truth.len() || (is_whole && body.len() < truth.len()) {
        return Err(format!("WRONG LENGTH: {} bytes for {}", body.len(), truth.len()));
    }
    Ok(is_whole)
}

fn unsatisfiable(
    run: &Run,
    object: &Object,
    asking: &Asking,
    answer: &Answer,
    lie: Option<u64>,
) -> Result<bool, String> {
    let said = answer.header("content-range").and_then(|range| range.strip_prefix("bytes */"));
    let total = said.and_then(|total| total.parse::<u64>().ok()).ok_or("416 without the object's length")?;
    if lie == Some(total) {
        return Ok(false);
    }
    let right = (0..=object.current()).any(|version| run.world.bytes(object, version).len() as u64 == total);
    if right && !asking.ranges.is_empty() && asking.ranges.iter().all(|range| resolve(*range, total).is_none()) {
        return Ok(true);
    }
    Err(format!("416 of {total} for {:?}", asking.ranges))
}

fn part(
    object: &Object,
    asking: &Asking,
    version: usize,
    answer: &Answer,
    truth: &[u8],
    lie: Option<u64>,
) -> Result<bool, String> {
    if asking.ranges.is_empty() {
        return Err("206 though no range was asked for".to_owned());
    }
    if let Condition::IfRange(etag) = &asking.condition
        && *etag != object.etag(version)
    {
        return Err(format!("206 of version {version}, If-Range names another"));
    }
    let total = truth.len() as u64;
    let kind = answer.header("content-type").unwrap_or_default();
    if let Some(boundary) = kind.strip_prefix("multipart/byteranges; boundary=") {
        return if answer.whole { parts(boundary.trim_matches('"'), &answer.body, truth) } else { Ok(false) };
    }
    let said = answer.header("content-range");
    if let Some((first, last)) = lie.and_then(|lie| content_range(said, lie).ok()) {
        // So far as there is a truth to its length, the bytes must be it.
        let right = slice(truth, first, last.min(total.saturating_sub(1))).unwrap_or_default();
        return same(&answer.body, right, false).map(|_| false);
    }
    let (first, last) = content_range(said, total)?;
    let mut asked = asking.ranges.iter().filter_map(|range| resolve(*range, total));
    // Several that touch may be answered as one (section 15.3.7.2).
    let begins = asked.clone().any(|(begin, _)| begin == first);
    if !begins || !asked.any(|(_, end)| end == last) {
        return Err(format!("bytes {first}-{last} for {:?} of {total}", asking.ranges));
    }
    same(&answer.body, slice(truth, first, last)?, answer.whole)
}

/// The parts of a multipart body (RFC 9110, section 14.6), each held against the truth.
fn parts(boundary: &str, body: &[u8], truth: &[u8]) -> Result<bool, String> {
    let mark = format!("--{boundary}");
    let mut rest = body;
    let mut count = 0;
    loop {
        let at = find(rest, mark.as_bytes()).ok_or("a multipart body without its end")?;
        rest = &rest[at + mark.len()..];
        if rest.starts_with(b"--") {
            return if count > 0 { Ok(true) } else { Err("a multipart body without parts".to_owned()) };
        }
        let end = find(rest, b"\r\n\r\n").ok_or("a part without a head")?;
        let head = String::from_utf8_lossy(&rest[..end]).to_ascii_lowercase();
        let range = head.lines().find_map(|line| line.strip_prefix("content-range:")).map(str::trim);
        let (first, last) = content_range(range, truth.len() as u64)?;
        let right = slice(truth, first, last)?;
        rest = &rest[end + 4..];
        if !rest.starts_with(right) || !rest[right.len()..].starts_with(b"\r\n") {
            return Err(format!("WRONG BYTE in part {count}, {first}-{last}"));
        }
        rest = &rest[right.len()..];
        count += 1;
    }
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}

fn content_range(value: Option<&str>, total: u64) -> Result<(u64, u64), String> {
    let wrong = || format!("Content-Range {value:?} of {total}");
    let (range, said) = value.and_then(|value| value.strip_prefix("bytes ")?.split_once('/')).ok_or_else(wrong)?;
    let (first, last) = range.split_once('-').ok_or_else(wrong)?;
    let (first, last): (u64, u64) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if said.parse() != Ok(total) || first > last || last >= total {
        return Err(wrong());
    }
    Ok((first, last))
}

/// First and last byte that a range means (RFC 9110, section 14.1.2).
fn resolve((first, last): (Option<u64>, Option<u64>), total: u64) -> Option<(u64, u64)> {
    let end = total.checked_sub(1)?;
    match (first, last) {
        (Some(first), last) if first <= end => Some((first, last.unwrap_or(end).min(end))),
        (None, Some(length)) if length > 0 => Some((total.saturating_sub(length), end)),
        _ => None,
    }
}

fn slice(truth: &[u8], first: u64, last: u64) -> Result<&[u8], String> {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    truth.get(place(first)..=place(last)).ok_or_else(|| format!("{first}-{last} is not in {}", truth.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUTH: &[u8] = b"0123456789";

    #[test]
    fn a_byte_that_differs_is_found_in_whole_and_in_broken_bodies() {
        assert_eq!(same(TRUTH, TRUTH, true), Ok(true));
        assert_eq!(same(b"0123", TRUTH, false), Ok(false));
        for (body, is_whole) in [(&b"0123"[..], true), (b"01x3", false), (b"0123456789a", true), (b"0123456788", true)]
        {
            assert!(same(body, TRUTH, is_whole).is_err(), "{body:?}");
        }
    }

    #[test]
    fn parts_of_a_multipart_body_are_checked_one_by_one() {
        let body = |second: &str| {
            format!(
                "\r\n--b\r\nContent-Type: audio/mp4\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n--b\r\nContent-Range: bytes 7-9/10\r\n\r\n{second}\r\n--b--\r\n"
            )
        };
        assert_eq!(parts("b", body("789").as_bytes(), TRUTH), Ok(true));
        assert!(parts("b", body("788").as_bytes(), TRUTH).is_err());
        assert!(parts("b", body("78").as_bytes(), TRUTH).is_err());
        assert!(parts("b", b"--b--", TRUTH).is_err());
    }

    #[test]
    fn ranges_mean_what_the_standard_says() {
        assert_eq!(resolve((Some(2), Some(99)), 10), Some((2, 9)));
        assert_eq!(resolve((None, Some(3)), 10), Some((7, 9)));
        assert_eq!(resolve((Some(10), None), 10), None);
        assert_eq!(resolve((None, Some(0)), 10), None);
        assert!(content_range(Some("bytes 2-10/10"), 10).is_err());
        assert!(content_range(Some("bytes 2-3/11"), 10).is_err());
    }
}
