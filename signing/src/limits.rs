//! Limit classes: what is configured under a name, in an edge's file or in the control plane, and the rules for it.
//!
//! # Invariants
//! - The rules stand here and nowhere else ([`LimitConfig::problems`], [`StreamsConfig::problems`], [`LimitsConfig::problems`]): what
//!   the control plane takes, every edge can use, and an edge's file may say no more than the API.
//! - As JSON, lengths of time are whole milliseconds (`max_wait_ms`), and everything but a class's numbers has a default.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Classes of either sort in one house: every request looks through those that apply to it.
pub const MAX_LIMIT_CLASSES: usize = 64;
/// Bytes of a class's name, which stands in header fields, Redis keys and metrics.
pub const MAX_LIMIT_NAME_BYTES: usize = 32;
/// What a name must be, in words.
pub const LIMIT_NAME_RULE: &str = "a class's name is a word of at most 32 small letters, digits, `-` and `_`";

/// The slowest and the fastest rate, in tokens a second: one in a day or two, and more than an edge answers.
const RATES: RangeInclusive<f64> = 0.000_01..=1_000_000.0;
/// The longest time that a bucket may take to fill: burst / rate.
const FILL_MAX: Duration = Duration::from_secs(7 * 86_400);
/// A wait for Redis that is longer is an outage.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Tokens that are older say nothing about the limit any more.
const LEASE_MAX: Duration = Duration::from_secs(10);
const GRACE_MAX: Duration = Duration::from_secs(3_600);
/// Sessions that one listener may be allowed at once: all of them are looked through for each request.
const STREAMS: RangeInclusive<u32> = 1..=100;
/// Some hundred KiB to two GiB.
const KEYS: RangeInclusive<usize> = 1_024..=16_777_216;

/// Everything that is configured of limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LimitsConfig {
    /// `[limits.<class>]`.
    #[serde(default)]
    pub classes: BTreeMap<String, LimitConfig>,
    /// `[streams.<class>]`.
    #[serde(default)]
    pub streams: BTreeMap<String, StreamsConfig>,
}

/// One `[limits.<class>]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitConfig {
    /// Tokens a second (`rate`).
    pub rate: f64,
    /// Tokens that a bucket holds (`burst`).
    pub burst: u32,
    /// Whose bucket it is (`per`).
    pub per: Per,
    /// What costs a token (`apply`); nothing: only tickets and policies that name the class meet it.
    #[serde(default = "Kinds::segments")]
    pub apply: Kinds,
    /// Whether refusals are counted and not carried out (`shadow`).
    #[serde(default)]
    pub shadow: bool,
    /// What holds while Redis is away (`on_outage`).
    #[serde(default)]
    pub on_outage: OnOutage,
    /// How long a request waits for Redis where nothing is known of its key (`max_wait`).
    #[serde(rename = "max_wait_ms", with = "milliseconds", default = "default_max_wait")]
    pub max_wait: Duration,
    /// How long tokens that an edge drew stay good, from when they were asked for (`lease`).
    #[serde(rename = "lease_ms", with = "milliseconds", default = "default_lease")]
    pub lease: Duration,
    /// Keys that are remembered at once (`keys`).
    #[serde(default = "default_keys")]
    pub keys: usize,
}

/// One `[streams.<class>]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamsConfig {
    /// Sessions that one listener plays at once (`max`).
    pub max: u32,
    /// How long past its buffered media a session counts as playing (`grace`).
    #[serde(rename = "grace_ms", with = "milliseconds", default = "default_grace")]
    pub grace: Duration,
    /// Who gives way (`on_excess`).
    #[serde(default)]
    pub on_excess: OnExcess,
    /// Whether every ticket with a `sub` meets it (`apply`), or only those that name it.
    #[serde(default = "yes")]
    pub apply: bool,
    /// Whether refusals are counted and not carried out (`shadow`).
    #[serde(default)]
    pub shadow: bool,
    /// What holds while Redis is away (`on_outage`).
    #[serde(default)]
    pub on_outage: OnOutage,
    /// How long a request waits for Redis where nothing is known of its session (`max_wait`).
    #[serde(rename = "max_wait_ms", with = "milliseconds", default = "default_max_wait")]
    pub max_wait: Duration,
    /// Listeners that are remembered at once (`keys`).
    #[serde(default = "default_keys")]
    pub keys: usize,
}

