//! The rewriter: a playlist in, by chunks of any size, and the same playlist out, whose URIs carry the ticket.
//!
//! Purpose: a ticket in the query does not reach relative URIs. [`Way::Define`] lets the player itself put it there
//! (`EXT-X-DEFINE:QUERYPARAM`, draft-pantos-hls-rfc8216bis, section 4.4.2.3), so that the bytes are the same for every
//! listener; [`Way::Rewrite`] writes one listener's ticket into every URI; [`Way::Path`] changes no byte and counts
//! the URIs that leave a ticket in the path behind.
//!
//! Invariants: the output depends on the input's bytes alone, never on how they were cut; a line whose URI stays as it
//! is stays byte for byte, with its line end, and so does every line without a URI; a URI that leads to another host,
//! or whose host cannot be known, gets no ticket; memory is bounded by [`LINE_MAX`], output by [`OUTPUT_MAX`].
//!
//! On failure: [`RewriteError`]; what was put out before is whole lines, and the rewriter goes on saying the same.

mod attributes;
mod uri;
mod variables;

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use uri::Reach;
use variables::{Definition, Variables};

/// Bytes of one line, with its end: the longest known lines are `data:` URIs and SCTE-35 messages of a few KiB.
pub const LINE_MAX: usize = 64 * 1024;
/// Bytes of a rewritten playlist: four hours of one-second parts, each with the longest ticket, are below 32 MiB.
pub const OUTPUT_MAX: usize = 32 << 20;
/// The version from which on `EXT-X-DEFINE:QUERYPARAM` is known (rfc8216bis, section 8).
const DEFINE_VERSION: u32 = 11;
/// The query parameter, and with [`Way::Define`] the variable.
const TICKET: &str = "ticket";
const REFERENCE: &str = "{$ticket}";
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Tags that say something of the whole playlist, hold no URI and nothing that a variable may stand in. Before the
/// first line that is none of these [`Way::Define`] defines its variable: a definition must precede its use, and
/// nothing may come between a tag and the URI that it belongs to.
const PROLOGUE: [&[u8]; 14] = [
    b"#EXTM3U",
    b"#EXT-X-VERSION",
    b"#EXT-X-DEFINE",
    b"#EXT-X-TARGETDURATION",
    b"#EXT-X-MEDIA-SEQUENCE",
    b"#EXT-X-DISCONTINUITY-SEQUENCE",
    b"#EXT-X-PLAYLIST-TYPE",
    b"#EXT-X-INDEPENDENT-SEGMENTS",
    b"#EXT-X-I-FRAMES-ONLY",
    b"#EXT-X-ALLOW-CACHE",
    b"#EXT-X-START",
    b"#EXT-X-SERVER-CONTROL",
    b"#EXT-X-PART-INF",
    b"#EXT-X-ENDLIST",
];

/// What happens to the URIs of a playlist.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way<'t> {
    /// Nothing. URIs that a ticket in the path does not reach are counted.
    Path,
    /// They refer to the variable `ticket`, which the player takes from the playlist's own address.
    Define,
    /// They carry this ticket.
    Rewrite {
        /// The ticket.
        ticket: &'t str,
        /// Relative URIs have it already, from the path of the playlist's own address, and stay as they are.
        inherited: bool,
    },
}

/// Without the ticket.
impl fmt::Debug for Way<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Path => "Path",
            Self::Define => "Define",
            Self::Rewrite { .. } => "Rewrite",
        })
    }
}

/// Without the line that has begun, which may hold a ticket.
impl fmt::Debug for Rewriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rewriter").field("way", &self.way).field("lines", &self.lines).finish_non_exhaustive()
    }
}

/// Why a playlist cannot be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// It does not begin with `#EXTM3U` (RFC 8216, section 4.3.1.1).
    #[error("the first line is not #EXTM3U")]
    NotAPlaylist,
    /// A line is longer than [`LINE_MAX`].
    #[error("line {0} is longer than 64 KiB")]
    LineTooLong(u64),
    /// The result would be larger than [`OUTPUT_MAX`].
    #[error("the playlist with its tickets would be larger than 32 MiB")]
    TooLarge,
    /// The playlist defines a variable `ticket` with a value of its own.
    #[error("line {0} defines a variable named \"ticket\" itself; rename it there, or use playlist = \"rewrite\"")]
    NameTaken(u64),
    /// `EXT-X-VERSION` above 11 stands behind the first segment, where the variable was defined already.
    #[error("line {0} raises EXT-X-VERSION after it was needed; move it to the top of the playlist")]
    LateVersion(u64),
}

impl RewriteError {
    /// The reason word.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::NotAPlaylist => "not-a-playlist",
            Self::LineTooLong(_) => "line-too-long",
            Self::TooLarge => "playlist-too-large",
            Self::NameTaken(_) => "variable-name-taken",
            Self::LateVersion(_) => "version-too-late",
        }
    }
}

