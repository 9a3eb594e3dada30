#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn allows(scope: &str, path: &str) -> bool {
    Scope::parse(scope).unwrap().allows(&CanonicalPath::parse(path).unwrap())
}

#[test]
fn a_prefix_opens_what_is_below_it_and_nothing_beside_it() {
    for path in ["/a/s1/", "/a/s1/x", "/a/s1/x/y", "/%61/s1/x", "/a/s1/s10"] {
        assert!(allows("/a/s1/", path), "{path}");
    }
    for path in ["/a/s10/x", "/a/s1", "/a/s1x", "/a/", "/", "/b/a/s1/x", "/A/s1/x", "/a/S1/x"] {
        assert!(!allows("/a/s1/", path), "{path}");
    }
    assert!(allows("/", "/anything/at/all"));
}

#[test]
fn a_whole_path_opens_itself_alone() {
    assert!(allows("/a/b.mp3", "/a/b.mp3"));
    for path in ["/a/b.mp3/", "/a/b.mp3/c", "/a/b.mp33", "/a/b", "/a/"] {
        assert!(!allows("/a/b.mp3", path), "{path}");
    }
}

#[test]
fn a_whole_path_that_ends_in_a_slash_is_no_prefix() {
    let scope = Scope::whole(CanonicalPath::parse("/a/").unwrap());
    assert!(scope.allows(&CanonicalPath::parse("/a/").unwrap()));
    assert!(!scope.allows(&CanonicalPath::parse("/a/b").unwrap()));
}

#[test]
fn a_scope_is_compared_decoded_and_carries_no_escapes() {
    assert!(allows("/a b/ü/", "/a%20b/%C3%BC/x"));
    assert!(!allows("/a%20b/", "/a%20b/x"), "the claim means the characters %20");
    assert!(allows("/a%20b/", "/a%2520b/x"));
}

#[test]
fn what_is_not_canonical_is_no_scope() {
    for claim in ["", "a/", "//", "/a//", "/a/../", "/./", "/a\\b/", "/a\0/", "/a\n/"] {
        assert!(Scope::parse(claim).is_err(), "{claim:?}");
    }
}