/// Whose bucket a class has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// All listeners of a track together.
    Track,
    /// A listener's device session; without a ticket its address.
    Session,
    /// The client's address; IPv6 by /64.
    Address,
}

impl Per {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Session => "session",
            Self::Address => "address",
        }
    }
}

/// What holds while Redis is away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnOutage {
    /// This edge's share of the limit.
    #[default]
    Local,
    /// No limit.
    Open,
    /// Nothing new passes.
    Closed,
}

/// Who gives way when a listener plays too many sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnExcess {
    /// The session that began first is stopped.
    #[default]
    StopOldest,
    /// The session that comes is refused.
    RefuseNewest,
}

/// What of a track an object is, as limits tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// A media segment.
    Segment,
    /// An init segment.
    Init,
    /// A master or media playlist.
    Playlist,
    /// A decryption key.
    Key,
    /// Anything else.
    Other,
}

/// A set of [`Sort`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u8);

impl Kinds {
    const WORDS: [(&'static str, Sort); 5] = [
        ("segment", Sort::Segment),
        ("init", Sort::Init),
        ("playlist", Sort::Playlist),
        ("key", Sort::Key),
        ("other", Sort::Other),
    ];

    /// Segments alone.
    #[must_use]
    pub const fn segments() -> Self {
        Self(1 << Sort::Segment as u8)
    }

    /// Reads words such as `segment`.
    ///
    /// # Errors
    /// A sentence that names the words there are.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let mut kinds = Self::default();
        for word in words {
            let known = Self::WORDS.iter().find(|(name, _)| name == word);
            let (_, sort) = known.ok_or_else(|| {
                let names: Vec<_> = Self::WORDS.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                format!("{word:?} is no kind of object; there are {}", names.join(", "))
            })?;
            kinds.0 |= 1 << *sort as u8;
        }
        Ok(kinds)
    }

    /// Whether it is in it.
    #[must_use]
    pub const fn has(self, sort: Sort) -> bool {
        self.0 & (1 << sort as u8) != 0
    }

    /// Whether none is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn words(self) -> impl Iterator<Item = &'static str> {
        Self::WORDS.into_iter().filter(move |(_, sort)| self.has(*sort)).map(|(word, _)| word)
    }
}

impl Serialize for Kinds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.words())
    }
}

impl<'de> Deserialize<'de> for Kinds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Vec::<String>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

mod milliseconds {
    use super::*;

    pub(super) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_millis(u64::deserialize(deserializer)?))
    }
}

fn default_max_wait() -> Duration {
    Duration::from_millis(5)
}

fn default_lease() -> Duration {
    Duration::from_millis(300)
}

fn default_grace() -> Duration {
    Duration::from_secs(15)
}

fn default_keys() -> usize {
    131_072
}

fn yes() -> bool {
    true
}

/// Whether a class may be called so: a word that needs no escape anywhere.
#[must_use]
pub fn is_limit_name(name: &str) -> bool {
    let letters = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_');
    !name.is_empty() && name.len() <= MAX_LIMIT_NAME_BYTES && name.bytes().all(letters)
}

/// What is wrong with one value of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitProblem {
    /// Its name in a configuration file.
    pub key: &'static str,
    /// A sentence.
    pub problem: String,
}

impl fmt::Display for LimitProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}

fn span(key: &'static str, span: Duration, most: Duration) -> Option<LimitProblem> {
    let wrong = span < Duration::from_millis(1) || span > most;
    wrong.then(|| LimitProblem { key, problem: format!("{span:?} is outside of 1ms to {most:?}") })
}

fn keys(keys: usize) -> Option<LimitProblem> {
    let problem = || format!("{keys} is outside of {} to {}", KEYS.start(), KEYS.end());
    (!KEYS.contains(&keys)).then(|| LimitProblem { key: "keys", problem: problem() })
}

impl LimitConfig {
    /// A class with everything else as it is by default.
    #[must_use]
    pub fn new(rate: f64, burst: u32, per: Per) -> Self {
        Self {
            rate,
            burst,
            per,
            apply: Kinds::segments(),
            shadow: false,
            on_outage: OnOutage::default(),
            max_wait: default_max_wait(),
            lease: default_lease(),
            keys: default_keys(),
        }
    }

