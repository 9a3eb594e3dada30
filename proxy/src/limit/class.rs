//! Limit classes: what is configured under a name, and the form in which requests meet it.
//!
//! Invariants: a class's keys outlive a change of its rate, since the tables are handed on by name; where a change of
//! what its keys are (`per`) makes the old ones meaningless, they are dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::backend::Keys;
use super::gcra::Gcra;
use super::lease::Plan;
use super::streams::Streams;
use crate::metrics::Counter;
use crate::route::ObjectKind;

/// Everything that is configured of limits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LimitsConfig {
    /// `[limits.<class>]`.
    pub classes: BTreeMap<String, LimitConfig>,
    /// `[streams.<class>]`.
    pub streams: BTreeMap<String, StreamsConfig>,
}

/// One `[limits.<class>]`.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitConfig {
    /// Tokens a second (`rate`).
    pub rate: f64,
    /// Tokens that a bucket holds (`burst`).
    pub burst: u32,
    /// Whose bucket it is (`per`).
    pub per: Per,
    /// What costs a token (`apply`); nothing: only tickets and policies that name the class meet it.
    pub apply: Kinds,
    /// Whether refusals are counted and not carried out (`shadow`).
    pub shadow: bool,
    /// What holds while Redis is away (`on_outage`).
    pub on_outage: OnOutage,
    /// How long a request waits for Redis where nothing is known of its key (`max_wait`).
    pub max_wait: Duration,
    /// How long tokens that an edge drew stay good, from when they were asked for (`lease`).
    pub lease: Duration,
    /// Keys that are remembered at once (`keys`).
    pub keys: usize,
}

/// One `[streams.<class>]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsConfig {
    /// Sessions that one listener plays at once (`max`).
    pub max: u32,
    /// How long past its buffered media a session counts as playing (`grace`).
    pub grace: Duration,
    /// Who gives way (`on_excess`).
    pub on_excess: OnExcess,
    /// Whether every ticket with a `sub` meets it (`apply`), or only those that name it.
    pub apply: bool,
    /// Whether refusals are counted and not carried out (`shadow`).
    pub shadow: bool,
    /// What holds while Redis is away (`on_outage`).
    pub on_outage: OnOutage,
    /// How long a request waits for Redis where nothing is known of its session (`max_wait`).
    pub max_wait: Duration,
    /// Listeners that are remembered at once (`keys`).
    pub keys: usize,
}

/// Whose bucket a class has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Session => "session",
            Self::Address => "address",
        }
    }
}

/// What holds while Redis is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOutage {
    /// This edge's share of the limit.
    Local,
    /// No limit.
    Open,
    /// Nothing passes.
    Closed,
}

/// Who gives way when a listener plays too many sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExcess {
    /// The session that began first is stopped.
    StopOldest,
    /// The session that comes is refused.
    RefuseNewest,
}

/// A set of kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u8);

impl Kinds {
    /// The words of a configuration, and the kinds that they mean.
    const WORDS: [(&'static str, &'static [ObjectKind]); 5] = [
        ("segment", &[ObjectKind::Segment]),
        ("init", &[ObjectKind::Init]),
        ("playlist", &[ObjectKind::Master, ObjectKind::Playlist]),
        ("key", &[ObjectKind::Key]),
        ("other", &[ObjectKind::Other]),
    ];

    /// Segments alone.
    #[must_use]
    pub fn segments() -> Self {
        Self(1 << ObjectKind::Segment as u8)
    }

    /// Reads words such as `segment`.
    ///
    /// # Errors
    /// A sentence that names the words there are.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let mut kinds = Self::default();
        for word in words {
            let known = Self::WORDS.iter().find(|(name, _)| name == word);
            let (_, members) = known.ok_or_else(|| {
                let names: Vec<_> = Self::WORDS.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                format!("{word:?} is no kind of object; there are {}", names.join(", "))
            })?;
            kinds.0 = members.iter().fold(kinds.0, |set, kind| set | 1 << *kind as u8);
        }
        Ok(kinds)
    }

    pub(crate) fn has(self, kind: ObjectKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    /// Whether none is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The longest wait for a token that a bucket may ask for: burst / rate.
pub(crate) const FILL_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Bytes of a class's name, which stands in header fields, Redis keys and metrics.
const NAME_MAX: usize = 32;

/// Whether a class may be called so: a word that needs no escape anywhere.
pub(crate) fn is_name(name: &str) -> bool {
    let letters = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_');
    !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(letters)
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
            on_outage: OnOutage::Local,
            max_wait: Duration::from_millis(5),
            lease: Duration::from_millis(300),
            keys: 131_072,
        }
    }
}

impl StreamsConfig {
    /// A class with everything else as it is by default.
    #[must_use]
    pub fn new(max: u32, on_excess: OnExcess) -> Self {
        Self {
            max,
            grace: Duration::from_secs(15),
            on_excess,
            apply: true,
            shadow: false,
            on_outage: OnOutage::Local,
            max_wait: Duration::from_millis(5),
            keys: 131_072,
        }
    }
}

