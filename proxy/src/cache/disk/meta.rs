//! How an object's [`Meta`] stands on the disk: a version, then fields of tag, length and bytes.
//!
//! Invariants: what cannot be read in full (another version, a tag that is not known, a field cut short) is no
//! `Meta` at all, so the object is a miss; a field that is new here is absent in older entries and takes its default.
//! Times are wall-clock, since they outlive the process (RFC 9111, section 4.2.3).
//!
//! On failure: `None`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, StatusCode};

use crate::cache::Meta;
use crate::cache::policy::{Line, Policy};
use crate::snapshot::unix_ms;

/// Raised where the meaning of a field changes.
const VERSION: u8 = 1;
/// A wall clock that runs backwards by more than this makes every age a guess: such an entry is out of date.
const CLOCK_SLACK_MS: u64 = 5_000;
/// Status, flags and two durations.
const POLICY_BYTES: usize = 2 + 1 + 8 + 8;

mod tag {
    pub(super) const ETAG: u8 = 1;
    pub(super) const LAST_MODIFIED: u8 = 2;
    pub(super) const CONTENT_TYPE: u8 = 3;
    pub(super) const CONTENT_ENCODING: u8 = 4;
    pub(super) const CACHE_CONTROL: u8 = 5;
    pub(super) const FRESH_FOR: u8 = 6;
    pub(super) const INITIAL_AGE: u8 = 7;
    pub(super) const SINCE: u8 = 8;
    pub(super) const POLICY: u8 = 9;
    pub(super) const LINE: u8 = 10;
}

/// When an object's head came, in milliseconds since the epoch.
pub(super) fn since_ms(since: Instant) -> u64 {
    unix_ms().saturating_sub(millis(since.elapsed()))
}

