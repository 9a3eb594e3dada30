//! The canonical path and the scope, against a second reading of their rules that is slow and plain.
//!
//! Input: the raw path; behind the first newline a scope.

#![no_main]

use libfuzzer_sys::fuzz_target;
use segue_signing::{CanonicalPath, MAX_PATH_BYTES, Scope};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (raw, claim) = text.split_once('\n').unwrap_or((text, ""));
    let parsed = CanonicalPath::parse(raw);
    assert_eq!(
        parsed.as_ref().ok().map(CanonicalPath::as_str),
        reference(raw).as_deref(),
        "parse and the rules as written disagree about {raw:?}"
    );
    let plain = CanonicalPath::from_decoded(raw);
    assert_eq!(plain.is_ok(), is_canonical(raw), "from_decoded and the rules as written disagree about {raw:?}");
    for path in parsed.iter().chain(&plain) {
        same_again(path);
        own_scopes(path);
        if let Ok(scope) = Scope::parse(claim) {
            assert_eq!(scope.allows(path), opens(claim, path.as_str()), "scope {claim:?}, path {path}");
        }
    }
});

/// Encoded and read again it is the same path, and its one spelling needs nothing but unreserved characters.
fn same_again(path: &CanonicalPath) {
    let encoded = path.encoded();
    assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte)), "{encoded}");
    assert_eq!(CanonicalPath::parse(&encoded).as_ref(), Ok(path), "encoded is not read as the same path");
    assert_eq!(CanonicalPath::from_decoded(path.as_str()).as_ref(), Ok(path), "a path is not canonical to itself");
    let joined: String = path.segments().flat_map(|segment| ["/", segment]).collect();
    assert_eq!(joined, path.as_str(), "the segments are not the path");
}

/// Every folder above a path opens it; a folder whose name was cut short does not.
fn own_scopes(path: &CanonicalPath) {
    let text = path.as_str();
    for (end, _) in text.char_indices().skip(1) {
        let (front, rest) = text.split_at(end);
        if front.ends_with('/') {
            assert!(Scope::parse(front).unwrap().allows(path), "{front} does not open {path}");
        } else if !rest.starts_with('/')
            && let Ok(cut) = Scope::parse(&format!("{front}/"))
        {
            assert!(!cut.allows(path), "{cut} opens {path}");
        }
    }
    assert!(Scope::whole(path.clone()).allows(path));
}

/// What a scope opens, folder by folder.
fn opens(claim: &str, path: &str) -> bool {
    match claim.strip_suffix('/') {
        None => claim == path,
        Some(folder) => {
            let folders: Vec<_> = folder.split('/').collect();
            let parts: Vec<_> = path.split('/').collect();
            parts.len() > folders.len() && parts[..folders.len()] == folders[..]
        }
    }
}

fn reference(raw: &str) -> Option<String> {
    if raw.len() > 3 * MAX_PATH_BYTES || raw.contains(['?', '#']) {
        return None;
    }
    let mut bytes = Vec::new();
    let mut pieces = raw.split('%');
    bytes.extend_from_slice(pieces.next()?.as_bytes());
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        let byte = u8::from_str_radix(digits, 16).ok()?;
        if byte == b'/' {
            return None;
        }
        bytes.push(byte);
        bytes.extend_from_slice(piece[2..].as_bytes());
    }
    String::from_utf8(bytes).ok().filter(|path| is_canonical(path))
}

fn is_canonical(path: &str) -> bool {
    let Some(inner) = path.strip_prefix('/') else { return false };
    let mut segments: Vec<_> = inner.split('/').collect();
    if segments.last() == Some(&"") {
        segments.pop();
    }
    path.len() <= MAX_PATH_BYTES
        && !path.contains('\\')
        && !path.chars().any(char::is_control)
        && segments.iter().all(|segment| !["", ".", ".."].contains(segment))
}