/// A limit class as requests meet it.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) name: Arc<str>,
    pub(crate) config: LimitConfig,
    pub(crate) gcra: Gcra,
    /// How it draws tokens from Redis.
    pub(crate) plan: Plan,
    pub(crate) keys: Arc<Keys>,
    pub(crate) counts: Arc<Counts>,
}

/// What a class decided.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) admitted: Counter,
    /// Refusals, those of a shadow class included.
    pub(crate) refused: Counter,
    /// Requests that waited for Redis in vain.
    pub(crate) late: Counter,
}

/// All classes, immutable; a change is a new value.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    named: BTreeMap<String, Arc<Class>>,
    address: Vec<Arc<Class>>,
    /// Session classes, then track classes: the narrower limit refuses first and spends nothing of the wider one.
    listener: Vec<Arc<Class>>,
    streams: BTreeMap<String, Arc<Streams>>,
}

impl Classes {
    /// Builds the classes; those of `before` hand their keys on.
    pub(crate) fn new(config: &LimitsConfig, before: &Self, leased: bool) -> Self {
        let mut classes = Self::default();
        for (name, limit) in &config.classes {
            let kept =
                before.named.get(name).filter(|old| old.config.per == limit.per && old.config.keys == limit.keys);
            let class = Arc::new(Class {
                name: name.as_str().into(),
                config: limit.clone(),
                gcra: Gcra::new(limit.rate, f64::from(limit.burst)),
                plan: Plan::new(limit),
                keys: kept.map_or_else(|| Arc::new(Keys::new(limit.keys, leased)), |old| Arc::clone(&old.keys)),
                counts: before.named.get(name).map(|old| Arc::clone(&old.counts)).unwrap_or_default(),
            });
            classes.named.insert(name.clone(), Arc::clone(&class));
            if limit.apply.is_empty() {
                continue;
            }
            match limit.per {
                Per::Address => classes.address.push(class),
                Per::Session => classes.listener.insert(0, class),
                Per::Track => classes.listener.push(class),
            }
        }
        for (name, config) in &config.streams {
            let before = before.streams.get(name);
            classes.streams.insert(name.clone(), Arc::new(Streams::new(name, config, before)));
        }
        classes
    }

    /// Whether nothing is limited.
    pub(crate) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.streams.is_empty()
    }

    /// The address classes that apply by themselves.
    pub(crate) fn address(&self) -> &[Arc<Class>] {
        &self.address
    }

    /// The session and track classes that apply by themselves.
    pub(crate) fn listener(&self) -> &[Arc<Class>] {
        &self.listener
    }

    /// The class of a name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Class>> {
        self.named.get(name)
    }

    /// All limit classes.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Class>> {
        self.named.values()
    }

    /// The streams class for a ticket that names `lim`: that of the name, or else the one that applies by itself.
    pub(crate) fn streams(&self, lim: Option<&str>) -> Option<&Arc<Streams>> {
        let by_itself = || self.streams.values().find(|streams| streams.config.apply);
        lim.and_then(|name| self.streams.get(name)).or_else(by_itself)
    }

    /// The streams class of a name.
    pub(crate) fn streams_named(&self, name: &str) -> Option<&Arc<Streams>> {
        self.streams.get(name)
    }

    /// All streams classes.
    pub(crate) fn all_streams(&self) -> impl Iterator<Item = &Arc<Streams>> {
        self.streams.values()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn kinds_are_read_by_their_words() {
        let kinds = Kinds::parse(&["segment".to_owned(), "playlist".to_owned()]).unwrap();
        assert!(kinds.has(ObjectKind::Master) && kinds.has(ObjectKind::Playlist) && kinds.has(ObjectKind::Segment));
        assert!(!kinds.has(ObjectKind::Init));
        assert!(Kinds::parse(&["segments".to_owned()]).unwrap_err().contains("\"segment\""));
        assert!(Kinds::default().is_empty());
    }

    #[test]
    fn a_new_rate_keeps_the_keys_and_another_sort_of_key_drops_them() {
        let config = |per| {
            let limit = LimitConfig::new(1.0, 1, per);
            LimitsConfig { classes: BTreeMap::from([("a".to_owned(), limit)]), ..LimitsConfig::default() }
        };
        let first = Classes::new(&config(Per::Track), &Classes::default(), false);
        let same = Classes::new(&config(Per::Track), &first, false);
        let other = Classes::new(&config(Per::Session), &same, false);
        let keys = |classes: &Classes| Arc::clone(&classes.named("a").unwrap().keys);
        assert!(Arc::ptr_eq(&keys(&first), &keys(&same)));
        assert!(!Arc::ptr_eq(&keys(&same), &keys(&other)));
    }
}