/// What a whole playlist came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// URIs that were given a ticket.
    pub changed: u64,
    /// URIs that a ticket in the path does not reach: root-absolute ones and whole addresses.
    pub escapes: u64,
    /// URIs with a host were looked at: another `host` might give other bytes.
    pub by_host: bool,
}

/// See the module.
pub struct Rewriter<'r> {
    way: Way<'r>,
    host: Option<&'r str>,
    /// What stands behind `ticket=`.
    value: String,
    /// The line that has begun.
    line: Vec<u8>,
    lines: u64,
    /// How the first line ends: lines that are added end the same way.
    crlf: bool,
    variables: Variables,
    /// The version is declared, by the playlist or by us.
    versioned: bool,
    /// The version is declared by us.
    version_is_ours: bool,
    /// The playlist defines the variable as we would.
    defined: bool,
    /// The first line behind the prologue has come.
    opened: bool,
    written: usize,
    summary: Summary,
    failed: Option<RewriteError>,
}

impl<'r> Rewriter<'r> {
    /// One for one playlist. `host` is the host by which the client knows this edge, with its port if it has one: URIs
    /// that name it are ours too. Without it every URI with a host counts as somebody else's.
    #[must_use]
    pub fn new(way: Way<'r>, host: Option<&'r str>) -> Self {
        let value = match way {
            Way::Path => String::new(),
            Way::Define => REFERENCE.to_owned(),
            Way::Rewrite { ticket, .. } => uri::encoded(ticket),
        };
        Self {
            way,
            host,
            value,
            line: Vec::new(),
            lines: 0,
            crlf: false,
            variables: Variables::default(),
            versioned: false,
            version_is_ours: false,
            defined: false,
            opened: false,
            written: 0,
            summary: Summary::default(),
            failed: None,
        }
    }