/// Writes `meta` and the time at which it came. Its length stands in the record.
pub(super) fn encode(meta: &Meta, since_ms: u64, out: &mut Vec<u8>) {
    // Taken apart whole, so that a new field cannot be forgotten here.
    let Meta {
        length: _,
        etag,
        last_modified,
        content_type,
        content_encoding,
        cache_control,
        fresh_for,
        initial_age,
        http,
        // What the edge makes is made again, and never kept here.
        whole_only: _,
    } = meta;
    out.push(VERSION);
    let mut field = |tag: u8, bytes: &[u8]| {
        // A header value is bounded by what the origin's head may be, far below 4 GiB.
        out.push(tag);
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    if let Some(etag) = etag {
        field(tag::ETAG, etag.as_bytes());
    }
    if let Some((value, _)) = last_modified {
        field(tag::LAST_MODIFIED, value.as_bytes());
    }
    field(tag::CONTENT_TYPE, content_type.as_bytes());
    if let Some(encoding) = content_encoding {
        field(tag::CONTENT_ENCODING, encoding.as_bytes());
    }
    field(tag::CACHE_CONTROL, cache_control.as_bytes());
    field(tag::FRESH_FOR, &millis(*fresh_for).to_le_bytes());
    field(tag::INITIAL_AGE, &millis(*initial_age).to_le_bytes());
    if let Some(policy) = http {
        // Objects with variants, or with lines for one client, do not come here.
        let Policy {
            status,
            lines,
            once: _,
            selects: _,
            controls,
            must_revalidate,
            stale_while_revalidate,
            stale_if_error,
        } = &**policy;
        let mut fixed = Vec::with_capacity(POLICY_BYTES);
        fixed.extend_from_slice(&status.as_u16().to_le_bytes());
        fixed.push(u8::from(*controls) | u8::from(*must_revalidate) << 1);
        fixed.extend_from_slice(&millis(*stale_while_revalidate).to_le_bytes());
        fixed.extend_from_slice(&millis(*stale_if_error).to_le_bytes());
        field(tag::POLICY, &fixed);
        for (name, value) in lines {
            // No name holds a colon.
            field(tag::LINE, &[name.as_str().as_bytes(), b":", value.as_bytes()].concat());
        }
    }
    // The last one, without which nothing is read: a record that is cut between two fields is no shorter record.
    field(tag::SINCE, &since_ms.to_le_bytes());
}

/// Reads an HTTP origin's policy, its lines apart.
fn policy(fixed: &[u8]) -> Option<Policy> {
    let (status, rest) = fixed.split_first_chunk::<2>()?;
    let (flags, rest) = rest.split_first()?;
    let (while_revalidate, rest) = rest.split_first_chunk::<8>()?;
    let if_error: [u8; 8] = rest.try_into().ok()?;
    Some(Policy {
        status: StatusCode::from_u16(u16::from_le_bytes(*status)).ok()?,
        lines: Box::default(),
        once: Box::default(),
        selects: Box::default(),
        controls: flags & 1 != 0,
        must_revalidate: flags & 2 != 0,
        stale_while_revalidate: Duration::from_millis(u64::from_le_bytes(*while_revalidate)),
        stale_if_error: Duration::from_millis(u64::from_le_bytes(if_error)),
    })
}

/// Reads one header line.
fn line(bytes: &[u8]) -> Option<Line> {
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(bytes.get(..colon)?).ok()?;
    Some((name, HeaderValue::from_bytes(bytes.get(colon + 1..)?).ok()?))
}

/// Reads what [`encode`] wrote, with the moment at which its head came, as this process counts time.
pub(super) fn decode(bytes: &[u8], length: u64) -> Option<(Meta, Instant)> {
    let (version, mut rest) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    let mut meta = Meta {
        length: Some(length),
        etag: None,
        last_modified: None,
        content_type: HeaderValue::from_static("application/octet-stream"),
        content_encoding: None,
        cache_control: HeaderValue::from_static("private, no-cache"),
        fresh_for: Duration::ZERO,
        initial_age: Duration::ZERO,
        http: None,
        whole_only: false,
    };
    let mut since = None;
    let mut http = None;
    let mut lines = Vec::new();
    while let Some((tag, tail)) = rest.split_first() {
        let (size, tail) = tail.split_first_chunk::<4>()?;
        let size = usize::try_from(u32::from_le_bytes(*size)).ok()?;
        let value = tail.get(..size)?;
        rest = tail.get(size..)?;
        let header = || HeaderValue::from_bytes(value).ok();
        let number = || Some(u64::from_le_bytes(value.try_into().ok()?));
        match *tag {
            tag::ETAG => meta.etag = Some(header()?),
            tag::LAST_MODIFIED => {
                let value = header()?;
                let time = httpdate::parse_http_date(value.to_str().ok()?).ok()?;
                meta.last_modified = Some((value, time));
            }
            tag::CONTENT_TYPE => meta.content_type = header()?,
            tag::CONTENT_ENCODING => meta.content_encoding = Some(header()?),
            tag::CACHE_CONTROL => meta.cache_control = header()?,
            tag::FRESH_FOR => meta.fresh_for = Duration::from_millis(number()?),
            tag::INITIAL_AGE => meta.initial_age = Duration::from_millis(number()?),
            tag::SINCE => since = Some(number()?),
            tag::POLICY => http = Some(policy(value)?),
            tag::LINE => lines.push(line(value)?),
            _ => return None,
        }
    }
    meta.http = match http {
        Some(policy) => Some(Arc::new(Policy { lines: lines.into_boxed_slice(), ..policy })),
        None if lines.is_empty() => None,
        None => return None,
    };
    let since = placed(&mut meta, since?, unix_ms(), Instant::now());
    Some((meta, since))
}

/// The moment `since_ms` on this process's clock. Where that clock does not reach back so far, the age goes into `meta`.
fn placed(meta: &mut Meta, since_ms: u64, now_ms: u64, now: Instant) -> Instant {
    if since_ms > now_ms.saturating_add(CLOCK_SLACK_MS) {
        meta.fresh_for = Duration::ZERO;
        return now;
    }
    let age = Duration::from_millis(now_ms.saturating_sub(since_ms));
    now.checked_sub(age).unwrap_or_else(|| {
        meta.initial_age = meta.initial_age.saturating_add(age);
        meta.fresh_for = meta.fresh_for.saturating_sub(age);
        now
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(super) fn meta() -> Meta {
        let time = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        Meta {
            length: Some(9),
            etag: Some(HeaderValue::from_bytes(b"\"caf\xe9\"").unwrap()),
            last_modified: Some((HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"), time)),
            content_type: HeaderValue::from_static("audio/mp4"),
            content_encoding: None,
            cache_control: HeaderValue::from_static("private, max-age=1"),
            fresh_for: Duration::from_millis(90_500),
            initial_age: Duration::from_secs(7),
            http: Some(Arc::new(Policy {
                status: StatusCode::NOT_FOUND,
                lines: [(http::header::LINK, HeaderValue::from_static("<a>; rel=b"))].into(),
                once: Box::default(),
                selects: Box::default(),
                controls: true,
                must_revalidate: false,
                stale_while_revalidate: Duration::from_secs(3),
                stale_if_error: Duration::from_secs(4),
            })),
            whole_only: false,
        }
    }

    #[test]
    fn what_is_written_is_read_and_time_goes_on_in_between() {
        let mut bytes = Vec::new();
        encode(&meta(), unix_ms() - 60_000, &mut bytes);
        let (read, since) = decode(&bytes, 9).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", meta()));
        assert!(since.elapsed() >= Duration::from_secs(60) && since.elapsed() < Duration::from_secs(90));
    }

    #[test]
    fn what_is_not_understood_in_full_is_a_miss() {
        let mut bytes = Vec::new();
        encode(&meta(), unix_ms(), &mut bytes);
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut], 9).is_none(), "cut at {cut}");
        }
        let mut newer = bytes.clone();
        newer[0] = VERSION + 1;
        assert!(decode(&newer, 9).is_none());
        bytes.extend_from_slice(&[200, 0, 0, 0, 0]);
        assert!(decode(&bytes, 9).is_none());
    }

    #[test]
    fn a_clock_that_was_set_back_makes_an_entry_out_of_date() {
        let mut bytes = Vec::new();
        encode(&meta(), unix_ms() + 3_600_000, &mut bytes);
        assert_eq!(decode(&bytes, 9).unwrap().0.fresh_for, Duration::ZERO);
    }

    #[test]
    fn a_clock_that_began_after_the_object_came_loses_no_age() {
        let mut meta = meta();
        let now = Instant::now();
        let age = Duration::from_secs(i64::MAX as u64 / 1000);
        let now_ms = millis(age);
        let since = placed(&mut meta, 0, now_ms, now);
        let told = now.saturating_duration_since(since).saturating_add(meta.initial_age);
        assert!(told >= age && now.saturating_duration_since(since) >= meta.fresh_for);
    }
}
