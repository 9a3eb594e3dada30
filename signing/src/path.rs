//! The canonical path: what a request's path says after exactly one decoding.
//!
//! Cache keys, scopes, signed URLs and object keys are all made from this one value, so that no two
//! parts of Segue can disagree about which object a request names.
//!
//! # Invariants
//! - Starts with `/`; every segment but the last is non-empty (a trailing `/` is kept: it names another
//!   resource at an http origin, and an S3 folder marker).
//! - No segment is `.` or `..`; there is no NUL, no control character and no backslash; it is UTF-8.
//! - `parse(encoded(p)) == p` for every canonical path `p`.
//!
//! # On failure
//! Refused with a [`PathError`], never repaired: a path that two readers could read in two ways is an
//! attack or a mistake, and both are better told so.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The longest decoded path, in bytes. S3 keys end at 1,024 bytes; the slash in front is not part of one.
pub const MAX_PATH_BYTES: usize = 1025;

/// The longest raw path: every byte of the longest decoded path written as a three-byte escape.
const MAX_RAW_BYTES: usize = MAX_PATH_BYTES * 3;

/// RFC 3986 section 2.3: all but the unreserved characters is escaped, `/` excepted. It is also what SigV4 wants.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A path decoded once and found free of everything that two readers could read in two ways.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CanonicalPath(Box<str>);

/// Why a path was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Does not begin with `/`.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// Longer than [`MAX_PATH_BYTES`] once decoded, or three times that before.
    #[error("the path is too long")]
    TooLong,
    /// A `?` or `#` stands in it unescaped: the query was not split off.
    #[error("the path holds an unescaped ? or #")]
    Delimiter,
    /// A `%` without two hexadecimal digits behind it (RFC 3986 section 2.1).
    #[error("the path holds a broken percent-escape")]
    BrokenEscape,
    /// `%2F`: decoded it would move a segment boundary.
    #[error("the path holds an escaped slash")]
    EncodedSlash,
    /// A backslash, escaped or not: a slash to some readers.
    #[error("the path holds a backslash")]
    Backslash,
    /// A NUL: the end of the path to some readers.
    #[error("the path holds a NUL")]
    Nul,
    /// A control character (C0, DEL or C1).
    #[error("the path holds a control character")]
    Control,
    /// Not UTF-8 once decoded; overlong forms and surrogates are not UTF-8 (RFC 3629 section 3).
    #[error("the path is not UTF-8")]
    NotUtf8,
    /// A segment is `.` or `..`.
    #[error("the path holds a dot segment")]
    DotSegment,
    /// Two slashes in a row.
    #[error("the path holds an empty segment")]
    EmptySegment,
}

impl PathError {
    /// The reason word: a metric label, and `error` in the answer to the client.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::NotAbsolute => "path-not-absolute",
            Self::TooLong => "path-too-long",
            Self::Delimiter => "path-delimiter",
            Self::BrokenEscape => "path-broken-escape",
            Self::EncodedSlash => "path-encoded-slash",
            Self::Backslash => "path-backslash",
            Self::Nul => "path-nul",
            Self::Control => "path-control-character",
            Self::NotUtf8 => "path-not-utf8",
            Self::DotSegment => "path-dot-segment",
            Self::EmptySegment => "path-empty-segment",
        }
    }

    /// The HTTP status: 414 for [`PathError::TooLong`], else 400.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TooLong => 414,
            _ => 400,
        }
    }

    /// A text that is safe to show to a client: it repeats nothing of what the client sent.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::NotAbsolute => "The path must begin with a slash.",
            Self::TooLong => "The path is too long.",
            Self::Delimiter => "The path holds an unescaped ? or #.",
            Self::BrokenEscape => "The path holds a % that is not followed by two hexadecimal digits.",
            Self::EncodedSlash => "The path holds an escaped slash.",
            Self::Backslash => "The path holds a backslash.",
            Self::Nul => "The path holds a NUL.",
            Self::Control => "The path holds a control character.",
            Self::NotUtf8 => "The path is not UTF-8.",
            Self::DotSegment => "The path holds a dot segment.",
            Self::EmptySegment => "The path holds an empty segment.",
        }
    }
}

