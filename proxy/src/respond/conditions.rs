//! Conditional requests (RFC 9110, section 13), in the order of section 13.2.2.

use std::time::SystemTime;

use http::HeaderMap;
use http::header::{HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};

use crate::cache::Meta;

/// What the conditions say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Go,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Judges the preconditions of a GET or HEAD.
pub(crate) fn judge(headers: &HeaderMap, meta: &Meta) -> Verdict {
    let modified = meta.last_modified.as_ref().map(|(_, time)| *time);
    if headers.contains_key(IF_MATCH) {
        if !matches(headers, &IF_MATCH, meta, Comparison::Strong) {
            return Verdict::Failed;
        }
    } else if let (Some(since), Some(modified)) = (date(headers, &IF_UNMODIFIED_SINCE), modified)
        && modified > since
    {
        return Verdict::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if matches(headers, &IF_NONE_MATCH, meta, Comparison::Weak) {
            return Verdict::NotModified;
        }
    } else if let (Some(since), Some(modified)) = (date(headers, &IF_MODIFIED_SINCE), modified)
        && modified <= since
    {
        return Verdict::NotModified;
    }
    Verdict::Go
}

/// Whether `Range` counts: there is no `If-Range`, or it names this very state of the object (section 13.1.5).
pub(crate) fn range_applies(headers: &HeaderMap, meta: &Meta) -> bool {
    let Some(value) = headers.get(IF_RANGE) else { return true };
    let Ok(text) = value.to_str().map(str::trim) else { return false };
    if text.ends_with('"') {
        let ours = meta.etag.as_ref().and_then(|etag| etag.to_str().ok());
        return !text.starts_with("W/") && ours == Some(text);
    }
    let modified = meta.last_modified.as_ref().map(|(_, time)| *time);
    httpdate::parse_http_date(text).is_ok_and(|date| modified == Some(date))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether a list of entity tags holds the object's, or is `*`.
fn matches(headers: &HeaderMap, name: &HeaderName, meta: &Meta, comparison: Comparison) -> bool {
    let ours = meta.etag.as_ref().and_then(|etag| etag.to_str().ok());
    for value in headers.get_all(name) {
        let Ok(text) = value.to_str() else { continue };
        if text.trim() == "*" {
            return true;
        }
        let Some(ours) = ours else { continue };
        for tag in tags(text) {
            let equal = match comparison {
                Comparison::Strong => !tag.starts_with("W/") && tag == ours,
                Comparison::Weak => tag.trim_start_matches("W/") == ours.trim_start_matches("W/"),
            };
            if equal {
                return true;
            }
        }
    }
    false
}

/// The entity tags of a list. A comma may stand inside of quotes (section 8.8.3).
fn tags(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        let opening = rest.find('"')?;
        let closing = rest.get(opening + 1..)?.find('"')? + opening + 1;
        let tag = rest.get(..=closing)?;
        rest = rest.get(closing + 1..)?;
        Some(tag)
    })
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;

    fn meta(etag: &'static str) -> Meta {
        let time = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        Meta {
            length: Some(1),
            etag: Some(HeaderValue::from_static(etag)),
            last_modified: Some((HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"), time)),
            content_type: HeaderValue::from_static("audio/mp4"),
            content_encoding: None,
            cache_control: HeaderValue::from_static("private"),
            fresh_for: Duration::ZERO,
            initial_age: Duration::ZERO,
            http: None,
            whole_only: false,
        }
    }

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn if_none_match_is_weak_and_wins_over_the_date() {
        let meta = meta("\"a,b\"");
        assert_eq!(judge(&headers(&[(IF_NONE_MATCH, "\"x\", W/\"a,b\"")]), &meta), Verdict::NotModified);
        assert_eq!(judge(&headers(&[(IF_NONE_MATCH, "*")]), &meta), Verdict::NotModified);
        let newer = (IF_MODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(judge(&headers(std::slice::from_ref(&newer)), &meta), Verdict::NotModified);
        assert_eq!(judge(&headers(&[(IF_NONE_MATCH, "\"x\""), newer]), &meta), Verdict::Go);
    }

    #[test]
    fn if_match_is_strong() {
        let meta = meta("W/\"a\"");
        assert_eq!(judge(&headers(&[(IF_MATCH, "W/\"a\"")]), &meta), Verdict::Failed);
        assert_eq!(judge(&headers(&[(IF_MATCH, "*")]), &meta), Verdict::Go);
        let older = headers(&[(IF_UNMODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:36 GMT")]);
        assert_eq!(judge(&older, &meta), Verdict::Failed);
    }

    #[test]
    fn if_range_wants_the_exact_state() {
        let meta = meta("\"a\"");
        assert!(range_applies(&headers(&[(IF_RANGE, "\"a\"")]), &meta));
        assert!(!range_applies(&headers(&[(IF_RANGE, "W/\"a\"")]), &meta));
        assert!(!range_applies(&headers(&[(IF_RANGE, "\"b\"")]), &meta));
        assert!(range_applies(&headers(&[(IF_RANGE, "Sun, 06 Nov 1994 08:49:37 GMT")]), &meta));
        assert!(!range_applies(&headers(&[(IF_RANGE, "Sun, 06 Nov 1994 08:49:38 GMT")]), &meta));
    }
}
