//! Variants of one URL (RFC 9111, section 4.1): which request headers tell them apart, and the key of each.
//!
//! Purpose: where an origin says `Vary`, the URL's own key leads to a list of header names, and these, with what a
//! request says under them, to the variant's key.
//!
//! Invariants: at most [`VARIANTS_MAX`] variants of a URL are kept, and the oldest makes room; a new list of names begins
//! new keys, so that nothing that was kept under the old one is found again, and so does forgetting.
//!
//! On failure: a request whose selecting headers are absurdly long has no variant; it goes past the cache.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, HeaderMap, HeaderName, HeaderValue, VARY};

use super::Key;
use crate::lock::Mutex;

/// Variants of one URL. Codings times a handful of languages; more is a header that should not select.
const VARIANTS_MAX: usize = 32;
/// Names that may select.
const NAMES_MAX: usize = 8;
/// Bytes of selecting header values, all together; they become part of a key.
const VALUES_MAX: usize = 2048;

/// What a response says of the requests that it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selects {
    /// `Vary: *`, or more than anybody should: no other request.
    Nobody,
    /// Every request that says the same under these names.
    By(Box<[HeaderName]>),
}

/// The variants of one URL.
#[derive(Debug)]
pub(crate) struct Variants {
    pub(crate) names: Box<[HeaderName]>,
    /// Tells the keys of this list from those of an earlier one.
    stamp: u64,
    known: Mutex<VecDeque<Key>>,
}

impl Selects {
    /// Reads `Vary`. `reaches`: whether clients' headers of this name reach the origin; what does not reach it cannot
    /// have selected anything.
    pub(crate) fn read(headers: &HeaderMap, reaches: impl Fn(&HeaderName) -> bool) -> Self {
        let mut names = Vec::new();
        for value in headers.get_all(VARY) {
            let Ok(text) = value.to_str() else { return Self::Nobody };
            for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                match HeaderName::from_bytes(name.as_bytes()) {
                    Ok(name) if name.as_str() == "*" => return Self::Nobody,
                    Ok(name) => names.push(name),
                    Err(_) => return Self::Nobody,
                }
            }
        }
        names.retain(|name| reaches(name));
        names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        if names.len() > NAMES_MAX { Self::Nobody } else { Self::By(names.into_boxed_slice()) }
    }
}

impl Variants {
    pub(crate) fn new(names: Box<[HeaderName]>) -> Self {
        static STAMPS: AtomicU64 = AtomicU64::new(0);
        let stamp = STAMPS.fetch_add(1, Ordering::Relaxed);
        Self { names, stamp, known: Mutex::default() }
    }

    /// The key of the variant that a request asks for; `None` where its headers are too long for one.
    pub(crate) fn key(&self, primary: &Key, headers: &HeaderMap) -> Option<Key> {
        let mut variant = self.stamp.to_string();
        for name in &self.names {
            variant.push('\n');
            if headers.contains_key(name) {
                // A header that is there and empty is another request than one without it.
                variant.push('=');
                variant.push_str(&normalised(name, headers)?);
            }
        }
        (variant.len() <= VALUES_MAX).then(|| primary.variant(variant.into_boxed_str()))
    }

    /// Takes a variant's key into the list. The key that had to make room for it.
    pub(crate) fn admit(&self, key: &Key) -> Option<Key> {
        let mut known = self.known.lock();
        if known.contains(key) {
            return None;
        }
        known.push_back(key.clone());
        if known.len() > VARIANTS_MAX { known.pop_front() } else { None }
    }

    /// All keys of the list.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.known.lock().iter().cloned().collect()
    }

    /// Bytes that the list may take.
    pub(crate) fn weight(&self) -> u64 {
        // The keys beside the objects' own: a list is short, and its bound is what counts.
        (size_of::<Self>() + VARIANTS_MAX * (size_of::<Key>() + 128)) as u64
    }
}

/// Several lines as one, blanks made alike; codings and languages are compared without case (RFC 9110, sections 8.4.1, 8.5.1).
fn normalised(name: &HeaderName, headers: &HeaderMap) -> Option<String> {
    let mut text = String::new();
    for value in headers.get_all(name) {
        let value: &HeaderValue = value;
        for part in value.to_str().ok()?.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if !text.is_empty() {
                text.push(',');
            }
            text.extend(part.split_ascii_whitespace().flat_map(|word| [word, " "]));
            text.truncate(text.trim_end().len());
        }
    }
    if *name == ACCEPT_ENCODING || *name == ACCEPT_LANGUAGE {
        text.make_ascii_lowercase();
    }
    (text.len() <= VALUES_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn names(vary: &[(&'static str, &'static str)]) -> Selects {
        Selects::read(&headers(vary), |name| name != "cookie")
    }

    #[test]
    fn names_are_read_and_what_cannot_select_is_left_out() {
        let two = ["accept-language", "foo"].map(HeaderName::from_static);
        assert_eq!(names(&[("vary", "Foo, , Cookie"), ("vary", "Accept-Language, foo")]), Selects::By(two.into()));
        assert_eq!(names(&[("vary", "foo"), ("vary", "*")]), Selects::Nobody);
        assert_eq!(names(&[("vary", "a b")]), Selects::Nobody);
        assert_eq!(names(&[("vary", "a,b,c,d,e,f,g,h,i")]), Selects::Nobody);
    }

    #[test]
    fn keys_tell_apart_what_the_standard_tells_apart() {
        let variants = Variants::new(["accept-encoding", "foo"].map(HeaderName::from_static).into());
        let primary = Key::new(0, 0, "/a", None);
        let key = |pairs: &[(&'static str, &'static str)]| variants.key(&primary, &headers(pairs)).unwrap();
        assert_eq!(key(&[("foo", "1 ,2")]), key(&[("foo", "1"), ("foo", "2")]));
        assert_ne!(key(&[("foo", "")]), key(&[]));
        assert_ne!(key(&[("foo", "a")]), key(&[("foo", "A")]));
        assert_eq!(key(&[("accept-encoding", "GZIP,  br")]), key(&[("accept-encoding", "gzip, br")]));
        let later = Variants::new(["foo"].map(HeaderName::from_static).into());
        assert_ne!(later.key(&primary, &HeaderMap::new()), Some(key(&[])));
        let long: &'static str = "x".repeat(VALUES_MAX + 1).leak();
        assert_eq!(variants.key(&primary, &headers(&[("foo", long)])), None);
    }

    #[test]
    fn the_oldest_variant_makes_room() {
        let variants = Variants::new(["foo"].map(HeaderName::from_static).into());
        let primary = Key::new(0, 0, "/a", None);
        let key = |n: usize| primary.variant(n.to_string().into());
        for n in 0..VARIANTS_MAX {
            assert_eq!(variants.admit(&key(n)), None);
        }
        assert_eq!(variants.admit(&key(3)), None, "known already");
        assert_eq!(variants.admit(&key(VARIANTS_MAX)), Some(key(0)));
        assert_eq!(variants.keys().len(), VARIANTS_MAX);
    }
}