    /// Takes the next bytes, and puts out what can be put out.
    ///
    /// # Errors
    /// [`RewriteError`], from then on for good.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), RewriteError> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if let Some(error) = self.failed {
                return Err(error);
            }
            if self.line.len() + piece.len() > LINE_MAX {
                return self.fail(RewriteError::LineTooLong(self.lines + 1));
            }
            if !piece.ends_with(b"\n") {
                self.line.extend_from_slice(piece);
            } else if self.line.is_empty() {
                self.take(piece, out)?;
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(piece);
                let taken = self.take(&line, out);
                line.clear();
                self.line = line;
                taken?;
            }
        }
        self.failed.map_or(Ok(()), Err)
    }

    /// The end: a last line without a line end is put out too.
    ///
    /// # Errors
    /// [`RewriteError`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<Summary, RewriteError> {
        let last = std::mem::take(&mut self.line);
        if !last.is_empty() && self.failed.is_none() {
            self.take(&last, out)?;
        }
        match self.failed {
            Some(error) => Err(error),
            None if self.lines == 0 => Err(RewriteError::NotAPlaylist),
            None => Ok(self.summary),
        }
    }

    fn fail<T>(&mut self, error: RewriteError) -> Result<T, RewriteError> {
        self.failed = Some(error);
        Err(error)
    }

    /// One whole line, with its end.
    fn take(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), RewriteError> {
        self.lines += 1;
        let before = out.len();
        let taken = self.rewrite(line, out);
        if taken.is_err() {
            out.truncate(before);
        }
        self.written += out.len().saturating_sub(before);
        match taken {
            Ok(()) if self.written <= OUTPUT_MAX => Ok(()),
            Ok(()) => {
                out.truncate(before);
                self.fail(RewriteError::TooLarge)
            }
            Err(error) => self.fail(error),
        }
    }

    fn rewrite(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), RewriteError> {
        let text = line.trim_ascii();
        if self.lines == 1 {
            self.crlf = line.ends_with(b"\r\n");
            out.extend_from_slice(line);
            let first = text.strip_prefix(BOM).unwrap_or(text);
            return if name(first) == b"#EXTM3U" { Ok(()) } else { Err(RewriteError::NotAPlaylist) };
        }
        let tag = name(text);
        if self.way == Way::Define {
            let is_comment = text.is_empty() || (text.starts_with(b"#") && !text.starts_with(b"#EXT"));
            if !self.opened && !is_comment && !PROLOGUE.contains(&tag) {
                self.open(out);
            }
            if tag == b"#EXT-X-VERSION" {
                return self.version(line, text, out);
            }
        }
        if tag == b"#EXT-X-DEFINE" {
            self.definition(line, text, out)
        } else {
            self.uris(line, text, tag, out);
            Ok(())
        }
    }

    /// Declares version and variable, where the playlist has not.
    fn open(&mut self, out: &mut Vec<u8>) {
        self.opened = true;
        let end = if self.crlf { "\r\n" } else { "\n" };
        if !self.versioned {
            (self.versioned, self.version_is_ours) = (true, true);
            out.extend_from_slice(format!("#EXT-X-VERSION:{DEFINE_VERSION}{end}").as_bytes());
        }
        if !self.defined {
            out.extend_from_slice(format!("#EXT-X-DEFINE:QUERYPARAM=\"{TICKET}\"{end}").as_bytes());
        }
    }

    /// `EXT-X-VERSION`, raised where it is too low for the variable. There must be one at most (section 4.4.1.2).
    fn version(&mut self, line: &[u8], text: &[u8], out: &mut Vec<u8>) -> Result<(), RewriteError> {
        let value = text.get(b"#EXT-X-VERSION:".len()..).unwrap_or_default();
        let version = std::str::from_utf8(value).ok().and_then(|value| value.trim().parse::<u32>().ok()).unwrap_or(0);
        if self.version_is_ours {
            let fits = version <= DEFINE_VERSION;
            return if fits { Ok(()) } else { Err(RewriteError::LateVersion(self.lines)) };
        }
        self.versioned = true;
        if version >= DEFINE_VERSION {
            out.extend_from_slice(line);
        } else {
            let raised = format!("#EXT-X-VERSION:{DEFINE_VERSION}");
            splice(line, &[(range_in(line, text), raised.into_bytes())], out);
        }
        Ok(())
    }

    /// `EXT-X-DEFINE`: what it defines is remembered, for URIs that refer to it.
    fn definition(&mut self, line: &[u8], text: &[u8], out: &mut Vec<u8>) -> Result<(), RewriteError> {
        let definition = Definition::read(text);
        if self.way == Way::Define && definition.name() == Some(TICKET.as_bytes()) {
            if matches!(definition, Definition::Value(..)) {
                return Err(RewriteError::NameTaken(self.lines));
            }
            // Ours stands already, and twice is an error.
            if self.opened && !self.defined {
                return Ok(());
            }
            self.defined = true;
        }
        self.variables.learn(definition);
        out.extend_from_slice(line);
        Ok(())
    }

    /// A line that is a URI, or a tag with attributes that are.
    fn uris(&mut self, line: &[u8], text: &[u8], tag: &[u8], out: &mut Vec<u8>) {
        let mut edits = Vec::new();
        if text.starts_with(b"#") {
            for place in attributes::uris(tag, text) {
                let place = place.start + range_in(line, text).start..place.end + range_in(line, text).start;
                if let Some(changed) = self.with_ticket(line.get(place.clone()).unwrap_or_default()) {
                    edits.push((place, changed));
                }
            }
        } else if let Some(changed) = self.with_ticket(text) {
            edits.push((range_in(line, text), changed));
        }
        splice(line, &edits, out);
    }

    /// `uri` with the ticket; `None` where it stays as it is.
    fn with_ticket(&mut self, uri: &[u8]) -> Option<Vec<u8>> {
        let (expanded, cut) = self.variables.expand(uri);
        let reach = uri::reach(uri, &expanded, cut);
        self.summary.by_host |= matches!(reach, Reach::Host { .. });
        self.summary.escapes += u64::from(matches!(reach, Reach::Host { .. } | Reach::Rooted));
        let ours = match (reach, self.way) {
            (Reach::Unknown, _) | (_, Way::Path) | (Reach::Relative, Way::Rewrite { inherited: true, .. }) => false,
            (Reach::Relative | Reach::Rooted, _) => true,
            (Reach::Host { scheme, authority }, _) => {
                self.host.is_some_and(|host| uri::is_host(scheme, authority, host.as_bytes()))
            }
        };
        let changed = ours.then(|| uri::with_ticket(uri, &expanded, self.value.as_bytes())).flatten()?;
        self.summary.changed += 1;
        Some(changed)
    }
}

/// A tag's name: what stands before its colon.
fn name(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| matches!(byte, b':' | b' ' | b'\t')).unwrap_or(text.len());
    text.get(..end).unwrap_or(text)
}

/// Where `part`, which was cut out of `line` by trimming, stands in it.
fn range_in(line: &[u8], part: &[u8]) -> Range<usize> {
    let start = line.len() - line.trim_ascii_start().len();
    start..start + part.len()
}

/// `line` with some ranges replaced; they are in order and do not overlap.
fn splice(line: &[u8], edits: &[(Range<usize>, Vec<u8>)], out: &mut Vec<u8>) {
    let mut at = 0;
    for (place, text) in edits {
        out.extend_from_slice(line.get(at..place.start).unwrap_or_default());
        out.extend_from_slice(text);
        at = place.end;
    }
    out.extend_from_slice(line.get(at..).unwrap_or_default());
}
