//! `Cache-Control` of requests and responses (RFC 9111, section 5.2; RFC 5861), read once into what is asked or allowed.
//!
//! Invariants: several lines are one list; a comma inside of quotes ends nothing; of a directive that comes twice the
//! first counts, and a lifetime that is no number counts as stale (section 4.2.1). Names that are not known are passed over.

use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};

/// The largest number of seconds that a directive can mean (section 1.2.2).
const SECONDS_MAX: u64 = 1 << 31;

/// Field names of a qualified directive; empty where the directive stands alone and means the whole response.
pub(crate) type Fields = Vec<HeaderName>;

/// What a response says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResponseDirectives {
    pub(crate) no_store: bool,
    pub(crate) must_understand: bool,
    pub(crate) public: bool,
    pub(crate) private: Option<Fields>,
    pub(crate) no_cache: Option<Fields>,
    /// `must-revalidate` or `proxy-revalidate`, which are one thing to a shared cache.
    pub(crate) must_revalidate: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) s_maxage: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
}

/// What a client asks of a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RequestDirectives {
    pub(crate) no_cache: bool,
    pub(crate) no_store: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) min_fresh: Option<Duration>,
    /// `Duration::MAX` where any staleness will do.
    pub(crate) max_stale: Option<Duration>,
}

impl ResponseDirectives {
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let mut read = Self::default();
        for (name, value) in members(headers, &CACHE_CONTROL) {
            let seconds = || Some(delta_seconds(value.as_deref().unwrap_or_default()));
            let fields = || Some(field_names(value.as_deref().unwrap_or_default()));
            match name.as_str() {
                "no-store" => read.no_store = true,
                "must-understand" => read.must_understand = true,
                "public" => read.public = true,
                "private" => read.private = merged(read.private.take(), fields()),
                "no-cache" => read.no_cache = merged(read.no_cache.take(), fields()),
                "must-revalidate" | "proxy-revalidate" => read.must_revalidate = true,
                "max-age" => read.max_age = read.max_age.or_else(seconds),
                "s-maxage" => read.s_maxage = read.s_maxage.or_else(seconds),
                "stale-while-revalidate" => {
                    read.stale_while_revalidate = read.stale_while_revalidate.or_else(seconds);
                }
                "stale-if-error" => read.stale_if_error = read.stale_if_error.or_else(seconds),
                _ => {}
            }
        }
        read
    }

    /// Whether the whole response is one client's.
    pub(crate) fn is_private(&self) -> bool {
        self.private.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether every reuse has to be validated.
    pub(crate) fn is_no_cache(&self) -> bool {
        self.no_cache.as_ref().is_some_and(Vec::is_empty)
    }
}

impl RequestDirectives {
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let mut read = Self::default();
        if !headers.contains_key(CACHE_CONTROL) {
            return read;
        }
        for (name, value) in members(headers, &CACHE_CONTROL) {
            let seconds = || Some(delta_seconds(value.as_deref().unwrap_or_default()));
            match name.as_str() {
                "no-cache" => read.no_cache = true,
                "no-store" => read.no_store = true,
                "only-if-cached" => read.only_if_cached = true,
                "max-age" => read.max_age = read.max_age.or_else(seconds),
                "min-fresh" => read.min_fresh = read.min_fresh.or_else(seconds),
                "max-stale" if value.is_none() => read.max_stale = Some(Duration::MAX),
                "max-stale" => read.max_stale = read.max_stale.or_else(seconds),
                _ => {}
            }
        }
        read
    }
}

/// A directive that stands alone says more than one with fields.
fn merged(known: Option<Fields>, more: Option<Fields>) -> Option<Fields> {
    match (known, more) {
        (Some(known), Some(more)) if known.is_empty() || more.is_empty() => Some(Vec::new()),
        (Some(mut known), Some(more)) => {
            known.extend(more);
            Some(known)
        }
        (known, more) => known.or(more),
    }
}

/// Seconds of a directive (section 1.2.2). What is not a number is stale.
fn delta_seconds(text: &str) -> Duration {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = if is_number { text.parse().unwrap_or(SECONDS_MAX).min(SECONDS_MAX) } else { 0 };
    Duration::from_secs(seconds)
}

fn field_names(list: &str) -> Fields {
    list.split(',').filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok()).collect()
}

/// The members of a list field, names in lower case, values without their quotes.
fn members(headers: &HeaderMap, name: &HeaderName) -> Vec<(String, Option<String>)> {
    let lines = headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    lines.flat_map(parts).filter_map(member).collect()
}

fn member(part: &str) -> Option<(String, Option<String>)> {
    let (name, value) = match part.split_once('=') {
        Some((name, value)) => (name, Some(value.trim().trim_matches('"').replace('\\', ""))),
        None => (part, None),
    };
    let name = name.trim().to_ascii_lowercase();
    (!name.is_empty()).then_some((name, value))
}

/// Splits at commas that stand outside of quotes.
fn parts(line: &str) -> Vec<&str> {
    let (mut found, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                found.extend(line.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    found.extend(line.get(start..));
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, line.parse().unwrap());
        }
        headers
    }

    fn response(lines: &[&str]) -> ResponseDirectives {
        ResponseDirectives::read(&headers(lines))
    }

    #[test]
    fn commas_in_quotes_end_nothing() {
        let read = response(&["private=\"X-One, x-two\", max-age=5", "No-Cache=\"set-cookie\""]);
        assert_eq!(read.private, Some(vec![HeaderName::from_static("x-one"), HeaderName::from_static("x-two")]));
        assert_eq!(read.max_age, Some(Duration::from_secs(5)));
        assert!(!read.is_private() && !read.is_no_cache());
        assert!(response(&["no-cache=\"a\"", "no-cache"]).is_no_cache(), "alone, it says more");
    }

    #[test]
    fn numbers_are_those_of_the_standard() {
        for (text, seconds) in [
            ("max-age=7", 7),
            ("max-age=\"7\"", 7),
            ("max-age=7, max-age=9", 7),
            ("max-age=soon", 0),
            ("max-age=+5", 0),
            ("max-age=1.5", 0),
            ("max-age=99999999999999999999", SECONDS_MAX),
            ("MAX-AGE = 8", 8),
        ] {
            assert_eq!(response(&[text]).max_age, Some(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn a_request_may_take_what_is_stale() {
        let read = |line| RequestDirectives::read(&headers(&[line]));
        assert_eq!(read("max-stale").max_stale, Some(Duration::MAX));
        assert_eq!(read("max-stale=3, only-if-cached").max_stale, Some(Duration::from_secs(3)));
        assert!(read("max-stale=3, only-if-cached").only_if_cached);
        assert_eq!(RequestDirectives::read(&HeaderMap::new()), RequestDirectives::default());
    }
}
