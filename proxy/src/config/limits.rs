//! `[limits.<class>]`, `[streams.<class>]` and `[redis]`.

use std::path::PathBuf;
use std::time::Duration;

use segue_config::{Secret, Section, Span};

use crate::limit::{
    FILL_MAX, Kinds, LimitConfig, LimitsConfig, OnExcess, OnOutage, Per, RedisConfig, StreamsConfig, is_name,
};

/// The slowest and the fastest rate, in tokens a second: one in a day or two, and more than an edge answers.
const RATES: std::ops::RangeInclusive<f64> = 0.000_01..=1_000_000.0;
/// A wait for Redis that is longer is an outage.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Tokens that are older say nothing about the limit any more.
const LEASE_MAX: Duration = Duration::from_secs(10);
const KEYS: std::ops::RangeInclusive<usize> = 1_024..=16_777_216;
const NAME: &str = "a class's name is a word of at most 32 small letters, digits, `-` and `_`";

impl LimitsConfig {
    /// Reads `[limits]` and `[streams]` of `root`; problems go to the document.
    pub fn read(root: &Section<'_>) -> Self {
        let mut config = Self::default();
        let limits = root.section("limits").free_form();
        for name in limits.names() {
            if !is_name(&name) {
                limits.problem(&name, NAME);
            }
            config.classes.insert(name.clone(), read_limit(&limits.section(&name)));
        }
        let streams = root.section("streams").free_form();
        for name in streams.names() {
            if !is_name(&name) {
                streams.problem(&name, NAME);
            }
            config.streams.insert(name.clone(), read_streams(&streams.section(&name)));
        }
        let by_themselves: Vec<_> = config.streams.iter().filter(|(_, streams)| streams.apply).collect();
        if let [_, (second, _), ..] = by_themselves.as_slice() {
            streams.problem(second, "only one class of streams may apply by itself; set `apply = false` in the others");
        }
        config
    }
}

impl RedisConfig {
    /// Reads `[redis]` of `root`, if it is there; problems go to the document.
    pub fn read(root: &Section<'_>) -> Option<Self> {
        let section = root.section("redis");
        if !section.has("url") && !root.has("redis") {
            return None;
        }
        let url: Secret = section.require("url")?;
        if !["redis://", "rediss://"].iter().any(|scheme| url.expose().starts_with(scheme)) {
            section
                .problem("url", "not a Redis URL; write for example \"redis://127.0.0.1:6379\", or rediss:// for TLS");
        }
        let mut redis = Self::new(url);
        redis.cluster = section.or("cluster", redis.cluster);
        redis.timeout = span(&section, "timeout", redis.timeout, Duration::from_secs(5));
        redis.edges = section.or("edges", redis.edges);
        if let Some(path) = section.get::<PathBuf>("ca") {
            match std::fs::read(&path) {
                Ok(pem) => redis.ca = Some(pem),
                Err(error) => section.problem("ca", format!("{} cannot be read: {error}", path.display())),
            }
        }
        if let Some(prefix) = section.get::<String>("prefix") {
            if !is_name(&prefix) {
                section.problem("prefix", "a word of at most 32 small letters, digits, `-` and `_`");
            }
            redis.prefix = prefix;
        }
        Some(redis)
    }
}

fn read_limit(section: &Section<'_>) -> LimitConfig {
    let rate: f64 = section.require("rate").unwrap_or(1.0);
    if !RATES.contains(&rate) {
        section.problem("rate", format!("{rate} tokens a second; use {} to {}", RATES.start(), RATES.end()));
    }
    let burst = section.require("burst").unwrap_or(1);
    let mut limit = LimitConfig::new(rate, burst, Per::Track);
    if burst == 0 {
        section.problem("burst", "a bucket that holds nothing lets nobody through; use 1 or more");
    }
    if f64::from(burst) / rate > FILL_MAX.as_secs_f64() {
        section.problem("burst", "it would take more than 7 days to earn; lower it, or raise `rate`");
    }
    let per = [("track", Per::Track), ("session", Per::Session), ("address", Per::Address)];
    limit.per = word(section, "per", &per).unwrap_or_else(|| {
        if !section.has("per") {
            section.problem("per", "missing; it must be \"track\", \"session\" or \"address\"");
        }
        limit.per
    });
    if let Some(words) = section.get::<Vec<String>>("apply") {
        match Kinds::parse(&words) {
            Ok(kinds) => limit.apply = kinds,
            Err(problem) => section.problem("apply", problem),
        }
    }
    limit.shadow = section.or("shadow", limit.shadow);
    limit.on_outage = on_outage(section).unwrap_or(limit.on_outage);
    limit.max_wait = span(section, "max_wait", limit.max_wait, MAX_WAIT);
    limit.lease = span(section, "lease", limit.lease, LEASE_MAX);
    limit.keys = keys(section, limit.keys);
    limit
}