impl CanonicalPath {
    /// Decodes the path part of a request target (no query, no fragment) once.
    ///
    /// # Errors
    /// A [`PathError`] for everything that the module's invariants exclude.
    pub fn parse(raw_path: &str) -> Result<Self, PathError> {
        if raw_path.len() > MAX_RAW_BYTES {
            return Err(PathError::TooLong);
        }
        // Most paths have neither escapes nor mistakes: one look settles that.
        let marked =
            raw_path.bytes().fold(false, |found, byte| found | (byte == b'%') | (byte == b'?') | (byte == b'#'));
        if !marked {
            return Self::from_decoded(raw_path);
        }
        if raw_path.contains(['?', '#']) {
            return Err(PathError::Delimiter);
        }
        let decoded = decode_once(raw_path.as_bytes())?;
        let decoded = String::from_utf8(decoded).map_err(|_| PathError::NotUtf8)?;
        check(&decoded)?;
        Ok(Self(decoded.into_boxed_str()))
    }

    /// Takes a path that carries no escapes (an object key behind a slash, a claim): a `%` is a `%`.
    ///
    /// # Errors
    /// A [`PathError`] for everything that the module's invariants exclude.
    pub fn from_decoded(path: &str) -> Result<Self, PathError> {
        check(path)?;
        Ok(Self(path.into()))
    }

    /// The decoded path, with its leading slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path with RFC 3986 percent-encoding applied once; `/` and the unreserved characters are kept.
    #[must_use]
    pub fn encoded(&self) -> String {
        utf8_percent_encode(&self.0, ESCAPED).to_string()
    }

    /// The segments between the slashes; the last one is empty where the path ends in `/`.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').skip(1)
    }
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for CanonicalPath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Replaces each escape by its byte. An escaped slash is refused here, where it can still be told from a slash.
fn decode_once(raw: &[u8]) -> Result<Vec<u8>, PathError> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return Err(PathError::BrokenEscape) };
        let (Some(high), Some(low)) = (hex_digit(*high), hex_digit(*low)) else {
            return Err(PathError::BrokenEscape);
        };
        rest = tail;
        match high << 4 | low {
            b'/' => return Err(PathError::EncodedSlash),
            byte => decoded.push(byte),
        }
    }
    Ok(decoded)
}

const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Holds a decoded path against the invariants.
fn check(path: &str) -> Result<(), PathError> {
    if path.len() > MAX_PATH_BYTES {
        return Err(PathError::TooLong);
    }
    let Some(inner) = path.strip_prefix('/') else { return Err(PathError::NotAbsolute) };
    if is_plain(path) {
        return Ok(());
    }
    // One pass over the bytes, which tells what is wrong, if anything is.
    let mut segment = Segment::Empty;
    for byte in inner.bytes() {
        segment = match (byte, segment) {
            (b'/', Segment::Empty) => return Err(PathError::EmptySegment),
            (b'/', Segment::Dot | Segment::DotDot) => return Err(PathError::DotSegment),
            (b'/', Segment::Named) => Segment::Empty,
            (b'.', Segment::Empty) => Segment::Dot,
            (b'.', Segment::Dot) => Segment::DotDot,
            (0, _) => return Err(PathError::Nul),
            (b'\\', _) => return Err(PathError::Backslash),
            (..0x20 | 0x7f, _) => return Err(PathError::Control),
            _ => Segment::Named,
        };
    }
    // The last segment may be empty: that is the trailing slash, or the root.
    if matches!(segment, Segment::Dot | Segment::DotDot) {
        return Err(PathError::DotSegment);
    }
    // C1 controls are two bytes in UTF-8, so that only a path beyond ASCII needs the slower look.
    if !path.is_ascii() && path.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    Ok(())
}

/// Whether nothing can be wrong: printable ASCII without a backslash, no segment empty or beginning with a dot. This
/// runs for every request, hence folds and not searches: without the early exit they take many bytes at a time.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let odd = bytes.iter().fold(false, |odd, byte| odd | (*byte < b' ') | (*byte > b'~') | (*byte == b'\\'));
    let pairs = bytes.iter().zip(bytes.get(1..).unwrap_or_default());
    let parted = pairs.fold(false, |found, (one, next)| found | ((*one == b'/') & ((*next == b'/') | (*next == b'.'))));
    !odd & !parted
}

/// What a segment has been so far.
#[derive(Clone, Copy)]
enum Segment {
    Empty,
    Dot,
    DotDot,
    Named,
}

#[cfg(test)]
mod tests;