    /// All that is wrong with it.
    #[must_use]
    pub fn problems(&self) -> Vec<LimitProblem> {
        let mut found = Vec::new();
        let rate = self.rate;
        if !RATES.contains(&rate) {
            let problem = format!("{rate} tokens a second; use {} to {}", RATES.start(), RATES.end());
            found.push(LimitProblem { key: "rate", problem });
        }
        if self.burst == 0 {
            let problem = "a bucket that holds nothing lets nobody through; use 1 or more".to_owned();
            found.push(LimitProblem { key: "burst", problem });
        } else if RATES.contains(&rate) && f64::from(self.burst) / rate > FILL_MAX.as_secs_f64() {
            let problem = "it would take more than 7 days to earn; lower it, or raise `rate`".to_owned();
            found.push(LimitProblem { key: "burst", problem });
        }
        found.extend(span("max_wait", self.max_wait, WAIT_MAX));
        found.extend(span("lease", self.lease, LEASE_MAX));
        found.extend(keys(self.keys));
        found
    }
}

impl StreamsConfig {
    /// A class with everything else as it is by default.
    #[must_use]
    pub fn new(max: u32, on_excess: OnExcess) -> Self {
        Self {
            max,
            grace: default_grace(),
            on_excess,
            apply: true,
            shadow: false,
            on_outage: OnOutage::default(),
            max_wait: default_max_wait(),
            keys: default_keys(),
        }
    }

    /// All that is wrong with it.
    #[must_use]
    pub fn problems(&self) -> Vec<LimitProblem> {
        let mut found = Vec::new();
        if !STREAMS.contains(&self.max) {
            let problem = format!("{} sessions; use {} to {}", self.max, STREAMS.start(), STREAMS.end());
            found.push(LimitProblem { key: "max", problem });
        }
        found.extend(span("grace", self.grace, GRACE_MAX));
        found.extend(span("max_wait", self.max_wait, WAIT_MAX));
        found.extend(keys(self.keys));
        found
    }
}

impl LimitsConfig {
    /// Whether there is no class.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty() && self.streams.is_empty()
    }

    /// The classes of streams that apply by themselves; there may be one.
    pub fn streams_by_themselves(&self) -> impl Iterator<Item = &str> {
        self.streams.iter().filter(|(_, streams)| streams.apply).map(|(name, _)| name.as_str())
    }

    /// All that is wrong with it, each with the class where it stands.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let names = self.classes.keys().map(|name| ("limits", name));
        for (sort, name) in names.chain(self.streams.keys().map(|name| ("streams", name))) {
            if !is_limit_name(name) {
                found.push(format!("{sort}.{name}: {LIMIT_NAME_RULE}"));
            }
        }
        for (name, class) in &self.classes {
            found.extend(class.problems().iter().map(|problem| format!("limits.{name}.{problem}")));
        }
        for (name, class) in &self.streams {
            found.extend(class.problems().iter().map(|problem| format!("streams.{name}.{problem}")));
        }
        for (sort, count) in [("limits", self.classes.len()), ("streams", self.streams.len())] {
            if count > MAX_LIMIT_CLASSES {
                found.push(format!("{sort}: {count} classes; use {MAX_LIMIT_CLASSES} at most"));
            }
        }
        if let Some(second) = self.streams_by_themselves().nth(1) {
            found.push(format!("streams.{second}: {ONE_BY_ITSELF}"));
        }
        found
    }

    /// These, and those of `own` that have no namesake here. Where a streams class applies by itself here, none of
    /// `own` does.
    #[must_use]
    pub fn over(&self, own: &Self) -> Self {
        let mut merged = own.clone();
        if self.streams_by_themselves().next().is_some() {
            merged.streams.values_mut().for_each(|streams| streams.apply = false);
        }
        merged.classes.extend(self.classes.iter().map(|(name, class)| (name.clone(), class.clone())));
        merged.streams.extend(self.streams.iter().map(|(name, class)| (name.clone(), class.clone())));
        merged
    }
}

/// Why a second class of streams that applies by itself is refused.
pub const ONE_BY_ITSELF: &str = "only one class of streams may apply by itself; set `apply = false` in the others";

#[cfg(test)]
mod tests;
