//! The claim `catu`: which URLs a token opens; and the matches that it shares with `cath`.

use segue_policy::scheme::crypto;
use segue_policy::text::hex;

use crate::cbor::Value;

pub const SCHEME: i64 = 0;
pub const HOST: i64 = 1;
const PORT: i64 = 2;
pub const PATH: i64 = 3;
const QUERY: i64 = 4;
const PARENT: i64 = 5;
const FILENAME: i64 = 6;
const STEM: i64 = 7;
const EXTENSION: i64 = 8;

pub const EXACT: i64 = 0;
pub const PREFIX: i64 = 1;
const SUFFIX: i64 = 2;
const CONTAINS: i64 = 3;
const SHA256: i64 = -1;

/// The URL that was asked for, without the token.
pub struct Asked<'r> {
    pub scheme: &'r str,
    pub host: &'r str,
    /// Empty where it is the scheme's own.
    pub port: &'r str,
    pub path: &'r str,
    pub query: String,
}

/// What is said of a URL or a header.
pub enum Answer {
    Fits,
    Differs,
    /// A match or a part that is not known here, or is written in another way: nobody can say that it fits.
    Unknown,
}

impl Answer {
    fn of(fits: bool) -> Self {
        if fits { Self::Fits } else { Self::Differs }
    }

    /// All must fit; what is not known outweighs what differs, so that it shows.
    pub fn all(answers: impl Iterator<Item = Self>) -> Self {
        answers.fold(Self::Fits, |so_far, answer| match (so_far, answer) {
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Differs, _) | (_, Self::Differs) => Self::Differs,
            _ => Self::Fits,
        })
    }
}

/// Whether a text fits every match of the map. Regular expressions and SHA-512/256 are not known here.
pub fn fits(text: &str, matches: &Value) -> Answer {
    match matches.map() {
        Some(matches) if !matches.is_empty() => Answer::all(matches.iter().map(|(kind, value)| one(text, kind, value))),
        _ => Answer::Unknown,
    }
}

fn one(text: &str, kind: &Value, wanted: &Value) -> Answer {
    match (kind.integer(), wanted) {
        (Some(EXACT), Value::Text(wanted)) => Answer::of(text == wanted),
        (Some(PREFIX), Value::Text(wanted)) => Answer::of(text.starts_with(wanted.as_str())),
        (Some(SUFFIX), Value::Text(wanted)) => Answer::of(text.ends_with(wanted.as_str())),
        (Some(CONTAINS), Value::Text(wanted)) => Answer::of(text.contains(wanted.as_str())),
        (Some(SHA256), Value::Bytes(wanted)) => {
            Answer::of(crypto::digest(crypto::Hash::Sha256, text.as_bytes()) == *wanted)
        }
        // As some libraries write it.
        (Some(SHA256), Value::Text(wanted)) => {
            Answer::of(hex(&crypto::digest(crypto::Hash::Sha256, text.as_bytes())).eq_ignore_ascii_case(wanted))
        }
        _ => Answer::Unknown,
    }
}

impl Asked<'_> {
    /// Whether this URL is one of those that `catu` describes.
    pub fn fits(&self, catu: &Value) -> Answer {
        match catu.map() {
            Some(parts) => Answer::all(parts.iter().map(|(part, matches)| self.part(part.integer(), matches))),
            None => Answer::Unknown,
        }
    }

    fn part(&self, part: Option<i64>, matches: &Value) -> Answer {
        let (parent, filename) = self.path.rsplit_once('/').unwrap_or(("", self.path));
        let either = |a: &str, b: &str| match (fits(a, matches), fits(b, matches)) {
            (Answer::Unknown, _) | (_, Answer::Unknown) => Answer::Unknown,
            (Answer::Fits, _) | (_, Answer::Fits) => Answer::Fits,
            _ => Answer::Differs,
        };
        // Where a name has two dots, texts differ on which one begins the extension: both readings must fit.
        let both = |a: &str, b: &str| Answer::all([fits(a, matches), fits(b, matches)].into_iter());
        let dot = |at: Option<usize>| filename.split_at(at.unwrap_or(filename.len()));
        let (first, last) = (dot(filename.find('.')), dot(filename.rfind('.')));
        match part {
            Some(SCHEME) => fits(self.scheme, matches),
            Some(HOST) => fits(self.host, matches),
            // The scheme's own port is written or left out.
            Some(PORT) if self.port.is_empty() => either("", if self.scheme == "http" { "80" } else { "443" }),
            Some(PORT) => fits(self.port, matches),
            Some(PATH) => fits(self.path, matches),
            Some(QUERY) => self.query(matches),
            Some(PARENT) => fits(parent, matches),
            Some(FILENAME) => fits(filename, matches),
            Some(STEM) => both(first.0, last.0),
            Some(EXTENSION) => both(first.1, last.1),
            _ => Answer::Unknown,
        }
    }

    /// The order of parameters means nothing where the whole query is compared.
    fn query(&self, matches: &Value) -> Answer {
        match matches.get(EXACT).and_then(Value::text) {
            Some(wanted) if matches.map().is_some_and(|matches| matches.len() == 1) => {
                Answer::of(sorted(&self.query) == sorted(wanted.strip_prefix('?').unwrap_or(wanted)))
            }
            _ => fits(&self.query, matches),
        }
    }
}

fn sorted(query: &str) -> Vec<&str> {
    let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    pairs.sort_unstable();
    pairs
}