fn read_streams(section: &Section<'_>) -> StreamsConfig {
    let max = section.require("max").unwrap_or(1);
    if !(1..=100).contains(&max) {
        section.problem("max", format!("{max} sessions; use 1 to 100"));
    }
    let excess = [("stop-oldest", OnExcess::StopOldest), ("refuse-newest", OnExcess::RefuseNewest)];
    let on_excess = word(section, "on_excess", &excess).unwrap_or(OnExcess::StopOldest);
    let mut streams = StreamsConfig::new(max, on_excess);
    streams.grace = span(section, "grace", streams.grace, Duration::from_secs(3_600));
    streams.apply = section.or("apply", streams.apply);
    streams.shadow = section.or("shadow", streams.shadow);
    streams.on_outage = on_outage(section).unwrap_or(streams.on_outage);
    streams.max_wait = span(section, "max_wait", streams.max_wait, MAX_WAIT);
    streams.keys = keys(section, streams.keys);
    streams
}

fn on_outage(section: &Section<'_>) -> Option<OnOutage> {
    let outage = [("local", OnOutage::Local), ("open", OnOutage::Open), ("closed", OnOutage::Closed)];
    word(section, "on_outage", &outage)
}

fn span(section: &Section<'_>, key: &str, default: Duration, most: Duration) -> Duration {
    let span = section.or(key, Span(default)).0;
    if span.is_zero() || span > most {
        section.problem(key, format!("{span:?} is outside of 1ms to {most:?}"));
    }
    span
}

fn keys(section: &Section<'_>, default: usize) -> usize {
    let keys = section.or("keys", default);
    if !KEYS.contains(&keys) {
        section.problem("keys", format!("{keys} is outside of {} to {}", KEYS.start(), KEYS.end()));
    }
    keys
}

/// One of a few words.
fn word<T: Copy>(section: &Section<'_>, key: &str, words: &[(&str, T)]) -> Option<T> {
    let shown: String = section.get(key)?;
    let found = words.iter().find(|(word, _)| *word == shown).map(|(_, value)| *value);
    if found.is_none() {
        let names: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        section.problem(key, format!("{shown:?} is not one of {}", names.join(", ")));
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use segue_config::Document;

    use super::*;

    fn read(text: &str) -> (LimitsConfig, String) {
        let none = |_: &str| None;
        let document = Document::parse(text, "edge.toml", &none).unwrap();
        let config = LimitsConfig::read(&document.root());
        (config, document.finish().err().map(|problems| problems.to_string()).unwrap_or_default())
    }

    #[test]
    fn classes_are_read_whole() {
        let (config, problems) = read(
            "[limits.tracks]\nrate = 10\nburst = 60\nper = \"track\"\n[limits.premium]\nrate = 0.5\nburst = 9\nper = \"session\"\napply = []\nshadow = true\non_outage = \"closed\"\nmax_wait = \"9ms\"\nlease = \"1s\"\nkeys = 2048\n[streams.home]\nmax = 2\ngrace = \"20s\"\non_excess = \"refuse-newest\"\n",
        );
        assert_eq!(problems, "");
        let tracks = config.classes.get("tracks").unwrap();
        assert_eq!(*tracks, LimitConfig::new(10.0, 60, Per::Track));
        let premium = config.classes.get("premium").unwrap();
        assert!(premium.shadow && premium.apply.is_empty() && premium.keys == 2048);
        assert_eq!((premium.rate, premium.on_outage), (0.5, OnOutage::Closed));
        let home = config.streams.get("home").unwrap();
        assert_eq!((home.max, home.on_excess, home.apply), (2, OnExcess::RefuseNewest, true));
    }

    #[test]
    fn every_mistake_is_named() {
        let (_, problems) = read(
            "[limits.Tracks]\nrate = 0\nburst = 0\n[limits.a]\nrate = 0.0001\nburst = 1000\nper = \"path\"\napply = [\"media\"]\nmax_wait = \"2s\"\nrates = 1\n[streams.a]\nmax = 0\non_excess = \"x\"\n[streams.b]\nmax = 1\n",
        );
        for part in [
            "limits.Tracks: a class's name is a word",
            "limits.Tracks.rate: 0 tokens a second; use",
            "limits.Tracks.burst: a bucket that holds nothing",
            "limits.Tracks.per: missing; it must be",
            "limits.a.burst: it would take more than 7 days",
            "limits.a.per: \"path\" is not one of \"track\", \"session\", \"address\"",
            "limits.a.apply: \"media\" is no kind of object",
            "limits.a.max_wait: 2s is outside",
            "limits.a.rates: unknown key; did you mean `rate`?",
            "streams.a.max: 0 sessions",
            "streams.a.on_excess: \"x\" is not one of",
            "streams.b: only one class of streams may apply",
        ] {
            assert!(problems.contains(part), "{part:?} is not in\n{problems}");
        }
    }
}
