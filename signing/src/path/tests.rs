#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

/// Every way to write `text` with each character raw, or escaped in either case of its hexadecimal digits.
fn spellings(text: &str) -> Vec<String> {
    text.bytes().fold(vec![String::new()], |done, byte| {
        let mut ways = vec![char::from(byte).to_string(), format!("%{byte:02X}"), format!("%{byte:02x}")];
        ways.dedup();
        done.iter().flat_map(|head| ways.iter().map(move |way| format!("{head}{way}"))).collect()
    })
}

#[test]
fn a_path_is_decoded_once() {
    for (raw, decoded) in [
        ("/", "/"),
        ("/hls/t/v/a64/seg-00001.m4s", "/hls/t/v/a64/seg-00001.m4s"),
        ("/a%20b/%C3%BC", "/a b/ü"),
        ("/%68%6c%73/t", "/hls/t"),
        ("/a%252Fb", "/a%2Fb"),
        ("/%252e%252e/x", "/%2e%2e/x"),
        ("/a%3Fb%23c", "/a?b#c"),
        ("/a+b;c=d,e:f@g&h", "/a+b;c=d,e:f@g&h"),
        ("/.../..a/a../.a", "/.../..a/a../.a"),
        ("/dir/", "/dir/"),
        ("/ü", "/ü"),
    ] {
        let path = CanonicalPath::parse(raw).unwrap();
        assert_eq!(path.as_str(), decoded, "{raw}");
        assert_eq!(CanonicalPath::parse(&path.encoded()).unwrap(), path, "{raw}");
    }
}

#[test]
fn encoding_escapes_all_but_unreserved_and_slash() {
    let path = CanonicalPath::from_decoded("/a b/ü/100%/~-._/+!$&'()*,;=:@").unwrap();
    assert_eq!(path.encoded(), "/a%20b/%C3%BC/100%25/~-._/%2B%21%24%26%27%28%29%2A%2C%3B%3D%3A%40");
}

#[test]
fn every_spelling_of_a_dot_segment_is_refused_everywhere() {
    let mut seen = 0;
    for dots in [".", ".."].into_iter().flat_map(spellings) {
        for path in [
            format!("/{dots}"),
            format!("/{dots}/"),
            format!("/{dots}/x"),
            format!("/hls/t/{dots}"),
            format!("/hls/t/{dots}/"),
            format!("/hls/t/{dots}/s10/x"),
            format!("/hls/{dots}/{dots}/x"),
            format!("/%68ls/{dots}/x"),
        ] {
            assert_eq!(CanonicalPath::parse(&path), Err(PathError::DotSegment), "{path}");
            seen += 1;
        }
    }
    // One character has two spellings beside itself (%2E, %2e), so 3 + 9 of them, in 8 places.
    assert_eq!(seen, 12 * 8);
}

#[test]
fn every_spelling_of_slash_and_backslash_is_refused() {
    for slash in ["%2f", "%2F"] {
        for path in [format!("/a{slash}b"), format!("/{slash}"), format!("/..{slash}x"), slash.to_owned()] {
            assert_eq!(CanonicalPath::parse(&path), Err(PathError::EncodedSlash), "{path}");
        }
    }
    for backslash in spellings("\\") {
        for path in [format!("/a{backslash}b"), format!("/..{backslash}x"), format!("/{backslash}")] {
            assert_eq!(CanonicalPath::parse(&path), Err(PathError::Backslash), "{path}");
        }
    }
}

#[test]
fn every_control_character_is_refused_raw_and_escaped() {
    for byte in (0..0x20).chain([0x7f]) {
        let expected = Err(if byte == 0 { PathError::Nul } else { PathError::Control });
        assert_eq!(CanonicalPath::parse(&format!("/a{}b", char::from(byte))), expected, "{byte:#x} raw");
        assert_eq!(CanonicalPath::parse(&format!("/a%{byte:02x}b")), expected, "{byte:#x} escaped");
    }
    for c1 in 0x80..=0x9f_u8 {
        assert_eq!(CanonicalPath::parse(&format!("/a%C2%{c1:02X}b")), Err(PathError::Control), "U+00{c1:02X}");
        assert_eq!(CanonicalPath::parse(&format!("/a{}b", char::from(c1))), Err(PathError::Control));
    }
}

