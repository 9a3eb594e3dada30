//! Variables of a playlist (`EXT-X-DEFINE`, rfc8216bis, section 4.3): enough to know where a URI leads that refers to
//! some.
//!
//! Invariants: values are never put out, only looked at; both their number and the length of what they make of a URI
//! are bounded. What is imported, comes from the query or was never defined has no value that could be known here.

use std::borrow::Cow;

use super::attributes;

/// Variables that are remembered; a reference to a further one counts as unknown.
const VARIABLES_MAX: usize = 64;
/// Bytes of a value, and of a URI with its values; longer ones count as unknown.
const EXPANDED_MAX: usize = 8 * 1024;

/// What one `EXT-X-DEFINE` defines.
#[derive(Debug)]
pub(super) enum Definition {
    /// `NAME` and `VALUE`.
    Value(Vec<u8>, Vec<u8>),
    /// `IMPORT` or `QUERYPARAM`.
    Elsewhere(Vec<u8>),
    Nothing,
}

impl Definition {
    /// Reads a tag.
    pub(super) fn read(text: &[u8]) -> Self {
        let (mut name, mut value, mut elsewhere) = (None, None, None);
        for attribute in attributes::list(text).filter(|attribute| attribute.quoted) {
            let found = text.get(attribute.value).map(<[u8]>::to_vec);
            match attribute.name {
                b"NAME" => name = found,
                b"VALUE" => value = found,
                b"IMPORT" | b"QUERYPARAM" => elsewhere = found,
                _ => {}
            }
        }
        match (name, elsewhere) {
            (Some(name), _) => Self::Value(name, value.unwrap_or_default()),
            (None, Some(name)) => Self::Elsewhere(name),
            (None, None) => Self::Nothing,
        }
    }

    pub(super) fn name(&self) -> Option<&[u8]> {
        match self {
            Self::Value(name, _) | Self::Elsewhere(name) => Some(name),
            Self::Nothing => None,
        }
    }
}

/// The variables whose values are known.
#[derive(Debug, Default)]
pub(super) struct Variables(Vec<(Vec<u8>, Vec<u8>)>);

impl Variables {
    pub(super) fn learn(&mut self, definition: Definition) {
        let Definition::Value(name, value) = definition else { return };
        let known = self.0.iter().any(|(known, _)| *known == name);
        if !known && self.0.len() < VARIABLES_MAX && value.len() <= EXPANDED_MAX {
            self.0.push((name, value));
        }
    }

    /// `uri` with its references replaced, up to the first one that is unknown; whether it was cut there.
    pub(super) fn expand<'u>(&self, uri: &'u [u8]) -> (Cow<'u, [u8]>, bool) {
        let Some(first) = reference(uri, 0) else { return (Cow::Borrowed(uri), false) };
        let mut expanded = Vec::with_capacity(uri.len());
        let (mut at, mut next) = (0, Some(first));
        while let Some((start, end)) = next {
            expanded.extend_from_slice(uri.get(at..start).unwrap_or_default());
            let name = uri.get(start + 2..end - 1).unwrap_or_default();
            let value = self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value);
            match value.filter(|value| expanded.len() + value.len() <= EXPANDED_MAX) {
                Some(value) => expanded.extend_from_slice(value),
                None => return (Cow::Owned(expanded), true),
            }
            at = end;
            next = reference(uri, end);
        }
        expanded.extend_from_slice(uri.get(at..).unwrap_or_default());
        (Cow::Owned(expanded), false)
    }
}

/// The next `{$name}` from `from` on: its start and its end.
fn reference(uri: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut at = from;
    loop {
        let start = at + uri.get(at..)?.windows(2).position(|pair| pair == b"{$")?;
        let rest = uri.get(start + 2..)?;
        let length = rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
        match length {
            Some(length) if length > 0 && rest.get(length) == Some(&b'}') => {
                return Some((start, start + 2 + length + 1));
            }
            _ => at = start + 2,
        }
    }
}
