//! Attribute lists (RFC 8216, section 4.2): which attributes of which tags are URIs, and where they stand in a line.
//!
//! Invariants: never panics, whatever the text; ranges are in order and lie inside of the text. A comma inside of
//! quotes separates nothing; blanks around names, `=` and commas are passed over, since players pass over them too. A
//! list with an unclosed quote ends there.

use std::ops::Range;

/// Tags and those of their attributes that are URIs (rfc8216bis, section 4.4; `EXT-X-IMAGE-STREAM-INF` is in use
/// without being in it).
const URIS: [(&[u8], &[&[u8]]); 12] = [
    (b"#EXT-X-MAP", &[b"URI"]),
    (b"#EXT-X-KEY", &[b"URI"]),
    (b"#EXT-X-PART", &[b"URI"]),
    (b"#EXT-X-MEDIA", &[b"URI"]),
    (b"#EXT-X-SESSION-KEY", &[b"URI"]),
    (b"#EXT-X-SESSION-DATA", &[b"URI"]),
    (b"#EXT-X-PRELOAD-HINT", &[b"URI"]),
    (b"#EXT-X-RENDITION-REPORT", &[b"URI"]),
    (b"#EXT-X-I-FRAME-STREAM-INF", &[b"URI"]),
    (b"#EXT-X-IMAGE-STREAM-INF", &[b"URI"]),
    (b"#EXT-X-CONTENT-STEERING", &[b"SERVER-URI"]),
    (b"#EXT-X-DATERANGE", &[b"X-ASSET-URI", b"X-ASSET-LIST"]),
];

/// One attribute.
pub(super) struct Attribute<'t> {
    pub(super) name: &'t [u8],
    /// Where its value stands, without its quotes.
    pub(super) value: Range<usize>,
    pub(super) quoted: bool,
}

/// Where the URIs of the tag `text` stand, whose name is `tag`. An unquoted value is no URI (section 4.2).
pub(super) fn uris<'t>(tag: &[u8], text: &'t [u8]) -> impl Iterator<Item = Range<usize>> + use<'t> {
    let names = URIS.iter().find(|(known, _)| *known == tag).map_or(&[][..], |(_, names)| names);
    let all = if names.is_empty() { &[] } else { text };
    list(all).filter(|attribute| attribute.quoted && names.contains(&attribute.name)).map(|attribute| attribute.value)
}

/// The attributes of a tag, in order.
pub(super) fn list(text: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    let mut at = text.iter().position(|byte| *byte == b':').map_or(text.len(), |colon| colon + 1);
    std::iter::from_fn(move || {
        at = skip(text, at, |byte| matches!(byte, b' ' | b'\t' | b','));
        let end = skip(text, at, |byte| !matches!(byte, b'=' | b','));
        let name = text.get(at..end).unwrap_or_default().trim_ascii_end();
        if name.is_empty() && end >= text.len() {
            return None;
        }
        if text.get(end) != Some(&b'=') {
            at = end;
            return Some(Attribute { name, value: end..end, quoted: false });
        }
        let start = skip(text, end + 1, |byte| matches!(byte, b' ' | b'\t'));
        if text.get(start) == Some(&b'"') {
            let close = skip(text, start + 1, |byte| byte != b'"');
            at = skip(text, close, |byte| byte != b',');
            let closed = close < text.len();
            return closed.then_some(Attribute { name, value: start + 1..close, quoted: true });
        }
        at = skip(text, start, |byte| byte != b',');
        let value = text.get(start..at).unwrap_or_default().trim_ascii_end();
        Some(Attribute { name, value: start..start + value.len(), quoted: false })
    })
}

/// The first place from `at` on whose byte `pass` does not let pass.
fn skip(text: &[u8], at: usize, pass: impl Fn(u8) -> bool) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| !pass(*byte)).unwrap_or(rest.len())
}