#[test]
fn what_is_not_utf8_is_refused() {
    for (raw, what) in [
        ("/%C0%AF", "overlong slash, two bytes"),
        ("/%E0%80%AF", "overlong slash, three bytes"),
        ("/%F0%80%80%AF", "overlong slash, four bytes"),
        ("/%C0%AE%C0%AE/x", "overlong dots"),
        ("/%C0%80", "overlong NUL"),
        ("/%ED%A0%80", "surrogate"),
        ("/%F4%90%80%80", "beyond Unicode"),
        ("/%FF", "no UTF-8 byte"),
        ("/%C3", "cut"),
        ("/%C3/%BC", "cut by a slash"),
        ("/%BC", "continuation alone"),
        ("/%u002e%u002e", "the escapes of another world"),
    ] {
        let expected = if raw.contains("%u") { PathError::BrokenEscape } else { PathError::NotUtf8 };
        assert_eq!(CanonicalPath::parse(raw), Err(expected), "{what}");
    }
    // Both halves of a character may be written in different ways only if both are bytes of it.
    assert_eq!(CanonicalPath::parse("/\u{ff0e}\u{ff0e}/x").unwrap().as_str(), "/\u{ff0e}\u{ff0e}/x");
}

#[test]
fn broken_shapes_are_refused() {
    for (raw, expected) in [
        ("", PathError::NotAbsolute),
        ("hls/t", PathError::NotAbsolute),
        ("http://x/", PathError::NotAbsolute),
        ("*", PathError::NotAbsolute),
        ("%2fhls", PathError::EncodedSlash),
        ("//", PathError::EmptySegment),
        ("//evil.example/x", PathError::EmptySegment),
        ("/a//b", PathError::EmptySegment),
        ("/a//", PathError::EmptySegment),
        ("/a?b", PathError::Delimiter),
        ("/a#b", PathError::Delimiter),
        ("/a%", PathError::BrokenEscape),
        ("/a%2", PathError::BrokenEscape),
        ("/a%zz", PathError::BrokenEscape),
        ("/a%2%65", PathError::BrokenEscape),
        ("/a%+1", PathError::BrokenEscape),
        ("/%é", PathError::BrokenEscape),
    ] {
        assert_eq!(CanonicalPath::parse(raw), Err(expected), "{raw:?}");
    }
}

#[test]
fn length_is_bounded_before_and_after_decoding() {
    let longest = format!("/{}", "a".repeat(MAX_PATH_BYTES - 1));
    assert!(CanonicalPath::parse(&longest).is_ok());
    let escaped = format!("/{}", "%61".repeat(MAX_PATH_BYTES - 1));
    assert_eq!(CanonicalPath::parse(&escaped).unwrap().as_str(), longest);
    for raw in [format!("{longest}a"), format!("{escaped}%61"), "/a".repeat(100_000), "%".repeat(100_000)] {
        assert_eq!(CanonicalPath::parse(&raw), Err(PathError::TooLong));
    }
}

/// All strings of up to five pieces of this alphabet: whatever is accepted keeps the invariants.
#[test]
fn whatever_is_accepted_is_canonical() {
    let pieces = ["/", "a", ".", "%2e", "%2F", "%", "%25", "%5c", "%C3%BC", "%00"];
    let mut level = vec![String::from("/")];
    let mut accepted = 0;
    for _ in 0..5 {
        level = level.iter().flat_map(|head| pieces.map(|piece| format!("{head}{piece}"))).collect();
        for raw in &level {
            let Ok(path) = CanonicalPath::parse(raw) else { continue };
            accepted += 1;
            let text = path.as_str();
            assert!(text.starts_with('/') && !text.contains("//"), "{raw}");
            assert!(path.segments().all(|segment| segment != "." && segment != ".."), "{raw}");
            assert!(!text.contains(['\\', '\0']), "{raw}");
            assert_eq!(CanonicalPath::parse(&path.encoded()).as_ref(), Ok(&path), "{raw}");
            assert_eq!(CanonicalPath::from_decoded(text).as_ref(), Ok(&path), "{raw}");
        }
    }
    assert!(accepted > 1_000, "only {accepted} of the strings were accepted: the test tests too little");
}

#[test]
fn errors_have_distinct_words_and_repeat_nothing() {
    let all = [
        PathError::NotAbsolute,
        PathError::TooLong,
        PathError::Delimiter,
        PathError::BrokenEscape,
        PathError::EncodedSlash,
        PathError::Backslash,
        PathError::Nul,
        PathError::Control,
        PathError::NotUtf8,
        PathError::DotSegment,
        PathError::EmptySegment,
    ];
    let words: std::collections::HashSet<_> = all.iter().map(|error| error.kind()).collect();
    assert_eq!(words.len(), all.len());
    assert_eq!(PathError::TooLong.status(), 414);
    assert!(all.iter().all(|error| error.kind().starts_with("path-") && matches!(error.status(), 400 | 414)));
}
